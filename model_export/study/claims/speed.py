"""Claim 4: with BatchNorm fewer steps lead to the accuracy that the network without it ends with."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model_export.pages import Chart, Column, Table, name_lines
from model_export.pages.style import MUTED
from model_export.study.drawing import HEIGHT, NAMES_HEIGHT, arm_colour, arm_words, draw_range, panels
from model_export.study.evidence import Evidence, Spread, spread_of
from model_export.study.trials import WITHOUT, Outcome, Subject
from model_export.study.verdicts import NOT_SAID, Finding, Verdict, combine, grade, name_verdict

PAPER_FACTOR: Final = 14  # Ioffe & Szegedy 2015, abstract
HOLDS_FACTOR: Final = PAPER_FACTOR / 2
WEAKLY_FACTOR: Final = 1.5


@dataclass(frozen=True, kw_only=True)
class Race:
    """Steps that each arm takes, at its fastest rate, to the accuracy that the best run without BatchNorm ends with.

    Attributes:
        is_fair: the network without BatchNorm trains; if not, its accuracy is no goal.
        targets: the goal of each seed, on the valid split.
        rates: with, without.
        steps: with, without; for each seed, infinite where the goal is never reached.
    """

    is_fair: bool
    targets: tuple[float, ...]
    rates: tuple[float, float]
    steps: tuple[tuple[float, ...], tuple[float, ...]]

    @property
    def factor(self) -> Spread:
        """Steps without by steps with, over the seeds; 0 where the goal is never reached with BatchNorm."""
        return spread_of(
            lacking / having if math.isfinite(having) else 0.0 for having, lacking in zip(*self.steps, strict=True)
        )


def measure(evidence: Evidence, subject: Subject) -> Race:
    """Each arm runs at that one of its rates at which it is at the goal first, by the median of the seeds."""
    rates = evidence.study.rates_of(subject)
    best = evidence.best_rate(subject, WITHOUT, rates)
    finals = evidence.runs(subject, WITHOUT, best)
    targets = tuple(run.curve[-1].valid_accuracy if run.curve else 1.0 for run in finals)
    fastest = tuple(_fastest(evidence, subject, placement, targets) for placement in subject.arms)
    (rate_with, steps_with), (rate_without, steps_without) = fastest
    return Race(
        is_fair=evidence.accuracy(subject, WITHOUT, best).median >= evidence.trains_from(subject),
        targets=targets,
        rates=(rate_with, rate_without),
        steps=(steps_with, steps_without),
    )


def steps_to(run: Outcome, target: float) -> float:
    """The first look at which the run is as good as `target`; infinite if it never is."""
    return next((float(point.step) for point in run.curve if point.valid_accuracy >= target), math.inf)


def judge(race: Race) -> Verdict:
    """The verdict on one network."""
    if not race.is_fair:
        return NOT_SAID
    return grade(fully=race.factor.median >= HOLDS_FACTOR, partly=race.factor.median >= WEAKLY_FACTOR)


def find(evidence: Evidence) -> Finding:
    """The claim, judged over the study's networks for robustness."""
    races = {subject: measure(evidence, subject) for subject in evidence.study.robust}
    sentence = "; ".join(_say(subject, race) for subject, race in races.items()) + "."
    return Finding(
        name="speed",
        title="Speed",
        claim=f"BatchNorm needs far fewer steps to the same accuracy: {PAPER_FACTOR} times fewer, in the paper.",
        rule=(
            "The goal is the accuracy on the valid split that the network without BatchNorm ends with at its best "
            "learning rate; each arm then runs at the rate at which it reaches the goal first. Holds for a network "
            f"from {HOLDS_FACTOR:g} times fewer steps on (half of the paper's {PAPER_FACTOR}), weakly from "
            f"{WEAKLY_FACTOR:g} times. Nothing is said of a network that does not train without BatchNorm."
        ),
        verdict=combine(judge(race) for race in races.values()),
        sentence=sentence,
        chart=_chart(evidence, races, sentence),
        table=_table(races),
    )


