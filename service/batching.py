"""Which batches a model may be run in: those whose every row is, bit for bit, the answer of the instance alone.

Whether that holds is the runtime's affair, of its kernels for this model on this machine: one size may take another
kernel than the next, which adds up in another order. So it is compared at start, on many instances, at every place
of every size and in changing company. One bit that differs, in any output, and the model is run unbatched; the same
where a batch would not be faster.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.bundle import TensorSpec
from service.errors import PredictionFailed
from service.session import Array, Batch, Session

SIZES = (2, 3, 4, 6, 8, 12, 16)
MAX_COMPARED = 2048  # instances
MIN_COMPARED = 64
SECONDS_TO_COMPARE = 0.1
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Batching:
    """In batches of which sizes a model is run. `reason` says why there is only the size 1, if that is so.

    `bitwise`: were all rows that were compared the same bits as alone? `num_compared` counts them, all sizes together.
    """

    sizes: tuple[int, ...] = (1,)
    bitwise: bool = False
    num_compared: int = 0
    reason: str = ""


def plan_batching(session: Session, examples: Sequence[Array], median_seconds: float) -> Batching:
    """Try the sizes on instances like the examples, and on random ones; `median_seconds` is what one run takes."""
    if not session.has_free_batch:
        return Batching(reason="the model's batch axis is fixed")
    instances = plausible_instances(session.signature.input, examples, _affordable(median_seconds))
    try:
        return _compare_sizes(session, instances)
    except PredictionFailed as err:
        return Batching(reason=f"the model runs for one instance only: {err}")


def plausible_instances(spec: TensorSpec, examples: Sequence[Array], count: int) -> Array:
    """Draw instances [count, *shape] of several scales, a fifth of each.

    Values shuffled among the examples, values spread as the examples' are, normal ones, ten times as large, and
    between 0 and 1. A wrong scale shows little: behind a saturated softmax all sums look alike.
    """
    rng = np.random.default_rng(SEED)
    shape = (-(-count // 5), *spec.shape)
    known = np.stack(examples).astype(np.float64) if examples else np.stack([np.zeros(spec.shape), np.ones(spec.shape)])
    kinds = (
        np.take_along_axis(known, rng.integers(len(known), size=shape), axis=0),
        known.mean(axis=0) + known.std(axis=0) * rng.normal(size=shape),
        rng.normal(size=shape),
        10 * rng.normal(size=shape),
        rng.random(shape),
    )
    drawn = rng.permutation(np.concatenate(kinds))[:count]
    return (drawn.round() if spec.dtype == "int64" else drawn).astype(spec.dtype)


def _affordable(median_seconds: float) -> int:
    return int(min(MAX_COMPARED, max(MIN_COMPARED, SECONDS_TO_COMPARE / (3 * median_seconds))))


def _compare_sizes(session: Session, instances: Array) -> Batching:
    sizes, num_compared = [1], 0
    alone, seconds_alone = _run_in(session.bind((1,))[1], instances)
    for size, batch in session.bind((1, *SIZES)).items():
        order = np.random.default_rng(size).permutation(len(instances))
        together, seconds = _run_in(batch, instances[order])
        num_compared += len(instances)
        if not _same_bits(together, [rows[order] for rows in alone]):
            return Batching(num_compared=num_compared, reason=f"rows of a batch of {size} are not bitwise those alone")
        if size > 1 and _pays(seconds, seconds_alone):
            sizes.append(size)
    reason = "" if len(sizes) > 1 else "a batch takes as long as its instances one by one"
    return Batching(sizes=tuple(sizes), bitwise=True, num_compared=num_compared, reason=reason)


def _pays(seconds: float, seconds_alone: float) -> bool:
    """Does an instance take less in the batch than alone? A tenth at least, so that noise does not decide."""
    return seconds < 0.9 * seconds_alone


def _run_in(batch: Batch, instances: Array) -> tuple[list[Array], float]:
    """Run all instances in batches of one size: give the rows of each output, and the seconds for one instance.

    The last batch holds the last instances, some of them for the second time. The shortest of the times counts.
    """
    size, count = len(batch.input), len(instances)
    outputs = [np.empty((count, *output.shape[1:]), output.dtype) for output in batch.outputs]
    seconds = []
    for start in (*range(0, count - size, size), count - size):
        batch.input[:] = instances[start : start + size]
        begin = time.perf_counter()
        batch.run()
        seconds.append(time.perf_counter() - begin)
        for rows, output in zip(outputs, batch.outputs, strict=True):
            rows[start : start + size] = output
    return outputs, min(seconds) / size


def _same_bits(some: Sequence[Array], others: Sequence[Array]) -> bool:
    """Compare all rows bit by bit, but those that overflow: they are refused, and NaN has many bit patterns."""
    finite = np.logical_and.reduce([np.isfinite(rows).reshape(len(rows), -1).all(axis=1) for rows in others])
    return all(a[finite].tobytes() == b[finite].tobytes() for a, b in zip(some, others, strict=True))
