"""Whether one's own network needs BatchNorm: one sentence, from what it gains in accuracy, speed and robustness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from model_export.study.claims import initialisation, learning_rate, speed
from model_export.study.evidence import Evidence
from model_export.study.trials import Subject

MUCH: Final = 0.05  # of accuracy: a network that gains so much, or does not train without, needs it
SOME: Final = 0.01

Need = Literal["needs BatchNorm", "gains from BatchNorm", "does not need BatchNorm"]


@dataclass(frozen=True, kw_only=True)
class Gains:
    """What BatchNorm gives a network.

    Attributes:
        gain: test accuracy with it less that without, each at its best rate, medians.
        trains_without: whether it trains without.
        times_fewer_steps: to the accuracy without; 0 where it is never reached.
        rate_factor: how much larger the largest rate is that trains; infinite where none does without.
        more_scales: at how many more weight scales it trains.
    """

    gain: float
    trains_without: bool
    times_fewer_steps: float
    rate_factor: float
    more_scales: int


def measure(evidence: Evidence, subject: Subject) -> Gains:
    """All of it, from the outcomes of the claims."""
    rates = evidence.study.rates_of(subject)
    best = [evidence.best_rate(subject, placement, rates) for placement in subject.arms]
    having, lacking = (
        evidence.accuracy(subject, placement, rate).median for placement, rate in zip(subject.arms, best, strict=True)
    )
    scales, race = initialisation.measure(evidence, subject), speed.measure(evidence, subject)
    return Gains(
        gain=having - lacking,
        trains_without=lacking >= evidence.trains_from(subject),
        times_fewer_steps=race.factor.median,
        rate_factor=learning_rate.factor(learning_rate.measure(evidence, subject)),
        more_scales=len(scales.trained_with) - len(scales.trained_without),
    )


def judge(gains: Gains) -> Need:
    """What it comes to: accuracy decides; speed and robustness alone make a gain, not a need."""
    if not gains.trains_without or gains.gain >= MUCH:
        return "needs BatchNorm"
    is_better = gains.gain >= SOME
    is_easier = gains.gain > -SOME and (
        gains.times_fewer_steps >= speed.WEAKLY_FACTOR
        or gains.rate_factor >= learning_rate.WEAKLY_FACTOR
        or gains.more_scales > 0
    )
    return "gains from BatchNorm" if is_better or is_easier else "does not need BatchNorm"


def say(evidence: Evidence, subject: Subject) -> tuple[Need, str]:
    """The judgement, and the sentence with the numbers."""
    gains = measure(evidence, subject)
    if not gains.trains_without:
        return judge(gains), f"{subject.title} does not train without BatchNorm, and is {gains.gain:.3f} less accurate."
    steps = f"{gains.times_fewer_steps:.1f} times fewer" if gains.times_fewer_steps else "never"
    return judge(gains), (
        f"{subject.title} with BatchNorm beside {subject.title} without, each at its best learning rate: accuracy "
        f"{gains.gain:+.3f}; steps to the accuracy without: {steps}; largest learning rate that trains: "
        f"{gains.rate_factor:g} times as large; weight scales at which it trains: {gains.more_scales:+d}."
    )
