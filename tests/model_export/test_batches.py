"""Batches: every instance once, in an order that the seed decides, and never one alone."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_export.batches import Batches
from model_export.data import Split
from model_export.data.share import Share


def split(num_instances: int) -> Split:
    return Split(np.arange(num_instances, dtype=np.float32)[:, None], np.arange(num_instances, dtype=np.int64))


@given(num_instances=st.integers(2, 50), size=st.integers(2, 60), seed=st.none() | st.integers(0, 2**40))
def test_each_instance_comes_once_with_its_label_and_never_alone(
    num_instances: int, size: int, seed: int | None
) -> None:
    batches = Batches(split(num_instances), size, shuffle_seed=seed)
    instances, labels = zip(*batches, strict=True)
    assert len(instances) == len(batches)
    assert torch.equal(torch.cat(instances)[:, 0].long(), torch.cat(labels))
    assert sorted(torch.cat(labels).tolist()) == list(range(num_instances))
    assert all(2 <= len(batch) <= size + 1 for batch in labels)


def test_the_seed_decides_the_order_and_none_keeps_it() -> None:
    def order(seed: int | None) -> list[int]:
        return [int(label) for _, labels in Batches(split(20), 4, shuffle_seed=seed) for label in labels]

    assert order(None) == list(range(20))
    assert order(1) == order(1) != order(2)


@given(
    num_instances=st.integers(8, 50),
    size=st.integers(2, 20),
    seed=st.integers(0, 2**40),
    num_processes=st.integers(2, 4),
)
def test_processes_share_an_epoch_evenly_and_see_each_instance(
    num_instances: int, size: int, seed: int, num_processes: int
) -> None:
    """Filled up from its own start, an order has at most so many instances twice as there are other processes."""
    shares = [
        [
            labels
            for _, labels in Batches(
                split(num_instances), size, shuffle_seed=seed, share=Share(rank=rank, of=num_processes)
            )
        ]
        for rank in range(num_processes)
    ]
    assert len({tuple(len(labels) for labels in share) for share in shares}) == 1
    seen = [int(label) for share in shares for labels in share for label in labels]
    assert set(seen) == set(range(num_instances))
    assert len(seen) - num_instances < num_processes


@given(num_instances=st.integers(4, 50), size=st.integers(2, 20), num_processes=st.integers(2, 4))
def test_processes_that_measure_see_each_instance_once_in_equally_many_batches(
    num_instances: int, size: int, num_processes: int
) -> None:
    shares = [
        [labels for _, labels in Batches(split(num_instances), size, share=Share(rank=rank, of=num_processes))]
        for rank in range(num_processes)
    ]
    assert len({len(share) for share in shares}) == 1
    assert min(len(labels) for share in shares for labels in share) > 0
    assert sorted(int(label) for share in shares for labels in share for label in labels) == list(range(num_instances))
