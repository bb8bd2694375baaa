"""Claim 5: without frozen statistics the answer about one instance depends on the others in its batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from model_export.pages import Chart, Column, Table, name_lines
from model_export.pages.style import BLUE, GREEN, PURPLE, VERMILION
from model_export.study.drawing import HEIGHT, NAMES_HEIGHT, draw_range
from model_export.study.evidence import Evidence, Spread, spread_of
from model_export.study.readings import BATCH_SIZES
from model_export.study.trials import Outcome
from model_export.study.verdicts import NOT_SAID, Finding, Verdict, grade

HOLDS_SHARE: Final = 0.5  # of what the network knows beyond chance, lost by an instance that is alone
HOLDS_LOSS: Final = 0.05  # of accuracy, on a sorted stream in batches of the largest size
SOURCES: Final = {
    ("exact", 0): "frozen, exact",
    ("ema", 0): "frozen, moving average",
    **{("shuffled", size): f"of batches of {size}, shuffled" for size in BATCH_SIZES},
    **{("sorted", size): f"of batches of {size}, sorted by class" for size in BATCH_SIZES},
}


@dataclass(frozen=True, kw_only=True)
class Reads:
    """The accuracy of a trained network by where its statistics come from; None where no repeat came through."""

    title: str
    rate: float
    runs: tuple[Outcome, ...]
    accuracy: dict[tuple[str, int], Spread]
    chance: float


def measure(evidence: Evidence) -> Reads:
    """The network for single instances, with BatchNorm, at its best rate."""
    subject = evidence.study.single
    rate = evidence.best_rate(subject, subject.placement, evidence.study.rates_of(subject))
    runs = tuple(run for run in evidence.runs(subject, subject.placement, rate) if run.readings)
    found = {key: [_accuracy(run, key) for run in runs] for key in SOURCES}
    return Reads(
        title=subject.title,
        rate=rate,
        runs=runs,
        accuracy={key: spread_of(values) for key, values in found.items() if values},
        chance=evidence.chance,
    )


def judge(reads: Reads) -> Verdict:
    """The verdict."""
    if not reads.runs:
        return NOT_SAID
    exact, alone, in_order = (
        reads.accuracy[key].median for key in (("exact", 0), ("shuffled", 1), ("sorted", BATCH_SIZES[-1]))
    )
    alone_loses = exact - alone >= HOLDS_SHARE * (exact - reads.chance) > 0
    order_loses = exact - in_order >= HOLDS_LOSS
    return grade(fully=alone_loses and order_loses, partly=alone_loses or order_loses)


def find(evidence: Evidence) -> Finding:
    """The claim, judged on the study's network for single instances."""
    reads = measure(evidence)
    sentence = _say(reads)
    return Finding(
        name="single_instances",
        title="Single instances",
        claim="For inference the statistics have to be frozen, or an answer depends on its neighbours.",
        rule=(
            f"Holds if an instance alone loses {HOLDS_SHARE:.0%} or more of the accuracy beyond chance, and a stream "
            f"sorted by class loses {HOLDS_LOSS:.2f} or more even in batches of {BATCH_SIZES[-1]}; weakly if one of "
            "both does. The same trained networks answer each time; the variance of a batch of one is 0, so "
            "BatchNorm gives β, whatever the instance."
        ),
        verdict=judge(reads),
        sentence=sentence,
        chart=_chart(reads, sentence),
        table=_table(reads),
    )


def _accuracy(run: Outcome, key: tuple[str, int]) -> float:
    return next(reading.accuracy for reading in run.readings if (reading.source, reading.batch_size) == key)


def _say(reads: Reads) -> str:
    if not reads.runs:
        return f"{reads.title}: no repeat came through training, so there is nothing to ask."
    alone, two, last = BATCH_SIZES[0], BATCH_SIZES[1], BATCH_SIZES[-1]
    accuracy = {key: spread.median for key, spread in reads.accuracy.items()}
    return (
        f"{reads.title}: accuracy {accuracy['exact', 0]:.3f} with exact statistics and {accuracy['ema', 0]:.3f} with "
        f"moving averages, but {accuracy['shuffled', alone]:.3f} with those of the instance alone, "
        f"{accuracy['shuffled', two]:.3f} in batches of two, {accuracy['shuffled', last]:.3f} in batches of {last}, "
        f"and {accuracy['sorted', last]:.3f} in batches of {last} from a stream sorted by class."
    )


def _table(reads: Reads) -> Table:
    columns = (Column("statistics"), Column("accuracy", ".3f"), Column("lowest", ".3f"), Column("highest", ".3f"))
    rows = tuple((SOURCES[key], spread.median, spread.low, spread.high) for key, spread in reads.accuracy.items())
    caption = f"{reads.title}, learning rate {reads.rate:g}: accuracy on test instances, medians of the repeats."
    return Table(columns=columns, rows=rows, caption=caption)


def _chart(reads: Reads, finding: str) -> Chart:
    places = list(range(len(BATCH_SIZES)))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set(xlabel="instances in a batch", ylabel="test accuracy", ylim=(0, 1))
        axes.set_xticks(places, [str(size) for size in BATCH_SIZES])
        for source, colour, label in (("shuffled", PURPLE, "shuffled stream"), ("sorted", VERMILION, "sorted stream")):
            values = np.array([[_accuracy(run, (source, size)) for size in BATCH_SIZES] for run in reads.runs])
            if len(values):
                draw_range(axes, places, values, colour=colour, label=label, marker="o")
        for source, colour, label in (("exact", BLUE, "frozen, exact"), ("ema", GREEN, "moving average")):
            if (source, 0) in reads.accuracy:
                level = reads.accuracy[source, 0].median
                axes.plot(
                    places, [level] * len(places), color=colour, label=label, linestyle="--" if source == "ema" else "-"
                )
        name_lines(axes, height=NAMES_HEIGHT)

    return Chart(
        caption=(
            "The same trained networks, answering with frozen statistics or with those of the batch that an instance "
            "is in. Lines are medians of the repeats, bands their range."
        ),
        description=finding,
        paint=paint,
        height=HEIGHT,
    )
