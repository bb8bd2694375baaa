"""The two networks of reference, plain stacks of named layers, with BatchNorm in the place that was chosen."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import nn

from model_export.networks.options import KERNEL_SIZE, POOL_SIZE, NetworkOptions, NetworkSpec, image_shape
from model_export.networks.standardise import Standardise

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def build_mlp(spec: NetworkSpec) -> nn.Module:
    """Dense layers with an activation each, and a last one that gives the logits."""
    options, width = spec.options, math.prod(spec.instance_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(spec.instance_shape) > 1:
        layers["flatten"] = nn.Flatten()
    layers |= _first_layer(options, width, nn.BatchNorm1d)
    for index, next_width in enumerate(options.hidden or (), start=1):
        dense = nn.Linear(width, next_width, bias=not _stands_before(options))
        layers |= _hidden_layer(options, index, ("dense", dense), nn.BatchNorm1d(next_width, **_batchnorm(options)))
        width = next_width
    layers |= _last_layers(options, (f"dense{len(options.hidden or ()) + 1}", width), spec.num_outputs)
    return nn.Sequential(layers)


def build_convnet(spec: NetworkSpec) -> nn.Module:
    """Convolutions with pooling in between, and a dense layer that gives the logits.

    The convolutions have no padding: only then a BatchNorm in front of one can be folded into it exactly.
    """
    num_channels, height, width = image_shape(spec.instance_shape)
    options, layers = spec.options, _first_layer(spec.options, num_channels, nn.BatchNorm2d)
    for index, next_channels in enumerate(options.hidden or (), start=1):
        if index > 1:
            layers[f"pool{index - 1}"] = nn.MaxPool2d(POOL_SIZE)
            height, width = height // POOL_SIZE, width // POOL_SIZE
        convolution = nn.Conv2d(num_channels, next_channels, KERNEL_SIZE, bias=not _stands_before(options))
        batchnorm = nn.BatchNorm2d(next_channels, **_batchnorm(options))
        layers |= _hidden_layer(options, index, ("conv", convolution), batchnorm)
        num_channels, height, width = next_channels, height - KERNEL_SIZE + 1, width - KERNEL_SIZE + 1
    layers["flatten"] = nn.Flatten()
    layers |= _last_layers(options, ("dense1", num_channels * height * width), spec.num_outputs)
    return nn.Sequential(layers)


def _first_layer(
    options: NetworkOptions, num_features: int, batchnorm: Callable[..., nn.Module]
) -> OrderedDict[str, nn.Module]:
    if str(options.placement).startswith("first"):
        return OrderedDict(batchnorm0=batchnorm(num_features, **_batchnorm(options)))
    return OrderedDict(standardise=Standardise(num_features))


def _hidden_layer(
    options: NetworkOptions, index: int, layer: tuple[str, nn.Module], batchnorm: nn.Module
) -> OrderedDict[str, nn.Module]:
    """Dense or convolution, activation and BatchNorm, in the order of the placement and with names that tell it."""
    name, module = layer
    hidden = OrderedDict({f"{name}{index}": module})
    if _stands_before(options):
        hidden[f"batchnorm{index}"] = batchnorm
    hidden[f"{options.activation}{index}"] = ACTIVATIONS[str(options.activation)]()
    if str(options.placement).endswith("after"):
        hidden[f"batchnorm{index}"] = batchnorm
    return hidden


def _last_layers(options: NetworkOptions, last: tuple[str, int], num_outputs: int) -> OrderedDict[str, nn.Module]:
    name, width = last
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if options.dropout:
        layers["dropout"] = nn.Dropout(options.dropout)
    layers[name] = nn.Linear(width, num_outputs)
    return layers


def _stands_before(options: NetworkOptions) -> bool:
    return str(options.placement).endswith("before")


def _batchnorm(options: NetworkOptions) -> dict[str, Any]:
    return {"momentum": options.momentum, "eps": options.eps}
