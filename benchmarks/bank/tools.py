"""The tools that are compared, each as its own documentation says to call it: a model in, a model out."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import onnx
import onnx_ir as ir

from benchmarks.bank.errors import PeerMissing
from model_export.fold import fold
from service.runtime import ort

QUIET = 4  # ONNX Runtime's severity: fatal errors only
HOW_TO_INSTALL = "`make bench-bank`, or pip install onnxslim onnxsim onnxoptimizer"


@dataclass(frozen=True)
class Tool:
    """A tool. `short` heads a narrow column; `package` is the distribution whose version is told."""

    name: str
    short: str
    package: str
    call: str
    optimise: Callable[[onnx.ModelProto], onnx.ModelProto]


def _foldserve(model: onnx.ModelProto) -> onnx.ModelProto:
    return ir.to_proto(fold(ir.from_proto(model)).model)


def _onnxslim(model: onnx.ModelProto) -> onnx.ModelProto:
    slimmed: onnx.ModelProto = import_module("onnxslim").slim(model)
    return slimmed


def _onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    simplified: onnx.ModelProto = import_module("onnxsim").simplify(model)[0]
    return simplified


def _onnxoptimizer(model: onnx.ModelProto) -> onnx.ModelProto:
    """With its fixed point, for one pass makes work for another."""
    tool = import_module("onnxoptimizer")
    optimised: onnx.ModelProto = tool.optimize(model, tool.get_fuse_and_elimination_passes(), fixed_point=True)
    return optimised


def _onnxscript(model: onnx.ModelProto) -> onnx.ModelProto:
    optimised: onnx.ModelProto = import_module("onnxscript.optimizer").optimize(model)
    return optimised


def _onnxruntime(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph that it would run at its basic level, where its BatchNorm fusions are."""
    with tempfile.TemporaryDirectory(prefix="foldserve-bank-") as folder:
        options = quiet_options(ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def quiet_options(level: ort.GraphOptimizationLevel) -> ort.SessionOptions:
    """One thread, one level of optimisation, nothing on the terminal."""
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = QUIET
    options.intra_op_num_threads = 1
    return options


ONNX_RUNTIME, FOLDSERVE = "ONNX Runtime", "foldserve"
TOOLS = (
    Tool("onnxscript", "script", "onnxscript", "onnxscript.optimizer.optimize(model)", _onnxscript),
    Tool(
        "onnxoptimizer",
        "optim.",
        "onnxoptimizer",
        "onnxoptimizer.optimize(model, get_fuse_and_elimination_passes(), fixed_point=True)",
        _onnxoptimizer,
    ),
    Tool("onnxsim", "sim", "onnxsim", "onnxsim.simplify(model)", _onnxsim),
    Tool("onnxslim", "slim", "onnxslim", "onnxslim.slim(model)", _onnxslim),
    Tool(ONNX_RUNTIME, "ORT", "onnxruntime", "InferenceSession(model), default options", _onnxruntime),
    Tool(FOLDSERVE, "fold", "foldserve", "model_export.fold.fold(model)", _foldserve),
)


def find_tool(name: str) -> Tool:
    """The tool of that name, if it is installed.

    Raises:
        PeerMissing: it is not, or there is none of that name.
    """
    tool = next((tool for tool in TOOLS if tool.name == name), None)
    if tool is None:
        raise PeerMissing(f"expected one of {', '.join(each.name for each in TOOLS)}, got {name!r}")
    version_of(tool)
    return tool


def version_of(tool: Tool) -> str:
    """The version that is installed.

    Raises:
        PeerMissing: none is.
    """
    if tool.name == ONNX_RUNTIME:
        return str(ort.__version__)
    try:
        return importlib.metadata.version(tool.package)
    except importlib.metadata.PackageNotFoundError as err:
        raise PeerMissing(f"{tool.name} is not installed: {HOW_TO_INSTALL}, or choose others with --tools") from err
