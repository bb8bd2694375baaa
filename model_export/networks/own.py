"""A network of one's own: `--network package.module:factory`, found from the current folder or what is installed."""

from __future__ import annotations

from torch import nn

from model_export.errors import NetworkInvalid
from model_export.networks.options import NetworkSpec
from model_export.ones_own import current_folder_importable, find_ones_own


def build_ones_own(spec: NetworkSpec) -> nn.Module:
    """What the factory returns for `instance_shape` and `num_outputs`, in training mode.

    Raises:
        NetworkInvalid: the factory can not be found or fails, or returns something else than a module.
    """
    name = spec.options.network
    with current_folder_importable():
        factory = find_ones_own(name, flag="--network", kind="function", error=NetworkInvalid)
        try:
            network = factory(spec.instance_shape, spec.num_outputs)
        except Exception as err:
            raise NetworkInvalid(
                f"{name}(instance_shape={spec.instance_shape}, num_outputs={spec.num_outputs}) failed: {err!r}"
            ) from err
    if not isinstance(network, nn.Module):
        raise NetworkInvalid(f"{name}: expected it to return a torch.nn.Module, found {type(network).__name__}")
    return network.train()
