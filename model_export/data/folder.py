"""A folder of images, one subfolder for each class: `flowers/daisy/1.png`, `flowers/tulip/1.png`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.data.splits import Labelled, Split
from model_export.errors import DataInvalid

NUM_CHANNELS = {"L": 1, "RGB": 3}  # Pillow's names for grayscale and colour


def read_folder(path: Path) -> Labelled:
    """Instances [N, C, H, W] with values 0..255, in the order of the files' names; the subfolders name the classes.

    Nothing is resized or converted: a client would have to do exactly the same.

    Raises:
        DataInvalid: a file is no image, or not of the size and colours of the first; says which file.
    """
    classes = [folder for folder in _visible(path) if folder.is_dir()]
    files = [(file, label) for label, folder in enumerate(classes) for file in _visible(folder)]
    if not files:
        raise DataInvalid(f"{path}: expected one subfolder for each class, with images in it, found none")
    images = [_read_image(file) for file, _ in files]
    for (file, _), image in zip(files, images, strict=True):
        _check_same_shape(file, image, files[0][0], images[0])
    instances = np.stack(images).astype(np.float32)
    labels = np.array([label for _, label in files], dtype=np.int64)
    return Labelled(
        name=path.resolve().name, everything=Split(instances, labels), labels=tuple(f.name for f in classes)
    )


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _read_image(path: Path) -> NDArray[np.uint8]:
    """One image, uint8 [C, H, W]."""
    from PIL import Image

    if not path.is_file():
        raise DataInvalid(f"{path}: expected an image, found a folder; one level of subfolders names the classes")
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as err:
        raise DataInvalid(f"{path}: can not be read as an image ({err}): remove or replace it") from err
    if image.mode not in NUM_CHANNELS:
        raise DataInvalid(
            f"{path}: is in Pillow's mode {image.mode}: convert it to grayscale (L) or colour (RGB) first"
        )
    return np.asarray(image).reshape(image.height, image.width, NUM_CHANNELS[image.mode]).transpose(2, 0, 1)


def _check_same_shape(path: Path, image: NDArray[np.uint8], first_path: Path, first: NDArray[np.uint8]) -> None:
    if image.shape != first.shape:
        raise DataInvalid(
            f"{path}: is {_size(image)}, but {first_path} is {_size(first)}: bring all to one size and colour mode"
        )


def _size(image: NDArray[np.uint8]) -> str:
    num_channels, height, width = image.shape
    return f"{width}×{height} with {num_channels} channel(s)"
