"""Several processes that train together: what only one of them does, and what all of them have to agree on.

Lightning starts the others by running the same command again, once for each GPU or CPU process; or torchrun, Slurm or
a user starts all of them. Only the first, of rank 0, writes and speaks. Where it refuses, the others must not wait for
it: what it decides alone is passed on to all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import lightning.pytorch as lightning
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import distributed

from model_export.errors import ExportError, NetworkInvalid, RefusedElsewhere
from model_export.options import TrainingOptions

T = TypeVar("T")

# How torch's two backends say that a process at the other end is gone.
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "ncclRemoteError")
UNUSED = "Expected to have finished reduction in the prior iteration"


def current_rank() -> int:
    """This process's number among those that train together, from 0 on; 0 where it is alone."""
    return int(vars(rank_zero_only).get("rank") or 0)  # Lightning keeps it at this function


def check_launched(options: TrainingOptions) -> None:
    """See that as many processes are to train as torchrun has started, if it has.

    Raises:
        NetworkInvalid: they are not: each would train by itself, and all write into one folder.
    """
    if not TorchElasticEnvironment.detect():
        return
    started = TorchElasticEnvironment().world_size()
    if started != options.num_processes:
        raise NetworkInvalid(
            f"torchrun has started {started} processes, and --devices {options.devices} --num-nodes "
            f"{options.num_nodes} means {options.num_processes}: let --devices be torchrun's --nproc-per-node, and "
            "--num-nodes its --nnodes"
        )


def agree(trainer: lightning.Trainer, refusal: ExportError | None) -> None:
    """Let every process go on, or none; to be called by all. What counts is the `refusal` of the first.

    Raises:
        ExportError: `refusal`, in the first process.
        RefusedElsewhere: in the others.
    """
    message = trainer.strategy.broadcast(None if refusal is None else str(refusal))
    if refusal is not None and trainer.is_global_zero:
        raise refusal
    if message is not None:
        raise RefusedElsewhere(f"the first process refused: {message}")


def from_the_first(trainer: lightning.Trainer, compute: Callable[[], T]) -> T:
    """What `compute` gives in the first process, in every process; to be called by all."""
    value: list[T | None] = [compute() if trainer.is_global_zero else None]
    (shared,) = trainer.strategy.broadcast(value)
    return shared  # type: ignore[return-value]  # the first one's, which is a T


@contextlib.contextmanager
def together(options: TrainingOptions) -> Iterator[None]:
    """Train in the block; the process group that it leaves is given up at the end, but not before.

    Raises:
        NetworkInvalid, RefusedElsewhere: another process ended, or DDP can not train this network.
    """
    before = _in_group()
    try:
        yield
    except RuntimeError as err:
        if options.num_processes == 1:
            raise
        raise _explain(err) from err
    finally:
        if _in_group() and not before:
            distributed.destroy_process_group()


def _in_group() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _explain(err: RuntimeError) -> Exception:
    """What torch's error comes down to, where that can be told."""
    words = str(err)
    if UNUSED in words:
        return NetworkInvalid(
            "the network has parameters that no loss depends on, which several processes can not train: use them in "
            "forward, or say requires_grad_(False)"
        )
    if any(sign in words for sign in LOST):
        lost = "lost a process that trains with this one: it says why, above or on its node, or it was killed"
        return NetworkInvalid(lost) if current_rank() == 0 else RefusedElsewhere(lost)
    return err
