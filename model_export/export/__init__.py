"""Export: a frozen network becomes a raw ONNX model, every BatchNormalization node still in it.

trace    torch's exporter, quiet, and without any of its optimizations
tidy     what the exporter leaves around the layers goes; nothing is fused
naming   nodes get the names of the modules they come from
check    what can not be exported is refused, and what was exported is run against the network
"""

from __future__ import annotations

import torch
from torch import nn

from model_export.export.check import check_answer, check_exportable, check_graph, check_same_answers
from model_export.export.naming import name_nodes
from model_export.export.tidy import tidy
from model_export.export.trace import trace
from model_export.inference_copy import inference_copy
from model_export.ir import ir

__all__ = ["export_raw"]


def export_raw(
    network: nn.Module,
    *,
    instance_shape: tuple[int, ...],
    input_name: str = "instance",
    dtype: torch.dtype = torch.float32,
) -> ir.Model:
    """Export `network`, which must be in inference mode, as it is: nothing is fused, no BatchNorm is folded.

    Args:
        network: takes a batch of instances, answers with one row of logits an instance; it is left as it is.
        instance_shape: the shape of ONE instance, without the batch axis.
        input_name: the name of the model's input, shape (batch, *instance_shape), its first axis symbolic.
        dtype: of the input.

    Returns:
        A model with the outputs `scores` (the softmax of the logits: they sum to one) and `logits`, each of shape
        (batch, labels). Initializers have the names of parameters and buffers, nodes those of their modules.

    Raises:
        NetworkInvalid: the network is not in inference mode, can not be exported, or came out wrong; names the layer.
    """
    check_exportable(network)
    copy = inference_copy(network, device="cpu")
    example = torch.zeros(2, *instance_shape, dtype=dtype)
    check_answer(copy, example)
    model = trace(copy, example, input_name=input_name)
    tidy(model)
    name_nodes(model)
    check_graph(model, copy, example)
    check_same_answers(model, copy, example)
    return model
