"""ResNet-50 as an ONNX graph (He et al. 2015, table 1): 25.6 million weights, 53 Convs with a BatchNorm each.

Written node by node, with random weights of the usual scale and statistics of a trained network's spread: the fold's
speed depends on shapes alone, and no exporter, package or download is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))  # blocks, width, stride of the first
EXPANSION = 4


@dataclass
class _Graph:
    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def weight(self, name: str, values: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv_batchnorm(self, x: str, channels: tuple[int, int], kernel: int, name: str, *, stride: int = 1) -> str:
        inputs, outputs = channels
        scale = np.sqrt(2 / (inputs * kernel * kernel))
        shape = (outputs, inputs, kernel, kernel)
        weight = self.weight(f"{name}.weight", self.rng.standard_normal(shape, dtype=np.float32) * scale)
        pads = [kernel // 2] * 4
        y = self.op("Conv", [x, weight], name, pads=pads, strides=[stride, stride], kernel_shape=[kernel, kernel])
        draws = {
            "scale": self.rng.uniform(0.5, 1.5, outputs),
            "offset": self.rng.normal(0, 0.1, outputs),
            "mean": self.rng.normal(0, 0.1, outputs),
            "var": 10.0 ** self.rng.uniform(-0.3, 0.3, outputs),
        }
        parameters = [self.weight(f"{name}_bn.{what}", values) for what, values in draws.items()]
        return self.op("BatchNormalization", [y, *parameters], f"{name}_bn")


def write_resnet50(path: Path, *, seed: int = 0) -> None:
    """Write the model: input `x` of shape (batch, 3, 224, 224), output (batch, 1000)."""
    g = _Graph(np.random.default_rng(seed))
    x = g.op("Relu", [g.conv_batchnorm("x", (3, 64), 7, "stem", stride=2)], "stem_relu")
    x = g.op("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, (blocks, width, stride) in enumerate(STAGES):
        for block in range(blocks):
            x = _bottleneck(g, x, (channels, width), f"layer{stage}.{block}", stride=stride if block == 0 else 1)
            channels = width * EXPANSION
    pooled = g.op("Flatten", [g.op("GlobalAveragePool", [x], "average")], "flat")
    head = g.weight("fc.weight", g.rng.standard_normal((channels, 1000), dtype=np.float32) / np.sqrt(channels))
    g.op("Gemm", [pooled, head, g.weight("fc.bias", np.zeros(1000))], "fc")
    onnx.save(_model(g), path)


def _bottleneck(g: _Graph, x: str, channels: tuple[int, int], name: str, *, stride: int) -> str:
    inputs, width = channels
    y = g.op("Relu", [g.conv_batchnorm(x, (inputs, width), 1, f"{name}.conv0")], f"{name}.relu0")
    y = g.op("Relu", [g.conv_batchnorm(y, (width, width), 3, f"{name}.conv1", stride=stride)], f"{name}.relu1")
    y = g.conv_batchnorm(y, (width, width * EXPANSION), 1, f"{name}.conv2")
    if inputs != width * EXPANSION or stride != 1:
        x = g.conv_batchnorm(x, (inputs, width * EXPANSION), 1, f"{name}.shortcut", stride=stride)
    return g.op("Relu", [g.op("Add", [y, x], f"{name}.add")], f"{name}.relu2")


def _model(g: _Graph) -> onnx.ModelProto:
    graph = helper.make_graph(
        g.nodes,
        "resnet50",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [helper.make_tensor_value_info("fc_out", TensorProto.FLOAT, ["batch", 1000])],
        g.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
