"""What one may choose about a network, what is chosen when one does not, and what is refused.

A placement says where BatchNorm stands; `first` is on the raw input, before everything else:

    first+after     [BN]  Dense Activation BN  …  Dense      the default of `mlp`: Flatten, BN, Dense, ELU, BN, …
    first+before    [BN]  Dense BN Activation  …  Dense      the default of `convnet`: Conv without bias, BN, ReLU
    first           [BN]  Dense Activation     …  Dense
    after                 Dense Activation BN  …  Dense
    before                Dense BN Activation  …  Dense
    none                  Dense Activation     …  Dense      to compare with

Where BatchNorm does not stand first, `Standardise` does: raw values are fine everywhere, in training and in serving.
Before an activation the layer in front of BatchNorm has no bias, for BatchNorm would subtract it again.

Dropout, if any, stands once: in front of the last layer. In front of a BatchNorm it would make the variance that
training sees another than the one that inference sees (Li et al., 2019, "Understanding the Disharmony between
Dropout and Batch Normalization by Variance Shift").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from model_export.errors import NetworkInvalid

Placement = Literal["first+after", "first+before", "first", "after", "before", "none"]
Activation = Literal["elu", "relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid"]

SMALLEST_EPS = 1e-12  # below, a constant channel's 1/√eps is so large that float32 overflows soon after
KERNEL_SIZE = 3  # of convnet's convolutions
POOL_SIZE = 2  # of the pooling between them


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """What one may choose about a network. None means the network's own default; `specify` fills it in.

    Attributes:
        network: `mlp`, `convnet`, or one's own as `package.module:factory`, which takes none of the options below.
        placement: where BatchNorm stands, see the head of this module.
        activation: the nonlinearity after each hidden layer.
        hidden: the width of each hidden Dense layer (mlp), the channels of each convolution (convnet).
        dropout: the share of values that is dropped in front of the last layer while training.
        momentum: how fast running averages move, in PyTorch's sense: new = (1 − momentum)·old + momentum·batch.
        eps: the number inside BatchNorm's root.
    """

    network: str = "mlp"
    placement: Placement | None = None
    activation: Activation | None = None
    hidden: tuple[int, ...] | None = None
    dropout: float | None = None
    momentum: float | None = None
    eps: float | None = None


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """A network that can be built, in JSON's types: the options, with every default filled in, and both its ends."""

    options: NetworkOptions
    instance_shape: tuple[int, ...]
    num_outputs: int


DEFAULTS: dict[str, NetworkOptions] = {
    "mlp": NetworkOptions(network="mlp", placement="first+after", activation="elu", hidden=(300, 100)),
    "convnet": NetworkOptions(network="convnet", placement="first+before", activation="relu", hidden=(16, 32, 64)),
}


def specify(options: NetworkOptions, *, instance_shape: tuple[int, ...], num_outputs: int) -> NetworkSpec:
    """Fill in the defaults of `options` and check them against the data.

    Raises:
        NetworkInvalid: there is no such network, or an option is out of range or means nothing for it.
    """
    if ":" in options.network:
        _refuse_options_of_ones_own(options)
    else:
        options = _fill_in(options, instance_shape)
        _check_ranges(options)
    return NetworkSpec(options=options, instance_shape=instance_shape, num_outputs=num_outputs)


def _fill_in(options: NetworkOptions, instance_shape: tuple[int, ...]) -> NetworkOptions:
    if options.network not in DEFAULTS:
        raise NetworkInvalid(
            f"no network {options.network!r}: expected {', '.join(DEFAULTS)}, or your own as package.module:factory"
        )
    defaults = DEFAULTS[options.network]
    if options.network == "convnet":
        defaults = replace(defaults, hidden=(defaults.hidden or ())[: _most_convolutions(options, instance_shape)])
    return NetworkOptions(
        network=options.network,
        placement=options.placement or defaults.placement,
        activation=options.activation or defaults.activation,
        hidden=defaults.hidden if options.hidden is None else options.hidden,
        dropout=0.0 if options.dropout is None else options.dropout,
        momentum=0.1 if options.momentum is None else options.momentum,
        eps=1e-5 if options.eps is None else options.eps,
    )


def _check_ranges(options: NetworkOptions) -> None:
    """Written so that NaN is refused too."""
    _check_one_of("placement", options.placement, get_args(Placement))
    _check_one_of("activation", options.activation, get_args(Activation))
    checks = {
        "hidden": (all(width > 0 for width in options.hidden or ()), "widths of 1 at least"),
        "dropout": (0 <= (options.dropout or 0) < 1, "a share from 0 to below 1"),
        "momentum": (0 < (options.momentum or 0) <= 1, "a number above 0 and up to 1 (PyTorch's sense: 0.1, not 0.9)"),
        "eps": (
            SMALLEST_EPS <= (options.eps or 0) < math.inf,
            f"a number of {SMALLEST_EPS:.0e} at least",
        ),
    }
    for name, (good, expected) in checks.items():
        if not good:
            raise NetworkInvalid(f"--{name} is {getattr(options, name)}: expected {expected}")


def _check_one_of(name: str, value: str | None, known: tuple[str, ...]) -> None:
    if value not in known:
        raise NetworkInvalid(f"--{name} is {value!r}: expected one of {', '.join(known)}")


def _refuse_options_of_ones_own(options: NetworkOptions) -> None:
    given = [f"--{name}" for name, value in vars(options).items() if name != "network" and value is not None]
    if given:
        raise NetworkInvalid(
            f"{', '.join(given)} mean nothing for a network of your own: {options.network} decides, drop them"
        )


def image_shape(instance_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, height, width) of the instances.

    Raises:
        NetworkInvalid: they are no images.
    """
    if len(instance_shape) != 3:
        raise NetworkInvalid(
            f"convnet expects images of shape (channels, height, width), these instances have shape {instance_shape}: "
            "use --network mlp, or give single-channel images a first axis of 1"
        )
    num_channels, height, width = instance_shape
    return num_channels, height, width


def _most_convolutions(options: NetworkOptions, instance_shape: tuple[int, ...]) -> int:
    """How many unpadded convolutions, with pooling in between, leave something of the image."""
    _, *sides = image_shape(instance_shape)
    side, most = min(sides), 0
    while side >= KERNEL_SIZE:
        side, most = (side - KERNEL_SIZE + 1) // POOL_SIZE, most + 1
    if most < max(1, len(options.hidden or ())):
        raise NetworkInvalid(
            f"convnet has room for {most} unpadded {KERNEL_SIZE}×{KERNEL_SIZE} convolutions on instances of shape "
            f"{instance_shape}, and was asked for {len(options.hidden or ()) or 1}: say fewer in --hidden"
        )
    return most
