"""Claims about the statistics: merging, the exact estimate, the moving averages, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import nn

from model_export.errors import NetworkInvalid, StatisticsInvalid
from model_export.freeze import freeze
from model_export.statistics import (
    FrozenStatistics,
    describe_statistics,
    estimate_statistics,
    merge,
    moving_average_statistics,
    named_batchnorms,
)
from model_export.statistics.values import block_statistics

# float64 keeps 2e-16 of each number; sums of a few hundred, and their merges, stay far below this.
MERGE_TOLERANCE = 1e-12
# float32 activations depend on the batch size in their last digits (other kernels): 1e-7 each, amplified by two layers.
BATCH_SIZE_TOLERANCE = 1e-5


def oracle(values: NDArray[np.floating]) -> tuple[NDArray[np.longdouble], NDArray[np.longdouble]]:
    """Mean and biased variance of the columns in long double, two passes."""
    exact = values.astype(np.longdouble)
    return exact.mean(axis=0), ((exact - exact.mean(axis=0)) ** 2).mean(axis=0)


def in_blocks(values: NDArray[np.floating], cuts: list[int]) -> FrozenStatistics:
    edges = pairwise([0, *cuts, len(values)])
    blocks = [block_statistics(torch.from_numpy(values[start:stop])) for start, stop in edges if stop > start]
    merged = blocks[0]
    for block in blocks[1:]:
        merged = merge(merged, block)
    return merged


def mlp() -> nn.Sequential:
    """BatchNorm first, after an activation and before one, with Dropout in between; three different layers deep."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.BatchNorm1d(6),
        nn.Linear(6, 8),
        nn.ELU(),
        nn.BatchNorm1d(8),
        nn.Dropout(0.5),
        nn.Linear(8, 5),
        nn.BatchNorm1d(5, affine=False),
        nn.ReLU(),
        nn.Linear(5, 3),
    )


