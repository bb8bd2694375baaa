"""Opens a model file with the provider that was asked for, or says why not: never with another one.

ONNX Runtime goes to the CPU without a word in five ways, and each is closed here or in `buffers.py`:

1. The provider's library does not load, and the session is created on the CPU: the session is asked what it has.
2. The installed build has no such provider: asked before (`device.py`).
3. The constructor fails and tries again on the CPU: `enable_fallback=0`.
4. A run fails and is made again on the CPU, as all that follow: `disable_fallback()`, and bound runs, which have no
   such path.
5. Some nodes are placed on the CPU: forbidden by the session's options, and counted.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from service.device import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    TENSORRT_PROVIDER,
    GpuOptions,
    preload_cuda_libraries,
    why_no_cuda,
    why_no_tensorrt,
    why_provider_failed,
)
from service.errors import DeviceUnavailable, ModelUnloadable
from service.runtime import ort, serving_options

Gpu = Literal["cuda", "tensorrt"]


def open_on_cpu(model_path: Path) -> ort.InferenceSession:
    """Open a model on the CPU.

    Raises:
        ModelUnloadable: ONNX Runtime refuses the file.
    """
    try:
        return _inference_session(model_path, serving_options(), [CPU_PROVIDER])
    except Exception as err:  # ONNX Runtime's errors have no common base class
        raise ModelUnloadable(f"ONNX Runtime refuses {model_path}: {first_line(err)}") from err


def check_gpu(gpu: Gpu) -> None:
    """Make sure that nothing speaks against a GPU, as far as that shows without a model.

    Raises:
        DeviceUnavailable: and says what is missing, and what to do.
    """
    reason = why_no_tensorrt() if gpu == "tensorrt" else why_no_cuda()
    if reason:
        raise DeviceUnavailable(f"no GPU can be used: {reason}")
    preload_cuda_libraries()


def open_on_gpu(
    model_path: Path, gpu: Gpu, options: GpuOptions, *, graphs: bool, stream: int | None
) -> ort.InferenceSession:
    """Open a model on the GPU, all of it; after `check_gpu`. `stream` is the handle of the stream to compute on.

    Raises:
        ModelUnloadable: ONNX Runtime refuses the file on the CPU too.
        DeviceUnavailable: the model does not run on the GPU, or not all of it.
    """
    providers: list[Any] = [(CUDA_PROVIDER, cuda_options(options, graphs=graphs, stream=stream))]
    if gpu == "tensorrt":
        inputs = open_on_cpu(model_path).get_inputs()
        providers.insert(0, (TENSORRT_PROVIDER, tensorrt_options(options, inputs, stream, _digest(model_path))))
    try:
        session = _inference_session(model_path, gpu_session_options(), providers)
    except Exception as err:
        open_on_cpu(model_path)  # a broken file is no fault of the GPU
        raise DeviceUnavailable(f"no GPU can be used for {model_path}: {_why_refused(err, providers[0][0])}") from err
    _check_came_up(session, providers[0][0])
    check_unmixed(count_nodes(session), {name for name, _ in providers})
    return session


def gpu_session_options() -> ort.SessionOptions:
    """The options of serving, for a session that is all on a GPU.

    No memory patterns: they allocate in the middle of a capture (microsoft/onnxruntime#14942).
    """
    options = serving_options()
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return options


def cuda_options(options: GpuOptions, *, graphs: bool, stream: int | None) -> dict[str, str]:
    """The CUDA provider's options. All shapes are known at start, so every algorithm may be tried for each."""
    named = {
        "use_tf32": str(int(options.tf32)),
        "enable_cuda_graph": str(int(graphs)),
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
    }
    return named if stream is None else named | {"user_compute_stream": str(stream)}


def tensorrt_options(options: GpuOptions, inputs: list[Any], stream: int | None, digest: str) -> dict[str, str]:
    """The TensorRT provider's options: one engine for batches up to the largest, kept from start to start.

    The cache has a folder for each model: TensorRT's own names look at the graph only, and other weights under the same
    graph would be taken for it. Its precision is the export's, and float32 stays float32 where the GPU could do less.

    Raises:
        DeviceUnavailable: the cache can not be written.
    """
    sizes = {"min": 1, "opt": 1, "max": options.largest_batch}
    shapes = {name: _profile(inputs, batch) for name, batch in sizes.items()}
    named = {f"trt_profile_{name}_shapes": shape for name, shape in shapes.items() if shape}
    named |= {f"trt_{lower}_enable": str(int(options.precision == lower)) for lower in ("fp16", "bf16", "int8")}
    if options.engine_cache is not None:
        folder = _make_cache(options.engine_cache / digest)
        named |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
        named |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(folder)}
    return named if stream is None else named | {"user_compute_stream": str(stream)}


def count_nodes(session: ort.InferenceSession) -> dict[str, int]:
    """Count the model's nodes by provider; nothing where ONNX Runtime does not tell."""
    try:
        assigned = session.get_provider_graph_assignment_info()
    except (AttributeError, RuntimeError):
        return {}
    counts: Counter[str] = Counter()
    for subgraph in assigned:
        counts[subgraph.ep_name] += len(subgraph.get_nodes())
    return dict(counts)


def check_unmixed(nodes: dict[str, int], allowed: set[str]) -> None:
    """Refuse a session with nodes on another provider than those that are allowed.

    Raises:
        DeviceUnavailable: and says how many nodes are where.
    """
    if set(nodes) - allowed:
        counted = ", ".join(f"{count} on {name}" for name, count in sorted(nodes.items()))
        raise DeviceUnavailable(f"no GPU can be used: the model's nodes would be mixed, {counted}")


# `/onnxruntime_src/….h:46 void onnxruntime::f(const std::string&, int) `: a signature ends with a bracket and a space.
SOURCE = re.compile(r"\s*/\S+\.(?:h|cc|cpp|cu|cuh):\d+ .*?\)\s(?:const )?(?:\[.*?\] ?)?")


def first_line(err: Exception) -> str:
    """Give the first line of what an error says: ONNX Runtime's have several, with stack traces.

    Where in its source that was raised, with the function's whole signature, says nothing to its users.
    """
    line = (str(err).strip().splitlines() or [type(err).__name__])[0]
    return SOURCE.sub(" ", line)[:400]


def _inference_session(model_path: Path, options: ort.SessionOptions, providers: list[Any]) -> ort.InferenceSession:
    session = ort.InferenceSession(str(model_path), options, providers=providers, enable_fallback=0)
    session.disable_fallback()
    return session


def _check_came_up(session: ort.InferenceSession, provider: str) -> None:
    if session.get_providers()[0] != provider:
        raise DeviceUnavailable(f"no GPU can be used: {why_provider_failed(provider)}")


def _why_refused(err: Exception, provider: str) -> str:
    if "fallback" in str(err).lower() and "disable" in str(err).lower():
        return f"some nodes would run on the CPU, or {why_provider_failed(provider)}"
    return first_line(err)


def _make_cache(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise DeviceUnavailable(
            f"TensorRT can not keep its engines in {folder}: {err.strerror}; name another place by --engine-cache"
        ) from err
    return folder


def _profile(inputs: list[Any], batch: int) -> str:
    """Write the inputs' shapes as TensorRT reads them, `x:1x3x224x224`; nothing if no axis is free."""
    if not any(isinstance(size, str | None) for node in inputs for size in node.shape):
        return ""
    return ",".join(f"{node.name}:{'x'.join(map(str, (batch, *node.shape[1:])))}" for node in inputs)


def _digest(model_path: Path) -> str:
    with model_path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
