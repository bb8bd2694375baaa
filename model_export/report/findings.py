"""Everything that the training report says, as one value: found out before anything of it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from model_export.checkpoint import Run
from model_export.data import Split
from model_export.errors import DataInvalid
from model_export.freeze import freeze
from model_export.logits import compute_logits
from model_export.report.layers import Layer, look_at_layers
from model_export.report.scores import Scores, score
from model_export.statistics import FrozenStatistics, named_batchnorms


@dataclass(frozen=True, kw_only=True, eq=False)
class MovingAverage:
    """The same network with its moving averages: its accuracy, and how many answers differ from the exact ones'."""

    accuracy: float
    num_other_answers: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """What a run came to. `moving_average` is None where the network has no BatchNorm, or its averages are not known.

    `layers` are the BatchNorms that forward comes to, in its order; `unreached` names the others.
    """

    run: Run
    scores: Scores
    layers: tuple[Layer, ...]
    unreached: tuple[str, ...]
    moving_average: MovingAverage | None


def find_out(
    run: Run, network: nn.Module, split: Split, statistics: Mapping[str, Mapping[str, FrozenStatistics]]
) -> Findings:
    """Measure all that the report of `run` says; the arguments and errors are those of `write_report`."""
    if len(split) == 0:
        raise DataInvalid("the held-out split is empty: a report needs one instance at least")
    exact, moving = statistics["exact"], statistics.get("ema", {})
    unreached = tuple(name for name in named_batchnorms(network) if name not in exact)
    predictions = _predict(freeze(network, exact, unreached=unreached), split)
    return Findings(
        run=run,
        scores=score(split.labels, predictions, num_classes=len(run.labels)),
        layers=look_at_layers(network, exact, moving),
        unreached=unreached,
        moving_average=_ask_again(network, exact, moving, split, predictions),
    )


def _ask_again(
    network: nn.Module,
    exact: Mapping[str, FrozenStatistics],
    moving: Mapping[str, FrozenStatistics],
    split: Split,
    predictions: NDArray[np.int64],
) -> MovingAverage | None:
    if not exact or exact.keys() - moving.keys():
        return None
    unreached = named_batchnorms(network).keys() - exact.keys()
    answers = _predict(freeze(network, {name: moving[name] for name in exact}, unreached=unreached), split)
    return MovingAverage(
        accuracy=float((answers == split.labels).mean()), num_other_answers=int((answers != predictions).sum())
    )


def _predict(frozen: nn.Module, split: Split) -> NDArray[np.int64]:
    """The class of each instance, int64 [N], by a network in inference mode."""
    return compute_logits(frozen, split).argmax(dim=1).numpy()
