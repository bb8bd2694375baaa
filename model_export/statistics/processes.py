"""The processes that measure together: each takes its share of the batches, and all come to the same result.

The counts, means and variances of single batches are gathered and merged in the order of the batches on every process.
A sum that is reduced across processes would do, but its last digits would depend on how many there are; this way the
result is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import distributed

from model_export.errors import ExportError, StatisticsInvalid

T = TypeVar("T")


@dataclass(frozen=True)
class _Failure:
    """What went wrong on one process, in words: an exception itself need not survive the way to another."""

    words: str


@dataclass(frozen=True)
class Processes:
    """This process's number, from 0 on, and how many there are."""

    rank: int = 0
    size: int = 1

    def owns(self, index: int) -> bool:
        """Whether the batch of this number is this process's to measure."""
        return index % self.size == self.rank

    def gather(self, value: T) -> list[T]:
        """What all of them have for `value`, in the order of their numbers; every one of them must call this."""
        if self.size == 1:
            return [value]
        gathered: list[T | None] = [None] * self.size
        distributed.all_gather_object(gathered, value)
        return gathered  # type: ignore[return-value]  # all were filled

    def gather_computed(self, compute: Callable[[], T]) -> list[T]:
        """What `compute` gives on each of them. Where it fails on one, it fails on all, and none waits for ever.

        Raises:
            Exception: on the process where it happened, that very one.
            StatisticsInvalid: on the others.
        """
        if self.size == 1:
            return [compute()]
        error: Exception | None = None
        outcome: T | _Failure
        try:
            outcome = compute()
        except Exception as err:  # noqa: BLE001  # raised again below, when all have heard of it
            error, outcome = err, _Failure(_words(err))
        gathered = self.gather(outcome)
        if error is not None:
            raise error
        for number, other in enumerate(gathered):
            if isinstance(other, _Failure):
                raise StatisticsInvalid(f"process {number} of {self.size} could not measure its share: {other.words}")
        return [other for other in gathered if not isinstance(other, _Failure)]


def current_processes() -> Processes:
    """Those of torch's default process group, or this one alone."""
    if distributed.is_available() and distributed.is_initialized():
        return Processes(distributed.get_rank(), distributed.get_world_size())
    return Processes()


def _words(err: Exception) -> str:
    return str(err) if isinstance(err, ExportError) else f"{type(err).__name__}: {err}"
