"""The story as a whole: a checkpoint becomes a bundle that reads back, or nothing is left behind."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from model_export.data import DataSource
from model_export.errors import CheckpointInvalid, ParityFailed
from model_export.examples import MAX_EXAMPLES
from model_export.measuring import Method
from model_export.networks import NetworkOptions
from model_export.options import TrainingOptions
from model_export.pipeline import ExportRequest, build_bundle
from model_export.train import train
from service.bundle import Bundle, read_bundle
from service.errors import BundleExists, ManifestInvalid
from service.predictor import open_predictor

RESIDUAL = 1e-5  # what exact statistics promise over the training set


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book's network after three epochs on digits: trained enough to be told from noise."""
    options = TrainingOptions(epochs=3)
    folder = tmp_path_factory.mktemp("run")
    return train(DataSource(spec="digits"), NetworkOptions(), options, run_dir=folder, progress=False).best_path


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("models")
    request = ExportRequest(checkpoint=checkpoint, out=folder / "digits" / "1", raw_path=folder / "raw.onnx")
    return build_bundle(request)


def test_what_was_built_is_what_is_read(bundle: Bundle) -> None:
    assert read_bundle(bundle.directory) == bundle


def test_every_batchnorm_is_folded_and_none_is_in_the_model(bundle: Bundle) -> None:
    entries = [(entry.batchnorm, entry.outcome, entry.into) for entry in bundle.manifest.fold.entries]
    assert entries == [(f"batchnorm{k}", "folded", (f"dense{k + 1}",)) for k in range(3)]
    assert not [node for node in onnx.load(bundle.model_path).graph.node if node.op_type == "BatchNormalization"]


def test_the_raw_graph_still_has_its_batchnorms(bundle: Bundle) -> None:
    raw = onnx.load(bundle.directory.parent.parent / "raw.onnx")
    assert [node.name for node in raw.graph.node if node.op_type == "BatchNormalization"] == [
        "batchnorm0",
        "batchnorm1",
        "batchnorm2",
    ]


def test_the_model_itself_says_what_it_was_folded_from(bundle: Bundle) -> None:
    """The digest is that of the very file that `--raw` keeps."""
    folder = bundle.directory.parent.parent
    model = onnx.load(bundle.directory / "model.onnx")
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert notes["foldserve.source_sha256"] == hashlib.sha256((folder / "raw.onnx").read_bytes()).hexdigest()
    assert notes["foldserve.statistics"] == "exact"
    assert float(notes["foldserve.noise_floors"]) < 30


def test_exact_statistics_fit_the_training_set(bundle: Bundle) -> None:
    layers = bundle.manifest.statistics.layers
    assert all((layer.residual_mean or 0) <= RESIDUAL for layer in layers)
    assert all((layer.residual_variance or 0) <= RESIDUAL for layer in layers)
    assert {layer.num_values for layer in layers} == {bundle.manifest.training.num_train}


def test_border_pixels_that_never_vary_are_named_and_the_amplification_too(bundle: Bundle) -> None:
    first = bundle.manifest.statistics.layers[0]
    assert {0, 32, 39} <= set(first.constant_channels)
    assert first.max_gain > 100


def test_the_examples_are_held_out_instances_of_every_class_with_the_networks_answers(bundle: Bundle) -> None:
    examples = bundle.examples
    assert len(examples) == MAX_EXAMPLES
    assert {example.label for example in examples} == set(bundle.manifest.signature.labels)
    predictor = open_predictor(bundle.model_path, bundle.manifest.signature, "cpu")
    for example in examples:
        instance = np.array(example.instance, dtype=np.float32).reshape(bundle.manifest.signature.input.shape)
        assert np.allclose(predictor.outputs(instance)["scores"], example.outputs["scores"], atol=1e-5)


def test_a_second_export_to_the_same_place_is_refused_before_anything_is_computed(
    bundle: Bundle, checkpoint: Path
) -> None:
    with pytest.raises(BundleExists, match="--overwrite"):
        build_bundle(ExportRequest(checkpoint=checkpoint, out=bundle.directory))


@pytest.mark.parametrize("place", ["digits/one", "digits/0", "di.gits/1", "-x/1"])
def test_a_place_that_names_no_model_and_version_is_refused(place: str, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid, match="is not allowed"):
        build_bundle(ExportRequest(checkpoint=checkpoint, out=tmp_path / place))


def test_beyond_tolerance_no_bundle_is_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_export.verify.SCORES_TOLERANCE", 0.0)
    with pytest.raises(ParityFailed, match="no bundle was written"):
        build_bundle(ExportRequest(checkpoint=checkpoint, out=tmp_path / "digits" / "1"))
    assert not (tmp_path / "digits").exists()


@pytest.mark.parametrize("method", ["ema", "exact"])
def test_the_manifest_says_which_statistics_were_frozen(checkpoint: Path, tmp_path: Path, method: Method) -> None:
    bundle = build_bundle(ExportRequest(checkpoint=checkpoint, out=tmp_path / "digits" / "7", statistics=method))
    written = json.loads((bundle.directory / "manifest.json").read_text())
    assert (written["statistics"]["method"], written["version"]) == (method, "7")


def test_data_that_changed_since_training_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    rng = np.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f},{'high' if a > b else 'low'}" for a, b in rng.normal(size=(60, 2))]
    table.write_text("\n".join(["first,second,class", *rows]))
    source = DataSource(spec=str(table), target="class")
    network = NetworkOptions(hidden=(8,))
    result = train(source, network, TrainingOptions(epochs=1), run_dir=tmp_path / "run", progress=False)
    table.write_text("\n".join(["first,second,class", *rows[1:], rows[0].replace("0.", "0.9")]))
    with pytest.raises(CheckpointInvalid, match="other data"):
        build_bundle(ExportRequest(checkpoint=result.best_path, out=tmp_path / "models" / "table" / "1"))


def test_the_announcements_tell_the_story_in_order(checkpoint: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    build_bundle(ExportRequest(checkpoint=checkpoint, out=tmp_path / "digits" / "1"), heard.append)
    story = ["Measuring", "Freezing", "Exporting", "Folding", "Verifying", "Writing"]
    assert [words.split()[0] for words in heard] == story


def test_a_request_is_a_value() -> None:
    request = ExportRequest(checkpoint=Path("a"), out=Path("models/digits/3"))
    assert (request.name, request.version) == ("digits", "3")
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.out = Path("b")  # type: ignore[misc]
