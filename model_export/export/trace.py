"""Torch's ONNX exporter, called so that it changes nothing, prints nothing, and fails in one sentence."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

import torch
from torch import nn
from torch.nn.utils import parametrize

from model_export.errors import NetworkInvalid
from model_export.ir import ir

OPSET = 20


def trace(network: nn.Module, example: torch.Tensor, *, input_name: str) -> ir.Model:
    """Export `network`, a copy that may be changed, and put a softmax behind its logits.

    Raises:
        NetworkInvalid: the exporter can not follow the network's forward.
    """
    _materialise_parametrizations(network)
    model = _export(network, example, input_name)
    _append_scores(model)
    return model


def _materialise_parametrizations(network: nn.Module) -> None:
    """Replace what computes a weight (weight_norm, spectral_norm, …) by the weight that it computes.

    Not by `parametrize.remove_parametrizations`: it takes the attribute from the class, which a copy shares with the
    network that it was copied from.
    """
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            _materialise(module)


@torch.no_grad()
def _materialise(module: nn.Module) -> None:
    parametrizations = module.parametrizations
    if not isinstance(parametrizations, nn.ModuleDict):
        raise NetworkInvalid(f"{type(module).__name__}.parametrizations is not torch's: rename that attribute")
    weights = {name: getattr(module, name).clone() for name in parametrizations}
    module.__class__ = type(module).__bases__[0]
    del module.parametrizations
    for name, weight in weights.items():
        module.register_parameter(name, nn.Parameter(weight))


def _export(network: nn.Module, example: torch.Tensor, input_name: str) -> ir.Model:
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                optimize=False,  # the optimizer would fold BatchNorms, and keep no account of it
                verbose=False,
                opset_version=OPSET,
                input_names=[input_name],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    except Exception as err:
        raise NetworkInvalid(
            f"the network can not be exported: {_first_cause(err)}. Its forward must be the same tensor operations for "
            "every instance and every batch size: no `if` on values, no fixed batch size, "
            "no conversion to numpy"
        ) from err
    if program is None:
        raise NetworkInvalid("the network can not be exported: the exporter returned nothing")
    return program.model


def _append_scores(model: ir.Model) -> None:
    logits = model.graph.outputs[0]
    softmax = ir.node("Softmax", [logits], {"axis": -1}, name="scores")
    scores = softmax.outputs[0]
    scores.name, scores.type, scores.shape = "scores", logits.type, logits.shape
    model.graph.append(softmax)
    model.graph.outputs.insert(0, scores)


def _first_cause(err: BaseException) -> str:
    """The sentence that says most is the first line of the innermost cause; its caller's lines are advice."""
    while err.__cause__ is not None:
        err = err.__cause__
    lines = str(err).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(err).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's advice, which is about torch's insides, off the terminal; its result is checked anyway."""
    logger = logging.getLogger("torch")
    level = logger.level
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        stack.callback(logger.setLevel, level)
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        yield
