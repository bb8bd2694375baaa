"""Which batches a model may be run in: by default those whose every row is, bit for bit, the answer alone.

Whether that holds is the runtime's affair, of its kernels for this model on this device: one size may take another
kernel than the next, which adds up in another order. So each size is compared at start with runs of one, on many
instances, at every place and in changing company, also half filled; what is found is its certificate. By default one
bit that differs, in any output, and the size is not used; `--no-bitwise` allows a few units in the last place. Nor is a
size used that is not faster than its instances one by one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.buffers import Array
from service.bundle import TensorSpec
from service.device import CPU_PROVIDER
from service.errors import PredictionFailed
from service.session import Batch, Session
from service.ulps import largest_distance, same_bits

SIZES = (2, 3, 4, 6, 8, 12, 16)
SIZES_ON_A_GPU = (2, 4, 8, 16, 32)  # each is a graph and its memory
# A sum in another order moves a score by a few units; a softmax takes a unit of a logit of 16 for 16 of its own. Fewer
# bits in the products (TF32, float16) move it by thousands.
MAX_ULPS = 64
MAX_COMPARED = 2048  # instances
MIN_COMPARED = 64
SECONDS_TO_COMPARE = 0.1
SEED = 0
LARGE = 10_000

BITWISE = "bitwise"
OFF = "off"


@dataclass(frozen=True, kw_only=True)
class SizeCertificate:
    """What was found about batches of one size, and if it is used; `reason` says why it is not.

    `certificate` is "bitwise" (every row that was compared had the bits of the instance alone), "N ulp" (N is the
    largest difference, in units in the last place of the output's dtype), or "off" (the size does not run, differs by
    more than can be counted or is ever allowed, or is not faster).
    """

    size: int
    certificate: str
    used: bool = False
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was found about all sizes.

    `overall` is the worst of those that are used: "bitwise", "N ulp", or "off" if the model is run for one at a time.
    """

    overall: str = OFF
    sizes: tuple[SizeCertificate, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Batching:
    """In batches of which sizes a model is run. `reason` says why there is only the size 1, if that is so.

    `bitwise`: is every answer, in every size that is used, bit for bit that of the instance alone? `num_compared`
    counts the rows that were compared, all sizes together.
    """

    sizes: tuple[int, ...] = (1,)
    bitwise: bool = True
    num_compared: int = 0
    reason: str = ""
    certificate: Certificate = Certificate()


def plan_batching(
    session: Session, examples: Sequence[Array], median_seconds: float, *, bitwise: bool = True
) -> Batching:
    """Try the sizes on instances like the examples, and on random ones; `median_seconds` is what one run takes.

    Without `bitwise`, sizes whose rows differ by at most `MAX_ULPS` are used too.
    """
    if not session.has_free_batch:
        return Batching(reason="the model's batch axis is fixed")
    instances = plausible_instances(session.signature.input, examples, _affordable(median_seconds))
    try:
        compared = _compare_sizes(session, instances)
    except PredictionFailed as err:
        return Batching(reason=f"the model does not run: {err}")
    certificates = tuple(_certify(one, bitwise=bitwise) for one in compared)
    return _summarise(certificates, num_compared=sum(one.num_rows for one in compared))


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


# --- the comparison --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """One size beside runs of one. `ulps` is None if all bits are the same; `failure` says why it does not run."""

    size: int
    ulps: float | None = None
    pays: bool = False
    num_rows: int = 0
    failure: str = ""


def _compare_sizes(session: Session, instances: Array) -> list[_Compared]:
    sizes = SIZES if session.placement.provider == CPU_PROVIDER else SIZES_ON_A_GPU
    alone, seconds_alone = _run_in(session.bind((1,))[1], instances)
    batches = session.bind(sizes)
    return [_compare_size(batches[size], instances, alone, seconds_alone) for size in sizes]


def _compare_size(batch: Batch, instances: Array, alone: list[Array], seconds_alone: float) -> _Compared:
    size = len(batch.input)
    order = np.random.default_rng(size).permutation(len(instances))
    try:
        together, seconds = _run_in(batch, instances[order])
        pairs = [(together, [rows[order] for rows in alone]), *_run_half_filled(batch, instances, alone)]
    except PredictionFailed as err:
        return _Compared(size=size, failure=str(err))
    return _Compared(
        size=size,
        ulps=_largest_difference(pairs),
        pays=_pays(seconds, seconds_alone),
        num_rows=sum(len(expected[0]) for _, expected in pairs),
    )


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


def _run_half_filled(batch: Batch, instances: Array, alone: list[Array]) -> Iterator[tuple[list[Array], list[Array]]]:
    """Run half a batch below and above each thing that may stand in the other half: old instances, extremes, zeros."""
    number = len(batch.input) // 2
    halves = slice(0, number), slice(len(batch.input) - number, None)
    for start, left_over in enumerate((None, *_extremes(batch.input.dtype))):
        for half in halves:
            if left_over is not None:
                batch.input[:] = left_over
            batch.input[half] = instances[start : start + number]
            batch.run()
            together = [output[half].copy() for output in batch.outputs]
            yield together, [rows[start : start + number] for rows in alone]


def _extremes(dtype: np.dtype[Any]) -> tuple[float, ...]:
    """Values that no neighbour may feel: zeros, large ones of either sign, and those that overflow."""
    largest = np.finfo(dtype).max if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max // 2
    return (0, LARGE, -LARGE, largest, -largest)


def _largest_difference(pairs: Sequence[tuple[list[Array], list[Array]]]) -> float | None:
    """Give the largest distance in units in the last place, or None where all bits are the same."""
    if all(same_bits(a, b) for some, others in pairs for a, b in zip(some, others, strict=True)):
        return None
    return max(largest_distance(some, others) for some, others in pairs)


# --- the decision ----------------------------------------------------------------------------------------------------


def _certify(compared: _Compared, *, bitwise: bool) -> SizeCertificate:
    size, ulps = compared.size, compared.ulps
    if compared.failure:
        return SizeCertificate(size=size, certificate=OFF, reason=f"it does not run: {compared.failure}")
    if ulps is not None and ulps > MAX_ULPS:
        apart = f"{ulps} ulp away from" if math.isfinite(ulps) else "not at all"
        return SizeCertificate(size=size, certificate=OFF, reason=f"rows are {apart} the answers alone")
    certificate = BITWISE if ulps is None else f"{ulps} ulp"
    if ulps is not None and bitwise:
        return SizeCertificate(size=size, certificate=certificate, reason="rows are not bitwise the answers alone")
    if not compared.pays:
        return SizeCertificate(size=size, certificate=OFF, reason="it takes as long as its instances one by one")
    return SizeCertificate(size=size, certificate=certificate, used=True)


def _summarise(certificates: tuple[SizeCertificate, ...], *, num_compared: int) -> Batching:
    used = [one for one in certificates if one.used]
    overall = max((one.certificate for one in used), key=_num_ulps, default=OFF)
    return Batching(
        sizes=(1, *(one.size for one in used)),
        bitwise=overall in {BITWISE, OFF},
        num_compared=num_compared,
        reason="" if used else f"a batch of {certificates[0].size}: {certificates[0].reason}",
        certificate=Certificate(overall=overall, sizes=certificates),
    )


def _num_ulps(certificate: str) -> int:
    """Rank the certificates of sizes that are used: a bitwise one comes before 0 ulp, where a zero's sign differs."""
    return -1 if certificate == BITWISE else int(certificate.split(maxsplit=1)[0])
