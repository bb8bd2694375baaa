"""Claims about the audit: it catches the classic failures of moving averages, and its numbers are what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from model_export.audit import AgainstExact, Audit, Subject, audit
from model_export.audit.advice import advise
from model_export.audit.trained import audit_trained
from model_export.audit.values import Choice, LayerAudit
from model_export.checkpoint import load_network, load_splits_of, read_checkpoint
from model_export.commands.present import make_console
from model_export.commands.statistics import StatisticsCommand, run_statistics
from model_export.data import Split
from model_export.errors import ExportError
from model_export.freeze import freeze
from model_export.measuring import MeasuringOptions, as_trained
from model_export.networks import NetworkOptions
from model_export.statistics import estimate_statistics, moving_average_statistics, named_batchnorms
from tests.model_export.bn_networks import Unreached, built, instances
from tests.model_export.runs import small_run

# float32 buffers and weights: one rounding of 6e-8, and a square root.
FLOAT32 = 1e-6
FIFTY_STEPS: dict[str, Any] = {"epochs": 1, "batch_size": 26, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def fifty_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose averages had 49 steps of momentum 0.01: 61 % of them are the initial mean 0 and variance 1."""
    network = NetworkOptions(hidden=(50,) * 6, momentum=0.01)
    return small_run(tmp_path_factory.mktemp("fifty"), network=network, **FIFTY_STEPS).best_path


def audited(path: Path, **options: Any) -> Audit:
    checkpoint = read_checkpoint(path)
    splits = load_splits_of(checkpoint)
    trained = as_trained(checkpoint, load_network(checkpoint), splits)
    return audit_trained(trained, splits.valid, MeasuringOptions(**options))[0]


def test_after_fifty_steps_of_momentum_0_01_the_moving_average_is_not_usable(fifty_steps: Path) -> None:
    found = audited(fifty_steps)
    ema, exact = found.choice("ema").accuracy, found.choice("exact").accuracy
    assert ema is not None
    assert exact is not None
    assert not found.usable
    assert f"not usable: it costs {(exact - ema) * 100:.1f} points of validation accuracy" in found.advice
    assert "after 49 steps with momentum 0.01 the initial mean 0 and variance 1 still weigh 61% in it" in found.advice
    assert exact - ema > 0.03


def test_each_accuracy_is_that_of_the_network_frozen_so(fifty_steps: Path) -> None:
    found, checkpoint = audited(fifty_steps), read_checkpoint(fifty_steps)
    network, splits = load_network(checkpoint), load_splits_of(checkpoint)
    for method, statistics in (
        ("ema", moving_average_statistics(network)),
        ("exact", estimate_statistics(network, splits.train.instances)),
    ):
        with torch.no_grad():
            answers = freeze(network, statistics)(torch.from_numpy(splits.valid.instances)).argmax(dim=1).numpy()
        assert found.choice(method).accuracy == np.mean(answers == splits.valid.labels)  # type: ignore[arg-type]


def test_a_well_trained_network_may_keep_its_moving_averages(tmp_path: Path) -> None:
    found = audited(small_run(tmp_path, epochs=8, batch_size=64).best_path)
    assert found.usable
    assert found.subject.weights_match is True
    assert found.advice.startswith("Either will do")


def test_weights_changed_after_the_averages_are_seen_by_their_digest(tmp_path: Path) -> None:
    """As when two checkpoints' weights are averaged and the statistics of one are kept."""
    path = small_run(tmp_path, epochs=8, batch_size=64).best_path
    content = torch.load(path, weights_only=True)
    content["state_dict"]["network.dense1.weight"] *= 0.9
    torch.save(content, path)
    found = audited(path)
    assert found.subject.weights_match is False
    assert "it was kept with other weights than the checkpoint now holds" in found.advice


