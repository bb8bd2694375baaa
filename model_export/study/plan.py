"""Which trials each claim needs, decided before the first one is run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from model_export.study.trials import AS_BUILT, WITHOUT, Settings, Subject, Trial

FULL: Final = Settings(
    steps=1500,
    looks=24,
    repeats=3,
    rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0),
    tuning_rates=(1e-2, 0.1, 1.0),
    weight_scales=(0.01, 0.1, 1.0, 10.0, 100.0),
    num_train=20_000,
    num_valid=4_000,
    num_test=10_000,
)
QUICK: Final = Settings(
    steps=240,
    looks=12,
    repeats=3,
    rates=(1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0),
    tuning_rates=(1e-2, 0.1, 1.0),
    weight_scales=(0.01, 1.0, 100.0),
    num_train=6_000,
    num_valid=2_000,
    num_test=4_000,
)

# Titles say the hidden layers: number × width.
DEEP_TANH: Final = Subject(title="20 × 100, tanh", activation="tanh", hidden=(100,) * 20)
DEEP_LOGISTIC: Final = Subject(title="20 × 100, logistic", activation="sigmoid", hidden=(100,) * 20)
# Ioffe & Szegedy 2015, section 4.1, trained this one on MNIST.
SHALLOW: Final = Subject(title="3 × 100, logistic", activation="sigmoid", hidden=(100,) * 3)
BOOK: Final = Subject(
    title="300 and 100, ELU", activation="elu", hidden=(300, 100), placement="first+after", read_batches=True
)
PLACEMENTS: Final = (WITHOUT, "before", "after", "first", "first+before", "first+after")


@dataclass(frozen=True, kw_only=True)
class Study:
    """How thorough it is, and which networks each claim is tried on.

    Attributes:
        settings: how thorough.
        deep: for vanishing gradients.
        robust: for initialisation, learning rate and speed.
        single: for single instances.
        placed: for the placement; None where it can not be moved.
    """

    settings: Settings
    deep: tuple[Subject, ...] = (DEEP_TANH, DEEP_LOGISTIC)
    robust: tuple[Subject, ...] = (DEEP_TANH, SHALLOW)
    single: Subject = BOOK
    placed: Subject | None = BOOK

    def rates_of(self, subject: Subject) -> tuple[float, ...]:
        """The learning rates that `subject` is trained with at the usual scale of weights."""
        return self.settings.rates if subject in self.robust else self.settings.tuning_rates

    def trials(self, subject: Subject, placement: str, rate: float, scale: float = 1.0) -> tuple[Trial, ...]:
        """The repeats of one setting."""
        return tuple(
            Trial(
                network=subject.network,
                placement=placement,
                activation=subject.activation,
                hidden=subject.hidden,
                learning_rate=rate,
                weight_scale=scale,
                steps=self.settings.steps,
                looks=self.settings.looks,
                seed=seed,
                read_batches=subject.read_batches and placement == subject.placement and scale == 1,
            )
            for seed in range(self.settings.repeats)
        )


def study_of(settings: Settings, subject: Subject | None = None) -> Study:
    """The study of the four networks of reference, or of one's own."""
    if subject is None:
        return Study(settings=settings)
    return Study(settings=settings, deep=(subject,), robust=(subject,), single=subject, placed=None)


def own_subject(network: str) -> Subject:
    """A network that one names: its own placement is the arm with BatchNorm."""
    placements = {"mlp": "first+after", "convnet": "first+before"}
    return Subject(title=network, network=network, placement=placements.get(network, AS_BUILT), read_batches=True)


def plan_trials(study: Study) -> dict[str, tuple[Trial, ...]]:
    """The trials of each claim, by the claim's name; trials that claims share are in each of them."""
    by_rate = tuple(trial for subject in study.robust for trial in _by_rate(study, subject))
    return {
        "gradients": tuple(trial for subject in study.deep for trial in _by_rate(study, subject)),
        "initialisation": tuple(trial for subject in study.robust for trial in _by_scale(study, subject)),
        "learning_rate": by_rate,
        "speed": by_rate,
        "single_instances": tuple(_over_rates(study, study.single, (study.single.placement,))),
        "placement": tuple(_over_rates(study, study.placed, PLACEMENTS)) if study.placed else (),
    }


def distinct(plan: dict[str, tuple[Trial, ...]]) -> tuple[Trial, ...]:
    """Every trial once, in the order of the claims."""
    return tuple(dict.fromkeys(trial for trials in plan.values() for trial in trials))


def _by_rate(study: Study, subject: Subject) -> Iterator[Trial]:
    return _over_rates(study, subject, subject.arms)


def _over_rates(study: Study, subject: Subject, placements: Iterable[str]) -> Iterator[Trial]:
    for placement in placements:
        for rate in study.rates_of(subject):
            yield from study.trials(subject, placement, rate)


def _by_scale(study: Study, subject: Subject) -> Iterator[Trial]:
    for placement in subject.arms:
        for scale in study.settings.weight_scales:
            for rate in study.settings.tuning_rates:
                yield from study.trials(subject, placement, rate, scale)
