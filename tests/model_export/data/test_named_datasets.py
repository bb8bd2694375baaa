"""The two datasets that have names."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from model_export.data import DataSource, load_splits
from model_export.data.idx import DEBIAN_DIR, read_idx
from model_export.errors import DataInvalid

IMAGES_MAGIC = bytes((0, 0, 8, 3))


def idx(values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()


def write_small_fashion_mnist(directory: Path, *, num_train: int = 100, num_test: int = 20) -> None:
    random = np.random.default_rng(0)
    for prefix, number in (("train", num_train), ("t10k", num_test)):
        images = random.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        labels = np.arange(number, dtype=np.uint8) % 10
        (directory / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (directory / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


def test_digits_are_raw_images_in_three_splits_of_every_instance() -> None:
    splits = load_splits(DataSource(spec="digits"))
    assert splits.instance_shape == (1, 8, 8)
    assert splits.train.instances.dtype == np.float32
    assert splits.train.instances.max() == 16
    assert len(splits.train) + len(splits.valid) + len(splits.test) == 1797
    assert splits.labels == tuple("0123456789")


def test_the_same_source_gives_the_same_digest_and_another_seed_another() -> None:
    digests = [load_splits(DataSource(spec="digits", seed=seed)).sha256 for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_fashion_mnist_keeps_its_own_test_split_and_validates_on_a_tenth_of_the_rest(tmp_path: Path) -> None:
    write_small_fashion_mnist(tmp_path)
    splits = load_splits(DataSource(spec="fashion-mnist", directory=str(tmp_path)))
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (90, 10, 20)
    assert splits.instance_shape == (1, 28, 28)
    assert splits.labels[9] == "Ankle boot"


@pytest.mark.skipif(not DEBIAN_DIR.is_dir(), reason="needs the package dataset-fashion-mnist")
def test_the_real_fashion_mnist_has_seventy_thousand_images() -> None:
    splits = load_splits(DataSource(spec="fashion-mnist"))
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (54_000, 6_000, 10_000)
    assert np.bincount(splits.test.labels).tolist() == [1000] * 10


def test_a_missing_fashion_mnist_tells_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="apt-get install dataset-fashion-mnist"):
        load_splits(DataSource(spec="fashion-mnist", directory=str(tmp_path)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG1234", "begins with 00 00 08 03, found 89 50 4e 47"),
        (IMAGES_MAGIC + b"\0\0", "ends within its header"),
        (idx(np.zeros((2, 3, 4), np.uint8))[:-1], r"expected \(2, 3, 4\) values, found 23 bytes"),
        (idx(np.zeros((2, 3, 4), np.uint8)) + b"x", "found 25 bytes"),
    ],
)
def test_a_file_that_is_not_the_idx_it_should_be_is_refused_by_name(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataInvalid, match=f"train-images-idx3-ubyte.*{message}"):
        read_idx(path, num_axes=3)


def test_a_damaged_gzip_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((2, 3, 4), np.uint8)))[:-9])
    with pytest.raises(DataInvalid, match=r"ubyte\.gz: is damaged"):
        read_idx(path, num_axes=3)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DataSource(spec="digits", target="species"), "--target species names a column of a table"),
        (DataSource(spec="digits", ignore=("id",)), "--ignore names columns of a table"),
        (DataSource(spec="digits", directory="here"), "--directory says where fashion-mnist lies"),
        (DataSource(spec="digit"), "there is no data 'digit'"),
    ],
)
def test_an_option_or_a_name_that_means_nothing_is_refused(source: DataSource, message: str) -> None:
    with pytest.raises(DataInvalid, match=message):
        load_splits(source)


def test_a_file_of_unknown_kind_is_refused_and_the_kinds_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "data.xlsx"
    path.touch()
    with pytest.raises(DataInvalid, match=r"ending in '\.xlsx' can not be read: expected .*\.parquet"):
        load_splits(DataSource(spec=str(path)))