def instances(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 3 + 2


def trained(network: nn.Sequential, data: torch.Tensor) -> nn.Sequential:
    """Let the moving averages move a few times; the weights may stay as they are."""
    network.train()
    torch.manual_seed(2)
    for start in range(0, len(data), 16):
        network(data[start : start + 16])
    return network


@torch.no_grad()
def front_to_back(network: nn.Sequential, data: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The oracle: walk through the layers by hand, in float64, normalising all data at once."""
    values, found = data.double(), {}
    for name, layer in copy.deepcopy(network).double().eval().named_children():
        if isinstance(layer, nn.BatchNorm1d):
            mean, var = values.mean(0), values.var(0, correction=0)
            found[name] = mean, var
            values = (values - mean) / (var + layer.eps).sqrt()
            values = values if layer.weight is None else values * layer.weight + layer.bias
        else:
            values = layer(values)
    return found


def state_of(network: nn.Module) -> dict[str, object]:
    return {
        "weights": {name: tensor.clone() for name, tensor in network.state_dict().items()},
        "modes": [module.training for module in network.modules()],
        "hooks": [len(module._forward_pre_hooks) for module in network.modules()],
    }


def assert_same_state(first: dict[str, object], second: dict[str, object]) -> None:
    assert (first["modes"], first["hooks"]) == (second["modes"], second["hooks"])
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0, equal_nan=True)


VALUES_AND_CUTS = hnp.arrays(np.float64, (40, 2), elements=st.floats(-1e3, 1e3)).flatmap(
    lambda values: st.tuples(st.just(values), st.lists(st.integers(0, 40), max_size=6).map(sorted))
)


@given(VALUES_AND_CUTS, st.permutations(range(40)))
def test_statistics_do_not_depend_on_how_the_data_is_cut_or_ordered(
    values_and_cuts: tuple[NDArray[np.float64], list[int]], order: list[int]
) -> None:
    values, cuts = values_and_cuts
    mean, var = oracle(values)
    scale = float(np.abs(values).max()) or 1.0
    merged = in_blocks(values[order], cuts)
    assert merged.num_values == 40
    np.testing.assert_allclose(merged.mean, mean.astype(float), rtol=0, atol=MERGE_TOLERANCE * scale)
    np.testing.assert_allclose(merged.var, var.astype(float), rtol=0, atol=MERGE_TOLERANCE * scale**2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_small_variance_around_a_large_mean_keeps_nine_digits(dtype: type[np.floating]) -> None:
    values = (1000 + 0.1 * np.random.default_rng(0).standard_normal((4096, 3))).astype(dtype)
    mean, var = oracle(values)
    merged = in_blocks(values, list(range(1, 4096, 7)))
    np.testing.assert_allclose(merged.mean, mean.astype(float), rtol=1e-12)
    np.testing.assert_allclose(merged.var, var.astype(float), rtol=1e-9)


def test_every_axis_but_the_channels_counts_as_data() -> None:
    block = instances(3, 2, 4, 5)
    mean, var = oracle(block.numpy().transpose(0, 2, 3, 1).reshape(-1, 2))
    measured = block_statistics(block)
    assert measured.num_values == 3 * 4 * 5
    np.testing.assert_allclose(measured.mean, mean.astype(float), rtol=MERGE_TOLERANCE)
    np.testing.assert_allclose(measured.var, var.astype(float), rtol=MERGE_TOLERANCE)


def test_moving_averages_can_not_be_merged() -> None:
    averages = FrozenStatistics(mean=np.zeros(2), var=np.ones(2), num_values=0)
    with pytest.raises(StatisticsInvalid, match="without a count"):
        merge(averages, averages)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_the_exact_estimate_is_what_walking_through_the_layers_finds(batch_size: int) -> None:
    network, data = mlp().double(), instances(100, 6).double()
    expected = front_to_back(network, data)
    estimated = estimate_statistics(network, data, batch_size=batch_size)
    assert list(estimated) == ["0", "3", "6"]
    for name, (mean, var) in expected.items():
        np.testing.assert_allclose(estimated[name].mean, mean.numpy(), rtol=0, atol=MERGE_TOLERANCE * 10)
        np.testing.assert_allclose(estimated[name].var, var.numpy(), rtol=MERGE_TOLERANCE * 10)
        assert estimated[name].num_values == 100


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_in_float32_neither_batch_size_nor_order_makes_a_difference(batch_size: int) -> None:
    network, data = trained(mlp(), instances(100, 6)), instances(100, 6)
    together = estimate_statistics(network, data, batch_size=100)
    apart = estimate_statistics(network, data.flip(0), batch_size=batch_size)
    for name in together:
        np.testing.assert_allclose(apart[name].mean, together[name].mean, rtol=0, atol=BATCH_SIZE_TOLERANCE)
        np.testing.assert_allclose(apart[name].var, together[name].var, rtol=BATCH_SIZE_TOLERANCE)


def test_convolutions_are_measured_over_instances_and_positions() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)).double()
    data = instances(20, 1, 6, 6).double()
    seen = network[0](data).detach()
    measured = estimate_statistics(network, data, batch_size=6)["1"]
    assert measured.num_values == 20 * 4 * 4
    np.testing.assert_allclose(measured.var, seen.var((0, 2, 3), correction=0).numpy(), rtol=MERGE_TOLERANCE)


def test_instances_may_be_an_array_of_another_precision() -> None:
    array = instances(30, 6).double().numpy()
    array.setflags(write=False)
    assert estimate_statistics(mlp(), array)["0"].num_values == 30


class Backwards(nn.Module):
    """Defines its BatchNorms in the opposite order of their use."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.first = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        inner: torch.Tensor = self.first(input=batch)
        return torch.as_tensor(self.second(inner**2))


def test_the_order_is_that_of_execution() -> None:
    data = instances(50, 4).double()
    estimated = estimate_statistics(Backwards().double(), data)
    assert list(estimated) == ["first", "second"]
    normalised = (data - data.mean(0)) / (data.var(0, correction=0) + 1e-5).sqrt()
    np.testing.assert_allclose(estimated["second"].mean, (normalised**2).mean(0).numpy(), rtol=MERGE_TOLERANCE)


@pytest.mark.parametrize("training", [True, False])
def test_the_callers_network_is_left_as_it_is(*, training: bool) -> None:
    network = trained(mlp(), instances(64, 6)).train(training)
    network[3].eval()
    before = state_of(network)
    describe_statistics(network, estimate_statistics(network, instances(32, 6)), instances(32, 6))
    assert_same_state(before, state_of(network))


def test_the_callers_network_is_left_as_it_is_when_measuring_fails() -> None:
    network, data = trained(mlp(), instances(64, 6)), instances(32, 6)
    data[20, 3] = float("nan")
    before = state_of(network)
    with pytest.raises(StatisticsInvalid, match="BatchNorm '0' is fed NaN or infinity, in channels 3"):
        estimate_statistics(network, data)
    assert_same_state(before, state_of(network))


def test_a_network_that_takes_another_way_for_some_batch_is_refused() -> None:
    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.batchnorm = nn.BatchNorm1d(4)

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.batchnorm(batch)) if len(batch) != 3 else batch

    with pytest.raises(StatisticsInvalid, match="did not reach all of the BatchNorms batchnorm"):
        estimate_statistics(Fickle(), instances(10, 4), batch_size=7)


def test_instances_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(NetworkInvalid, match=r"can not take instances of shape \(5,\)"):
        estimate_statistics(mlp(), instances(10, 5))


@pytest.mark.parametrize(("num", "batch_size", "message"), [(0, 8, "no instances"), (8, 0, "at least 1, not 0")])
def test_nothing_to_measure_is_an_error(num: int, batch_size: int, message: str) -> None:
    with pytest.raises(StatisticsInvalid, match=message):
        estimate_statistics(mlp(), instances(num, 6), batch_size=batch_size)


def test_batchnorms_of_every_dimension_are_found_and_layers_alike_are_not() -> None:
    network = nn.Sequential(
        nn.BatchNorm1d(1),
        nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm3d(1)),
        nn.SyncBatchNorm(1),
        nn.InstanceNorm2d(1),
        nn.LayerNorm(1),
    )
    assert list(named_batchnorms(network)) == ["0", "1.0", "1.1", "2"]


