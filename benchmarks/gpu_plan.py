"""What `make bench-gpu` measures, and what of it can be measured here: the ways, the models, the sizes of batch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

MODELS = ("book784", "convnet", "resnet50")
BATCHES = (1, 4, 16, 64, 256)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way from an array on the host to the answers on the host, by one of the runtimes that are compared."""

    name: str
    runtime: str
    what: str


WAYS = (
    Way(name="session.run", runtime="onnxruntime", what="the usual call: it binds, copies and allocates at every run"),
    Way(name="IOBinding", runtime="onnxruntime", what="device memory bound once; blocking copies"),
    Way(name="IOBinding + graph", runtime="onnxruntime", what="the same, launched as one CUDA graph"),
    Way(name="IOBinding + graph + pinned", runtime="onnxruntime", what="what serves: page-locked memory, one stream"),
    Way(name="TensorRT", runtime="tensorrt", what="ONNX Runtime's TensorRT provider, page-locked memory, one stream"),
    Way(name="PyTorch eager", runtime="torch", what="inference mode, `.to(device)` and `.cpu()`"),
    Way(name="torch.compile", runtime="torch", what="the same, compiled with its defaults for this size"),
    Way(name="PyTorch + graph", runtime="torch", what="eager, captured as one CUDA graph; page-locked memory"),
)

# What a runtime needs besides PyTorch, without which nothing is measured.
NEEDED = {
    "torch": (),
    "onnxruntime": ("onnx", "onnxscript", "onnx_ir", "onnxruntime", "msgspec"),
    "tensorrt": ("onnx", "onnxscript", "onnx_ir", "onnxruntime", "msgspec"),
    "service": ("onnx", "onnxscript", "onnx_ir", "onnxruntime", "msgspec", "fastapi", "uvicorn", "uvloop", "orjson"),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked for: each way on each model at each batch, `rounds` turns of `seconds` each."""

    models: tuple[str, ...] = MODELS
    batches: tuple[int, ...] = BATCHES
    ways: tuple[str, ...] = tuple(way.name for way in WAYS)
    rounds: int = 15
    seconds: float = 0.05
    service: bool = True


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What is not measured, and why."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: left out, {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Feasible:
    """What of a plan is measured here, and what is left out."""

    ways: tuple[Way, ...]
    service: bool
    left_out: tuple[LeftOut, ...]


def fit_plan(plan: Plan, why_not: Callable[[str], str]) -> Feasible:
    """Leave out what can not be measured; `why_not` says of a runtime why it can not be used, or nothing."""
    wanted = [way for way in WAYS if way.name in plan.ways]
    reasons = {way.name: why_not(way.runtime) for way in wanted}
    left_out = [LeftOut(what=name, reason=reason) for name, reason in reasons.items() if reason]
    why_no_service = why_not("service") if plan.service else "not asked for"
    if why_no_service:
        left_out.append(LeftOut(what="the whole service", reason=why_no_service))
    ways = tuple(way for way in wanted if not reasons[way.name])
    return Feasible(ways=ways, service=not why_no_service, left_out=tuple(left_out))


def why_not_here(runtime: str) -> str:
    """Say why a runtime can not be used on this machine; nothing if it can."""
    missing = [name for name in NEEDED[runtime] if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    if runtime == "torch":
        return ""
    from service.device import why_no_cuda, why_no_tensorrt

    return why_no_tensorrt() if runtime == "tensorrt" else why_no_cuda()


def why_no_gpu() -> str:
    """Say why nothing at all can be measured here; nothing if PyTorch can use a GPU."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    import torch

    if not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} finds no GPU"
    return ""
