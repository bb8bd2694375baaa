"""The processes that measure together: each takes its share of the batches, and all come to the same result.

The counts, means and variances of single batches are gathered and merged in the order of the batches on every process.
A sum that is reduced across processes would do, but its last digits would depend on how many there are; this way the
result is the same to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import distributed

T = TypeVar("T")


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
        return [item for item in gathered if item is not None]


def current_processes() -> Processes:
    """Those of torch's default process group, or this one alone."""
    if distributed.is_available() and distributed.is_initialized():
        return Processes(distributed.get_rank(), distributed.get_world_size())
    return Processes()
