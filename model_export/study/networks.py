"""The network of a trial: with equal seeds, the same first weights with BatchNorm, wherever it stands, and without.

The networks of reference get their weights afresh, drawn layer by layer from the trial's seed: Glorot & Bengio 2010's
for tanh and the logistic function, He et al. 2015's for the others, both normal; biases are 0. That is the usual good
practice for a network without BatchNorm. They standardise their input, unless a BatchNorm comes first.

One's own network keeps the weights that its factory gives it. Both arms see standardised input, each channel (of
images) or column (of tables); in the one without, each BatchNorm is replaced as `replacing.without_normalising` says.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

import torch
from torch import nn

from model_export.errors import NetworkInvalid
from model_export.networks import NetworkOptions, Standardise, build_network, fit_standardise, specify
from model_export.statistics import named_batchnorms
from model_export.study.data import Data
from model_export.study.replacing import replace_batchnorms, without_normalising
from model_export.study.trials import AS_BUILT, WITHOUT, Trial

GLOROT = ("tanh", "sigmoid")


def build_trial_network(trial: Trial, data: Data) -> nn.Module:
    """A new network in training mode, from raw instances to logits. Torch's generator is left as it was.

    Raises:
        NetworkInvalid: it can not be built; or one's own has no BatchNorm to be taken out.
    """
    is_own = ":" in trial.network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed)
        network = _build_own(trial, data) if is_own else _build_reference(trial, data)
    fit_standardise(network, data.train.instances)
    with torch.no_grad():
        for weight in weights(network):
            weight.mul_(trial.weight_scale)
    return network.train()


def weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights of the layers, in their order: matrices and kernels, neither biases nor γ and β."""
    return [parameter for parameter in network.parameters() if parameter.ndim > 1 and parameter.requires_grad]


def _build_reference(trial: Trial, data: Data) -> nn.Module:
    options = NetworkOptions(
        network=trial.network,
        placement=cast("Any", trial.placement),  # `specify` refuses words that it does not know
        activation=cast("Any", trial.activation),
        hidden=trial.hidden,
    )
    spec = specify(options, instance_shape=data.instance_shape, num_outputs=data.num_classes)
    network = build_network(spec)
    _draw_weights(network, glorot=spec.options.activation in GLOROT, seed=trial.seed)
    return network


def _draw_weights(network: nn.Module, *, glorot: bool, seed: int) -> None:
    """Draw each layer's weights from a generator of their own, so that a bias more or less moves none of them."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            if glorot:
                nn.init.xavier_normal_(layer.weight, generator=generator)
            else:
                nn.init.kaiming_normal_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _build_own(trial: Trial, data: Data) -> nn.Module:
    options = NetworkOptions(network=trial.network)
    spec = specify(options, instance_shape=data.instance_shape, num_outputs=data.num_classes)
    network = build_network(spec)
    if not named_batchnorms(network):
        raise NetworkInvalid(
            f"{trial.network} has no BatchNorm: the study compares a network with what it would be without; add one, "
            "or leave --network out for the networks of reference"
        )
    if trial.placement not in {AS_BUILT, WITHOUT}:
        raise NetworkInvalid(f"{trial.network}: expected the placement {AS_BUILT!r} or {WITHOUT!r}")
    if trial.placement == WITHOUT:
        network = replace_batchnorms(network, without_normalising)
    return nn.Sequential(OrderedDict(standardise=Standardise(data.instance_shape[0]), network=network))
