"""Claims about the training report: its numbers are those of the network, and nothing that is trained breaks it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from model_export.checkpoint import Epoch, Run
from model_export.data import DataSource, Split
from model_export.errors import DataInvalid, StatisticsInvalid
from model_export.networks import NetworkOptions, NetworkSpec
from model_export.options import TrainingOptions
from model_export.pages import render_page
from model_export.report import find_out, tell, write_report
from model_export.report.comparison import judge
from model_export.report.findings import Findings, MovingAverage
from model_export.report.histograms import edges_of
from model_export.report.layers import Gap, Layer, measure_gap
from model_export.report.scores import score
from model_export.statistics import FrozenStatistics, estimate_statistics, moving_average_statistics
from tests.model_export.pages.reading import Seen, read, refers_to_itself_only

WHEN = dt.datetime(2026, 11, 24, 19, 30, tzinfo=dt.UTC)
WIDTH = 6
# Two float64 divisions and a root in another order.
ORDER_TOLERANCE = 1e-12


def run_of(labels: tuple[str, ...], *, epochs: int = 3) -> Run:
    options = NetworkOptions(network="mynet:make")
    history = [Epoch(epoch=n, train_loss=1 / n, valid_loss=1.2 / n, valid_accuracy=0.5 + n / 40) for n in range(1, 9)]
    return Run(
        spec=NetworkSpec(options=options, instance_shape=(WIDTH,), num_outputs=len(labels)),
        source=DataSource(spec="data.csv", target="kind"),
        options=TrainingOptions(epochs=8),
        data_name="data",
        data_sha256="ab" * 32,
        labels=labels,
        history=tuple(history[:epochs]),
    )


def network_of(num_layers: int, *, num_classes: int = 3, affine: bool = True) -> nn.Sequential:
    """Layers that saw a few batches, and so have moving averages."""
    torch.manual_seed(1)
    layers = [nn.Sequential(nn.BatchNorm1d(WIDTH, affine=affine), nn.Linear(WIDTH, WIDTH)) for _ in range(num_layers)]
    network = nn.Sequential(*layers, nn.Linear(WIDTH, num_classes))
    with torch.no_grad():
        for seed in range(5):
            network(torch.from_numpy(split_of(40, seed=seed).instances))
    return network


def split_of(num: int, *, num_classes: int = 3, seed: int = 9) -> Split:
    random = np.random.default_rng(seed)
    instances = random.normal(1, 2, size=(num, WIDTH)).astype(np.float32)
    return Split(instances, random.integers(0, num_classes, size=num))


def statistics_of(network: nn.Module) -> dict[str, dict[str, FrozenStatistics]]:
    exact = estimate_statistics(network, split_of(200, seed=3).instances)
    return {"exact": exact, "ema": moving_average_statistics(network)}


def report_on(
    network: nn.Module, run: Run, split: Split, statistics: Mapping[str, dict[str, FrozenStatistics]]
) -> Seen:
    return read(render_page(tell(find_out(run, network, split, statistics), when=WHEN)))


def headings(seen: Seen) -> list[str]:
    names = [
        "Learning curves",
        "Confusion",
        "Scores of each class",
        "What the BatchNorms hold",
        "Moving average against",
    ]
    return [name for name in names if name in seen.text]


def answers_in_float64(
    network: nn.Sequential, statistics: Mapping[str, FrozenStatistics], split: Split
) -> NDArray[np.int64]:
    """An oracle that knows nothing of freezing: the layers one after the other, with numpy."""
    x = split.instances.astype(np.float64)
    for name, layer in network.named_modules():
        if isinstance(layer, nn.BatchNorm1d):  # γ is 1 and β is 0: nothing was learned
            x = (x - statistics[name].mean) / np.sqrt(statistics[name].var + layer.eps)
        if isinstance(layer, nn.Linear):
            x = x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
    return np.asarray(x.argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class Reported:
    """A network, what it was asked, and the report on it."""

    network: nn.Sequential
    split: Split
    statistics: dict[str, dict[str, FrozenStatistics]]
    seen: Seen

    def answers(self, kind: str) -> NDArray[np.int64]:
        return answers_in_float64(self.network, self.statistics[kind], self.split)


@pytest.fixture(scope="module")
def reported() -> Reported:
    network, split = network_of(2), split_of(97)
    statistics = statistics_of(network)
    return Reported(network, split, statistics, report_on(network, run_of(("a", "b", "c")), split, statistics))


def test_its_accuracy_and_counts_are_the_frozen_network_s(reported: Reported) -> None:
    expected, labels = reported.answers("exact"), reported.split.labels
    num_right = int((expected == labels).sum())
    assert f"{num_right} of 97 held-out instances" in reported.seen.text
    assert f"Test accuracy {num_right / 97:.4f}." in reported.seen.text
    counts = next(table for table in reported.seen.tables if table[0][0] == "true \\ predicted")
    found = [[int(cell) for cell in row[1:]] for row in counts[1:]]
    assert found == [[int(((labels == t) & (expected == p)).sum()) for p in range(3)] for t in range(3)]


def test_it_says_what_the_moving_averages_would_answer(reported: Reported) -> None:
    exact, moving = reported.answers("exact"), reported.answers("ema")
    assert f"test accuracy of {(moving == reported.split.labels).mean():.4f}" in reported.seen.text
    assert f"it answers {(moving != exact).sum()} of 97 instances differently" in reported.seen.text


def test_its_gaps_are_those_between_the_statistics(reported: Reported) -> None:
    table = next(table for table in reported.seen.tables if table[0][0] == "BatchNorm")
    for name, *numbers in table[1:]:
        exact, moving = reported.statistics["exact"][name], reported.statistics["ema"][name]
        spread = np.sqrt(exact.var + 1e-5)
        shift, ratio = np.abs(moving.mean - exact.mean) / spread, np.sqrt(moving.var + 1e-5) / spread
        expected = [str(WIDTH), f"{np.median(shift):.2e}", f"{shift.max():.2e}", str(shift.argmax())]
        assert numbers == [*expected, f"{ratio.min():.4f}", f"{ratio.max():.4f}"]


def test_its_learning_curves_have_the_run_s_numbers(reported: Reported) -> None:
    table = next(table for table in reported.seen.tables if table[0][0] == "epoch")
    assert table[1:] == [
        ["1", "1.0000", "1.2000", "0.5250"],
        ["2", "0.5000", "0.6000", "0.5500"],
        ["3", "0.3333", "0.4000", "0.5750"],
    ]
    assert "epoch 3 was kept" in reported.seen.text


def test_its_quantiles_are_those_of_what_the_batchnorms_hold(reported: Reported) -> None:
    tables = [table for table in reported.seen.tables if table[0][0] == "quantiles of"]
    for table, held in zip(tables, reported.statistics["exact"].values(), strict=True):
        rows = {row[0]: row[1:] for row in table[1:]}
        assert rows["γ, scale"] == ["1"] * 7
        assert rows["μ, mean"][3] == f"{np.median(held.mean):.4g}"
        assert rows["σ, spread"][::6] == [f"{np.sqrt(held.var.min()):.4g}", f"{np.sqrt(held.var.max()):.4g}"]


def test_a_gap_is_what_normalising_with_other_statistics_does_to_values() -> None:
    """An oracle that normalises: values with the exact statistics, through the moving ones."""
    random = np.random.default_rng(5)
    values = random.normal(2, 3, size=(5000, 4))
    exact = FrozenStatistics(mean=values.mean(axis=0), var=values.var(axis=0), num_values=5000)
    moving = FrozenStatistics(
        mean=exact.mean + np.array([0, 1, -2, 0]), var=exact.var * np.array([1, 1, 4, 0.25]), num_values=0
    )
    gap = measure_gap(exact, moving, eps=0.1)
    assert gap is not None
    through = (values - moving.mean) / np.sqrt(moving.var + 0.1)
    np.testing.assert_allclose(-through.mean(axis=0) * gap.ratio, gap.shift, atol=ORDER_TOLERANCE)
    behind_exact = (values / np.sqrt(exact.var + 0.1)).std(axis=0)
    np.testing.assert_allclose(behind_exact / through.std(axis=0), gap.ratio, rtol=ORDER_TOLERANCE)


def test_a_channel_that_never_varies_is_left_out_and_the_others_keep_their_numbers() -> None:
    exact = FrozenStatistics(mean=np.zeros(3), var=np.array([0.0, 1.0, 4.0]), num_values=5)
    moving = FrozenStatistics(mean=np.array([9.0, 0.0, 1.0]), var=np.array([0.6, 1.0, 4.0]), num_values=0)
    gap = measure_gap(exact, moving, eps=1e-5)
    assert gap is not None
    assert gap.worst_channel == 2
    np.testing.assert_allclose(gap.shift, [0, 0.5], rtol=1e-5)  # eps is 1e-5 of the smallest variance
    np.testing.assert_array_equal(gap.ratio, [1, 1])


def test_a_layer_in_which_nothing_varies_has_no_gap() -> None:
    still = FrozenStatistics(mean=np.zeros(1), var=np.zeros(1), num_values=5)
    assert measure_gap(still, still, eps=1e-5) is None


def test_the_network_is_left_as_it_is() -> None:
    network = network_of(2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    find_out(run_of(("a", "b", "c")), network, split_of(30), statistics_of(network))
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)
    assert network.training


def test_it_needs_nothing_but_itself(tmp_path: Path) -> None:
    network = network_of(2)
    path = tmp_path / "report.html"
    write_report(
        path,
        run=run_of(("a", "b", "c")),
        network=network,
        split=split_of(30),
        statistics=statistics_of(network),
        when=WHEN,
    )
    seen = read(path.read_text("utf-8"))
    assert refers_to_itself_only(seen)
    assert len(headings(seen)) == 5
    assert "2026-11-24 19:30 UTC" in seen.text


def test_the_same_run_gives_the_same_report() -> None:
    network = network_of(1)
    findings = find_out(run_of(("a", "b", "c")), network, split_of(30), statistics_of(network))
    assert render_page(tell(findings, when=WHEN)) == render_page(tell(findings, when=WHEN))


def test_a_network_without_batchnorm_has_no_sections_about_them() -> None:
    network = network_of(0)
    seen = report_on(network, run_of(("a", "b", "c")), split_of(30), {"exact": {}, "ema": {}})
    assert headings(seen) == ["Learning curves", "Confusion", "Scores of each class"]


def test_a_batchnorm_without_scale_and_offset_has_histograms_of_the_rest() -> None:
    network = network_of(1, affine=False)
    seen = report_on(network, run_of(("a", "b", "c")), split_of(30), statistics_of(network))
    assert "Without γ and β (affine=False): '0.0'." in seen.text
    quantiles = next(table for table in seen.tables if table[0][0] == "quantiles of")
    assert [row[0] for row in quantiles[1:]] == ["μ, mean", "σ, spread"]


def test_a_run_of_one_epoch_has_its_curves() -> None:
    network = network_of(1)
    seen = report_on(network, run_of(("a", "b", "c"), epochs=1), split_of(30), statistics_of(network))
    assert "1 of at most 8 epochs; epoch 1 was kept" in seen.text


def test_without_moving_averages_nothing_is_compared() -> None:
    network = network_of(1)
    seen = report_on(network, run_of(("a", "b", "c")), split_of(30), {"exact": statistics_of(network)["exact"]})
    assert "No moving averages were given, so there is nothing to compare." in seen.text


class WithSpare(nn.Module):
    """A network with a BatchNorm that forward never comes to."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.spare = network_of(1), nn.BatchNorm1d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(x)
        return logits


