"""A folder of images, one subfolder for each class: `flowers/daisy/1.png`, `flowers/tulip/1.png`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model_export.data.splits import Labelled, Split
from model_export.errors import DataInvalid
from service.bundle import ImageSpec
from service.errors import InstanceInvalid
from service.images import Pixels, read_pixels


def read_folder(path: Path) -> Labelled:
    """Instances [N, C, H, W] with values 0..255, in the order of the files' names; the subfolders name the classes.

    Nothing is resized or converted: what is sent to the service is decoded by the same code.

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
    instances = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2), dtype=np.float32)
    labels = np.array([label for _, label in files], dtype=np.int64)
    return Labelled(
        name=path.resolve().name,
        everything=Split(instances, labels),
        labels=tuple(folder.name for folder in classes),
        image=_describe(images[0]),
    )


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _read_image(path: Path) -> Pixels:
    """One image, uint8 [H, W, C]."""
    if not path.is_file():
        raise DataInvalid(f"{path}: expected an image, found a folder; one level of subfolders names the classes")
    try:
        return read_pixels(path, where=str(path))
    except InstanceInvalid as err:
        raise DataInvalid(str(err)) from err


def _check_same_shape(path: Path, image: Pixels, first_path: Path, first: Pixels) -> None:
    if image.shape != first.shape:
        raise DataInvalid(
            f"{path}: is {_size(image)}, but {first_path} is {_size(first)}: bring all to one size and colour mode"
        )


def _size(image: Pixels) -> str:
    height, width, num_channels = image.shape
    return f"{width}×{height} with {num_channels} channel(s)"


def _describe(image: Pixels) -> ImageSpec:
    """How a picture becomes an instance: as those of the folder did."""
    height, width, num_channels = image.shape
    return ImageSpec(mode="L" if num_channels == 1 else "RGB", height=height, width=width)
