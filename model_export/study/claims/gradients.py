"""Claim 1: deep networks with saturating activations lose their gradients on the way down; BatchNorm keeps them."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from model_export.pages import Chart, Column, Table, name_lines
from model_export.pages.style import MUTED
from model_export.study.drawing import HEIGHT, NAMES_HEIGHT, arm_colour, arm_words, draw_range, panels
from model_export.study.evidence import Evidence, Spread, spread_of
from model_export.study.trials import Outcome, Point, Subject
from model_export.study.verdicts import Finding, Verdict, combine, grade, name_verdict

HOLDS_DECADES: Final = 1.0  # by which BatchNorm brings the ratio nearer to 1, in powers of ten
HOLDS_GAIN: Final = 0.05  # of accuracy
WEAKLY_GAIN: Final = 0.01
SMALLEST_RATIO: Final = 1e-40  # float32's; a gradient of 0 has no logarithm


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm at its best rate: `ratio` is the first layer's gradient by the last's, a run's median over training."""

    rate: float
    accuracy: Spread
    ratio: Spread
    runs: tuple[Outcome, ...]

    @property
    def decades_off(self) -> float:
        """How many powers of ten the ratio is away from 1."""
        return abs(math.log10(self.ratio.median))


def ratio_of(point: Point) -> float:
    """First layer's gradient norm by last layer's."""
    return max(point.first_gradient / point.last_gradient, SMALLEST_RATIO) if point.last_gradient else SMALLEST_RATIO


def measure(evidence: Evidence, subject: Subject) -> tuple[Arm, Arm]:
    """With BatchNorm, and without."""
    first, second = (_measure_arm(evidence, subject, placement) for placement in subject.arms)
    return first, second


def judge(having: Arm, lacking: Arm) -> Verdict:
    """The verdict on one network."""
    nearer = lacking.decades_off - having.decades_off
    gain = having.accuracy.median - lacking.accuracy.median
    return grade(
        fully=nearer >= HOLDS_DECADES and gain >= HOLDS_GAIN,
        partly=nearer > 0 and gain >= WEAKLY_GAIN,
    )


def find(evidence: Evidence) -> Finding:
    """The claim, judged over the study's deep networks."""
    arms = {subject: measure(evidence, subject) for subject in evidence.study.deep}
    sentence = "; ".join(_say(subject, *pair) for subject, pair in arms.items()) + "."
    return Finding(
        name="gradients",
        title="Vanishing gradients",
        claim="BatchNorm lets gradients through deep networks, even with activations that saturate.",
        rule=(
            f"Holds for a network if BatchNorm brings the ratio of gradient norms nearer to 1 by a factor of "
            f"{10**HOLDS_DECADES:.0f} at least and accuracy rises by {HOLDS_GAIN:.2f} at least; weakly if the ratio is "
            f"nearer and accuracy rises by {WEAKLY_GAIN:.2f}. Each arm has its best learning rate; the ratio is a "
            "run's median over training."
        ),
        verdict=combine(judge(*pair) for pair in arms.values()),
        sentence=sentence,
        chart=_chart(arms, sentence),
        table=_table(arms),
    )


def _measure_arm(evidence: Evidence, subject: Subject, placement: str) -> Arm:
    rate = evidence.best_rate(subject, placement, evidence.study.rates_of(subject))
    runs = evidence.runs(subject, placement, rate)
    ratios = [statistics.median(map(ratio_of, run.curve)) if run.curve else SMALLEST_RATIO for run in runs]
    return Arm(
        rate=rate,
        accuracy=evidence.accuracy(subject, placement, rate),
        ratio=spread_of(ratios),
        runs=runs,
    )


def _say(subject: Subject, having: Arm, lacking: Arm) -> str:
    title = name_verdict(subject.title, judge(having, lacking))
    return (
        f"{title}: the first layer's gradient is {having.ratio.median:.2g} times the last's with BatchNorm and "
        f"{lacking.ratio.median:.2g} times without, accuracy {having.accuracy.median:.3f} and "
        f"{lacking.accuracy.median:.3f}"
    )


def _table(arms: dict[Subject, tuple[Arm, Arm]]) -> Table:
    columns = (
        Column("network"),
        Column("BatchNorm"),
        Column("learning rate", "g"),
        Column("accuracy", ".3f"),
        Column("range"),
        Column("gradient ratio", ".2g"),
        Column("range"),
    )
    rows = tuple(
        (
            subject.title, arm_words(placement), arm.rate,
            arm.accuracy.median, arm.accuracy.range(".3f"), arm.ratio.median, arm.ratio.range(".2g"),
        )
        for subject, pair in arms.items()
        for placement, arm in zip(subject.arms, pair, strict=True)
    )  # fmt: skip
    return Table(columns=columns, rows=rows, caption="Test accuracy and gradient ratio: medians of the repeats.")


def _chart(arms: dict[Subject, tuple[Arm, Arm]], finding: str) -> Chart:
    def paint(figure: Figure) -> None:
        titles = [subject.title for subject in arms]
        axes_of = panels(figure, titles, xlabel="step", ylabel="gradient norm, first layer / last")
        for axes, (subject, pair) in zip(axes_of, arms.items(), strict=True):
            axes.set(xscale="log", yscale="log")
            axes.axhline(1, color=MUTED, linewidth=1, linestyle=":")
            for placement, arm in zip(subject.arms, pair, strict=True):
                if all(run.curve for run in arm.runs):
                    length = min(len(run.curve) for run in arm.runs)
                    steps = [point.step for point in arm.runs[0].curve[:length]]
                    ratios = np.array([[ratio_of(point) for point in run.curve[:length]] for run in arm.runs])
                    draw_range(axes, steps, ratios, colour=arm_colour(placement), label=arm_words(placement))
        axes_of[0].get_ylim()  # settles the limits that all share: names are placed by them
        for axes in axes_of:
            name_lines(axes, height=NAMES_HEIGHT)

    return Chart(
        caption=(
            "How large the gradient of the first layer's weights is beside that of the last layer's, with BatchNorm "
            "and without. Lines are medians of the repeats, bands their range; the dotted line is 1."
        ),
        description=finding,
        paint=paint,
        height=HEIGHT,
    )