def test_a_batchnorm_that_forward_never_comes_to_is_named_and_left_out() -> None:
    network = WithSpare()
    exact = estimate_statistics(network, split_of(200).instances)
    findings = find_out(run_of(("a", "b", "c")), network, split_of(30), {"exact": exact})
    assert [layer.name for layer in findings.layers] == ["layers.0.0"]
    assert findings.unreached == ("spare",)
    assert "Never applied, so left out: 'spare'." in read(render_page(tell(findings, when=WHEN))).text


def test_many_batchnorms_are_shown_by_depth_and_each_behind_its_name() -> None:
    network = network_of(52)
    seen = report_on(network, run_of(("a", "b", "c")), split_of(30), statistics_of(network))
    assert "52. 51.0 (6 channels)" in seen.text
    assert len([table for table in seen.tables if table[0][0] == "quantiles of"]) == 52


def test_many_classes_are_told_by_their_most_confused_pairs() -> None:
    labels = tuple(f"class {number}" for number in range(40))
    network, split = network_of(1, num_classes=40), split_of(300, num_classes=40)
    seen = report_on(network, run_of(labels), split, statistics_of(network))
    pairs = next(table for table in seen.tables if table[0][:2] == ["class", "taken for"])
    assert len(pairs) == 21
    assert "true \\ predicted" not in seen.text


