"""Claim 3: with BatchNorm a network trains at larger learning rates."""

from __future__ import annotations

from typing import Final

from model_export.study.claims.sweeps import Stop, Sweep, sweep_chart, sweep_table
from model_export.study.evidence import TRAINS_SHARE, Evidence
from model_export.study.trials import Subject
from model_export.study.verdicts import Finding, Verdict, combine, grade, name_verdict

HOLDS_FACTOR: Final = 5.0  # Ioffe & Szegedy 2015, section 4.2.2: BN-x5 trains at 5 times the learning rate
WEAKLY_FACTOR: Final = 2.0


def measure(evidence: Evidence, subject: Subject) -> Sweep:
    """Both arms at each rate."""

    def stop(placement: str, rate: float) -> Stop:
        runs, accuracy = evidence.runs(subject, placement, rate), evidence.accuracy(subject, placement, rate)
        return Stop(place=rate, rate=rate, runs=runs, accuracy=accuracy)

    having, lacking = (
        tuple(stop(placement, rate) for rate in evidence.study.settings.rates) for placement in subject.arms
    )
    return Sweep(having=having, lacking=lacking, trains_from=evidence.trains_from(subject))


def factor(sweep: Sweep) -> float:
    """The largest rate that trains with BatchNorm by the largest without; 0 where none does with, ∞ where none without.

    Where the largest rate of the sweep still trains, the truth may be larger.
    """
    if not sweep.trained_with:
        return 0.0
    return sweep.trained_with[-1] / sweep.trained_without[-1] if sweep.trained_without else float("inf")


def judge(sweep: Sweep) -> Verdict:
    """The verdict on one network."""
    gained = factor(sweep) * (1 + 1e-9)  # 0.3 / 0.06 is a hair below 5
    return grade(fully=gained >= HOLDS_FACTOR, partly=gained >= WEAKLY_FACTOR)


def find(evidence: Evidence) -> Finding:
    """The claim, judged over the study's networks for robustness."""
    sweeps = {subject: measure(evidence, subject) for subject in evidence.study.robust}
    sentence = "; ".join(_say(subject, sweep) for subject, sweep in sweeps.items()) + "."
    return Finding(
        name="learning_rate",
        title="Learning rate",
        claim="BatchNorm lets a network train at much larger learning rates.",
        rule=(
            f"A setting trains if its median accuracy is {TRAINS_SHARE:.0%} of the way from chance to the best that "
            f"this network reaches. Holds for a network if the largest rate that trains is {HOLDS_FACTOR:g} times as "
            f"large with BatchNorm as without, or more; weakly from {WEAKLY_FACTOR:g} times on."
        ),
        verdict=combine(judge(sweep) for sweep in sweeps.values()),
        sentence=sentence,
        chart=sweep_chart(
            sweeps,
            "learning rate",
            "Accuracy at the end by learning rate. Lines are medians, bands the range of the repeats; above the "
            "dotted line a network counts as trained.",
            sentence,
        ),
        table=sweep_table(sweeps, "learning rate", "Test accuracy: medians and range of the repeats."),
    )


def _say(subject: Subject, sweep: Sweep) -> str:
    last, title = sweep.having[-1].place, name_verdict(subject.title, judge(sweep))
    return (
        f"{title}: the largest rate that trains is {_largest(sweep.trained_with, last)} with BatchNorm and "
        f"{_largest(sweep.trained_without, last)} without; it trains at {len(sweep.trained_with)} and "
        f"{len(sweep.trained_without)} of {len(sweep.having)} rates"
    )


def _largest(rates: tuple[float, ...], last: float) -> str:
    if not rates:
        return "none"
    return f"{rates[-1]:g}{', the largest tried,' if rates[-1] == last else ''}"
