"""Claims about measuring a checkpoint: what was measured is kept, gone on from, and discarded when it does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from model_export.checkpoint import load_network, load_splits_of, read_checkpoint
from model_export.digest import digest_weights
from model_export.errors import StatisticsInvalid
from model_export.measuring import (
    MeasuringOptions,
    Statistics,
    Trained,
    as_trained,
    check_consistent,
    measure_statistics,
)
from model_export.networks import NetworkOptions
from model_export.pipeline import ExportRequest, build_bundle
from model_export.statistics import Progress, count_instances, describe_statistics, sample
from tests.model_export.bn_networks import Unreached, built, chain, instances
from tests.model_export.runs import small_run


def trained(tmp_path: Path, network: nn.Module | None = None) -> Trained:
    network = built(chain) if network is None else network
    network(instances(64, 6))
    return Trained(
        path=tmp_path / "best.ckpt",
        network=network,
        calibration=instances(64, 6),
        num_instances=64,
        data_sha256="d" * 64,
        batch_size=16,
    )


def measure(subject: Trained, **options: Any) -> tuple[Statistics, list[Progress]]:
    steps: list[Progress] = []
    return measure_statistics("exact", subject, MeasuringOptions(**options), tell=steps.append), steps


def assert_same(first: Statistics, second: Statistics) -> None:
    assert first.keys() == second.keys()
    for name, statistics in first.items():
        np.testing.assert_array_equal(second[name].mean, statistics.mean)
        np.testing.assert_array_equal(second[name].var, statistics.var)
        assert second[name].num_values == statistics.num_values


def test_what_was_measured_once_is_read_again_to_the_bit(tmp_path: Path) -> None:
    subject = trained(tmp_path)
    (first, steps), (second, again) = measure(subject), measure(subject)
    assert_same(first, second)
    assert steps
    assert not again


def test_an_interrupted_measurement_goes_on_with_the_wave_it_was_in(tmp_path: Path) -> None:
    subject = trained(tmp_path)
    whole, _ = measure(trained(tmp_path / "elsewhere"))

    class Interruption(BaseException):
        pass

    def interrupt(step: Progress) -> None:
        if step.wave == 2:
            raise Interruption

    with pytest.raises(Interruption):
        measure_statistics("exact", subject, MeasuringOptions(), tell=interrupt)
    kept = json.loads((tmp_path / "best.exact.json").read_text())
    assert (list(kept["layers"]), kept["complete"]) == (["0"], False)
    resumed, steps = measure(subject)
    assert {step.wave for step in steps} == {2, 3}
    assert_same(whole, resumed)


@pytest.mark.parametrize("change", ["weights", "data", "torn", "format"])
def test_a_file_that_does_not_fit_is_measured_again(tmp_path: Path, change: str) -> None:
    subject, path = trained(tmp_path), tmp_path / "best.exact.json"
    measure(subject)
    if change == "weights":
        subject.network[1].weight.data *= 1.1  # type: ignore[index]
    elif change == "data":
        subject = Trained(**{**vars(subject), "data_sha256": "e" * 64})
    elif change == "torn":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        path.write_text(path.read_text().replace('"format_version":1', '"format_version":2'))
    assert measure(subject)[1]


def test_a_sample_leaves_the_file_of_the_whole_alone(tmp_path: Path) -> None:
    subject = trained(tmp_path)
    measure(subject)
    before = (tmp_path / "best.exact.json").read_bytes()
    sampled, _ = measure(subject, samples=20)
    assert sampled["0"].num_values == 20
    assert (tmp_path / "best.exact.json").read_bytes() == before


def test_the_same_sample_is_drawn_each_time(tmp_path: Path) -> None:
    subject = trained(tmp_path)
    assert_same(measure(subject, samples=20)[0], measure(subject, samples=20)[0])


def test_a_folder_that_takes_no_files_only_costs_the_keeping(tmp_path: Path) -> None:
    subject = Trained(**{**vars(trained(tmp_path)), "path": tmp_path / "missing" / "best.ckpt"})
    assert measure(subject)[0]


@pytest.mark.parametrize("method", ["ema", "exact", "precise"])
def test_no_method_measures_what_forward_never_comes_to(tmp_path: Path, method: Any) -> None:
    subject = trained(tmp_path, built(Unreached))
    assert list(measure_statistics(method, subject, MeasuringOptions())) == ["bn"]


def test_the_digest_is_that_of_the_weights_and_not_of_the_averages() -> None:
    network = built(chain)
    before = digest_weights(network)
    network(instances(64, 6))
    assert digest_weights(network) == before
    network[1].bias.data[0] += 1e-6  # type: ignore[index]
    assert digest_weights(network) != before


def test_the_digest_knows_names_shapes_and_dtypes() -> None:
    def digests(*layers: nn.Module) -> str:
        torch.manual_seed(0)
        return digest_weights(nn.Sequential(*layers))

    weight = torch.arange(6.0)
    as_row, as_column = nn.Linear(6, 1, bias=False), nn.Linear(1, 6, bias=False)
    as_row.weight.data, as_column.weight.data = weight[None], weight[:, None]
    assert len({digests(as_row), digests(as_column), digests(nn.Identity(), as_row), digests(as_row.half())}) == 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("run"), network=NetworkOptions(hidden=(16, 8)), epochs=1).best_path


@pytest.mark.parametrize(("method", "samples"), [("exact", None), ("exact", 500), ("precise", None), ("ema", None)])
def test_an_export_says_how_its_statistics_were_taken(
    checkpoint: Path, tmp_path: Path, method: Any, samples: int | None
) -> None:
    options = MeasuringOptions(samples=samples)
    bundle = build_bundle(
        ExportRequest(checkpoint=checkpoint, out=tmp_path / "m" / "1", statistics=method, measuring=options)
    )
    report = bundle.manifest.statistics
    assert (report.method, report.num_instances, report.num_training_instances) == (method, samples or 1259, 1259)


def test_statistics_of_a_network_whose_code_was_changed_are_measured_again(checkpoint: Path) -> None:
    """The weights are the same, and so is their digest; what they do is not."""
    read = read_checkpoint(checkpoint)
    subject = as_trained(read, load_network(read), load_splits_of(read))
    right, _ = measure(subject)
    path = checkpoint.with_suffix(".exact.json")
    record = json.loads(path.read_text())
    record["layers"]["batchnorm2"]["mean"][0] += 1
    path.write_text(json.dumps(record))
    again, steps = measure(subject)
    assert steps
    assert_same(right, again)
    assert_same(right, measure(subject)[0])


class Random(nn.Module):
    """Drops values in inference mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.bn = nn.Linear(6, 6), nn.BatchNorm1d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.bn(torch.dropout(self.linear(x), 0.5, train=True))
        return out


