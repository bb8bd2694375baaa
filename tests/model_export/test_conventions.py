"""Claims about other frameworks' BatchNorms: what they store, that it is taken over as it is, and how it is converted.

`UPDATES` is the oracle: each framework's own update rule, written out from its source, in float64. Real PyTorch, ONNX
and Keras (which trains the same network, `keras_training`) are held against it or against the conversion.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from model_export.errors import StatisticsInvalid
from model_export.statistics.conventions import (
    FLAX,
    KERAS,
    ONNX,
    PYTORCH,
    TENSORFLOW_FUSED,
    Convention,
    StoredBatchNorm,
    convert_averages,
    import_batchnorm,
    share_taken,
)
from tests.model_export.keras_training import BATCH_SIZE, LEARNING_RATE, NUM_POSITIONS, NUM_STEPS

Floats = NDArray[np.float64]

# float64 keeps 2e-16 of each number; some hundred steps of a moving average stay far below this.
ALGEBRA = 1e-12
# One float32 rounding of each input, weight and statistic: answers of small networks differ by 1e-6.
FLOAT32 = 1e-5

# Old average, batch of shape (n, C), momentum in the framework's own sense → new average.
UPDATES: dict[str, Callable[[Floats, Floats, float], Floats]] = {
    "Keras": lambda old, batch, m: old * m + batch.var(0) * (1 - m),
    "TensorFlow (fused)": lambda old, batch, m: (
        (1 - (1 - m)) * old + ((1 - m) * (len(batch) / (len(batch) - 1))) * batch.var(0)
    ),
    "PyTorch": lambda old, batch, m: (1 - m) * old + m * batch.var(0, ddof=1),
    "Flax": lambda old, batch, m: m * old + (1 - m) * batch.var(0),
    "ONNX": lambda old, batch, m: old * m + batch.var(0) * (1 - m),
}
STARTING_AT_ONE = [KERAS, TENSORFLOW_FUSED, PYTORCH, FLAX]
EVERY_CONVENTION = [*STARTING_AT_ONE, ONNX]


def batches(num_steps: int, num_values: int, num_channels: int = 3) -> Floats:
    return np.random.default_rng(0).normal(2.0, 3.0, size=(num_steps, num_values, num_channels))


def averaged(convention: Convention, data: Floats, taken: float) -> Floats:
    """The variance that a framework has stored after all of `data`, from the initial 1."""
    momentum = taken if convention is PYTORCH else 1 - taken
    var = np.ones(data.shape[2])
    for batch in data:
        var = UPDATES[convention.name](var, batch, momentum)
    return var


def stored(var: Floats, convention: Convention = KERAS, **changes: Any) -> StoredBatchNorm:
    """A layer with γ, β and μ of its own, unless they are changed."""
    rng = np.random.default_rng(1)
    values: dict[str, Any] = {name: rng.normal(size=len(var)) for name in ("weight", "bias", "mean")}
    return StoredBatchNorm(convention=convention, var=var, **values | changes)


def answer(layer: StoredBatchNorm, x: Floats, eps: float) -> Floats:
    """The oracle of inference, channels last."""
    weight = 1.0 if layer.weight is None else layer.weight
    bias = 0.0 if layer.bias is None else layer.bias
    normalised: Floats = weight * (x - layer.mean) / np.sqrt(layer.var + eps) + bias
    return normalised


# What the frameworks do


@pytest.mark.parametrize("name", ["momentum", "eps"])
def test_the_defaults_of_pytorch_are_those_of_the_installed_one(name: str) -> None:
    assert getattr(nn.BatchNorm1d(2), name) == getattr(PYTORCH, name)


def test_pytorch_starts_from_and_stores_what_its_convention_says() -> None:
    data, batchnorm = batches(40, 8), nn.BatchNorm1d(3, dtype=torch.float64)
    assert batchnorm.running_mean is not None
    assert batchnorm.running_var is not None
    assert batchnorm.running_mean.tolist() == [PYTORCH.initial_mean] * 3
    assert batchnorm.running_var.tolist() == [PYTORCH.initial_var] * 3
    for batch in data:
        batchnorm(torch.from_numpy(batch))
    expected = averaged(PYTORCH, data, PYTORCH.momentum)
    np.testing.assert_allclose(batchnorm.running_var.numpy(), expected, rtol=ALGEBRA)


def test_the_defaults_of_onnx_are_those_of_its_schema() -> None:
    attributes = onnx.defs.get_schema("BatchNormalization").attributes
    assert attributes["momentum"].default_value.f == np.float32(ONNX.momentum)
    assert attributes["epsilon"].default_value.f == np.float32(ONNX.eps)


def test_onnx_stores_what_its_convention_says() -> None:
    (batch,), old = batches(1, 8), np.array([1.0, 2.0, 3.0])
    node = onnx.helper.make_node(
        "BatchNormalization", ["x", "scale", "b", "mean", "var"], ["y", "new_mean", "new_var"], training_mode=1
    )
    inputs = {"x": batch, "scale": np.ones(3), "b": np.zeros(3), "mean": np.zeros(3), "var": old}
    _, _, new = map(np.asarray, ReferenceEvaluator(node).run(None, inputs))
    np.testing.assert_allclose(new, UPDATES["ONNX"](old, batch, ONNX.momentum), rtol=1e-6)  # its momentum is float32


# Converting the averages


@given(
    source=st.sampled_from(STARTING_AT_ONE),
    target=st.sampled_from(EVERY_CONVENTION),
    num_values=st.integers(2, 40),
    num_steps=st.integers(0, 60),
    taken=st.floats(0.0, 0.5),
)
def test_converted_averages_are_those_the_other_framework_would_have_stored(
    source: Convention, target: Convention, num_values: int, num_steps: int, taken: float
) -> None:
    data = batches(num_steps, num_values)
    momentum = taken if source is PYTORCH else 1 - taken
    layer = stored(averaged(source, data, taken), source, momentum=momentum)
    converted = convert_averages(layer, target, num_values=num_values, num_steps=num_steps)
    np.testing.assert_allclose(converted.var, averaged(target, data, taken), rtol=ALGEBRA)
    np.testing.assert_array_equal(converted.mean, layer.mean)
    assert share_taken(converted) == pytest.approx(taken, abs=ALGEBRA)


def test_the_initial_share_must_not_be_scaled() -> None:
    """What `num_steps` is for: scaling all of the variance is wrong by initial share/(n − 1)."""
    data = batches(100, 8)
    layer = stored(averaged(KERAS, data, 0.01))
    expected = averaged(PYTORCH, data, 0.01)
    ignored = convert_averages(layer, PYTORCH, num_values=8, num_steps=None)
    np.testing.assert_allclose(ignored.var - expected, 0.99**100 / 7, rtol=1e-9)


def test_after_many_steps_the_number_of_steps_makes_no_difference() -> None:
    layer = stored(averaged(KERAS, batches(300, 8), 0.2), momentum=0.8)
    counted = convert_averages(layer, PYTORCH, num_values=8, num_steps=300)
    np.testing.assert_allclose(
        convert_averages(layer, PYTORCH, num_values=8, num_steps=None).var, counted.var, rtol=ALGEBRA
    )


def test_converting_keeps_eps_and_leaves_the_original_as_it_was() -> None:
    layer = stored(np.full(3, 2.0))
    converted = convert_averages(layer, PYTORCH, num_values=8, num_steps=None)
    assert import_batchnorm(converted, nn.BatchNorm1d).eps == KERAS.eps
    np.testing.assert_array_equal(layer.var, np.full(3, 2.0))
    np.testing.assert_allclose(converted.var, 2.0 * 8 / 7, rtol=ALGEBRA)


def test_training_that_goes_on_from_converted_averages_ends_as_if_it_had_all_been_in_pytorch() -> None:
    data = batches(60, 8)
    layer = stored(averaged(KERAS, data[:40], 0.01))
    converted = convert_averages(layer, PYTORCH, num_values=8, num_steps=40)
    from_converted, as_stored = (
        import_batchnorm(each, nn.BatchNorm1d, dtype=torch.float64) for each in (converted, layer)
    )
    for batch in data[40:]:
        from_converted(torch.from_numpy(batch))
        as_stored(torch.from_numpy(batch))
    expected = averaged(PYTORCH, data, 0.01)
    np.testing.assert_allclose(_running_var(from_converted), expected, rtol=ALGEBRA)
    assert np.abs(_running_var(as_stored) - expected).min() > 0.1  # σ² is 9, a third of it from batches: 1/7 of that


# Importing a layer


@pytest.mark.parametrize("convention", EVERY_CONVENTION, ids=lambda convention: convention.name)
@pytest.mark.parametrize("without", [(), ("weight",), ("bias",), ("weight", "bias")], ids=str)
def test_an_imported_layer_answers_with_the_statistics_as_they_are_stored(
    convention: Convention, without: tuple[str, ...]
) -> None:
    layer = stored(np.array([0.01, 2.0, 300.0]), convention, **dict.fromkeys(without))
    (x,) = batches(1, 20)
    imported = import_batchnorm(layer, nn.BatchNorm1d, dtype=torch.float64).eval()
    np.testing.assert_allclose(imported(torch.from_numpy(x)).detach(), answer(layer, x, convention.eps), rtol=ALGEBRA)
    learning = {name for name, parameter in imported.named_parameters() if parameter.requires_grad}
    assert learning == {"weight", "bias"} - set(without)


def test_converting_changes_the_answers() -> None:
    """Why it must be asked for: nobody who imports a trained network expects other answers."""
    layer = stored(np.full(3, 2.0))
    converted = convert_averages(layer, PYTORCH, num_values=8, num_steps=None)
    (x,) = batches(1, 20)
    difference = answer(converted, x, KERAS.eps) - answer(layer, x, KERAS.eps)
    assert np.abs(difference).max() > 0.05 * np.abs(answer(layer, x, KERAS.eps)).max()


@pytest.mark.parametrize("layer", [nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm])
def test_channels_go_from_the_last_axis_to_axis_1(layer: type[_BatchNorm]) -> None:
    x = np.random.default_rng(2).normal(size=(2, 4, 5, 6, 3) if layer is nn.BatchNorm3d else (2, 4, 5, 3))
    original = stored(np.array([0.5, 1.0, 2.0]))
    imported = import_batchnorm(original, layer, dtype=torch.float64).eval()
    found = imported(torch.from_numpy(np.moveaxis(x, -1, 1))).detach().numpy()
    np.testing.assert_allclose(np.moveaxis(found, 1, -1), answer(original, x, KERAS.eps), rtol=0, atol=ALGEBRA * 100)


def test_the_eps_and_momentum_of_the_layer_itself_come_before_the_defaults() -> None:
    imported = import_batchnorm(stored(np.ones(3), momentum=0.9, eps=1e-2), nn.BatchNorm1d)
    assert imported.eps == 1e-2
    assert imported.momentum == pytest.approx(0.1)


@pytest.mark.parametrize("convention", EVERY_CONVENTION, ids=lambda convention: convention.name)
def test_left_out_eps_and_momentum_are_those_of_the_convention(convention: Convention) -> None:
    imported = import_batchnorm(stored(np.ones(3), convention), nn.BatchNorm1d)
    assert imported.eps == convention.eps
    assert imported.momentum == pytest.approx(
        {"Keras": 0.01, "TensorFlow (fused)": 0.01, "Flax": 0.01}.get(convention.name, 0.1)
    )


def test_an_imported_layer_learns_its_own_and_leaves_the_arrays_alone() -> None:
    layer = stored(np.ones(3))
    assert layer.weight is not None
    kept = layer.weight.copy(), layer.mean.copy()
    imported = import_batchnorm(layer, nn.BatchNorm1d, dtype=torch.float64)
    imported(torch.from_numpy(batches(1, 8)[0])).square().sum().backward()
    torch.optim.SGD(imported.parameters(), lr=0.1).step()
    assert not np.array_equal(imported.weight.detach().numpy(), kept[0])
    np.testing.assert_array_equal(layer.weight, kept[0])
    np.testing.assert_array_equal(layer.mean, kept[1])


# What is refused

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.ones(2)}, r"one and the same shape \(channels,\), but have weight \(2,\), bias \(3,\)"),
        ({"mean": np.zeros((1, 1, 3))}, r"mean \(1, 1, 3\).*one layer that normalises one axis"),
        ({"mean": np.array([0.0, NAN, 0.0])}, "NaN or infinity as mean, in channels 1.*before the training diverged"),
        ({"weight": np.array([INFINITY, 1.0, 1.0])}, "NaN or infinity as weight, in channels 0"),
        ({"var": np.array([1.0, 1.0, -1e-9])}, "negative variance, in channels 2.*are in order.*put 0 there"),
        ({"eps": -1e-3}, "the eps -0.001: .* 0 or above"),
        ({"eps": NAN}, "the eps nan: it must be a finite number"),
        (
            {"momentum": 1.5},
            "momentum 1.5: it must be from 0 to 1, the share of the old average that is kept, in Keras",
        ),
        ({"momentum": NAN}, "it must be from 0 to 1"),
        ({"momentum": 0.01}, "momentum 0.01, which in Keras is the share of the old average .* Pass 0.99 if"),
        (
            {"momentum": 0.99, "convention": PYTORCH},
            "momentum 0.99, which in PyTorch is the share of the new batch .* Pass 0.01 if .* set it on the imported",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_can_not_be_a_layer_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StatisticsInvalid, match=f"BatchNorm 'bn1'.*{message}"):
        stored(changes.pop("var", np.ones(3)), name="bn1", **changes)


def test_half_is_a_momentum_in_both_senses() -> None:
    assert (
        share_taken(stored(np.ones(3), momentum=0.5)) == share_taken(stored(np.ones(3), PYTORCH, momentum=0.5)) == 0.5
    )


@pytest.mark.parametrize("name", ["weight", "bias", "mean", "var"])
def test_a_value_too_large_for_the_dtype_is_refused(name: str) -> None:
    values = {"var": np.ones(3), name: np.array([1.0, 1e6, 1.0])}
    layer = stored(values.pop("var"), KERAS, **values)
    with pytest.raises(StatisticsInvalid, match=r"too large.* in channels 1"):
        import_batchnorm(layer, nn.BatchNorm1d, dtype=torch.float16)


def test_a_layer_that_would_divide_by_zero_is_refused() -> None:
    with pytest.raises(StatisticsInvalid, match="divide by zero: channels 1"):
        import_batchnorm(stored(np.array([1.0, 0.0, 1.0]), eps=0.0), nn.BatchNorm1d)


@pytest.mark.parametrize(
    ("convention", "counts", "message"),
    [
        (KERAS, {"num_values": 1, "num_steps": 10}, "batches of 1 values a channel.* at least 2"),
        (KERAS, {"num_values": 8, "num_steps": -1}, "can not have moved its averages -1 times"),
        (
            KERAS,
            {"num_values": 8, "num_steps": 10},
            "less variance in channels 0 than the 0.904 that 10 steps leave.*count",
        ),
        (ONNX, {"num_values": 8, "num_steps": 10}, "not known: ONNX takes it .* num_steps=None"),
    ],
)
def test_a_history_that_can_not_be_is_refused(convention: Convention, counts: dict[str, int], message: str) -> None:
    layer = stored(np.array([0.5, 1.0, 2.0]), convention, name="bn1")
    with pytest.raises(StatisticsInvalid, match=f"BatchNorm 'bn1'.*{message}"):
        convert_averages(layer, PYTORCH, **counts)


def test_a_constant_channel_is_no_impossible_history() -> None:
    """In float32 0.9 is a little less than 0.9, and 100 products of it are less than 0.9¹⁰⁰."""
    var = np.float32(1.0)
    for _ in range(100):
        var *= np.float32(0.9)
    assert var < 0.9**100
    layer = stored(np.array([var]), momentum=0.9)
    converted = convert_averages(layer, PYTORCH, num_values=8, num_steps=100)
    np.testing.assert_allclose(converted.var, 0.9**100, rtol=FLOAT32)


# The same network, trained by Keras and by PyTorch

# float32, in which Keras sums in another order and takes variances as E[x²] − E[x]²: 1e-7 at each step. After 300 steps
# weights and averages differ by 2e-6 of the largest. The conversion changes 1/7 or 1/127.
TRAINED_ALIKE = 2e-5
# n of each BatchNorm: 8 vectors, or 8 images of 16 positions.
NUM_VALUES = {
    "both": BATCH_SIZE * NUM_POSITIONS,
    "bias_only": BATCH_SIZE,
    "weight_only": BATCH_SIZE,
    "neither": BATCH_SIZE,
}
NOT_DEFAULT: dict[str, dict[str, float]] = {"weight_only": {"momentum": 0.95, "eps": 1e-2}}

every_batchnorm = pytest.mark.parametrize("name", NUM_VALUES)


@dataclass(frozen=True)
class Training:
    """What Keras did: its data, its variables before and after, and what it answered to the first batch in the end."""

    arrays: dict[str, NDArray[Any]]

    def batchnorm(self, name: str, when: str) -> StoredBatchNorm:
        return StoredBatchNorm(
            convention=KERAS,
            weight=self.arrays.get(f"{when}/{name}/gamma"),
            bias=self.arrays.get(f"{when}/{name}/beta"),
            mean=self.arrays[f"{when}/{name}/moving_mean"],
            var=self.arrays[f"{when}/{name}/moving_variance"],
            name=name,
            momentum=NOT_DEFAULT.get(name, {}).get("momentum"),
            eps=NOT_DEFAULT.get(name, {}).get("eps"),
        )

    def network(self, when: str) -> nn.Sequential:
        """The network in PyTorch, as Keras had it then."""
        layers: dict[str, nn.Module] = {
            "conv": self._conv(when),
            "both": self._import("both", nn.BatchNorm2d, when),
            "relu": nn.ReLU(),
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "dense0": self._linear("dense0", when),
            "bias_only": self._import("bias_only", nn.BatchNorm1d, when),
            "tanh0": nn.Tanh(),
            "dense1": self._linear("dense1", when),
            "weight_only": self._import("weight_only", nn.BatchNorm1d, when),
            "tanh1": nn.Tanh(),
            "neither": self._import("neither", nn.BatchNorm1d, when),
            "dense2": self._linear("dense2", when),
        }
        return nn.Sequential(OrderedDict(layers))

    def images(self) -> torch.Tensor:
        """All batches, shape (steps, N, C, H, W)."""
        return torch.from_numpy(np.moveaxis(self.arrays["x"], -1, 2).copy())

    def _import(self, name: str, layer: type[_BatchNorm], when: str) -> _BatchNorm:
        return import_batchnorm(self.batchnorm(name, when), layer)

    def _conv(self, when: str) -> nn.Conv2d:
        kernel = self.arrays[f"{when}/conv/kernel"]
        conv = nn.Conv2d(kernel.shape[2], kernel.shape[3], kernel.shape[0], bias=False)
        conv.weight = nn.Parameter(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
        return conv

    def _linear(self, name: str, when: str) -> nn.Linear:
        kernel, bias = self.arrays[f"{when}/{name}/kernel"], self.arrays.get(f"{when}/{name}/bias")
        linear = nn.Linear(kernel.shape[0], kernel.shape[1], bias=bias is not None)
        linear.weight = nn.Parameter(torch.from_numpy(kernel.T.copy()))
        if bias is not None:
            linear.bias = nn.Parameter(torch.from_numpy(bias.copy()))
        return linear


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """What Keras did; its settings would go to ~/.keras otherwise."""
    if find_spec("keras") is None:
        pytest.skip("needs the extra `networks`")
    folder = tmp_path_factory.mktemp("keras")
    subprocess.run(
        [sys.executable, "-m", "tests.model_export.keras_training", folder],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder / "settings")},
        capture_output=True,
        text=True,
        check=True,
    )
    return Training(dict(np.load(folder / "training.npz")))


@pytest.fixture(scope="module")
def pytorch(keras: Training) -> nn.Sequential:
    """The same, trained by PyTorch from the same weights on the same batches."""
    network = keras.network("before").train()
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=LEARNING_RATE)
    for batch, targets in zip(keras.images(), torch.from_numpy(keras.arrays["y"]), strict=True):
        optimizer.zero_grad()
        loss: torch.Tensor = nn.functional.mse_loss(network(batch), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network


def _running_var(batchnorm: nn.Module) -> Floats:
    return batchnorm.get_buffer("running_var").double().numpy()


def _distance(found: Any, expected: Any) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


def test_keras_starts_with_the_averages_and_options_of_its_convention(keras: Training) -> None:
    for name in NUM_VALUES:
        layer = keras.batchnorm(name, "before")
        assert set(layer.mean.tolist()) == {KERAS.initial_mean}
        assert set(layer.var.tolist()) == {KERAS.initial_var}


def test_keras_and_pytorch_learn_the_same_weights(keras: Training, pytorch: nn.Sequential) -> None:
    before, after = keras.network("before"), keras.network("after")
    for name in [name for name, parameter in after.named_parameters() if parameter.requires_grad]:
        expected = after.get_parameter(name).detach().numpy()
        assert _distance(pytorch.get_parameter(name).detach(), expected) <= TRAINED_ALIKE, name
        assert _distance(before.get_parameter(name).detach(), expected) > 100 * TRAINED_ALIKE, name  # they did move


@every_batchnorm
def test_keras_and_pytorch_average_the_same_mean_and_under_conversion_the_same_variance(
    keras: Training, pytorch: nn.Sequential, name: str
) -> None:
    stored, found = keras.batchnorm(name, "after"), pytorch.get_submodule(name)
    converted = convert_averages(stored, PYTORCH, num_values=NUM_VALUES[name], num_steps=NUM_STEPS)
    assert _distance(found.get_buffer("running_mean"), stored.mean) <= TRAINED_ALIKE
    assert _distance(_running_var(found), converted.var) <= TRAINED_ALIKE
    assert _distance(_running_var(found), stored.var) > 10 * TRAINED_ALIKE  # and without conversion they differ


@pytest.mark.parametrize("name", [name for name in NUM_VALUES if name not in NOT_DEFAULT])
def test_converted_without_regard_to_the_initial_value_they_differ(
    keras: Training, pytorch: nn.Sequential, name: str
) -> None:
    stored, found = keras.batchnorm(name, "after"), pytorch.get_submodule(name)
    scaled = stored.var * NUM_VALUES[name] / (NUM_VALUES[name] - 1)
    assert _distance(_running_var(found), scaled) > 5 * TRAINED_ALIKE  # 0.99³⁰⁰/7, or /127


@every_batchnorm
def test_what_pytorch_stored_converts_into_what_keras_stored(
    keras: Training, pytorch: nn.Sequential, name: str
) -> None:
    ours = pytorch.get_submodule(name)
    stored = keras.batchnorm(name, "after")
    held = StoredBatchNorm(
        convention=PYTORCH,
        weight=None,
        bias=None,
        mean=ours.get_buffer("running_mean").numpy(),
        var=_running_var(ours),
        momentum=share_taken(stored),
    )
    converted = convert_averages(held, KERAS, num_values=NUM_VALUES[name], num_steps=NUM_STEPS)
    assert _distance(converted.var, stored.var) <= TRAINED_ALIKE


def test_the_imported_network_answers_as_keras_does(keras: Training) -> None:
    found = keras.network("after").eval()(keras.images()[0]).detach()
    assert _distance(found, keras.arrays["answers"]) <= FLOAT32


@every_batchnorm
def test_with_one_variance_converted_it_would_not(keras: Training, name: str) -> None:
    stored = keras.batchnorm(name, "after")
    converted = convert_averages(stored, PYTORCH, num_values=NUM_VALUES[name], num_steps=NUM_STEPS)
    network = keras.network("after").eval()
    network.get_submodule(name).running_var = torch.from_numpy(converted.var).float()
    found = network(keras.images()[0]).detach()
    assert _distance(found, keras.arrays["answers"]) > 100 * FLOAT32
