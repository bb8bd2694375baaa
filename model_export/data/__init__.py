"""Turns a named dataset, or a file, into the three splits that training, statistics and verification share.

    splits = load_splits(DataSource("flowers.csv", target="species"))

One file tells how each kind of source is read; this one only chooses between them. Values stay raw (pixels 0..255,
columns as they are): standardising is the network's first layer's work, so that clients send raw values too.
"""

from __future__ import annotations

from pathlib import Path

from model_export.data.encoding import encode_frame, instance_as_json
from model_export.data.splits import DataSource, Labelled, Split, Splits, cut
from model_export.errors import DataInvalid
from model_export.ones_own import is_ones_own

__all__ = ["DataSource", "Split", "Splits", "encode_frame", "instance_as_json", "load_splits"]

TABLE_SUFFIXES = (".csv", ".parquet")


def load_splits(source: DataSource) -> Splits:
    """Load what `source` names and cut it into splits; the same source gives the same splits, bit for bit.

    Raises:
        DataInvalid: the source is not there, can not be read or can not be trained on; or an option was given that
            means nothing for this kind of source.
    """
    _refuse_options_without_meaning(source)
    if source.spec == "fashion-mnist":
        from model_export.data.idx import read_fashion_mnist

        return read_fashion_mnist(source)
    if is_ones_own(source.spec):
        from model_export.data.own import read_ones_own

        return read_ones_own(source)
    return cut(_read(source), source)


def _read(source: DataSource) -> Labelled:
    """Everything as one piece, not cut yet. Readers are imported when used: pandas alone takes half a second."""
    if source.spec == "digits":
        from model_export.data.digits import read_digits

        return read_digits()
    path = Path(source.spec)
    if path.is_dir():
        from model_export.data.folder import read_folder

        return read_folder(path)
    _check_is_file(path)
    if path.suffix == ".npz":
        from model_export.data.arrays import read_arrays

        return read_arrays(path)
    from model_export.data.table import read_table

    return read_table(path, target=source.target, ignore=source.ignore)


def _check_is_file(path: Path) -> None:
    expected = (
        "'digits', 'fashion-mnist', a .csv, .parquet or .npz file, a folder with one subfolder per class, or your own "
        "as package.module:name"
    )
    if not path.is_file():
        raise DataInvalid(f"there is no data {str(path)!r} (looked in {Path.cwd()}): expected {expected}")
    if path.suffix not in {*TABLE_SUFFIXES, ".npz"}:
        raise DataInvalid(f"{path}: files ending in {path.suffix!r} can not be read: expected {expected}")


def _refuse_options_without_meaning(source: DataSource) -> None:
    is_table = Path(source.spec).suffix in TABLE_SUFFIXES
    if source.target is not None and not is_table:
        raise DataInvalid(
            f"--target {source.target} names a column of a table, and {source.spec!r} is not one: drop it"
        )
    if source.ignore and not is_table:
        raise DataInvalid(f"--ignore names columns of a table, and {source.spec!r} is not one: drop it")
    if source.directory is not None and source.spec != "fashion-mnist":
        raise DataInvalid(f"--directory says where fashion-mnist lies; {source.spec!r} is a place itself: drop it")