def test_an_empty_split_is_refused() -> None:
    network = network_of(1)
    with pytest.raises(DataInvalid, match="the held-out split is empty"):
        find_out(run_of(("a", "b", "c")), network, split_of(0), statistics_of(network))


def test_statistics_of_another_network_are_refused() -> None:
    with pytest.raises(StatisticsInvalid, match=r"statistics without a BatchNorm: 1\.0"):
        find_out(run_of(("a", "b", "c")), network_of(1), split_of(5), statistics_of(network_of(2)))


COUNTS = st.integers(1, 5).flatmap(
    lambda k: st.tuples(
        st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc"))), min_size=k, max_size=k, unique=True),
        st.lists(st.tuples(*[st.integers(0, k - 1)] * 2), min_size=1, max_size=30),
    )
)


@given(COUNTS)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_label_and_no_count_breaks_the_report(drawn: tuple[list[str], list[tuple[int, int]]]) -> None:
    labels, pairs = tuple(drawn[0]), np.array(drawn[1], dtype=np.int64)
    findings = findings_of(labels, pairs)
    seen = read(render_page(tell(findings, when=WHEN)))
    assert refers_to_itself_only(seen)
    table = next(table for table in seen.tables if table[0][:2] == ["no.", "class"])
    assert [row[1] for row in table[1:]] == [label if label.strip() else f"no. {k}" for k, label in enumerate(labels)]


