"""Where a model runs and why: what was asked for, what came of it, and what was measured to decide."""

from __future__ import annotations

from dataclasses import dataclass

from service.device import ServingDevice


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What one batch of `size` takes on either device, its copies included: medians, in microseconds."""

    size: int
    cpu_us: float
    gpu_us: float

    def __str__(self) -> str:
        return f"batch of {self.size}: CPU {self.cpu_us:.1f} µs, GPU {self.gpu_us:.1f} µs"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """On which device a session runs: the one that was asked for, the one it got, and why they differ if they do.

    nodes: the number of the model's nodes by provider; empty where ONNX Runtime does not tell.
    graphs: on a GPU, "captured" if each size of batch replays a CUDA graph, else "none" and why.
    paces: what `--device fastest` measured.
    """

    requested: ServingDevice
    provider: str
    reason: str
    nodes: dict[str, int]
    graphs: str = ""
    paces: tuple[Pace, ...] = ()
