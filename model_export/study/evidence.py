"""What the claims are judged by: the study's outcomes, found by setting, and what "trains" means."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from model_export.study.plan import Study
from model_export.study.trials import Outcome, Subject, Trial

TRAINS_SHARE: Final = 0.8  # of the way from chance to the best accuracy that the subject reaches with either arm


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The median of some repeats, the lowest and the highest."""

    median: float
    low: float
    high: float

    def spell(self, form: str) -> str:
        """As words: 0.84 (0.83 to 0.85)."""
        return f"{self.median:{form}} ({self.range(form)})"

    def range(self, form: str) -> str:
        """As words: 0.83 to 0.85."""
        return f"{self.low:{form}} to {self.high:{form}}"


def spread_of(values: Iterable[float]) -> Spread:
    """Of one value at least."""
    listed = list(values)
    return Spread(median=statistics.median(listed), low=min(listed), high=max(listed))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The study, its outcomes, and the accuracy of always naming the most frequent class."""

    study: Study
    outcomes: Mapping[Trial, Outcome]
    chance: float

    def runs(self, subject: Subject, placement: str, rate: float, scale: float = 1.0) -> tuple[Outcome, ...]:
        """The repeats of one setting, by seed."""
        return tuple(self.outcomes[trial] for trial in self.study.trials(subject, placement, rate, scale))

    def accuracy(self, subject: Subject, placement: str, rate: float, scale: float = 1.0) -> Spread:
        """Of the test split, at the end."""
        return spread_of(run.test_accuracy for run in self.runs(subject, placement, rate, scale))

    def best_rate(self, subject: Subject, placement: str, rates: Sequence[float], scale: float = 1.0) -> float:
        """The rate with the highest median accuracy on the valid split; of equals the smallest."""

        def accuracy(rate: float) -> float:
            return statistics.median(run.valid_accuracy for run in self.runs(subject, placement, rate, scale))

        return max(rates, key=accuracy)

    def trains_from(self, subject: Subject) -> float:
        """The test accuracy from which on a setting counts as one that trains."""
        best = max(
            self.accuracy(subject, placement, rate).median
            for placement in subject.arms
            for rate in self.study.rates_of(subject)
        )
        return self.chance + TRAINS_SHARE * (best - self.chance)
