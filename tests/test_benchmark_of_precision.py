"""The benchmark of precisions: every precision is measured on the same network, and the report shows all. Not timed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import precision as cost
from benchmarks.models import Shape, build_model, random_instances
from model_export.data import Split
from service.predictor import open_predictor

SMALL = Shape(name="small", instance_shape=(2, 3), hidden=(7, 5), num_labels=3)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> cost.Subject:
    """A small network, held out with the labels that it gives itself in float32: its accuracy is 1."""
    path = build_model(SMALL, tmp_path_factory.mktemp("models")).bundle.model_path
    instances = random_instances(SMALL, 200)
    predictor = open_predictor(path, device="cpu")
    labels = np.array([predictor.predict(instance).index for instance in instances], dtype=np.int64)
    return cost.Subject("small", path, instances, Split(instances, labels))


def test_each_precision_is_timed_and_judged_against_float32(subject: cost.Subject, tmp_path: Path) -> None:
    rows = cost.measure(subject, tmp_path, num_blocks=2)
    assert [row.precision for row in rows] == ["fp32", "fp16", "int8"]
    assert min(row.microseconds for row in rows) > 0
    assert rows[0].ratio == 1.0
    assert [row.quality.largest > 0 for row in rows if row.quality] == [False, True, True]
    assert all(row.quality and row.quality.accuracy == row.quality.agreement for row in rows)


def test_int8s_choices_are_each_changed_alone(subject: cost.Subject, tmp_path: Path) -> None:
    choices = cost.measure_choices(subject, tmp_path)
    assert choices[0].choice == "as chosen"
    assert len(choices) == 6
    text = cost.render((), choices, {"CPU": "a small one"})
    assert len(re.findall(r"^\| small \|", text, re.MULTILINE)) == 6


def test_a_network_with_random_weights_has_no_accuracy(subject: cost.Subject, tmp_path: Path) -> None:
    unlabelled = cost.Subject("small", subject.path, subject.calibration)
    rows = cost.measure(unlabelled, tmp_path, num_blocks=1)
    assert {row.quality for row in rows} == {None}
    assert cost.measure_choices(unlabelled, tmp_path) == ()
    assert "| small | int8 |" in cost.render(rows, (), {"CPU": "a small one"})
