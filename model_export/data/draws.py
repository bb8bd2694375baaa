"""What code of others draws at random: from torch's, numpy's and Python's global generators, put aside in between.

Batches that have to be the same each time are made by code that draws from all three, and whoever uses a batch may draw
from them too. So the state is exchanged around each batch: what the batches draw follows from the seed alone, and what
the caller draws is what it would be without them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

LARGEST_SEED_OF_NUMPY = 2**32 - 1


@dataclass(frozen=True, eq=False)
class _State:
    torch_state: torch.Tensor
    numpy_state: Any
    python_state: Any


class Draws:
    """A sequence of random draws of its own: `with draws.taken():` goes on with it where it was left."""

    def __init__(self, seed: int) -> None:
        before = _read()
        torch.default_generator.manual_seed(seed)  # the CPU's alone: batches are made there
        _seed_others(seed)
        self._state = _read()
        _write(before)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Draw from this sequence within the block; afterwards the generators are as they were before it."""
        before = _read()
        _write(self._state)
        try:
            yield
        finally:
            self._state = _read()
            _write(before)


def seed_all(seed: int) -> None:
    """Seed the three generators; torch's for every device."""
    torch.manual_seed(seed)
    _seed_others(seed)


def _seed_others(seed: int) -> None:
    np.random.seed(seed % (LARGEST_SEED_OF_NUMPY + 1))  # noqa: NPY002 - the one that users' transforms draw from
    random.seed(seed)


def _read() -> _State:
    return _State(torch.get_rng_state(), np.random.get_state(), random.getstate())  # noqa: NPY002


def _write(state: _State) -> None:
    torch.set_rng_state(state.torch_state)
    np.random.set_state(state.numpy_state)  # noqa: NPY002
    random.setstate(state.python_state)