def test_moving_averages_are_kept_exactly_as_stored() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3, momentum=None))
    data = instances(16, 3)
    network(data)
    averages = moving_average_statistics(network)["0"]
    assert averages.num_values == 0
    np.testing.assert_array_equal(averages.mean, network.get_buffer("0.running_mean").double().numpy())
    np.testing.assert_allclose(averages.var, data.var(0, correction=1).numpy(), rtol=1e-6)  # unbiased, one float32


def unusable() -> Iterator[tuple[str, nn.Module, str]]:
    untracked = nn.BatchNorm1d(2, track_running_stats=False)
    yield "untracked", untracked, "track_running_stats=False.*Build it with"
    yield "untrained", nn.BatchNorm1d(2), "no training batch ever went through.*Train the network"
    yield "lazy", nn.LazyBatchNorm1d(), "lazy.*run the network once"
    for what, mean, var, message in [
        ("nan", float("nan"), 1.0, "NaN or infinity for statistics, in channels 0.*lower learning rate"),
        ("infinite", 0.0, float("inf"), "NaN or infinity for statistics, in channels 0"),
        ("negative", 0.0, -1e-3, "negative variance, in channels 0.*Estimate exact"),
    ]:
        batchnorm = nn.BatchNorm1d(2)
        batchnorm.running_mean, batchnorm.running_var = torch.tensor([mean, 3.0]), torch.tensor([var, 2.0])
        yield what, batchnorm, message
    zero = nn.BatchNorm1d(2, eps=0.0)
    zero.running_var = torch.tensor([0.0, 2.0])
    yield "nothing to divide by", zero, "divide by zero: channels 0"


