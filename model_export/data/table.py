"""A CSV or Parquet file: one row an instance, one column the class, the others features that are numbers or words.

Nothing is guessed and nothing is dropped in silence: a column that can not be used is refused by name, with what to
do about it, because whatever is decided here every client of the service has to send.
"""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model_export.data.encoding import encode_frame
from model_export.data.splits import Labelled, Split
from model_export.errors import DataInvalid
from service.bundle import Feature

if TYPE_CHECKING:
    import pandas as pd

MAX_CATEGORIES = 100  # each is an input of its own; more want an embedding, which foldserve does not train
MAX_CLASSES = 1000


def read_table(path: Path, *, target: str | None, ignore: tuple[str, ...] = ()) -> Labelled:
    """Instances [N, width] with the features one-hot encoded; the classes are the target's values, as words.

    Raises:
        DataInvalid: the file can not be read, the target is not a class, or a column can not be used; names it.
    """
    frame = _read_frame(path)
    chosen = _check_column(frame, target, option="--target")
    ignored = [_check_column(frame, name, option="--ignore") for name in ignore]
    if chosen in ignored:
        raise DataInvalid(f"--ignore {chosen} leaves out the target itself")
    frame = frame.drop(columns=ignored)
    _check_complete(frame, chosen)
    labels, names = _as_classes(frame[chosen])
    features = _find_features(frame.drop(columns=chosen))
    instances = encode_frame(frame, features)
    return Labelled(name=path.stem, everything=Split(instances, labels), labels=names, features=features)


def _read_frame(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        frame = _read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError) as err:  # pandas' and pyarrow's own are ValueErrors
        raise DataInvalid(f"{path}: can not be read as a table: {err}") from err
    if not len(frame):
        raise DataInvalid(f"{path}: has no rows")
    _check_index(path, frame.index)
    frame.columns = frame.columns.map(str)
    _check_different(path, list(frame.columns))
    return frame.reset_index(drop=True)


def _read_csv(path: Path) -> pd.DataFrame:
    """Rows longer than the header would become an index, and names that come twice `a` and `a.1`: neither is wanted."""
    import pandas as pd

    header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False)
    _check_different(path, [name for name in header.iloc[0] if name])
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(path, low_memory=False, index_col=False, on_bad_lines="error")
        except pd.errors.ParserWarning as err:
            raise DataInvalid(
                f"{path}: expected {header.shape[1]} values in each row, as the header has names, found more: give "
                "each column a name, or remove what is too much"
            ) from err


def _check_index(path: Path, index: pd.Index[Any]) -> None:
    """Row numbers say nothing and may go; an index of any other kind is data."""
    import pandas as pd

    if not isinstance(index, pd.RangeIndex) or index.name is not None:
        names = ", ".join(repr(name) for name in index.names if name is not None) or "without a name"
        raise DataInvalid(
            f"{path}: has an index ({names}) beside its columns: save it with reset_index(), and --ignore the column "
            "if it says nothing, or with reset_index(drop=True)"
        )


def _check_different(path: Path, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataInvalid(f"{path}: expected columns with different names, found {', '.join(twice)} more than once")


def _check_column(frame: pd.DataFrame, name: str | None, *, option: str) -> str:
    columns = [str(column) for column in frame.columns]
    if name in columns:
        return str(name)
    if name is None:
        raise DataInvalid(f"a table needs {option} COLUMN, the column that holds the class: {', '.join(columns)}")
    close = difflib.get_close_matches(name, columns, n=1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    raise DataInvalid(f"{option}: there is no column {name!r}.{guess} The columns are: {', '.join(columns)}")


def _check_complete(frame: pd.DataFrame, target: str) -> None:
    counts = frame.isna().sum()
    if counts[target]:
        raise DataInvalid(
            f"--target {target}: {counts[target]} rows have no class: drop those rows, or fill in the class "
            "(an empty cell, NA, None and null count as missing)"
        )
    missing = [f"{name} ({count})" for name, count in counts[counts > 0].items()]
    if missing:
        raise DataInvalid(
            f"values are missing in {', '.join(missing)}: fill them in, drop those rows, or --ignore the column "
            "(an empty cell, NA, None and null count as missing)"
        )


def _as_classes(column: pd.Series[Any]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The class of each row, int64 [N], and the classes' names, sorted as numbers or as words."""
    import pandas as pd

    kind = pd.api.types.infer_dtype(column)
    values = column
    if kind == "floating":
        values = _whole(column)
    elif kind not in {"integer", "string", "boolean", "categorical"}:
        raise DataInvalid(f"--target {column.name}: expected words or whole numbers, found {kind} values")
    if kind == "categorical":
        values = column.astype(str)
    codes, classes = pd.factorize(values, sort=True)
    if len(classes) > MAX_CLASSES:
        raise DataInvalid(
            f"--target {column.name}: has {len(classes)} classes, more than {MAX_CLASSES}: is it the class?"
        )
    return codes.astype(np.int64), tuple(str(name) for name in classes)


def _whole(column: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers such as 0.0 and 1.0, which is what an export with gaps makes of classes, as whole numbers."""
    values = column.to_numpy(dtype=np.float64)
    if not (np.isfinite(values) & (values == np.trunc(values)) & (np.abs(values) < 2**53)).all():
        raise DataInvalid(
            f"--target {column.name}: its {column.nunique()} different values have fractions, so it is a quantity, "
            "not a class, and foldserve trains classifiers: choose another column, or cut it into named ranges first"
        )
    return column.astype(np.int64)


def _find_features(frame: pd.DataFrame) -> tuple[Feature, ...]:
    if not len(frame.columns):
        raise DataInvalid("the table has no column besides the target: there is nothing to learn from")
    problems = [f"{name}: {why}" for name, why in ((n, _problem(frame[n])) for n in frame.columns) if why]
    if problems:
        raise DataInvalid("these columns can not be used:\n  " + "\n  ".join(problems))
    return tuple(_as_feature(frame[name]) for name in frame.columns)


def _problem(column: pd.Series[Any]) -> str | None:
    """Why this column can not be a feature and what to do, or None."""
    import pandas as pd

    name, kind = str(column.name), pd.api.types.infer_dtype(column)
    if name.startswith("Unnamed: "):
        return f"the column has no name; an index that was saved along? --ignore '{name}', or name it"
    if kind.startswith("datetime") or kind in {"date", "time", "timedelta", "timedelta64", "period"}:
        return "holds dates or times: turn them into numbers (an age, a weekday), or --ignore the column"
    if kind not in {"integer", "floating", "boolean", "string", "categorical"}:
        return f"holds {kind} values, expected numbers or words: convert them, or --ignore the column"
    if kind == "integer" and column.dtype == object:
        return "holds whole numbers too large for 64 bits: --ignore it if it is an identifier, or scale it"
    if (column == column.iloc[0]).all():
        return "has the same value in every row, so it says nothing: --ignore it"
    return _problem_of_words(column) if kind in {"string", "categorical"} else None


def _problem_of_words(column: pd.Series[Any]) -> str | None:
    num_words = column.nunique()
    if num_words == len(column):
        return "is another word in every row, like an id or free text: --ignore it"
    if num_words > MAX_CATEGORIES:
        return f"has {num_words} different words, more than {MAX_CATEGORIES}: merge the rare ones, or --ignore it"
    return None


def _as_feature(column: pd.Series[Any]) -> Feature:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return Feature(name=str(column.name))
    return Feature(name=str(column.name), categories=tuple(sorted(column.astype(str).unique())))
