"""Parity: does the model that will be served answer as the network that was trained?

The reference is the unfolded network in PyTorch, in float64, so that what is measured is the served model's error and
not the sum of two. The other side is the service's own Predictor, at the very session options that will serve, one
instance at a time. The instances are the held-out split, all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model_export.data import Split
from model_export.errors import ParityFailed
from model_export.inference_copy import inference_copy
from model_export.tolerances import Tolerances
from service.bundle import OutputParity, ParityReport
from service.predictor import Predictor

# Scores lie between 0 and 1 and are float32: 1e-5 is some 100 units in the last place of the largest, room for sums of
# a few hundred products in another order; a wrong fold is off by percents. Logits have no such scale of their own:
# they get the same room relative to the largest of them.
SCORES_TOLERANCE = 1e-5
LOGITS_TOLERANCE = 1e-5
BATCH_SIZE = 1000
# By far the most frequent cause, and none of the fold's: float32 loses digits in x − μ where μ is large beside σ.
REMEDY = (
    "If an input's mean is far above its spread (a year, a latitude, a timestamp), subtract an offset from it, "
    "or train with --placement before, after or none"
)
REMEDY_OF_LOWER_PRECISION = "Choose a higher --precision; fp32 has been verified and agrees"

Answers = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """What the unfolded network answers: `scores` and `logits`, float64 (instances, labels)."""

    answers: Answers
    dtype: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """What a predictor answered to a split, one instance at a time, and ONNX Runtime's provider that ran it."""

    answers: Answers
    provider: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The parity of a model with its network, and the share of the held-out instances that it puts right."""

    parity: ParityReport
    accuracy: float


def compute_reference(network: nn.Module, instances: NDArray[np.float32]) -> Reference:
    """What `network`, frozen and not folded, answers in float64; in float32 where it holds constants of that dtype."""
    try:
        return _reference(network, instances, torch.float64)
    except RuntimeError:
        return _reference(network, instances, torch.float32)


def verify(reference: Reference, predictor: Predictor, split: Split) -> Verification:
    """Compare the predictor with the reference, one instance of `split` at a time.

    Raises:
        ParityFailed: an output differs by more than its tolerance.
    """
    return verify_served(reference, serve(predictor, split), split)


def serve(predictor: Predictor, split: Split) -> Served:
    """Ask the predictor for each instance of `split`."""
    answers = [predictor.outputs(instance) for instance in split.instances]
    stacked = {name: np.stack([answer[name] for answer in answers]).astype(np.float64) for name in answers[0]}
    return Served(answers=stacked, provider=predictor.placement.provider)


def verify_served(
    reference: Reference, served: Served, split: Split, tolerances: Tolerances | None = None
) -> Verification:
    """Compare what was served with the reference; with float32's tolerances, if none are given.

    Raises:
        ParityFailed: an output differs by more than its tolerance.
    """
    allowed = tolerances or Tolerances(SCORES_TOLERANCE, LOGITS_TOLERANCE)
    remedy = REMEDY if tolerances is None else REMEDY_OF_LOWER_PRECISION
    outputs = tuple(
        _compare(name, expected, served.answers[name], allowed, remedy) for name, expected in reference.answers.items()
    )
    labels, expected = served.answers["scores"].argmax(axis=1), reference.answers["scores"].argmax(axis=1)
    parity = ParityReport(
        num_instances=len(split),
        outputs=outputs,
        label_agreement=float((labels == expected).mean()),
        reference_dtype=reference.dtype,
        provider=served.provider,
    )
    return Verification(parity=parity, accuracy=accuracy_of(served, split))


def accuracy_of(served: Served, split: Split) -> float:
    """The share of the instances whose largest score is that of their label."""
    return float((served.answers["scores"].argmax(axis=1) == split.labels).mean())


def _reference(network: nn.Module, instances: NDArray[np.float32], dtype: torch.dtype) -> Reference:
    copy = inference_copy(network, device="cpu").to(dtype)
    return Reference(answers=_answers(copy, instances, dtype), dtype=str(dtype).removeprefix("torch."))


def _answers(network: nn.Module, instances: NDArray[np.float32], dtype: torch.dtype) -> Answers:
    with torch.inference_mode():
        batches = torch.split(torch.from_numpy(instances).to(dtype), BATCH_SIZE)
        logits = torch.cat([network(batch) for batch in batches]).to(torch.float64)
    return {"scores": logits.softmax(dim=-1).numpy(), "logits": logits.numpy()}


def _compare(
    output: str, expected: NDArray[np.float64], found: NDArray[np.float64], allowed: Tolerances, remedy: str
) -> OutputParity:
    difference = np.abs(found - expected)
    tolerance = allowed.scores if output == "scores" else allowed.logits * max(1.0, float(np.abs(expected).max()))
    if not difference.max() <= tolerance:  # so that NaN fails too
        worst = int(np.nanargmax(difference.max(axis=1))) if not np.isnan(difference).all() else 0
        raise ParityFailed(
            f"what would be served is not what was trained: {output} differ by {difference.max():.2e} at held-out "
            f"instance {worst}, allowed are {tolerance:.2e}; no bundle was written. {remedy}"
        )
    return OutputParity(
        output=output,
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        tolerance=tolerance,
    )
