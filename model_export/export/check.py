"""What is refused at export: a network that is not ready for it, and a graph that is not the network.

The exporter has its own faults, such as scales as large as the activation, or a batch size that it made a constant. So
what it wrote is run, with ONNX Runtime's optimizations off, and compared with the network that it was made from.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from model_export.errors import NetworkInvalid, StatisticsInvalid
from model_export.export.tidy import is_inference_dropout
from model_export.ir import ir
from model_export.random_operators import RANDOM_OPERATORS
from model_export.statistics import applied_batchnorms, held_statistics, named_batchnorms
from service.runtime import ort

BATCH_SIZES = (1, 3)
# Relative to the largest answer. Two correct float32 runtimes differ by 1e-6 to 1e-5 of it on deep networks; what this
# guard is for, a wrong scale, axis or constant, changes the first digits.
DEFECT_TOLERANCE = 1e-3


def check_exportable(network: nn.Module) -> None:
    """Refuse a network whose answers depend on chance, or on the rest of the batch.

    Raises:
        NetworkInvalid: and names the layers.
    """
    training = [name or "the network itself" for name, module in network.named_modules() if module.training]
    if training:
        raise NetworkInvalid(
            f"{_first_few(training)} are in training mode: export what freeze() returns, or call network.eval() first"
        )
    for name, batchnorm in named_batchnorms(network).items():
        try:
            held_statistics(name, batchnorm)
        except StatisticsInvalid as err:
            raise NetworkInvalid(str(err)) from err


def check_answer(network: nn.Module, example: torch.Tensor) -> None:
    """Refuse a network that does not answer with one row of logits an instance.

    Raises:
        NetworkInvalid: and says what it answers with, or what it says to such an instance.
    """
    answer = _answer(network, example)
    if not isinstance(answer, torch.Tensor) or answer.ndim != 2 or len(answer) != len(example):
        raise NetworkInvalid(
            f"expected the network to answer {len(example)} instances with a tensor of shape ({len(example)}, labels), "
            f"it answered with {_shape_of(answer)}: let forward return one row of logits an instance"
        )


def check_graph(model: ir.Model, network: nn.Module, example: torch.Tensor) -> None:
    """Refuse a graph that is not valid ONNX, not deterministic, or has other BatchNorms than the network.

    Raises:
        NetworkInvalid: and names the node.
    """
    for node in model.graph.all_nodes():
        _check_deterministic(node)
    _check_num_batchnorms(model, applied_batchnorms(network, example))
    try:
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as err:
        raise NetworkInvalid(f"torch's exporter wrote a model that is not valid ONNX: {err}") from err


def check_same_answers(model: ir.Model, network: nn.Module, example: torch.Tensor) -> None:
    """Refuse a model that does not answer as `network` does, on random instances, alone and in a batch.

    Raises:
        NetworkInvalid: and says by how much it differs, or what ONNX Runtime says.
    """
    try:
        session = _session(model)
    except Exception as err:
        raise NetworkInvalid(f"ONNX Runtime can not load what torch's exporter wrote: {err}") from err
    for batch_size in BATCH_SIZES:
        _check_batch(session, network, _random_batch(example, batch_size))


def _check_deterministic(node: ir.Node) -> None:
    if node.op_type in RANDOM_OPERATORS or (node.op_type == "Dropout" and not is_inference_dropout(node)):
        raise NetworkInvalid(
            f"layer {node.name!r} draws random numbers at inference ({node.op_type}): in its forward, do so only "
            "`if self.training`"
        )
    if node.op_type == "BatchNormalization" and _uses_its_batch(node):
        raise NetworkInvalid(
            f"BatchNorm {node.name!r} normalises with its batch at inference: use the nn.BatchNorm modules, in "
            "inference mode"
        )


def _uses_its_batch(node: ir.Node) -> bool:
    training_mode = node.attributes.get("training_mode")
    return training_mode is not None and bool(training_mode.as_int())


def _check_num_batchnorms(model: ir.Model, applied: tuple[str, ...]) -> None:
    found = [str(node.name) for node in model.graph.all_nodes() if node.op_type == "BatchNormalization"]
    if len(found) != len(applied):
        raise NetworkInvalid(
            f"the network applies {len(applied)} BatchNorms ({_first_few(applied)}), the exported graph has "
            f"{len(found)} ({_first_few(found)}): use the nn.BatchNorm modules, not functional.batch_norm"
        )


def _answer(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    try:
        with torch.no_grad():
            answer: torch.Tensor = network(batch)
    except Exception as err:
        raise NetworkInvalid(
            f"the network can not take a batch of {len(batch)} instances of shape {tuple(batch.shape[1:])} and dtype "
            f"{batch.dtype}: {err}"
        ) from err
    return answer


def _check_batch(session: ort.InferenceSession, network: nn.Module, batch: torch.Tensor) -> None:
    logits = _answer(network, batch)
    expected = {"scores": torch.softmax(logits, dim=-1).numpy(), "logits": logits.numpy()}
    for name, answer in _run(session, batch.numpy()).items():
        _check_close(name, answer, expected[name])


def _run(session: ort.InferenceSession, batch: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
    names = [output.name for output in session.get_outputs()]
    try:
        answers = session.run(names, {session.get_inputs()[0].name: batch})
    except Exception as err:
        raise NetworkInvalid(
            f"the exported model does not take a batch of {len(batch)}, as a rule because forward fixes the batch "
            "size. Take it from batch.shape[0]; len(batch) is a constant to the exporter"
        ) from err
    return dict(zip(names, answers, strict=True))


def _check_close(name: str, answer: NDArray[np.generic], expected: NDArray[np.generic]) -> None:
    tolerance = DEFECT_TOLERANCE * np.nanmax(np.abs(expected), initial=0)
    if answer.shape != expected.shape or not np.allclose(answer, expected, rtol=0, atol=tolerance, equal_nan=True):
        raise NetworkInvalid(
            f"torch's exporter wrote a model that is not the network: for {len(expected)} random instances its {name} "
            f"are {_shape_of(answer)}, {_difference(answer, expected)} from the network's"
        )


def _difference(answer: NDArray[np.generic], expected: NDArray[np.generic]) -> str:
    if answer.shape != expected.shape:
        return f"and not {expected.shape},"
    return f"up to {np.nanmax(np.abs(np.subtract(answer, expected))):.2g} away"


def _session(model: ir.Model) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what goes wrong is raised; here it is not also printed
    content = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _random_batch(example: torch.Tensor, batch_size: int) -> torch.Tensor:
    shape = (batch_size, *example.shape[1:])
    if not example.is_floating_point():
        return torch.zeros(shape, dtype=example.dtype)
    return torch.randn(shape, dtype=example.dtype, generator=torch.Generator().manual_seed(0))


def _shape_of(answer: object) -> str:
    shape = getattr(answer, "shape", None)
    return type(answer).__name__ if shape is None else f"a tensor of shape {tuple(shape)}"


def _first_few(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
