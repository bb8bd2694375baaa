"""The networks that can be trained: two of reference, with BatchNorm in every usual place, and one's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_export.errors import NetworkInvalid, first_line
from model_export.networks.options import Activation, NetworkOptions, NetworkSpec, Placement, specify
from model_export.networks.own import build_ones_own
from model_export.networks.reference import build_convnet, build_mlp
from model_export.networks.standardise import Standardise, fit_standardise

__all__ = [
    "Activation",
    "NetworkOptions",
    "NetworkSpec",
    "Placement",
    "Standardise",
    "build_network",
    "fit_standardise",
    "specify",
]


def build_network(spec: NetworkSpec) -> nn.Module:
    """A new network that maps float32 [N, *instance_shape] to logits [N, num_outputs], in training mode.

    Its weights are drawn from torch's global generator.

    Raises:
        NetworkInvalid: it can not be built for such instances, or gives something else than such logits.
    """
    network = _build(spec)
    _check_logits(network, spec)
    return network


def _build(spec: NetworkSpec) -> nn.Module:
    builders = {"mlp": build_mlp, "convnet": build_convnet}
    try:
        return builders.get(spec.options.network, build_ones_own)(spec)
    except (RuntimeError, MemoryError, OverflowError, TypeError) as err:  # torch's words for "too large"
        raise NetworkInvalid(
            f"{spec.options.network} can not be built with --hidden {spec.options.hidden}, which may be more than "
            f"memory holds: ask for fewer or narrower layers ({first_line(err)})"
        ) from err


def _check_logits(network: nn.Module, spec: NetworkSpec) -> None:
    """Run two instances of zeros through `network`, in inference mode so that no running average moves."""
    name, expected = spec.options.network, (2, spec.num_outputs)
    try:
        with torch.no_grad():
            logits = network.eval()(torch.zeros(2, *spec.instance_shape))
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as err:
        raise NetworkInvalid(f"{name} does not take instances of shape {spec.instance_shape}: {err}") from err
    finally:
        network.train()
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != expected:
        raise NetworkInvalid(f"{name}: expected logits of shape {expected} for two instances, found {found}")
