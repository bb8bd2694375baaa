"""Claims about measuring in waves: the same statistics as layer by layer, for any network, at the cost of one pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, reduce

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from model_export.errors import NetworkInvalid, StatisticsInvalid
from model_export.freeze import freeze
from model_export.inference_copy import inference_copy
from model_export.statistics import (
    FrozenStatistics,
    Progress,
    describe_statistics,
    estimate_statistics,
    merge,
    named_batchnorms,
)
from model_export.statistics.flow import trace
from model_export.statistics.layers import hear_batchnorms
from model_export.statistics.pieces import Pieces
from model_export.statistics.rehearsal import choose_route
from model_export.statistics.values import block_statistics
from model_export.statistics.waves import Wave, plan_waves
from model_export.statistics.whole import Whole
from tests.model_export.bn_networks import (
    ONE_AXIS,
    Branches,
    Dynamic,
    Recurrent,
    Siamese,
    Treacherous,
    Unreached,
    WritesOverItsInput,
    built,
    chain,
    deep,
    instances,
    residual_convnet,
)

# What is promised of exact statistics in float32: a few roundings of 6e-8, of the buffers, and of the activations, that
# another size of batch rounds otherwise. Without exact statistics these networks leave residuals of 0.01 to 10.
EXACT_RESIDUAL = 1e-6
# float64 keeps 2e-16 of each number; a few hundred sums and a few layers stay far below this.
FLOAT64_TOLERANCE = 1e-11
# A circular wave stops where float32 statistics stand still, see CIRCULAR_TOLERANCE; in float64 a step of that size
# may be left, and a layer behind may double it.
CIRCULAR_TOLERANCE = 1e-6


def lived_in(network: nn.Module, data: Tensor) -> nn.Module:
    """Let averages, weights and γ be anything but what they were built with."""
    torch.manual_seed(3)
    network.train()
    for start in range(0, len(data) - 1, 16):
        network(data[start : start + 16])
    for batchnorm in named_batchnorms(network).values():
        batchnorm.weight.data.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        batchnorm.bias.data.normal_()  # type: ignore[union-attr]
    return network


def layer_by_layer(network: nn.Module, data: Tensor) -> dict[str, FrozenStatistics]:
    """The oracle: all data as one batch through the network itself, again for each BatchNorm, until nothing moves."""
    frozen = inference_copy(network)
    batchnorms = named_batchnorms(frozen)
    found: dict[str, FrozenStatistics] = {}
    for _ in range(60):
        heard: dict[str, list[FrozenStatistics]] = {}
        for name, values in hear_batchnorms(frozen, data):
            heard.setdefault(name, []).append(block_statistics(values))
        found = {name: reduce(merge, blocks) for name, blocks in heard.items()}
        for name, statistics in found.items():
            batchnorms[name].running_mean = torch.from_numpy(statistics.mean)
            batchnorms[name].running_var = torch.from_numpy(statistics.var)
    return found


@pytest.mark.parametrize("cache_bytes", [0, 3000, 2**30])
@pytest.mark.parametrize("name", ONE_AXIS)
def test_any_network_is_measured_as_layer_by_layer(name: str, cache_bytes: int) -> None:
    data = instances(60, 6).double()
    network = lived_in(built(ONE_AXIS[name]).double(), data)
    expected = layer_by_layer(network, data)
    found = estimate_statistics(network, data, batch_size=7, cache_bytes=cache_bytes)
    assert found.keys() == expected.keys()
    tolerance = CIRCULAR_TOLERANCE if name == "recurrent" else FLOAT64_TOLERANCE
    for batchnorm, statistics in expected.items():
        np.testing.assert_allclose(found[batchnorm].mean, statistics.mean, rtol=0, atol=tolerance)
        np.testing.assert_allclose(found[batchnorm].var, statistics.var, rtol=tolerance)
        assert found[batchnorm].num_values == statistics.num_values


@pytest.fixture(scope="module")
def trained() -> Callable[[Callable[[], nn.Module]], tuple[nn.Module, Tensor]]:
    @cache
    def train(make: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor]:
        """A network after 100 steps on digits, and 500 of the instances: images, of one channel."""
        digits, network = load_digits(), built(make)
        images, labels = torch.tensor(digits.images).float()[:, None], torch.tensor(digits.target)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        for _ in range(100):
            batch = torch.randint(len(images), (64,))
            optimiser.zero_grad()
            torch.autograd.backward(cross_entropy(network(images[batch]), labels[batch]))
            optimiser.step()
        return network, images[:500]

    return train


@pytest.mark.parametrize("batch_size", [1, 13, 256])
@pytest.mark.parametrize("make", [deep, residual_convnet])
def test_exact_statistics_leave_no_residual_whatever_the_batch_size(
    make: Callable[[], nn.Module],
    batch_size: int,
    trained: Callable[[Callable[[], nn.Module]], tuple[nn.Module, Tensor]],
) -> None:
    network, images = trained(make)
    statistics = estimate_statistics(network, images, batch_size=batch_size)
    layers = describe_statistics(network, statistics, images, batch_size=100)
    assert len(layers) == (21 if make is deep else 5)
    for layer in layers:
        assert layer.residual_mean is not None
        assert layer.residual_variance is not None
        assert max(layer.residual_mean, layer.residual_variance) <= EXACT_RESIDUAL


def route_of(network: nn.Module, data: Tensor) -> Pieces | Whole:
    frozen = inference_copy(network)
    route = choose_route(frozen, data[:2], hear_batchnorms(frozen, data[:2]), cache_bytes=2**30)
    assert isinstance(route, Pieces | Whole)
    return route


READ_AFTER_WRITING = {"shortcut", "clipping", "shifting", "crossing"}


@pytest.mark.parametrize("name", ONE_AXIS)
def test_what_can_be_traced_and_reads_nothing_that_was_written_over_is_run_in_pieces(name: str) -> None:
    """`Dynamic` looks at values, so it can not be traced."""
    route = route_of(built(ONE_AXIS[name]), instances(4, 6))
    assert isinstance(route, Whole if name in READ_AFTER_WRITING | {"dynamic"} else Pieces)


def test_activations_in_place_are_no_obstacle() -> None:
    assert isinstance(route_of(built(residual_convnet), instances(4, 1, 8, 8)), Pieces)


@pytest.mark.parametrize("name", sorted(READ_AFTER_WRITING))
def test_what_is_written_over_is_seen_whatever_the_values_are(name: str) -> None:
    """Zeros are the same before and after a ReLU."""
    assert isinstance(route_of(built(ONE_AXIS[name]), torch.zeros(4, 6)), Whole)


def test_the_callers_data_is_left_as_it_is() -> None:
    data = instances(40, 6)
    before = data.clone()
    for name in ("clipping", "shifting"):
        estimate_statistics(built(ONE_AXIS[name]), data, batch_size=8)
    torch.testing.assert_close(data, before, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*is deprecated:DeprecationWarning")
def test_a_torchscript_module_is_refused_by_name() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)))
    with pytest.raises(NetworkInvalid, match=r"BatchNorm '0\.1' is part of a TorchScript module"):
        estimate_statistics(nn.Sequential(scripted), instances(8, 6))


def test_a_network_that_fails_on_a_later_batch_is_told_with_that_batch() -> None:
    network = nn.Sequential(nn.Embedding(10, 6), nn.Flatten(), nn.BatchNorm1d(6))
    indices = torch.tensor([[1], [2], [3], [99]])
    with pytest.raises(NetworkInvalid, match=r"failed on batch 1 of the training set, 2 instances.*IndexError"):
        estimate_statistics(network, indices, batch_size=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ratio", [3, 100])
def test_a_layer_that_feeds_itself_settles_though_its_mean_is_rounded(ratio: float, dtype: torch.dtype) -> None:
    network = built(Recurrent)
    network.linear.bias.data += ratio  # type: ignore[union-attr, operator]
    statistics = estimate_statistics(network.to(dtype), instances(100, 6))
    assert statistics["bn"].num_values == 300


def test_branches_are_measured_together() -> None:
    assert route_of(built(Branches), instances(4, 6)).waves == (Wave(("left.1", "right.1")), Wave(("joined",)))


def test_a_layer_for_two_inputs_that_do_not_depend_on_it_takes_one_pass() -> None:
    assert route_of(built(Siamese), instances(4, 6)).waves == (Wave(("bn",)),)


def test_a_layer_that_feeds_itself_is_circular() -> None:
    waves = route_of(built(Recurrent), instances(4, 6)).waves
    assert waves == (Wave(("bn",), frozenset({"bn"})), Wave(("head",)))


def test_a_network_run_as_a_whole_is_measured_in_the_order_of_execution() -> None:
    assert route_of(built(Dynamic), instances(4, 6)).waves == (Wave(("first",)), Wave(("second",)))


def test_a_layer_that_writes_over_what_is_kept_is_seen_in_the_rehearsal() -> None:
    """y is written over on the way to the first BatchNorm, and read again on the way to the second."""

    class Harmful(Treacherous):
        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x)
            z = self.first(y + 1)
            doubled = self.over(y)  # in the pieces this runs before the first BatchNorm is frozen, and again after
            out: Tensor = self.second(doubled + z + y)
            return out

    data = instances(40, 6).double()
    network = lived_in(built(Harmful).double(), data)
    expected = layer_by_layer(network, data)
    found = estimate_statistics(network, data, batch_size=7)
    for name in expected:
        np.testing.assert_allclose(found[name].mean, expected[name].mean, rtol=0, atol=FLOAT64_TOLERANCE)


class Counting(nn.Module):
    """Counts its runs; the copies that are made of it count together."""

    def __init__(self, runs: list[int]) -> None:
        super().__init__()
        self.runs = (runs,)

    def __deepcopy__(self, memo: dict[int, object]) -> Counting:
        return Counting(self.runs[0])

    def forward(self, x: Tensor) -> Tensor:
        self.runs[0].append(len(x))
        return x


def counted(layers: int) -> tuple[nn.Module, list[int]]:
    runs: list[int] = []
    parts = [part for _ in range(layers) for part in (Counting(runs), nn.Linear(6, 6), nn.BatchNorm1d(6))]
    return built(lambda: nn.Sequential(*parts)), runs


def test_with_memory_each_layer_runs_once_for_each_batch() -> None:
    network, runs = counted(layers=5)
    estimate_statistics(network, instances(40, 6), batch_size=10)
    rehearsed = 3 * 5  # two instances: whole, in order, and in pieces
    assert runs.count(2) == rehearsed
    assert runs.count(10) == 4 * 5


def test_without_memory_each_wave_starts_at_the_input() -> None:
    network, runs = counted(layers=5)
    estimate_statistics(network, instances(40, 6), batch_size=10, cache_bytes=0)
    assert runs.count(10) == 4 * (1 + 2 + 3 + 4 + 5)


def test_with_memory_for_half_of_the_batches_the_others_start_at_the_input() -> None:
    network, runs = counted(layers=3)
    size = 10 * 6 * 4  # instances, values, bytes: what one batch keeps between two waves
    estimate_statistics(network, instances(40, 6), batch_size=10, cache_bytes=2 * size)
    assert runs.count(10) == 2 * 3 + 2 * (1 + 2 + 3)


def test_no_layer_behind_the_last_batchnorm_is_run() -> None:
    runs: list[int] = []
    network = nn.Sequential(nn.BatchNorm1d(6), Counting(runs), nn.Linear(6, 2))
    estimate_statistics(network, instances(40, 6), batch_size=10)
    assert runs == [2]  # the one full forward that finds the BatchNorms


@st.composite
def dependencies(draw: st.DrawFn) -> dict[str, set[str]]:
    names = [f"bn{number}" for number in range(draw(st.integers(1, 7)))]
    return {name: set(draw(st.lists(st.sampled_from(names), max_size=4))) for name in names}


@given(dependencies())
def test_waves_respect_every_dependency_and_are_as_few_as_possible(befores: dict[str, set[str]]) -> None:
    waves = plan_waves(befores)
    number = {name: place for place, wave in enumerate(waves) for name in wave.names}
    assert sorted(number) == sorted(befores)
    circular = {name for wave in waves for name in wave.circular}
    graph = nx.DiGraph([(before, name) for name, them in befores.items() for before in them])
    graph.add_nodes_from(befores)
    for name, them in befores.items():
        for before in them:
            together = nx.has_path(graph, name, before)
            assert number[before] == number[name] if together else number[before] < number[name]
        assert (name in circular) == any(nx.has_path(graph, name, before) for before in them)
    for place, wave in enumerate(waves[1:], start=1):
        assert all(_reaches_back(graph, name, waves[place - 1]) for name in wave.names)


def _reaches_back(graph: nx.DiGraph, name: str, wave: Wave) -> bool:
    return any(nx.has_path(graph, before, name) for before in wave.names)


def test_a_layer_that_feeds_itself_agrees_with_itself() -> None:
    data = instances(200, 6)
    network = lived_in(built(Recurrent), data)
    statistics = estimate_statistics(network, data)
    layer, head = describe_statistics(network, statistics, data)
    assert layer.num_values == 3 * 200
    assert max(layer.residual_mean or 0, layer.residual_variance or 0) < EXACT_RESIDUAL
    assert head.num_values == 200


def test_a_layer_that_never_agrees_with_itself_is_refused_by_name() -> None:
    class Restless(nn.Module):
        """Fed a thousand times the sign of its own output: the mean goes to and fro for ever."""

        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(6)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn(1e3 * self.bn(x).sign())
            return out

    with pytest.raises(
        StatisticsInvalid, match=r"BatchNorms bn are applied several times.*after 100 passes.*of its own"
    ):
        estimate_statistics(built(Restless), instances(40, 6))


def test_a_batchnorm_that_forward_never_comes_to_is_left_alone() -> None:
    data = instances(40, 6)
    network = lived_in(built(Unreached), data)
    network.forgotten.running_mean.fill_(float("nan"))  # type: ignore[union-attr, operator]
    statistics = estimate_statistics(network, data)
    assert list(statistics) == ["bn"]
    assert [layer.batchnorm for layer in describe_statistics(network, statistics, data)] == ["bn"]
    frozen = freeze(network, statistics, unreached=("forgotten", "auxiliary"))
    assert torch.isnan(frozen.get_buffer("forgotten.running_mean")).all()
    with pytest.raises(StatisticsInvalid, match="without any: auxiliary, forgotten"):
        freeze(network, statistics)


def test_what_was_measured_before_is_not_measured_again() -> None:
    network, runs = counted(layers=3)
    data = instances(40, 6)
    stages: list[dict[str, FrozenStatistics]] = []
    everything = estimate_statistics(network, data, batch_size=10, measured=lambda so_far: stages.append(dict(so_far)))
    assert [list(stage) for stage in stages] == [["2"], ["2", "5"], ["2", "5", "8"]]
    runs.clear()
    steps: list[Progress] = []
    resumed = estimate_statistics(network, data, batch_size=10, known=stages[1], progress=steps.append)
    assert {step.wave for step in steps} == {3}
    assert runs.count(10) == 4 * 3  # the last wave alone, from the input on
    for name, statistics in everything.items():
        np.testing.assert_array_equal(resumed[name].mean, statistics.mean)
        np.testing.assert_array_equal(resumed[name].var, statistics.var)


def test_progress_tells_every_batch_of_every_wave() -> None:
    steps: list[Progress] = []
    estimate_statistics(built(chain), instances(20, 6), batch_size=8, progress=steps.append)
    assert steps == [
        Progress(wave=wave, num_waves=3, batch=batch, num_batches=3) for wave in (1, 2, 3) for batch in (1, 2, 3)
    ]


def test_a_stream_of_batches_gives_what_the_array_gives() -> None:
    data = instances(50, 6)
    stream = list(torch.split(data, 8))
    network = lived_in(built(chain), data)
    streamed = estimate_statistics(network, stream)  # a list is a stream
    for name, statistics in estimate_statistics(network, data, batch_size=8).items():
        np.testing.assert_array_equal(streamed[name].var, statistics.var)


def test_tracing_does_not_touch_the_network_that_it_is_given() -> None:
    network = built(residual_convnet)
    before = copy.deepcopy(network.state_dict())
    estimate_statistics(network, instances(8, 1, 8, 8))
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert network[2].inplace  # type: ignore[index]
    assert isinstance(built(Treacherous).over, WritesOverItsInput)


def test_only_code_around_batchnorms_has_to_be_traceable() -> None:
    class LooksAtValues(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if bool(x.sum() > 0) else -x

    network = nn.Sequential(LooksAtValues(), nn.BatchNorm1d(6), nn.Sequential(LooksAtValues(), nn.ReLU()))
    flow = trace(network.eval())
    assert [node.op for node in flow.module.graph.nodes] == [
        "placeholder",
        "call_module",
        "call_module",
        "call_module",
        "output",
    ]
