"""Each way from an array on the host to the answers on the host, made ready to be run over and over.

All give the same two answers of the same network, scores and logits, and all do the whole job, copies included. The
GPU computes in float32, TF32 off, for everyone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.gpu_models import Answers

Array = NDArray[Any]
Answer = tuple[Array, Array]  # scores and logits, [batch, labels] each
Run = Callable[[], Answer]

WARM_UP_RUNS = 3


@dataclass(frozen=True)
class Material:
    """What a way is given: the network and its ONNX file (None where there is none), as trained or as folded."""

    network: nn.Module
    onnx_path: Path | None
    instances: Array
    device: str = "cuda"
    engine_cache: Path | None = None


def prepare(way: str, material: Material) -> Run:
    """Make one of `gpu_plan.WAYS` ready: what allocates, compiles or captures is done when this returns."""
    run = _PREPARE[way](material)
    for _ in range(WARM_UP_RUNS):
        run()
    return run


def compute_in_full() -> None:
    """Turn TF32 off in PyTorch, as it is in ONNX Runtime's sessions."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def forget_compiled() -> None:
    """Forget what was compiled: after eight sizes of one network PyTorch would go on uncompiled, without a word."""
    torch.compiler.reset()


# --- PyTorch ---------------------------------------------------------------------------------------------------------


def _eager(material: Material) -> Run:
    return _plan_calls(Answers(material.network).to(material.device), material)


def _compiled(material: Material) -> Run:
    network = torch.compile(Answers(material.network).to(material.device), dynamic=False)
    return _plan_calls(network, material)


def _plan_calls(network: Callable[[Tensor], tuple[Tensor, Tensor]], material: Material) -> Run:
    instances = torch.from_numpy(material.instances)

    def run() -> Answer:
        with torch.inference_mode():
            scores, logits = network(instances.to(material.device))
            return scores.cpu().numpy(), logits.cpu().numpy()

    return run


def _graphed(material: Material) -> Run:
    network = Answers(material.network).to(material.device)
    host = torch.from_numpy(material.instances).pin_memory()
    there = torch.zeros_like(host, device=material.device)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(WARM_UP_RUNS):
            network(there)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            found = network(there)
    back = tuple(torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in found)

    def run() -> Answer:
        with torch.inference_mode(), torch.cuda.stream(stream):
            there.copy_(host, non_blocking=True)
            graph.replay()
            for pinned, one in zip(back, found, strict=True):
                pinned.copy_(one, non_blocking=True)
        stream.synchronize()
        return back[0].numpy(), back[1].numpy()

    return run


# --- ONNX Runtime ----------------------------------------------------------------------------------------------------


def _usual_call(material: Material) -> Run:
    """`InferenceSession.run` on a session with the options that serve, so that only the call is another one."""
    from service.device import AS_USUAL
    from service.providers import check_gpu, open_on_cpu, open_on_gpu

    path = _path(material)
    if material.device == "cpu":
        session = open_on_cpu(path)
    else:
        check_gpu("cuda")
        session = open_on_gpu(path, "cuda", AS_USUAL, graphs=False, stream=None)
    feed = {session.get_inputs()[0].name: material.instances}

    def run() -> Answer:
        scores, logits = session.run(None, feed)
        return scores, logits

    return run


def _bound(material: Material, **options: Any) -> Run:
    """A batch of the service's own session, with the instances already where a request would write them."""
    from service.device import GpuOptions
    from service.session import open_session

    device = options.pop("device", material.device)
    gpu = GpuOptions(engine_cache=material.engine_cache, largest_batch=len(material.instances), **options)
    session = open_session(_path(material), device=device, gpu=gpu)
    size = len(material.instances)
    batch = session.bind((size,))[size]
    np.copyto(batch.input, material.instances)
    batch.warm_up()

    def run(_kept: object = session) -> Answer:
        batch.run()
        return batch.outputs[0], batch.outputs[1]

    return run


def _path(material: Material) -> Path:
    if material.onnx_path is None:
        raise ValueError("this way needs an ONNX file")
    return material.onnx_path


_PREPARE: dict[str, Callable[[Material], Run]] = {
    "session.run": _usual_call,
    "IOBinding": lambda material: _bound(material, graphs=False, staged=False),
    "IOBinding + graph": lambda material: _bound(material, graphs=True, staged=False),
    "IOBinding + graph + pinned": lambda material: _bound(material, graphs=True, staged=True),
    "TensorRT": lambda material: _bound(material, device="tensorrt", graphs=False, staged=True),
    "PyTorch eager": _eager,
    "torch.compile": _compiled,
    "PyTorch + graph": _graphed,
}