def findings_of(labels: tuple[str, ...], pairs: NDArray[np.int64]) -> Findings:
    layer = Layer(name=labels[0], weight=None, bias=np.ones(2), mean=np.zeros(2), std=np.array([0.0, 1.0]), gap=None)
    return Findings(
        run=replace(run_of(labels), data_name=labels[-1]),
        scores=score(pairs[:, 0], pairs[:, 1], num_classes=len(labels)),
        layers=(replace(layer, gap=Gap(channels=np.arange(2), shift=np.array([0.1, -3]), ratio=np.array([0.5, 2]))),),
        unreached=labels,
        moving_average=MovingAverage(accuracy=0.5, num_other_answers=1),
    )


@given(st.floats(0, 5), st.floats(1, 5), st.floats(0, 5), st.floats(1, 5))
def test_a_larger_gap_is_never_judged_kinder(shift: float, ratio: float, more: float, wider: float) -> None:
    order = ["good", "mixed", "bad"]
    assert order.index(judge(shift + more, ratio * wider)[1]) >= order.index(judge(shift, ratio)[1])


@given(st.lists(st.floats(-1e30, 1e30, allow_subnormal=False), min_size=1, max_size=20))
def test_every_channel_stands_in_a_bar(values: list[float]) -> None:
    counts, _ = np.histogram(values, bins=edges_of(np.array(values)))
    assert counts.sum() == len(values)
