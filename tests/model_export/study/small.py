"""A study of seconds on the digits, what its trials share, and networks of one's own for it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from torch import nn

from model_export.data import DataSource, load_splits
from model_export.study.data import Data, draw_data
from model_export.study.evidence import Evidence
from model_export.study.plan import Study, distinct, plan_trials
from model_export.study.readings import BATCH_SIZES
from model_export.study.trials import Outcome, Point, Reading, Settings, Subject, Trial

TINY = Settings(
    steps=6,
    looks=3,
    repeats=2,
    rates=(0.01, 0.1, 1.0),
    tuning_rates=(0.1,),
    weight_scales=(0.1, 1.0, 10.0),
    num_train=200,
    num_valid=60,
    num_test=60,
    batch_size=32,
)
SUBJECT = Subject(title="2 × 8, tanh", activation="tanh", hidden=(8, 8), placement="before")
READ = Subject(title="8, ELU", activation="elu", hidden=(8,), placement="first+after", read_batches=True)
STUDY = Study(settings=TINY, deep=(SUBJECT,), robust=(SUBJECT,), single=READ, placed=READ)


@functools.cache
def digits() -> Data:
    """The digits, as much of them as `TINY` asks for."""
    return draw_data(load_splits(DataSource(spec="digits")), TINY)


def trial(placement: str = "before", *, rate: float = 0.1, scale: float = 1.0, seed: int = 0) -> Trial:
    """One of `SUBJECT`."""
    return STUDY.trials(SUBJECT, placement, rate, scale)[seed]


def invented(trial: Trial, accuracy: float, *, ratio: float = 1.0, first_good: int = 1) -> Outcome:
    """An outcome that nobody measured: bad before the step `first_good`, then as good as at the end."""
    points = tuple(
        Point(
            step=step,
            valid_accuracy=accuracy if step >= first_good else 0.1,
            first_gradient=ratio,
            last_gradient=1.0,
        )
        for step in (1, 2, 4, 8, 16, 32)
    )
    readings = [Reading(source=source, batch_size=0, accuracy=accuracy) for source in ("exact", "ema")]
    readings += [
        Reading(source=source, batch_size=size, accuracy=0.1 if size == 1 or source == "sorted" else accuracy)
        for source in ("shuffled", "sorted")
        for size in BATCH_SIZES
    ]
    return Outcome(
        trial=trial,
        diverged_in=None,
        curve=points,
        valid_accuracy=accuracy,
        test_accuracy=accuracy,
        readings=tuple(readings) if trial.read_batches else (),
        cpu_seconds=1.0,
    )


def evidence(invent: Callable[[Trial], Outcome], study: Study = STUDY) -> Evidence:
    """All trials of a study, with outcomes from `invent`."""
    outcomes = {trial: invent(trial) for trial in distinct(plan_trials(study))}
    return Evidence(study=study, outcomes=outcomes, chance=0.1)


def own(instance_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A factory, as users write them."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(instance_shape), 8, bias=False),
        nn.BatchNorm1d(8),
        nn.Tanh(),
        nn.Linear(8, num_outputs),
    )


def plain(instance_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Another, that has nothing to take out."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(instance_shape), num_outputs))
