"""What users hold in their hands: one torch network as each of torch's exporters writes it, BatchNorms and all."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

import onnx
import onnx_ir as ir
import torch
from torch import nn

OPSET = 18  # both exporters write it


def dynamo(network: nn.Module, example: torch.Tensor) -> ir.Model:
    """`torch.onnx.export` as it is today, with its optimizer off, which would fold BatchNorms."""
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=OPSET,
            input_names=["x"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    return program.model


def torchscript(network: nn.Module, example: torch.Tensor, *, constant_folding: bool) -> ir.Model:
    """`torch.onnx.export` as it was for years. In `TrainingMode.EVAL` it would fold BatchNorms with its constants."""
    file = io.BytesIO()
    with _quiet():
        torch.onnx.export(
            network,
            (example,),
            file,  # type: ignore[arg-type]
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,  # the network itself is in inference mode
            do_constant_folding=constant_folding,
            opset_version=OPSET,
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes={"x": {0: "batch"}, "logits": {0: "batch"}},
        )
    return ir.from_proto(onnx.load_from_string(file.getvalue()))


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters' advice is not what is tested."""
    logger = logging.getLogger("torch")
    level = logger.level
    with ExitStack() as stack:
        stack.callback(logger.setLevel, level)
        logger.setLevel(logging.CRITICAL)
        stack.enter_context(torch.no_grad())
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        warnings.simplefilter("ignore")
        yield
