"""Fashion-MNIST from its four IDX files, the format that MNIST came in: read here, because no library is lighter.

magic    two zero bytes, one for the type of the values (8: unsigned byte), one for the number of axes
sizes    one big-endian 32-bit integer for each axis
values   row-major, nothing after them
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_export.data.splits import DataSource, Split, Splits, make_splits, stratify
from model_export.errors import DataInvalid
from service.bundle import ImageSpec

DEBIAN_DIR: Final = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
LABELS: Final = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
UNSIGNED_BYTE: Final = 8
PICTURE: Final = ImageSpec(mode="L", height=28, width=28)  # the garment is bright on black


def read_fashion_mnist(source: DataSource) -> Splits:
    """Instances [N, 1, 28, 28] with values 0..255.

    Its own 10,000 test images are the test split, `valid_fraction` of the 60,000 others the valid split.

    Raises:
        DataInvalid: a file is not there (and how to get it), or is not what its name says.
    """
    directory = DEBIAN_DIR if source.directory is None else Path(source.directory)
    test = _read_split(directory, "t10k")
    train, valid = stratify(_read_split(directory, "train"), fraction=source.valid_fraction, seed=source.seed)
    return replace(make_splits("fashion-mnist", (train, valid, test), labels=LABELS), image=PICTURE)


def _read_split(directory: Path, prefix: str) -> Split:
    images_path = _find(directory, f"{prefix}-images-idx3-ubyte")
    labels_path = _find(directory, f"{prefix}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, num_axes=3), read_idx(labels_path, num_axes=1)
    if len(images) != len(labels) or (len(labels) and labels.max() >= len(LABELS)):
        raise DataInvalid(
            f"{labels_path}: expected {len(images)} labels below {len(LABELS)}, one for each of its images"
        )
    return Split(images[:, None].astype(np.float32), labels.astype(np.int64))


def _find(directory: Path, name: str) -> Path:
    for path in (directory / name, directory / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataInvalid(
        f"Fashion-MNIST is not in {directory}: there is no {name} and no {name}.gz. On Debian or Ubuntu: "
        "apt-get install dataset-fashion-mnist. Elsewhere: download the four files that "
        "https://github.com/zalandoresearch/fashion-mnist lists, and say --directory FOLDER"
    )


def read_idx(path: Path, *, num_axes: int) -> NDArray[np.uint8]:
    """The array in the IDX file `path`, which may be gzipped.

    Raises:
        DataInvalid: the magic is not that of unsigned bytes in `num_axes` axes, or the file is too short or too long.
    """
    content = _decompressed(path)
    magic = bytes((0, 0, UNSIGNED_BYTE, num_axes))
    if content[:4] != magic:
        raise DataInvalid(
            f"{path}: expected an IDX file that begins with {magic.hex(' ')}, found {content[:4].hex(' ')}"
        )
    start = 4 + 4 * num_axes
    if len(content) < start:
        raise DataInvalid(f"{path}: ends within its header, after {len(content)} bytes: download it again")
    shape = struct.unpack(f">{num_axes}I", content[4:start])
    if len(content) - start != np.prod(shape, dtype=object):
        raise DataInvalid(f"{path}: expected {shape} values, found {len(content) - start} bytes: download it again")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _decompressed(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as err:
        raise DataInvalid(f"{path}: is damaged ({err}): download it again") from err
