"""A slow request: how long it waited and was answered, and what happened meanwhile. Facts; `causes.py` judges them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What happened between a request's earliest arrival and its answer: seconds that are within it, and counts.

    Attributes:
        ran_seconds: in which its thread was on a CPU, as the kernel counts; what a host steals may be in it.
        garbage_seconds: in which Python's garbage collector ran.
        generations: the collections' generations.
        cpu_wait_seconds: in which the thread could have run, and another had its CPU.
        preemptions: how often the CPU was taken from it while it ran.
        minor_faults: pages of memory that were not there yet.
        major_faults: pages that had to be read from a disk.
        fault_seconds: what the minor ones cost, by what one was measured to cost at start.
        other_threads_seconds: for which other threads of the server ran; Python code of two threads never runs at once.
        num_predictions: others that were answered, in its thread.
        predictions_seconds: what these took of its time.
        routes: other routes that ran on the event loop, in seconds, without what collecting and waiting took of them.
        steal_seconds: what the host took from this machine, over all CPUs, in `steal_window_seconds` around the answer.
        steal_window_seconds: 0 if nobody looked.
    """

    ran_seconds: float = 0.0
    garbage_seconds: float = 0.0
    generations: tuple[int, ...] = ()
    cpu_wait_seconds: float = 0.0
    preemptions: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    fault_seconds: float = 0.0
    other_threads_seconds: float = 0.0
    num_predictions: int = 0
    predictions_seconds: float = 0.0
    routes: Mapping[str, float] = field(default_factory=dict)
    steal_seconds: float = 0.0
    steal_window_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Slow:
    """A request. `at` is when it was answered, in seconds of time.time.

    `waited_seconds` is how long it waited, at most, before it was read; `answering_seconds` what came then.
    """

    at: float
    model: str
    status: int
    waited_seconds: float
    answering_seconds: float
    evidence: Evidence

    @property
    def seconds(self) -> float:
        """How long it took in all, at most."""
        return self.waited_seconds + self.answering_seconds


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a process keeps: the slowest first.

    `usual_seconds` is the median of each model's last predictions, by name. `num_predictions` were answered since
    `since`, in seconds of time.time. `num_processes` serve, and keep each their own. `knows_waiting`: the system says
    how long a thread waited for a CPU.
    """

    slowest: tuple[Slow, ...]
    usual_seconds: Mapping[str, float]
    since: float
    num_predictions: int
    num_processes: int
    knows_waiting: bool
