"""The predictor: one instance in, one prediction out, and a start that checks itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.bundle import Example, Feature
from service.errors import InstanceInvalid, SelfCheckFailed
from service.predictor import Predictor, open_predictor
from tests.service.tiny_models import TOLERANCE, Array, TinyModel, tiny_examples, tiny_model, with_wrong_answer

LABELS = ("cat", "dog", "cow")
TOLERANCES = {"scores": TOLERANCE}


@pytest.fixture
def model() -> TinyModel:
    return tiny_model(labels=LABELS)


@pytest.fixture
def predictor(model: TinyModel, tmp_path: Path) -> Predictor:
    return open_predictor(model.save(tmp_path / "m.onnx"), model.signature, device="cpu")


def test_the_label_is_the_one_with_the_largest_score(predictor: Predictor, model: TinyModel) -> None:
    for instance in np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32):
        prediction = predictor.predict(instance)
        assert prediction.label == LABELS[int(np.argmax(model.oracle(instance)))]
        np.testing.assert_allclose(prediction.scores, model.oracle(instance), atol=TOLERANCE, rtol=0)


def test_a_prediction_keeps_its_scores_when_the_next_one_is_made(predictor: Predictor) -> None:
    first = predictor.predict(np.ones(4, np.float32))
    before = first.scores.copy()
    predictor.predict(np.zeros(4, np.float32))
    assert np.array_equal(first.scores, before)


def test_without_labels_the_label_is_the_index(tmp_path: Path) -> None:
    prediction = open_predictor(tiny_model().save(tmp_path / "m.onnx"), device="cpu").predict(np.ones(4, np.float32))
    assert prediction.label == prediction.index == int(prediction.scores.argmax())


@pytest.mark.parametrize("instance", [np.ones(5, np.float32), np.ones(4, np.float64), np.ones((1, 4), np.float32)])
def test_an_array_of_another_shape_or_dtype_is_refused(predictor: Predictor, instance: Array) -> None:
    with pytest.raises(InstanceInvalid, match="expected one instance, float32 of shape"):
        predictor.predict(instance)


def test_scores_that_overflow_are_refused(predictor: Predictor) -> None:
    with pytest.raises(InstanceInvalid, match="the network overflows on this instance"):
        predictor.predict(np.full(4, 3e38, np.float32))


def test_outputs_are_one_instance_s_without_the_batch_axis(predictor: Predictor) -> None:
    outputs = predictor.outputs(np.ones(4, np.float32))
    assert {name: output.shape for name, output in outputs.items()} == {"scores": (3,)}


def test_the_self_check_reports_what_it_found(predictor: Predictor, model: TinyModel) -> None:
    found = predictor.self_check(tiny_examples(model), TOLERANCES)
    assert found.num_examples == 3
    assert 0 <= found.max_differences["scores"] <= TOLERANCE
    assert found.median_seconds > 0


def test_the_self_check_reads_rows_as_a_client_sends_them(tmp_path: Path) -> None:
    features = (Feature(name="a"), Feature(name="b", categories=("u", "v", "w")))
    model = tiny_model((4,), features=features)
    recorded = model.oracle(np.array([2, 0, 1, 0], np.float32))
    example = Example(instance={"a": 2, "b": "v"}, outputs={"scores": tuple(recorded.tolist())})
    predictor = open_predictor(model.save(tmp_path / "m.onnx"), model.signature, device="cpu")
    assert predictor.self_check([example], TOLERANCES).num_examples == 1


def test_a_difference_beyond_the_tolerance_fails_the_self_check(predictor: Predictor, model: TinyModel) -> None:
    with pytest.raises(
        SelfCheckFailed, match=r"example 3 is answered otherwise than recorded: 'scores' differs by 0\.5"
    ):
        predictor.self_check(with_wrong_answer(tiny_examples(model)), TOLERANCES)


def test_an_example_that_can_not_be_compared_fails_the_self_check(predictor: Predictor, model: TinyModel) -> None:
    (example,) = tiny_examples(model, count=1)
    wrong = {
        "is no instance": replace(example, instance=[1.0]),
        "records the outputs": replace(example, outputs={"logits": (1.0, 2.0, 3.0)}),
        "records 1 values": replace(example, outputs={"scores": (1.0,)}),
        "differs by nan": replace(example, outputs={"scores": (float("nan"), 0.0, 0.0)}),
    }
    for said, broken in wrong.items():
        with pytest.raises(SelfCheckFailed, match=said):
            predictor.self_check([broken], TOLERANCES)
    with pytest.raises(SelfCheckFailed, match="allows no tolerance"):
        predictor.self_check([example], {})
