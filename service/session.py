"""One model file opened in ONNX Runtime, with exactly the options that will serve: nothing else talks to the runtime.

The buffers are fixed and bound once: write one instance into `input`, call `run`, read `outputs`. On the CPU the
runtime reads and writes these very arrays; on the GPU they are copied to and from bound device memory. A session is
therefore for one thread at a time. `bind` gives further buffers, for several instances at once.

Whatever was asked for, `provider` is where the nodes really run, and all of them run there: a session that would
mix GPU and CPU is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle import Signature, TensorSpec
from service.device import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    Device,
    preload_cuda_libraries,
    why_no_cuda,
    why_provider_failed,
)
from service.errors import DeviceUnavailable, ModelUnloadable, PredictionFailed, SignatureMismatch
from service.runtime import ONLY_FATAL, ort, serving_options

INSTANCE_DTYPES = ("float32", "float64", "int64")
SCORE_DTYPES = ("float32", "float64")
# TF32 would round the GPU's products to 10 bits, and its answers would part from the CPU's in the fourth digit.
CUDA_OPTIONS = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """On which device a session runs: the one that was asked for, the one it got, and why they differ if they do.

    `nodes` counts the model's nodes by provider; it is empty where ONNX Runtime does not tell.
    """

    requested: Device
    provider: str
    reason: str
    nodes: dict[str, int]


class Batch:
    """Bound buffers, with the batch as axis 0: write `input`, call `run`, read `outputs`."""

    def __init__(self, run: Callable[[], None], instances: Array, outputs: tuple[Array, ...]) -> None:
        self._run = run
        self.input = instances
        self.outputs = outputs

    def run(self) -> None:
        """Compute `outputs` from `input`.

        Raises:
            PredictionFailed: ONNX Runtime failed.
        """
        try:
            self._run()
        except Exception as err:  # ONNX Runtime's errors have no common base class
            raise PredictionFailed(f"ONNX Runtime failed on this instance: {_first_line(err)}") from err


class Session:
    """A model that is ready to run. Its own buffers are a batch of one, with all outputs."""

    def __init__(self, session: ort.InferenceSession, signature: Signature, placement: Placement) -> None:
        self.signature = signature
        self.placement = placement
        self.has_free_batch = _has_free_batch(session)
        self._session = session
        one = self.bind((1,))[1]
        self.input, self.outputs, self.run = one.input, one.outputs, one.run

    def bind(self, sizes: Sequence[int]) -> dict[int, Batch]:
        """Bind a batch of each size. All are the first rows of the same memory."""
        instances = _empty_buffer(self.signature.input, max(sizes))
        outputs = [_empty_buffer(spec, max(sizes)) for spec in self.signature.outputs]
        return {size: self._bind(instances[:size], tuple(output[:size] for output in outputs)) for size in sizes}

    def _bind(self, instances: Array, outputs: tuple[Array, ...]) -> Batch:
        bind = _bind_host_buffers if self.placement.provider == CPU_PROVIDER else _bind_device_buffers
        return Batch(bind(self._session, self.signature, instances, outputs), instances, outputs)


def open_session(model_path: Path, *, signature: Signature | None = None, device: Device = "auto") -> Session:
    """Open a model on a device; without a signature, the one that the model's own inputs and outputs spell.

    Raises:
        ModelUnloadable: ONNX Runtime refuses the file, or its inputs and outputs are not of a form that can be served.
        SignatureMismatch: the model's inputs and outputs are not the signature's.
        DeviceUnavailable: `device` is "cuda", and no GPU can be used.
    """
    ort.set_default_logger_severity(ONLY_FATAL)
    session, reason = _open_on(model_path, device)
    found = _read_signature(session, model_path)
    if signature is not None:
        _check_signature(expected=signature, found=found, model_path=model_path)
    placement = Placement(
        requested=device, provider=session.get_providers()[0], reason=reason, nodes=_count_nodes(session)
    )
    return Session(session, signature or found, placement)


# --- on which device -------------------------------------------------------------------------------------------------


def _open_on(model_path: Path, device: Device) -> tuple[ort.InferenceSession, str]:
    if device == "cpu":
        return _open_on_cpu(model_path), ""
    try:
        return _open_on_cuda(model_path), ""
    except DeviceUnavailable as err:
        if device == "cuda":
            raise
        return _open_on_cpu(model_path), str(err)


def _open_on_cpu(model_path: Path) -> ort.InferenceSession:
    try:
        return _inference_session(model_path, serving_options(), [CPU_PROVIDER])
    except Exception as err:  # ONNX Runtime's errors have no common base class
        raise ModelUnloadable(f"ONNX Runtime refuses {model_path}: {_first_line(err)}") from err


def _open_on_cuda(model_path: Path) -> ort.InferenceSession:
    reason = why_no_cuda()
    if reason:
        raise DeviceUnavailable(f"no GPU can be used: {reason}")
    preload_cuda_libraries()
    options = serving_options()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = _inference_session(model_path, options, [(CUDA_PROVIDER, CUDA_OPTIONS)])
    except Exception as err:
        _open_on_cpu(model_path)  # a broken file is no fault of the GPU
        raise DeviceUnavailable(f"no GPU can be used for {model_path}: {_why_refused(err)}") from err
    if session.get_providers()[0] != CUDA_PROVIDER:
        raise DeviceUnavailable(f"no GPU can be used: {why_provider_failed()}")
    return session


def _why_refused(err: Exception) -> str:
    if "fallback" in str(err).lower() and "disable" in str(err).lower():
        return f"some nodes would run on the CPU, or {why_provider_failed()}"
    return _first_line(err)


def _inference_session(model_path: Path, options: ort.SessionOptions, providers: list[Any]) -> ort.InferenceSession:
    session = ort.InferenceSession(str(model_path), options, providers=providers, enable_fallback=0)
    session.disable_fallback()
    return session


def _count_nodes(session: ort.InferenceSession) -> dict[str, int]:
    try:
        assigned = session.get_provider_graph_assignment_info()
    except (AttributeError, RuntimeError):
        return {}
    counts: Counter[str] = Counter()
    for subgraph in assigned:
        counts[subgraph.ep_name] += len(subgraph.get_nodes())
    return dict(counts)


# --- the fixed buffers -----------------------------------------------------------------------------------------------


def _empty_buffer(spec: TensorSpec, size: int) -> Array:
    return np.zeros((size, *spec.shape), dtype=spec.dtype)


def _bind_host_buffers(
    session: ort.InferenceSession, signature: Signature, instance: Array, outputs: tuple[Array, ...]
) -> Callable[[], None]:
    # An OrtValue borrows the array's memory. The closure keeps all of them alive, the session's owner keeps the arrays.
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in (instance, *outputs)]
    run_bound = _plan_bound_run(session, _bind(session, signature, values))

    def run(_borrowed: object = values) -> None:
        run_bound()

    return run


def _bind_device_buffers(
    session: ort.InferenceSession, signature: Signature, instance: Array, outputs: tuple[Array, ...]
) -> Callable[[], None]:
    instance_value, *output_values = [
        ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), array.dtype.type, "cuda", 0)
        for array in (instance, *outputs)
    ]
    run_bound = _plan_bound_run(session, _bind(session, signature, [instance_value, *output_values]))

    def run() -> None:
        instance_value.update_inplace(instance)
        run_bound()
        for output, value in zip(outputs, output_values, strict=True):
            np.copyto(output, value.numpy())

    return run


def _plan_bound_run(session: ort.InferenceSession, binding: ort.IOBinding) -> Callable[[], None]:
    """Run with the binding, past the Python wrapper where that can be done.

    The wrapper of ONNX Runtime 1.31 asks on every run whether WebGPU captures graphs: 37 µs around a run of 15.
    """
    run_options = ort.RunOptions()
    inner, inner_binding = getattr(session, "_sess", None), getattr(binding, "_iobinding", None)
    if inner is None or inner_binding is None:
        return lambda: session.run_with_iobinding(binding, run_options)
    return lambda: inner.run_with_iobinding(inner_binding, run_options)


def _bind(session: ort.InferenceSession, signature: Signature, values: list[ort.OrtValue]) -> ort.IOBinding:
    binding = session.io_binding()
    binding.bind_ortvalue_input(signature.input.name, values[0])
    for spec, value in zip(signature.outputs, values[1:], strict=True):
        binding.bind_ortvalue_output(spec.name, value)
    return binding


# --- the signature that a model file spells --------------------------------------------------------------------------


def _read_signature(session: ort.InferenceSession, model_path: Path) -> Signature:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        names = ", ".join(repr(node.name) for node in inputs)
        raise ModelUnloadable(f"{model_path}: expected a model with one input, it has {len(inputs)} ({names})")
    signature = Signature(
        input=_read_spec(inputs[0], "input", model_path),
        outputs=tuple(_read_spec(node, "output", model_path) for node in outputs),
    )
    _check_servable(signature, model_path)
    return signature


def _read_spec(node: Any, role: str, model_path: Path) -> TensorSpec:
    where = f"{model_path}: {role} {node.name!r}"
    dtype = _numpy_dtype(node.type, where)
    if not node.shape or not (isinstance(node.shape[0], str | None) or node.shape[0] == 1):
        raise ModelUnloadable(
            f"{where} has shape {_show_shape(node.shape)}: expected a first axis for the batch, free or 1"
        )
    if not all(isinstance(size, int) and size > 0 for size in node.shape[1:]):
        raise ModelUnloadable(
            f"{where} has shape {_show_shape(node.shape)}: expected only the batch axis to be free; "
            "export the model with fixed sizes"
        )
    return TensorSpec(name=node.name, dtype=dtype, shape=tuple(node.shape[1:]))


def _numpy_dtype(onnx_type: str, where: str) -> str:
    names = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(int64)": "int64"}
    if onnx_type not in names:
        raise ModelUnloadable(f"{where} is a {onnx_type}: expected a tensor of {', '.join(INSTANCE_DTYPES)}")
    return names[onnx_type]


def _has_free_batch(session: ort.InferenceSession) -> bool:
    return all(not isinstance(node.shape[0], int) for node in (*session.get_inputs(), *session.get_outputs()))


def _check_servable(signature: Signature, model_path: Path) -> None:
    if not signature.input.shape:
        raise ModelUnloadable(
            f"{model_path}: input {signature.input.name!r} has only a batch axis: expected at least one axis more"
        )
    scores = signature.outputs[0]
    if len(scores.shape) != 1 or scores.dtype not in SCORE_DTYPES:
        raise ModelUnloadable(
            f"{model_path}: the first output, {scores.name!r}, is {scores.dtype} [batch, {_join(scores.shape)}]: "
            f"expected the scores, {' or '.join(SCORE_DTYPES)} [batch, labels]"
        )


def _check_signature(*, expected: Signature, found: Signature, model_path: Path) -> None:
    if (expected.input, expected.outputs) != (found.input, found.outputs):
        raise SignatureMismatch(
            f"{model_path} is not the model of its signature: expected {_show(expected)}, found {_show(found)}"
        )
    _check_labels(expected)
    _check_features(expected)


def _check_labels(signature: Signature) -> None:
    num_scores = signature.outputs[0].shape[0]
    if signature.labels and len(signature.labels) != num_scores:
        raise SignatureMismatch(f"the signature names {len(signature.labels)} labels for {num_scores} scores")


def _check_features(signature: Signature) -> None:
    width = sum(feature.width for feature in signature.features)
    names = [feature.name for feature in signature.features]
    if len(set(names)) != len(names):
        raise SignatureMismatch("two of the signature's features have the same name")
    if signature.features and signature.input.shape != (width,):
        raise SignatureMismatch(
            f"the signature's features fill {width} values, its input has shape [{_join(signature.input.shape)}]"
        )


def _show(signature: Signature) -> str:
    specs = (signature.input, *signature.outputs)
    return " → ".join(f"{spec.name} {spec.dtype} [{_join(spec.shape)}]" for spec in specs)


def _show_shape(shape: list[int | str | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _join(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes))


def _first_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0][:300]
