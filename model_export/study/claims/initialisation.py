"""Claim 2: with BatchNorm the scale of the first weights matters less."""

from __future__ import annotations

from typing import Final

from model_export.study.claims.sweeps import Stop, Sweep, sweep_chart, sweep_table
from model_export.study.evidence import TRAINS_SHARE, Evidence
from model_export.study.trials import Subject
from model_export.study.verdicts import Finding, Verdict, combine, grade, name_verdict

FEW: Final = 2 / 3  # a network is choosy that trains at no more than this share of the scales


def measure(evidence: Evidence, subject: Subject) -> Sweep:
    """Both arms at each scale, each with the best of the tuning rates for that scale."""
    settings = evidence.study.settings

    def stop(placement: str, scale: float) -> Stop:
        rate = evidence.best_rate(subject, placement, settings.tuning_rates, scale)
        runs, accuracy = (
            evidence.runs(subject, placement, rate, scale),
            evidence.accuracy(subject, placement, rate, scale),
        )
        return Stop(place=scale, rate=rate, runs=runs, accuracy=accuracy)

    having, lacking = (tuple(stop(placement, scale) for scale in settings.weight_scales) for placement in subject.arms)
    return Sweep(having=having, lacking=lacking, trains_from=evidence.trains_from(subject))


def judge(sweep: Sweep) -> Verdict:
    """The verdict on one network."""
    num_scales, num_with, num_without = len(sweep.having), len(sweep.trained_with), len(sweep.trained_without)
    return grade(
        fully=num_with == num_scales and num_without <= FEW * num_scales,
        partly=num_with > num_without,
    )


def find(evidence: Evidence) -> Finding:
    """The claim, judged over the study's networks for robustness."""
    sweeps = {subject: measure(evidence, subject) for subject in evidence.study.robust}
    sentence = "; ".join(_say(subject, sweep) for subject, sweep in sweeps.items()) + "."
    return Finding(
        name="initialisation",
        title="Initialisation",
        claim="BatchNorm lets one be less careful about the scale of the first weights.",
        rule=(
            f"A setting trains if its median accuracy is {TRAINS_SHARE:.0%} of the way from chance to the best that "
            "this network reaches. Holds for a network if it trains at every scale with BatchNorm, and at two thirds "
            "of them or fewer without; weakly if it trains at more scales with than without. At each scale each arm "
            "has the best of its learning rates. BN(aWx) = BN(Wx), but the gradient with respect to aW is 1/a of that "
            "with respect to W (Ioffe & Szegedy 2015, section 3.3): the steps of SGD still depend on the scale."
        ),
        verdict=combine(judge(sweep) for sweep in sweeps.values()),
        sentence=sentence,
        chart=sweep_chart(
            sweeps,
            "weights × this scale",
            "Accuracy at the end by the scale of the first weights; 1 is Glorot's (tanh, logistic) or He's. Lines are "
            "medians, bands the range of the repeats; above the dotted line a network counts as trained.",
            sentence,
        ),
        table=sweep_table(sweeps, "weight scale", "Test accuracy: medians and range of the repeats."),
    )


def _say(subject: Subject, sweep: Sweep) -> str:
    title = name_verdict(subject.title, judge(sweep))
    return (
        f"{title}: trains at {len(sweep.trained_with)} of {len(sweep.having)} scales with BatchNorm and at "
        f"{len(sweep.trained_without)} without"
    )
