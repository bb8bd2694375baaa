"""Folders of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_export.data import DataSource, load_splits
from model_export.errors import DataInvalid


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images, 3 wide and 2 high, of each of two classes; the first pixel is the image's number."""
    for label in ("daisy", "tulip"):
        (tmp_path / label).mkdir()
        for number in range(6):
            Image.fromarray(np.full((2, 3, 3), number, np.uint8)).save(tmp_path / label / f"{number}.png")
    return tmp_path


def test_a_folder_becomes_raw_images_with_channels_first(folder: Path) -> None:
    splits = load_splits(DataSource(spec=str(folder)))
    assert splits.labels == ("daisy", "tulip")
    assert splits.instance_shape == (3, 2, 3)
    everything = np.concatenate([splits.train.instances, splits.valid.instances, splits.test.instances])
    assert sorted(everything[:, 0, 0, 0]) == sorted([*range(6), *range(6)])


def test_grayscale_has_one_channel(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert load_splits(DataSource(spec=str(folder))).instance_shape == (1, 2, 3)


def test_an_image_of_another_size_is_named(folder: Path) -> None:
    Image.new("RGB", (4, 2)).save(folder / "tulip" / "3.png")
    with pytest.raises(DataInvalid, match=r"tulip/3\.png: is 4×2 with 3 .*daisy/0\.png is 3×2"):
        load_splits(DataSource(spec=str(folder)))


def test_an_image_in_another_mode_is_named(folder: Path) -> None:
    Image.new("RGBA", (3, 2)).save(folder / "tulip" / "3.png")
    with pytest.raises(DataInvalid, match=r"tulip/3\.png: is in Pillow's mode RGBA"):
        load_splits(DataSource(spec=str(folder)))


def test_a_file_that_is_no_image_is_named_and_a_hidden_one_is_passed_over(folder: Path) -> None:
    (folder / "tulip" / ".hidden").write_text("hello")
    load_splits(DataSource(spec=str(folder)))
    (folder / "tulip" / "notes.txt").write_text("hello")
    with pytest.raises(DataInvalid, match=r"notes\.txt: can not be read as an image"):
        load_splits(DataSource(spec=str(folder)))


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="one subfolder for each class"):
        load_splits(DataSource(spec=str(tmp_path)))


def test_a_second_level_of_folders_is_refused(folder: Path) -> None:
    (folder / "tulip" / "more").mkdir()
    with pytest.raises(DataInvalid, match="tulip/more: expected an image, found a folder"):
        load_splits(DataSource(spec=str(folder)))
