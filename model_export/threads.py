"""How many threads torch gets: one for a small network, whose steps are over before a second thread has woken up.

Measured on two idle cores, a training step of the book's network on digits (6 MFLOP a forward pass) takes 1.4 ms with
one thread as with two; on 784 pixels (34 MFLOP) 3.2 and 2.8 ms; from 100 MFLOP on the second thread pays. On a machine
that others use too, two threads wait for each other: the small network then trained 20 to 100 times slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model_export.inference_copy import inference_copy

FLOPS_WORTH_A_SECOND_THREAD = 100e6  # of one forward pass over a batch


@contextmanager
def threads_for(network: nn.Module, instance_shape: tuple[int, ...], batch_size: int) -> Iterator[None]:
    """Run a block with as many threads as pay for batches of this size; afterwards torch has what it had."""
    before = torch.get_num_threads()
    if _flops(network, instance_shape, batch_size) < FLOPS_WORTH_A_SECOND_THREAD:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _flops(network: nn.Module, instance_shape: tuple[int, ...], batch_size: int) -> float:
    """The products and sums of one forward pass over a batch, from those of two instances; infinite if unknown.

    Two, because a BatchNorm without running averages needs a variance in inference mode too. It is an estimate: what
    can not be counted, such as a network of one's own with a twist, is left to run with all threads.
    """
    try:
        copy = inference_copy(network, device="cpu").requires_grad_(False)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            copy(torch.zeros(2, *instance_shape))
    except Exception:  # noqa: BLE001  # the network's own code runs here
        return math.inf
    return float(counter.get_total_flops()) / 2 * batch_size