@pytest.mark.parametrize(("batchnorm", "message"), [pytest.param(*rest, id=what) for what, *rest in unusable()])
def test_unusable_moving_averages_are_refused_by_name_and_with_a_remedy(batchnorm: nn.Module, message: str) -> None:
    network = nn.Sequential(nn.Linear(2, 2), batchnorm)
    with pytest.raises(StatisticsInvalid, match=f"BatchNorm '1'.*{message}"):
        moving_average_statistics(network)


def test_converted_averages_without_a_count_of_batches_are_kept() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2))
    network[0].running_mean = torch.tensor([1.0, 2.0])
    assert network[0].num_batches_tracked == 0
    np.testing.assert_array_equal(moving_average_statistics(network)["0"].mean, [1.0, 2.0])


def test_unusable_averages_do_not_stop_the_exact_estimate() -> None:
    network = mlp()
    network[3].running_var = torch.full((8,), float("nan"))
    assert np.isfinite(estimate_statistics(network, instances(50, 6))["6"].var).all()


# One float32 rounding of a statistic, and of the activations behind it, is 1e-7; layers and small variances amplify it.
EXACT_RESIDUAL = 1e-5


def test_behind_exact_statistics_the_normalised_inputs_have_no_residual() -> None:
    network, data = trained(mlp(), instances(200, 6)), instances(200, 6)
    for layer in describe_statistics(network, estimate_statistics(network, data), data, batch_size=33):
        assert layer.residual_mean is not None
        assert layer.residual_variance is not None
        assert layer.residual_mean < EXACT_RESIDUAL
        assert layer.residual_variance < EXACT_RESIDUAL
        assert layer.num_values == 200


def test_the_residual_is_the_one_seen_on_the_normalised_input_itself() -> None:
    network, data = trained(mlp(), instances(64, 6)).double(), instances(200, 6).double()
    averages = moving_average_statistics(network)
    frozen = freeze(network, averages)
    assert isinstance(frozen, nn.Sequential)
    normalised = frozen[:7](data).detach()  # the last of the three has no weight and bias
    held = averages["6"].var
    expected_mean = normalised.mean(0).abs().max().item()
    expected_var = np.abs(normalised.var(0, correction=0).numpy() - held / (held + 1e-5)).max()
    described = describe_statistics(network, averages, data)[2]
    assert described.residual_mean == pytest.approx(expected_mean, rel=1e-9)
    assert described.residual_variance == pytest.approx(expected_var, rel=1e-9)
    assert expected_mean > 100 * EXACT_RESIDUAL  # moving averages do not fit


def test_constant_channels_and_the_largest_gain_are_named() -> None:
    network, data = nn.Sequential(nn.BatchNorm1d(3, eps=1e-3)), instances(40, 3)
    network[0].weight.data = torch.tensor([1.0, -4.0, 0.5])
    data[:, 1] = 7
    (described,) = describe_statistics(network, estimate_statistics(network, data), data)
    assert described.constant_channels == (1,)
    assert described.max_gain == pytest.approx(4 / np.sqrt(1e-3), rel=1e-6)  # one float32 weight


def test_without_instances_there_is_no_residual() -> None:
    network = trained(mlp(), instances(64, 6))
    described = describe_statistics(network, moving_average_statistics(network), None)
    assert [layer.batchnorm for layer in described] == ["0", "3", "6"]
    assert {layer.residual_mean for layer in described} == {None}


def test_a_batchnorm_applied_twice_is_described_over_both_its_inputs() -> None:
    batchnorm = nn.BatchNorm1d(2)
    network = trained(nn.Sequential(batchnorm, batchnorm), instances(64, 2))
    (described,) = describe_statistics(network, moving_average_statistics(network), instances(64, 2))
    assert described.residual_mean is not None