def _fastest(
    evidence: Evidence, subject: Subject, placement: str, targets: tuple[float, ...]
) -> tuple[float, tuple[float, ...]]:
    """The rate, and the steps of each seed. Without BatchNorm one rate always gets there: it set the goal.

    Of rates that are equally fast, or never there, the one that ends best.
    """
    steps = {
        rate: tuple(
            steps_to(run, target) for run, target in zip(evidence.runs(subject, placement, rate), targets, strict=True)
        )
        for rate in evidence.study.rates_of(subject)
    }
    candidates = {rate: taken for rate, taken in steps.items() if placement != WITHOUT or math.isfinite(max(taken))}

    def order(rate: float) -> tuple[float, float]:
        finals = (run.valid_accuracy for run in evidence.runs(subject, placement, rate))
        return statistics.median(steps[rate]), -statistics.median(finals)

    rate = min(candidates or steps, key=order)
    return rate, steps[rate]


def _say(subject: Subject, race: Race) -> str:
    target, title = statistics.median(race.targets), name_verdict(subject.title, judge(race))
    if not race.is_fair:
        return f"{title}: does not train without BatchNorm, so there is no accuracy to reach"
    having, lacking = (statistics.median(steps) for steps in race.steps)
    if math.isinf(having):
        return f"{title}: {lacking:g} steps without BatchNorm to an accuracy of {target:.3f}, never with it"
    return (
        f"{title}: {having:g} steps with BatchNorm and {lacking:g} without to an accuracy of {target:.3f}, "
        f"{race.factor.spell('.1f')} times fewer"
    )


def _table(races: dict[Subject, Race]) -> Table:
    columns = (
        Column("network"),
        Column("BatchNorm"),
        Column("learning rate", "g"),
        Column("accuracy to reach", ".3f"),
        Column("steps", ",.0f"),
        Column("fewest", ",.0f"),
        Column("most", ",.0f"),
        Column("times fewer", ".1f"),
    )
    rows = tuple(
        (
            subject.title,
            arm_words(placement),
            rate,
            statistics.median(race.targets),
            *(
                value if math.isfinite(value) else "never"
                for value in (statistics.median(taken), min(taken), max(taken))
            ),
            race.factor.median if placement != WITHOUT and race.is_fair else None,
        )
        for subject, race in races.items()
        for placement, rate, taken in zip(subject.arms, race.rates, race.steps, strict=True)
    )
    return Table(
        columns=columns,
        rows=rows,
        caption=(
            "Steps: medians of the repeats, fewest and most, each up to the next look at a run, so factors are coarse. "
            "A repeat that is never there counts as 0 times fewer."
        ),
    )


def _chart(evidence: Evidence, races: dict[Subject, Race], finding: str) -> Chart:
    def paint(figure: Figure) -> None:
        titles = [subject.title for subject in races]
        axes_of = panels(figure, titles, xlabel="step", ylabel="valid accuracy")
        for axes, (subject, race) in zip(axes_of, races.items(), strict=True):
            axes.set(xscale="log", ylim=(0, 1))
            axes.axhline(statistics.median(race.targets), color=MUTED, linewidth=1, linestyle=":")
            for placement, rate in zip(subject.arms, race.rates, strict=True):
                _draw(axes, evidence.runs(subject, placement, rate), placement)
        for axes in axes_of:
            name_lines(axes, height=NAMES_HEIGHT)

    return Chart(
        caption=(
            "Accuracy while training, each arm at the learning rate at which it is at the goal first (dotted). Lines "
            "are medians of the repeats, bands their range."
        ),
        description=finding,
        paint=paint,
        height=HEIGHT,
    )


def _draw(axes: Axes, runs: tuple[Outcome, ...], placement: str) -> None:
    length = min(len(run.curve) for run in runs)
    if length:
        steps = [point.step for point in runs[0].curve[:length]]
        accuracies = np.array([[point.valid_accuracy for point in run.curve[:length]] for run in runs])
        draw_range(axes, steps, accuracies, colour=arm_colour(placement), label=arm_words(placement))
