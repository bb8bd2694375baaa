"""How good a network is on held-out instances under each kind of frozen statistics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from model_export.audit.values import Choice
from model_export.data import Split
from model_export.errors import NetworkInvalid
from model_export.freeze import freeze
from model_export.logits import compute_logits
from model_export.measuring import Method, Statistics
from model_export.statistics import named_batchnorms

Right = NDArray[np.bool_]


def try_all(
    network: nn.Module, statistics: Mapping[Method, Statistics | str], split: Split
) -> tuple[tuple[Choice, ...], int, int]:
    """Every kind with its accuracy and loss; and how many instances are right with exact only, and with ema only."""
    tried = {method: _try(network, method, values, split) for method, values in statistics.items()}
    nothing = np.zeros(len(split), dtype=bool)
    exact, ema = (tried[method][1] if method in tried else nothing for method in ("exact", "ema"))
    choices = tuple(choice for choice, _ in tried.values())
    return choices, int((exact & ~ema).sum()), int((ema & ~exact).sum())


def _try(network: nn.Module, method: Method, statistics: Statistics | str, split: Split) -> tuple[Choice, Right]:
    if isinstance(statistics, str):
        return Choice(method=method, problem=statistics), np.zeros(len(split), dtype=bool)
    unreached = named_batchnorms(network).keys() - statistics.keys()
    logits = _answer(freeze(network, statistics, unreached=unreached), split)
    labels = torch.from_numpy(split.labels)
    right = (logits.argmax(dim=1) == labels).numpy()
    loss = float(cross_entropy(logits.double(), labels))
    return Choice(method=method, accuracy=float(right.mean()), loss=loss), right


def _answer(frozen: nn.Module, split: Split) -> torch.Tensor:
    try:
        return compute_logits(frozen, split)
    except Exception as err:
        raise NetworkInvalid(f"the network failed on the valid split: {type(err).__name__}: {err}") from err