def test_a_network_that_answers_at_random_is_refused(tmp_path: Path) -> None:
    subject = trained(tmp_path, built(Random))
    statistics, _ = measure(subject)
    layers = describe_statistics(subject.network, statistics, subject.calibration)
    with pytest.raises(StatisticsInvalid, match=r"'bn' sees other inputs each time.*answers at random"):
        check_consistent(subject.network, statistics, layers)


def test_a_mean_far_above_its_spread_is_rounding_and_no_change(tmp_path: Path) -> None:
    data = 1.7e9 + 1000 * instances(64, 6).double()
    subject = Trained(**{**vars(trained(tmp_path)), "calibration": data.float()})
    statistics, _ = measure(subject)
    check_consistent(subject.network, statistics, describe_statistics(subject.network, statistics, data.float()))


@pytest.mark.parametrize(
    "damage", [{"mean": [0.0]}, {"var": [-1.0] * 6}, {"var": [1e301] * 6}, {"num_values": 0}, {"num_values": 10**400}]
)
def test_a_damaged_file_is_measured_again(tmp_path: Path, damage: dict[str, Any]) -> None:
    subject, path = trained(tmp_path), tmp_path / "best.exact.json"
    right, _ = measure(subject)
    record = json.loads(path.read_text())
    record["layers"]["0"] |= damage
    path.write_text(json.dumps(record))
    again, steps = measure(subject)
    assert steps
    assert_same(right, again)


def test_a_file_nested_without_end_is_measured_again(tmp_path: Path) -> None:
    subject = trained(tmp_path)
    (tmp_path / "best.exact.json").write_text('{"layers":' + "[" * 100_000)
    assert measure(subject)[1]


def test_a_sample_of_a_stream_is_its_first_batches_and_counted(tmp_path: Path) -> None:
    stream = list(torch.split(instances(64, 6), 10))
    subject = Trained(**{**vars(trained(tmp_path)), "calibration": stream})
    assert measure(subject, samples=25)[0]["0"].num_values == 30
    assert count_instances(sample(stream, 25)) == 30
    with pytest.raises(StatisticsInvalid, match="--samples is 65: the training set has 64 instances"):
        measure(subject, samples=65)


def test_a_batchnorm_of_two_names_counts_once_in_the_digest() -> None:
    batchnorm = nn.BatchNorm1d(6)
    network = nn.ModuleDict({"first": batchnorm, "second": batchnorm})
    before = digest_weights(network)
    batchnorm(instances(8, 6))
    assert digest_weights(network) == before