def images(num: int) -> torch.Tensor:
    """Each of its own brightness: most of the variance lies between instances."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num, 1, 8, 8, generator=generator) + 3 * torch.randn(num, 1, 1, 1, generator=generator)


def audit_of(network: nn.Module, data: torch.Tensor, **subject: Any) -> Audit:
    exact = estimate_statistics(network, data)
    unreached = [name for name in named_batchnorms(network) if name not in exact]
    with torch.no_grad():  # so that exact statistics are right by definition
        labels = freeze(network, exact, unreached=unreached)(data[:50]).argmax(dim=1).numpy()
    split = Split(data[:50].numpy(), labels)
    return audit(
        network,
        {"ema": moving_average_statistics(network, unreached=unreached), "exact": exact},
        calibration=data,
        valid=split,
        subject=Subject(
            **{"num_instances": len(data), "num_training_instances": len(data), "batch_size": 64, **subject}
        ),
    )


def convnet() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


def test_averages_over_batches_of_one_are_seen_by_their_variance() -> None:
    network, data = built(convnet), images(400)
    for instance in data:
        network(instance[None])
    found = audit_of(network, data)
    assert "the batches it was taken over vary less than the training set" in found.advice
    assert "as very small batches or sorted ones do" in found.advice


def test_averages_that_lag_behind_the_weights_are_seen_by_their_distance() -> None:
    network, data = built(convnet), images(400)
    for start in range(0, 400, 50):
        for _ in range(20):
            network(data[start : start + 50])
    network[0].bias.data += 5  # type: ignore[index]
    found = audit_of(network, data)
    assert "it lags behind the weights or was taken over other data (at 1 the mean is off by" in found.advice


def test_shift_ratio_and_their_channels_are_those_of_the_definition() -> None:
    network, data = built(lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2))), instances(100, 6)
    network(data)
    (layer,) = audit_of(network, data).layers
    average, exact = moving_average_statistics(network)["0"], estimate_statistics(network, data)["0"]
    shift = np.abs(average.mean - exact.mean) / np.sqrt(exact.var + 1e-5)
    ratio = np.sqrt((average.var + 1e-5) / (exact.var + 1e-5))
    found = layer.against_exact
    assert found is not None
    assert found.mean_shift == pytest.approx(shift.max(), rel=FLOAT32)
    assert found.mean_shift_channel == shift.argmax()
    assert found.std_ratio == pytest.approx(ratio[np.abs(np.log(ratio)).argmax()], rel=FLOAT32)
    assert (layer.num_steps, layer.initial_weight) == (1, 0.9)
    assert layer.smallest_var == pytest.approx(exact.var.min(), rel=FLOAT32)


def test_channels_that_are_dead_or_amplify_or_overflow_float16_are_named() -> None:
    network, data = built(lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2))), instances(100, 6)
    data[:, 1] = 7.0  # never varies
    data[:, 2] *= 1e-3  # σ is 3e-3, and so is the root of eps
    data[:, 3] *= 1e3  # σ² is 9e6
    network[0].weight.data[2], network[0].weight.data[4] = 20.0, 0.0  # type: ignore[index]
    network(data)
    found = audit_of(network, data)
    (layer,) = found.layers
    assert layer.dead_channels == (1, 4)
    assert layer.amplifying_channels == (2,)
    assert layer.float16_channels == (3,)
    assert [caution.split(":")[0] for caution in found.cautions] == ["0"] * 4
    assert "2 channels (1, 4) are dead" in found.cautions[0]


def test_averages_that_are_no_numbers_are_told_and_exact_ones_advised() -> None:
    found = Audit(
        subject=Subject(num_instances=10, num_training_instances=10, batch_size=2),
        layers=audit_of(trained_once(), instances(60, 6)).layers,
        choices=(
            Choice(method="ema", problem="BatchNorm '0' has NaN: train again"),
            Choice(method="exact", accuracy=0.5, loss=1.0),
        ),
        num_valid=50,
        num_right_with_exact_only=0,
        num_right_with_ema_only=0,
    )
    assert advise(found).advice == (
        "The moving average is not usable (BatchNorm '0' has NaN): export with exact statistics, the default."
    )


def trained_once() -> nn.Module:
    network = built(lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2)))
    network(instances(60, 6))
    return network


def test_batchnorms_that_forward_never_comes_to_are_reported() -> None:
    network, data = built(Unreached), instances(60, 6)
    network(data)
    found = audit_of(network, data)
    assert found.unreached == ("forgotten", "auxiliary")
    assert "forgotten: forward never comes to it" in found.cautions[0]


def test_a_network_without_batchnorm_has_nothing_to_freeze(tmp_path: Path) -> None:
    network = NetworkOptions(hidden=(16,), placement="none")
    assert "nothing to freeze" in audited(small_run(tmp_path, network=network, epochs=1).best_path).advice


LAYER = LayerAudit(
    batchnorm="bn",
    num_channels=1,
    eps=1e-5,
    momentum=0.1,
    num_steps=1000,
    initial_weight=0.0,
    against_exact=AgainstExact(
        mean_shift=0.01, mean_shift_channel=0, std_ratio=1.01, std_ratio_channel=0, median_std_ratio=1.0
    ),
    residuals={},
    smallest_var=1.0,
    max_gain=1.0,
)


def advised(num_valid: int, more: int, fewer: int, **layer: Any) -> Audit:
    exact = 0.5 + (more - fewer) / num_valid
    return advise(
        Audit(
            subject=Subject(num_instances=10, num_training_instances=10, batch_size=2),
            layers=(replace(LAYER, **layer),),
            choices=(Choice(method="ema", accuracy=0.5, loss=1.0), Choice(method="exact", accuracy=exact, loss=1.0)),
            num_valid=num_valid,
            num_right_with_exact_only=more,
            num_right_with_ema_only=fewer,
        )
    )


@given(st.integers(1, 500), st.integers(0, 500), st.floats(0, 1), st.floats(0, 3), st.floats(0.1, 5))
def test_advice_is_one_sentence_and_never_calls_what_costs_nothing_unusable(
    more: int, fewer: int, initial: float, shift: float, ratio: float
) -> None:
    assert LAYER.against_exact is not None
    off = replace(LAYER.against_exact, mean_shift=shift, std_ratio=ratio)
    found = advised(1000, more, fewer, initial_weight=initial, against_exact=off)
    assert found.advice.endswith(".")
    assert "\n" not in found.advice
    assert found.usable == ("not usable" not in found.advice)
    if more <= fewer:
        assert found.usable
    if more - fewer > 2 * (more + fewer) ** 0.5 and more - fewer > 5:
        assert not found.usable


def test_a_network_that_counts_on_its_batches_is_told_to_keep_the_average() -> None:
    assert advised(1000, 0, 100).advice.startswith("Export with --statistics ema")


def test_a_sample_that_is_too_small_is_not_held_against_the_network() -> None:
    small = replace(advised(1000, 0, 100), subject=Subject(num_instances=5, num_training_instances=900, batch_size=2))
    assert advise(small).advice.startswith("A sample of 5 instances is too small to say")


def test_averages_whose_steps_were_not_counted_are_not_called_young() -> None:
    """As in converted checkpoints; and with the plain average, whose momentum is None."""
    network = built(lambda: nn.Sequential(nn.BatchNorm1d(6, momentum=None), nn.Linear(6, 2)))
    data = instances(60, 6)
    network(data)
    network[0].num_batches_tracked.zero_()  # type: ignore[index]
    found = audit_of(network, data)
    assert found.layers[0].initial_weight is None
    assert "initial mean" not in found.advice


def run(path: Path, **changes: Any) -> Audit:
    flags: dict[str, Any] = {"samples": None, "batch_size": 256, "cache_memory": "2GiB", "device": "cpu"}
    flags |= {"json_path": None, "quiet": True, **changes}
    return run_statistics(StatisticsCommand(checkpoint=path, **flags), make_console())


def test_the_command_shows_each_layer_and_ends_in_the_advice(
    fifty_steps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(fifty_steps)
    shown = capsys.readouterr().out
    assert all(layer.batchnorm in shown for layer in found.layers)
    assert shown.rstrip().splitlines()[-1].removeprefix("Advice: ").startswith(found.advice[:40])
    assert max(len(line) for line in shown.splitlines() if line.startswith(" batchnorm")) <= 80


def test_the_command_writes_all_that_was_found(fifty_steps: Path, tmp_path: Path) -> None:
    found = run(fifty_steps, json_path=tmp_path / "audit.json")
    assert msgspec.json.decode((tmp_path / "audit.json").read_bytes(), type=Audit) == found


def test_a_sample_is_called_one(fifty_steps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(fifty_steps, samples=300)
    assert (found.subject.num_instances, found.subject.num_training_instances) == (300, 1259)
    assert "over a sample of 300 of 1259 training instances" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"samples": 1}, "--samples is 1: expected 2 at least"),
        ({"samples": 5000}, "--samples is 5000: the training set has 1259 instances"),
        ({"cache_memory": "much"}, "--cache-memory is 'much': expected an amount of memory, such as 2GiB"),
        ({"cache_memory": "-1"}, "--cache-memory is '-1': expected"),
        ({"batch_size": 0}, "batch size must be at least 1, not 0"),
        ({"device": "tpu"}, "--device is 'tpu': expected one of auto, cuda, cpu"),
        ({"json_path": Path("/nowhere/audit.json")}, "--json /nowhere/audit.json: can not be written"),
    ],
)
def test_bad_flags_are_refused_by_name(fifty_steps: Path, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        run(fifty_steps, **flags)
