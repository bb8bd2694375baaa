"""One model file opened in ONNX Runtime, with exactly the options that will serve: nothing else talks to the runtime.

The buffers are fixed and bound once: write one instance into `input`, call `run`, read `outputs`. On the CPU the
runtime reads and writes these very arrays; on the GPU they are copied to and from bound device memory. A session is
therefore for one thread at a time. `bind` gives further buffers, for several instances at once.

Whatever was asked for, `provider` is where the nodes really run, and all of them run there: a session that would
mix GPU and CPU is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from service.buffers import Array, Buffers, HostBuffers
from service.bundle import Signature, TensorSpec
from service.cuda import DeviceBuffers, Staging
from service.cudart import find_cuda_runtime
from service.device import AS_USUAL, GpuOptions
from service.device_failures import explain_failure
from service.errors import DeviceUnavailable, ModelUnloadable, SignatureMismatch
from service.placement import Placement
from service.providers import Gpu, check_gpu, count_nodes, first_line, open_on_cpu, open_on_gpu
from service.runtime import ONLY_FATAL, ort

INSTANCE_DTYPES = ("float32", "float64", "int64")
SCORE_DTYPES = ("float32", "float64")
CAPTURED = "captured"


class Batch:
    """Bound buffers, with the batch as axis 0: write `input`, call `run`, read `outputs`."""

    def __init__(
        self, run: Callable[[], None], instances: Array, outputs: tuple[Array, ...], *, warm_up_runs: int = 0
    ) -> None:
        self._run = run
        self._warm_up_runs = warm_up_runs
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
            raise explain_failure(first_line(err)) from err

    def warm_up(self) -> None:
        """Make the runs that a thread has to make before the first that counts; on the CPU there are none.

        Raises:
            PredictionFailed: ONNX Runtime failed.
        """
        for _ in range(self._warm_up_runs):
            self.run()


class Session:
    """A model that is ready to run. Its own buffers are a batch of one, with all outputs."""

    def __init__(
        self, session: ort.InferenceSession, signature: Signature, placement: Placement, buffers: Buffers
    ) -> None:
        self.signature = signature
        self.placement = placement
        self.has_free_batch = _has_free_batch(session)
        self._buffers = buffers
        one = self.bind((1,))[1]
        self.input, self.outputs, self.run = one.input, one.outputs, one.run

    def bind(self, sizes: Sequence[int]) -> dict[int, Batch]:
        """Bind a batch of each size. All are the first rows of the same memory."""
        instances = self._buffers.empty(self.signature.input, max(sizes))
        outputs = [self._buffers.empty(spec, max(sizes)) for spec in self.signature.outputs]
        return {size: self._bind(instances[:size], tuple(output[:size] for output in outputs)) for size in sizes}

    def num_bytes_used(self) -> int | None:
        """Count the bytes of the GPU's memory that are taken, by whomever; None if there is none, or no telling."""
        return self._buffers.num_bytes_used()

    def _bind(self, instances: Array, outputs: tuple[Array, ...]) -> Batch:
        run = self._buffers.bind(instances, outputs)
        return Batch(run, instances, outputs, warm_up_runs=self._buffers.warm_up_runs)


def open_session(
    model_path: Path,
    *,
    signature: Signature | None = None,
    device: Literal["auto", "cuda", "cpu", "tensorrt"] = "auto",
    gpu: GpuOptions = AS_USUAL,
) -> Session:
    """Open a model on a device; without a signature, the one that the model's own inputs and outputs spell.

    Raises:
        ModelUnloadable: ONNX Runtime refuses the file, or its inputs and outputs are not of a form that can be served.
        SignatureMismatch: the model's inputs and outputs are not the signature's.
        DeviceUnavailable: `device` is "cuda" or "tensorrt", and can not be used.
    """
    ort.set_default_logger_severity(ONLY_FATAL)
    if device == "cpu":
        return _open_on_cpu(model_path, signature)
    if device != "auto":
        return _open_on_gpu(model_path, signature, device, gpu)
    try:
        session, reason = _open_on_gpu(model_path, signature, "cuda", gpu), ""
    except DeviceUnavailable as err:
        session, reason = _open_on_cpu(model_path, signature), str(err)
    session.placement = replace(session.placement, requested=device, reason=reason)
    return session


# --- on which device -------------------------------------------------------------------------------------------------


def _open_on_cpu(model_path: Path, wanted: Signature | None) -> Session:
    session = open_on_cpu(model_path)
    signature = _settle_signature(session, wanted, model_path)
    placement = Placement(requested="cpu", provider=session.get_providers()[0], reason="", nodes=count_nodes(session))
    return Session(session, signature, placement, HostBuffers(session, signature))


def _open_on_gpu(model_path: Path, wanted: Signature | None, device: Gpu, gpu: GpuOptions) -> Session:
    """Open with CUDA graphs where they can be captured, else without them, and say why."""
    check_gpu(device)
    why_not = "not asked for"
    if gpu.graphs and device == "cuda":
        try:
            return _try_on_gpu(model_path, wanted, device, gpu, graphs=CAPTURED)
        except DeviceUnavailable as err:
            why_not = str(err)
    elif device == "tensorrt":
        why_not = "TensorRT launches its engine as one"
    return _try_on_gpu(model_path, wanted, device, gpu, graphs=f"none: {why_not}")


def _try_on_gpu(model_path: Path, wanted: Signature | None, device: Gpu, gpu: GpuOptions, *, graphs: str) -> Session:
    """Open on the GPU and make the first run, which is where a graph is captured."""
    staging, captured = _stage(gpu), graphs == CAPTURED
    stream = staging.stream if staging else None
    session = open_on_gpu(model_path, device, gpu, graphs=captured, stream=stream)
    signature = _settle_signature(session, wanted, model_path)
    placement = Placement(
        requested=device,
        provider=session.get_providers()[0],
        reason="",
        nodes=count_nodes(session),
        graphs=graphs,
    )
    try:
        buffers = DeviceBuffers(session, signature, graphs=captured, staging=staging)
        opened = Session(session, signature, placement, buffers)
        opened.run()
    except Exception as err:  # ONNX Runtime's errors have no common base class
        raise DeviceUnavailable(f"no GPU can be used for {model_path}: {first_line(err)}") from err
    return opened


def _stage(gpu: GpuOptions) -> Staging | None:
    """Prepare copies by page-locked memory; None if they are not wanted, or the CUDA runtime can not be called."""
    runtime = find_cuda_runtime() if gpu.staged else None
    return None if runtime is None else Staging(runtime, runtime.create_stream())


def _settle_signature(session: ort.InferenceSession, wanted: Signature | None, model_path: Path) -> Signature:
    try:
        found = _read_signature(session, model_path)
    except UnicodeDecodeError as err:
        raise ModelUnloadable(
            f"{model_path}: the name of an input, an output or an axis is no text in UTF-8: export the model again"
        ) from err
    if wanted is None:
        return found
    _check_signature(expected=wanted, found=found, model_path=model_path)
    return wanted


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
    if not signature.outputs:
        raise ModelUnloadable(f"{model_path}: the model has no output: expected the scores")
    scores = signature.outputs[0]
    shape = ", ".join(["batch", *map(str, scores.shape)])
    if len(scores.shape) != 1 or scores.dtype not in SCORE_DTYPES:
        raise ModelUnloadable(
            f"{model_path}: the first output, {scores.name!r}, is {scores.dtype} [{shape}]: "
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
