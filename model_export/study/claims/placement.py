"""Claim 6: BatchNorm does as well after the activation as before it, and first in the network it standardises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from matplotlib.figure import Figure

from model_export.pages import Chart, Column, Table
from model_export.pages.style import BLUE, VERMILION
from model_export.study.evidence import Evidence, Spread
from model_export.study.plan import PLACEMENTS
from model_export.study.trials import WITHOUT, Subject
from model_export.study.verdicts import Finding, Verdict, grade

ALIKE: Final = 0.01  # of accuracy: what two placements may differ by and still do as well
WORDS: Final = {
    WITHOUT: "none, input standardised",
    "before": "before the activation",
    "after": "after the activation",
    "first": "first, instead of standardising",
    "first+before": "first, and before the activation",
    "first+after": "first, and after the activation",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """One placement at its best rate."""

    rate: float
    accuracy: Spread


def measure(evidence: Evidence, subject: Subject) -> dict[str, Place]:
    """Every placement at its best rate."""
    rates = {name: evidence.best_rate(subject, name, evidence.study.rates_of(subject)) for name in PLACEMENTS}
    return {name: Place(rate=rate, accuracy=evidence.accuracy(subject, name, rate)) for name, rate in rates.items()}


def judge(places: Mapping[str, Place]) -> Verdict:
    """The verdict."""
    accuracy = {name: place.accuracy.median for name, place in places.items()}
    side_is_free = abs(accuracy["before"] - accuracy["after"]) <= ALIKE
    first_standardises = all(
        accuracy[first] >= accuracy[standardised] - ALIKE
        for first, standardised in (("first", WITHOUT), ("first+before", "before"), ("first+after", "after"))
    )
    return grade(fully=side_is_free and first_standardises, partly=side_is_free or first_standardises)


def find(evidence: Evidence, subject: Subject) -> Finding:
    """The claim, judged on the study's network for placement."""
    places = measure(evidence, subject)
    sentence = _say(subject, places)
    return Finding(
        name="placement",
        title="Placement",
        claim="BatchNorm works before the activation and after it, and as the first layer instead of standardising.",
        rule=(
            f"Holds if before and after the activation end within {ALIKE:.2f} of accuracy of each other, and BatchNorm "
            f"first ends no more than {ALIKE:.2f} below standardised input, in each of three pairs; weakly if one of "
            "both. Each placement has its best learning rate."
        ),
        verdict=judge(places),
        sentence=sentence,
        chart=_chart(places, sentence),
        table=_table(subject, places),
    )


def _say(subject: Subject, places: Mapping[str, Place]) -> str:
    accuracy = {name: f"{place.accuracy.median:.3f}" for name, place in places.items()}
    return (
        f"{subject.title}: accuracy {accuracy['before']} before the activation and {accuracy['after']} after it; with "
        f"BatchNorm first {accuracy['first+before']} and {accuracy['first+after']}; without any {accuracy[WITHOUT]}, "
        f"first alone {accuracy['first']}."
    )


def _table(subject: Subject, places: Mapping[str, Place]) -> Table:
    columns = (
        Column("BatchNorm stands"),
        Column("learning rate", "g"),
        Column("accuracy", ".3f"),
        Column("lowest", ".3f"),
        Column("highest", ".3f"),
    )
    rows = tuple(
        (WORDS[name], place.rate, place.accuracy.median, place.accuracy.low, place.accuracy.high)
        for name, place in places.items()
    )
    return Table(columns=columns, rows=rows, caption=f"{subject.title}: test accuracy, medians of the repeats.")


def _chart(places: Mapping[str, Place], finding: str) -> Chart:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        heights = range(len(places))[::-1]
        for height, (name, place) in zip(heights, places.items(), strict=True):
            colour = VERMILION if name == WITHOUT else BLUE
            axes.plot([place.accuracy.low, place.accuracy.high], [height] * 2, color=colour, alpha=0.35, linewidth=5)
            axes.plot([place.accuracy.median], [height], color=colour, marker="o", markersize=8)
            axes.annotate(
                f"{place.accuracy.median:.3f}",
                (place.accuracy.median, height),
                xytext=(0, 9),
                textcoords="offset points",
                ha="center",
                color=colour,
            )
        axes.set_yticks(list(heights), [WORDS[name] for name in places])
        axes.set(xlabel="test accuracy", ylim=(-0.6, len(places) - 0.3))
        axes.grid(visible=False, axis="x")

    return Chart(
        caption="Accuracy at the end by where BatchNorm stands: medians as dots, the range of the repeats as bars.",
        description=finding,
        paint=paint,
        height=300,
    )
