"""Tables: what is understood, and what is refused by name."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from model_export.data import DataSource, Splits, load_splits
from model_export.data.table import MAX_CATEGORIES
from model_export.errors import DataInvalid
from service.bundle import Feature

NUM_ROWS = 40


def flowers(**columns: Any) -> pd.DataFrame:
    """Rows of flowers; further columns come on top."""
    return pd.DataFrame(
        {
            "width": [0.1 * row for row in range(NUM_ROWS)],
            "colour": ["red", "blue"] * (NUM_ROWS // 2),
            "species": ["iris", "rose", "iris", "aster"] * (NUM_ROWS // 4),
            **columns,
        }
    )


def load(frame: pd.DataFrame, folder: Path, **options: Any) -> Splits:
    """Through a CSV, or a Parquet file where CSV could not say it."""
    path = folder / "flowers.parquet"
    frame.to_parquet(path)
    return load_splits(DataSource(**{"spec": str(path), "target": "species", **options}))


def test_a_csv_becomes_numbers_and_one_hot_words_in_the_columns_order(tmp_path: Path) -> None:
    path = tmp_path / "flowers.csv"
    flowers(fresh=[True, False] * (NUM_ROWS // 2)).to_csv(path, index=False)
    splits = load_splits(DataSource(spec=str(path), target="species"))
    assert splits.name == "flowers"
    assert splits.labels == ("aster", "iris", "rose")
    assert splits.features == (
        Feature(name="width"),
        Feature(name="colour", categories=("blue", "red")),
        Feature(name="fresh", categories=("False", "True")),
    )
    assert splits.instance_shape == (5,)


def test_csv_and_parquet_of_the_same_table_have_the_same_digest(tmp_path: Path) -> None:
    frame, path = flowers(), tmp_path / "flowers.csv"
    frame.to_csv(path, index=False)
    assert load_splits(DataSource(spec=str(path), target="species")).sha256 == load(frame, tmp_path).sha256


@pytest.mark.parametrize(
    ("target", "labels"),
    [
        ([10, 9] * 20, ("9", "10")),
        ([1.0, 0.0] * 20, ("0", "1")),
        ([True, False] * 20, ("False", "True")),
        (pd.Categorical(["b", "a"] * 20), ("a", "b")),
        (pd.array([3, 1] * 20, dtype="Int64"), ("1", "3")),
    ],
)
def test_classes_are_kept_by_name_and_sorted_as_what_they_are(tmp_path: Path, target: Any, labels: Any) -> None:
    assert load(flowers(kind=target), tmp_path, target="kind").labels == labels


def test_rows_keep_their_label(tmp_path: Path) -> None:
    splits = load(flowers(), tmp_path)
    is_rose = splits.train.labels == splits.labels.index("rose")
    rows = np.rint(splits.train.instances[:, 0] * 10).astype(int)
    assert (rows[is_rose] % 4 == 1).all()
    assert not (rows[~is_rose] % 4 == 1).any()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"gap": [None, 1.0] * 20}, r"values are missing in gap \(20\)"),
        ({"big": [1e300, 1.0] * 20}, "column 'big'.*beyond float32"),
        ({"far": [np.inf, 1.0] * 20}, "column 'far'.*missing or infinite"),
        ({"number": [2**24 + 1, 1] * 20}, "column 'number'.*whole numbers beyond"),
        ({"same": ["x"] * 40}, "same: has the same value in every row"),
        ({"same": [7] * 40}, "same: has the same value in every row"),
        ({"id": [f"id{row}" for row in range(40)]}, "id: is another word in every row"),
        ({"day": [date(2024, 1, 1), date(2024, 1, 2)] * 20}, "day: holds dates or times"),
        ({"day": pd.to_datetime(["2024-01-01", "2024-01-02"] * 20)}, "day: holds dates or times"),
        ({"many": [[1, 2], [3]] * 20}, "many: holds mixed values"),
        ({"Unnamed: 0": range(40)}, "saved along. --ignore 'Unnamed: 0'"),
    ],
)
def test_a_column_that_can_not_be_used_is_refused_by_name(tmp_path: Path, columns: Any, message: str) -> None:
    with pytest.raises(DataInvalid, match=message):
        load(flowers(**columns), tmp_path)


def test_all_unusable_columns_are_named_at_once_and_can_be_ignored(tmp_path: Path) -> None:
    frame = flowers(same=[7] * NUM_ROWS, id=[f"id{row}" for row in range(NUM_ROWS)])
    with pytest.raises(DataInvalid, match=r"(?s)same: .*id: "):
        load(frame, tmp_path)
    assert load(frame, tmp_path, ignore=("same", "id")).instance_shape == (3,)


def test_too_many_categories_are_refused(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(MAX_CATEGORIES + 1)]
    frame = pd.DataFrame({"word": words * 2, "species": ["a", "b"] * len(words)})
    with pytest.raises(DataInvalid, match="word: has 101 different words, more than 100"):
        load(frame, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": None}, "needs --target COLUMN.*: width, colour, species"),
        ({"target": "specie"}, "no column 'specie'. Did you mean 'species'?"),
        ({"target": "width"}, "foldserve trains classifiers"),
        ({"ignore": ("colors",)}, "--ignore: there is no column 'colors'"),
        ({"ignore": ("species",)}, "leaves out the target itself"),
        ({"ignore": ("width", "colour")}, "nothing to learn from"),
    ],
)
def test_columns_that_were_named_wrongly_are_refused(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(DataInvalid, match=message):
        load(flowers(), tmp_path, **options)


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n", b'a,b\n1,2\n"3,4\n5', b"\xff\xfe\x00\x01,\x80\n1,2\n", b"a,b\n1,2\n1,2,3\n"]
)
def test_a_csv_that_can_not_be_read_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(DataInvalid, match=r"broken\.csv"):
        load_splits(DataSource(spec=str(path), target="b"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2,x\n3,4,y\n", r"expected 2 values in each row, as the header has names, found more"),
        (b"a,b\n1,2,x\n3,4\n", r"expected 2 values in each row"),
        (b"a,b,a,c,c\n1,2,3,4,5\n", "expected columns with different names, found a, c more than once"),
    ],
)
def test_a_csv_whose_header_does_not_name_each_column_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "shifted.csv"
    path.write_bytes(content)
    with pytest.raises(DataInvalid, match=rf"shifted\.csv: {message}"):
        load_splits(DataSource(spec=str(path), target="b"))


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (pd.Index([f"id{row}" for row in range(NUM_ROWS)], name="plant"), "'plant'"),
        (pd.RangeIndex(NUM_ROWS, name="plant"), "'plant'"),
        (pd.Index([2 * row**2 for row in range(NUM_ROWS)]), "without a name"),
    ],
)
def test_a_parquet_with_an_index_is_refused_by_the_indexs_name(tmp_path: Path, index: Any, name: str) -> None:
    with pytest.raises(DataInvalid, match=rf"flowers\.parquet: has an index \({name}\) .* reset_index"):
        load(flowers().set_index(index), tmp_path)


def test_whole_numbers_beyond_64_bits_are_refused_and_not_taken_for_words(tmp_path: Path) -> None:
    path = tmp_path / "flowers.csv"
    flowers(number=[10**30 + row // 2 for row in range(NUM_ROWS)]).to_csv(path, index=False)
    with pytest.raises(DataInvalid, match="number: holds whole numbers too large for 64 bits: --ignore it"):
        load_splits(DataSource(spec=str(path), target="species"))


def test_a_target_with_gaps_is_told_to_drop_those_rows(tmp_path: Path) -> None:
    with pytest.raises(
        DataInvalid, match="--target kind: 20 rows have no class: drop those rows, or fill in"
    ) as caught:
        load(flowers(kind=[None, "a"] * 20), tmp_path, target="kind")
    assert "--ignore" not in str(caught.value)


def test_a_parquet_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(DataInvalid, match=r"broken\.parquet: can not be read as a table"):
        load_splits(DataSource(spec=str(path), target="b"))
