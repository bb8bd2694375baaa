"""Pictures that are trained on, and pictures that are sent: one file is one instance, bit for bit, in both rooms."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from model_export.data import DataSource, instance_as_json, load_splits
from model_export.data.digits import read_digits
from model_export.data.folder import read_folder
from model_export.networks import NetworkOptions
from model_export.pipeline import ExportRequest, build_bundle
from service.bundle import Bundle, ImageSpec, TensorSpec, read_bundle
from service.images import decode_image
from service.predictor import open_predictor
from service.protocols.contract import Headers, Question
from service.protocols.image_requests import read_image
from tests.model_export.data.test_named_datasets import write_small_fashion_mnist
from tests.model_export.runs import small_run

KINDS = ("png", "jpg", "webp", "bmp")


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pictures, 7 wide and 5 high, of each of two classes, in every format; those of tulips are brighter."""
    folder, random = tmp_path_factory.mktemp("data") / "flowers", np.random.default_rng(0)
    for label, darkest in (("daisy", 0), ("tulip", 128)):
        (folder / label).mkdir(parents=True)
        for number in range(16):
            pixels = random.integers(darkest, darkest + 128, size=(5, 7, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.{KINDS[number % 4]}", exif=_turned())
    return folder


def _turned() -> Image.Exif:
    """EXIF that asks to turn the picture by 90°: cameras write it, training passes over it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.fixture(scope="module")
def bundle(flowers: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("run")
    source = DataSource(spec=str(flowers))
    trained = small_run(folder, source=source, network=NetworkOptions(hidden=(8,)), batch_size=16)
    return build_bundle(ExportRequest(checkpoint=trained.best_path, out=folder / "models" / "flowers" / "1"))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*"))


def test_every_file_of_a_folder_is_decoded_for_serving_as_it_was_for_training(flowers: Path) -> None:
    trained_on = read_folder(flowers)
    tensor = TensorSpec(name="x", dtype="float32", shape=trained_on.everything.instances.shape[1:])
    for path, instance in zip(_files(flowers), trained_on.everything.instances, strict=True):
        assert trained_on.image is not None
        assert decode_image(path.read_bytes(), trained_on.image, tensor) == instance.tobytes()


def test_a_bundle_from_a_folder_says_what_its_pictures_are(bundle: Bundle) -> None:
    expected = ImageSpec(mode="RGB", height=5, width=7)
    assert read_bundle(bundle.directory).manifest.signature.image == expected


def test_a_folder_of_gray_pictures_says_so(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        Image.new("L", (3, 2)).save(tmp_path / label / "1.png")
    assert read_folder(tmp_path).image == ImageSpec(mode="L", height=2, width=3)


def test_base64_a_form_a_file_and_numbers_are_answered_with_the_same_bits(bundle: Bundle, flowers: Path) -> None:
    predictor = open_predictor(bundle.model_path, bundle.manifest.signature, "cpu")
    instances = read_folder(flowers).everything.instances
    for path, instance in zip(_files(flowers), instances, strict=True):
        expected = predictor.outputs(instance)["scores"].tobytes()
        numbers = json.dumps({"instance": instance_as_json(instance)}).encode()
        for packed in (predictor.reader.pack(numbers), *(read_image(way, predictor.signature) for way in _ways(path))):
            sent = np.frombuffer(packed or b"", np.float32).reshape(instance.shape)
            assert predictor.outputs(sent)["scores"].tobytes() == expected


def _ways(path: Path) -> list[Question]:
    encoded, kind = path.read_bytes(), path.suffix[1:].replace("jpg", "jpeg")
    as_json = json.dumps({"image": {"b64": base64.b64encode(encoded).decode()}}).encode()
    form = httpx.Request("POST", "http://here/predict", files={"image": (path.name, encoded)})
    return [
        Question(as_json, Headers(content_type=b"application/json")),
        Question(form.read(), Headers(content_type=form.headers["content-type"].encode())),
        Question(encoded, Headers(content_type=f"image/{kind}".encode())),
    ]


def test_every_digit_as_a_picture_is_the_instance_it_was_trained_on() -> None:
    """255 is 16: all seventeen values are far enough apart to be told by 256 grays."""
    digits = read_digits()
    tensor = TensorSpec(name="x", dtype="float32", shape=(1, 8, 8))
    assert digits.image is not None
    for instance in digits.everything.instances:
        file = io.BytesIO()
        Image.fromarray(np.rint(instance[0] * 255 / 16).astype(np.uint8)).save(file, "PNG")
        assert decode_image(file.getvalue(), digits.image, tensor) == instance.tobytes()


def test_a_garment_as_a_picture_is_the_instance_it_was_trained_on(tmp_path: Path) -> None:
    write_small_fashion_mnist(tmp_path)
    splits = load_splits(DataSource(spec="fashion-mnist", directory=str(tmp_path)))
    tensor = TensorSpec(name="x", dtype="float32", shape=(1, 28, 28))
    assert splits.image is not None
    for instance in splits.test.instances:
        file = io.BytesIO()
        Image.fromarray(instance[0].astype(np.uint8)).save(file, "PNG")
        assert decode_image(file.getvalue(), splits.image, tensor) == instance.tobytes()


def test_arrays_have_no_pictures(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", instances=np.zeros((20, 1, 8, 8)), labels=np.arange(20) % 2)
    assert load_splits(DataSource(spec=str(tmp_path / "mine.npz"))).image is None
    assert load_splits(DataSource(spec="digits")).image is not None
