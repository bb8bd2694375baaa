"""Other frameworks' BatchNorms as PyTorch's: what each means by momentum and by the variance it stores.

| convention         | momentum: the share | default | eps  | variance stored | starts at  |
| ------------------ | ------------------- | ------- | ---- | --------------- | ---------- |
| `KERAS`            | kept                | 0.99    | 1e-3 | biased, /n      | 0, 1       |
| `TENSORFLOW_FUSED` | kept                | 0.99    | 1e-3 | unbiased, /(n−1)| 0, 1       |
| `PYTORCH`          | taken               | 0.1     | 1e-5 | unbiased, /(n−1)| 0, 1       |
| `FLAX`             | kept                | 0.99    | 1e-5 | biased, /n      | 0, 1       |
| `ONNX`             | kept                | 0.9     | 1e-5 | biased, /n      | its inputs |

n is the number of values that a channel has in one batch: instances × positions. In training all five normalise a batch
with its biased variance; they differ in what they store.

**At inference** all compute γ·(x − μ)/√(σ² + ε) + β with μ and σ² as stored. Of the table only ε matters there.
`import_batchnorm` therefore copies the statistics as they are: the layer answers as it did where it was trained.
Converting the variance would change every answer.

**Where training goes on, or where the averages of two frameworks are compared**, the rest matters: momentum, which
`import_batchnorm` always translates, and the variance, which `convert_averages` converts when asked. After t steps that
take the share m, the variance stored is

    σ² = (1 − m)ᵗ·initial + Σ wᵢ·var(batchᵢ)

With batches of one size, biased and unbiased differ by n/(n − 1) in every term of the sum, so in the sum; the share of
the initial value stays as it is. Scaling all of σ² would be wrong by (1 − m)ᵗ/(n − 1): after 300 steps of
Keras' momentum and n = 8, by 0.007.

Sources, read for this table: Keras 3.15, `BatchNormalization.call` in keras/src/layers/normalization/
batch_normalization.py, and `moments` of its backends torch, TensorFlow and JAX, all biased. TensorFlow,
`FusedBatchNorm` on the CPU in tensorflow/core/kernels/fused_batch_norm_op.cc (`rest_size_adjust`: Bessel's correction).
Keras 2, which is tf.keras before Keras 3, runs that for inputs with four or five axes (`_fused_batch_norm` in keras/
layers/normalization/batch_normalization.py; `_bessels_correction_test_only` is True, which leaves the correction in),
and for others, or with fused=False, renorm or float64, is as `KERAS`. torch/nn/modules/batchnorm.py. Flax, `BatchNorm`
and `_compute_stats` in flax/linen/normalization.py and flax/nnx/nn/normalization.py. ONNX, BatchNormalization since
version 14.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from model_export.errors import StatisticsInvalid
from model_export.statistics.holding import channels_where, hold_statistics
from model_export.statistics.values import Channels, FrozenStatistics

Array = NDArray[np.floating[Any]]
Layer = TypeVar("Layer", bound=_BatchNorm)

# A batch that counts for more than all batches before it makes no average: the number is meant in the other sense.
LARGEST_SHARE_TAKEN = 0.5
# (1 − m)ᵗ as float32 has it after thousands of products is off by less than this share of itself.
ROUNDING_OF_THE_INITIAL_SHARE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Convention:
    """What a framework's BatchNorm means by its numbers.

    `momentum` is the default; `momentum_share` says whether it names the share of the old average that is kept or the
    share of the batch that is taken. `variance` is that of a batch as it enters the moving average. The averages start
    at `initial_mean` and `initial_var`; None where that is for the user to say.
    """

    name: str
    momentum: float
    momentum_share: Literal["kept", "taken"]
    eps: float
    variance: Literal["biased", "unbiased"]
    initial_mean: float | None = 0.0
    initial_var: float | None = 1.0


KERAS = Convention(name="Keras", momentum=0.99, momentum_share="kept", eps=1e-3, variance="biased")
TENSORFLOW_FUSED = Convention(
    name="TensorFlow (fused)", momentum=0.99, momentum_share="kept", eps=1e-3, variance="unbiased"
)
PYTORCH = Convention(name="PyTorch", momentum=0.1, momentum_share="taken", eps=1e-5, variance="unbiased")
FLAX = Convention(name="Flax", momentum=0.99, momentum_share="kept", eps=1e-5, variance="biased")
ONNX = Convention(
    name="ONNX",
    momentum=0.9,
    momentum_share="kept",
    eps=1e-5,
    variance="biased",
    initial_mean=None,
    initial_var=None,
)


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredBatchNorm:
    """One BatchNorm as its framework stores it; arrays of shape (C,), of any float dtype.

    Args:
        convention: whose numbers these are.
        weight: γ (Keras: gamma; Flax, ONNX: scale). None where there is none (Keras: scale=False): it counts as 1.
        bias: β (Keras: beta; ONNX: B). None where there is none (Keras: center=False): it counts as 0.
        mean: μ as stored (Keras: moving_mean).
        var: σ² as stored, biased or unbiased as the convention has it (Keras: moving_variance).
        momentum: in the convention's own sense; None: the convention's default.
        eps: None: the convention's default. Inference depends on it, so pass what the layer was built with.
        name: the layer's, for messages.

    Raises:
        StatisticsInvalid: the shapes differ, a value is not finite, a variance is negative, `eps` is not one, or
            `momentum` is in the other sense.
    """

    convention: Convention
    weight: Array | None
    bias: Array | None
    mean: Array
    var: Array
    momentum: float | None = None
    eps: float | None = None
    name: str = "batchnorm"

    def __post_init__(self) -> None:
        arrays = {"weight": self.weight, "bias": self.bias, "mean": self.mean, "var": self.var}
        given = {what: np.asarray(array, np.float64) for what, array in arrays.items() if array is not None}
        _check_shapes(self.name, given)
        _check_finite(self.name, given)
        _check_not_negative(self.name, given["var"])
        _check_eps(self.name, _eps(self))
        share_taken(self)


def share_taken(stored: StoredBatchNorm) -> float:
    """Say what share of each batch enters the averages of `stored`: momentum as PyTorch means it.

    More than half is refused, for it is nearly always the other sense: 0.99 is common in Keras, where it takes 0.01;
    in PyTorch it would forget all but the last batch. Answers do not change by it, so nobody would see it until
    training goes on. Who does mean it sets `momentum` on the imported layer.

    Raises:
        StatisticsInvalid: the momentum is no share, or in the other sense.
    """
    convention = stored.convention
    momentum = convention.momentum if stored.momentum is None else stored.momentum
    taken = momentum if convention.momentum_share == "taken" else 1 - momentum
    if not 0 <= taken <= 1:
        raise StatisticsInvalid(
            f"BatchNorm {stored.name!r} has the momentum {momentum}: it must be from 0 to 1, the share of "
            f"{_whose(convention)}, in {convention.name}"
        )
    if taken > LARGEST_SHARE_TAKEN:
        raise StatisticsInvalid(
            f"BatchNorm {stored.name!r} has the momentum {momentum}, which in {convention.name} is the share of "
            f"{_whose(convention)}: the last batch would outweigh all others. Pass {1 - momentum:.6g} if the other "
            "sense was meant; if not, leave momentum out here and set it on the imported layer"
        )
    return taken


def import_batchnorm(stored: StoredBatchNorm, layer: type[Layer], *, dtype: torch.dtype | None = None) -> Layer:
    """Build a `layer` of PyTorch that answers, in inference mode, as the BatchNorm did in its own framework.

    Mean, variance and eps are taken as they are, whatever the convention; only momentum is translated, which is for
    training that goes on. Then the averages go on as PyTorch's do: for the variance to be, from the start, what PyTorch
    would have stored, import `convert_averages(stored, PYTORCH, …)`; its answers are not those of the original.

    A weight or bias that is not there is 1 or 0 and does not learn (`requires_grad` is False); without both, the layer
    has `affine=False`. PyTorch's channels are on axis 1, where Keras and Flax have them last: the arrays are the same,
    the layer's input is not, (N, H, W, C) becomes (N, C, H, W). The layer is in training mode, as any that is new.

    Args:
        stored: as its framework has it.
        layer: `nn.BatchNorm1d`, 2d or 3d, or `nn.SyncBatchNorm`.
        dtype: of its parameters and buffers; None: torch's default. Everything is rounded to it once.

    Raises:
        StatisticsInvalid: a value is too large for the dtype, or a variance and eps are both 0.
    """
    affine = stored.weight is not None or stored.bias is not None
    batchnorm = layer(len(stored.mean), eps=_eps(stored), momentum=share_taken(stored), affine=affine, dtype=dtype)
    mean, var = np.asarray(stored.mean, np.float64), np.asarray(stored.var, np.float64)
    hold_statistics(stored.name, batchnorm, FrozenStatistics(mean=mean, var=var, num_values=0))
    if affine:
        _learn_on(stored.name, batchnorm.weight, stored.weight)
        _learn_on(stored.name, batchnorm.bias, stored.bias)
    return batchnorm


def convert_averages(
    stored: StoredBatchNorm, to: Convention, *, num_values: int, num_steps: int | None
) -> StoredBatchNorm:
    """Say what `to` would have stored, had it run the very same training: its variance, momentum in its sense.

    Means are alike everywhere. eps stays, as do weight and bias. Exact for batches of equal size, and not for Keras'
    renorm=True, whose variance is the square of an averaged deviation. In inference mode the result answers differently
    from `stored`: it is for training that goes on and for comparison.

    Args:
        stored: as its framework has it.
        to: the convention wanted.
        num_values: values of a channel in one batch: instances, times the positions of an image or a sequence.
        num_steps: how many batches moved the averages since they were at their initial value; None: so many that
            nothing of it is left.

    Raises:
        StatisticsInvalid: there is no unbiased variance of so few values, or the variance can not have come about in
            that many steps.
    """
    taken = share_taken(stored)
    _check_counts(stored.name, num_values, num_steps)
    initial = 0.0 if num_steps is None else (1 - taken) ** num_steps * _initial_var(stored)
    var = np.asarray(stored.var, np.float64)
    _check_reachable(stored.name, var, initial, num_steps)
    factor = _factor(to, num_values) / _factor(stored.convention, num_values)
    return replace(
        stored,
        convention=to,
        var=initial + (var - initial) * factor,
        momentum=taken if to.momentum_share == "taken" else 1 - taken,
        eps=_eps(stored),
    )


def _eps(stored: StoredBatchNorm) -> float:
    return stored.convention.eps if stored.eps is None else stored.eps


def _factor(convention: Convention, num_values: int) -> float:
    """How many times the biased variance of a batch enters the average."""
    return num_values / (num_values - 1) if convention.variance == "unbiased" else 1.0


def _initial_var(stored: StoredBatchNorm) -> float:
    initial = stored.convention.initial_var
    if initial is None:
        raise StatisticsInvalid(
            f"BatchNorm {stored.name!r} started from a variance that is not known: {stored.convention.name} takes it "
            "as an input. Pass num_steps=None if nothing of it is left"
        )
    return initial


def _learn_on(name: str, parameter: nn.Parameter, array: Array | None) -> None:
    """Go on from `array`; without one, stay as built."""
    if array is None:
        parameter.requires_grad = False
        return
    parameter.data = torch.tensor(array, dtype=parameter.dtype, device=parameter.device)
    lost = ~np.isfinite(_in_float64(parameter))
    if lost.any():
        raise StatisticsInvalid(
            f"the weight or bias of BatchNorm {name!r} is too large for {parameter.dtype}, in channels "
            f"{channels_where(lost)}: import the layer in float32"
        )


def _in_float64(parameter: nn.Parameter) -> Channels:
    return parameter.detach().to("cpu", torch.float64).numpy()


def _whose(convention: Convention) -> str:
    return "the old average that is kept" if convention.momentum_share == "kept" else "the new batch that is taken"


def _check_shapes(name: str, arrays: dict[str, Channels]) -> None:
    shapes = {what: array.shape for what, array in arrays.items()}
    if len(set(shapes.values())) > 1 or arrays["mean"].ndim != 1 or not arrays["mean"].size:
        found = ", ".join(f"{what} {shape}" for what, shape in shapes.items())
        raise StatisticsInvalid(
            f"the arrays of BatchNorm {name!r} must all have one and the same shape (channels,), but have {found}: "
            "take all from one layer that normalises one axis"
        )


def _check_finite(name: str, arrays: dict[str, Channels]) -> None:
    for what, array in arrays.items():
        broken = ~np.isfinite(array)
        if broken.any():
            raise StatisticsInvalid(
                f"BatchNorm {name!r} has NaN or infinity as {what}, in channels {channels_where(broken)}: take it from "
                "a checkpoint before the training diverged"
            )


def _check_not_negative(name: str, var: Channels) -> None:
    if (var < 0).any():
        raise StatisticsInvalid(
            f"BatchNorm {name!r} has a negative variance, in channels {channels_where(var < 0)}: look whether the "
            "arrays are in order (Keras' get_weights() gives γ, β, mean, variance, and leaves out γ or β that are "
            "switched off). Keras on torch computes E[x²] − E[x]², which can round to just below 0 where a channel is "
            "constant: put 0 there"
        )


def _check_eps(name: str, eps: float) -> None:
    if not (math.isfinite(eps) and eps >= 0):
        raise StatisticsInvalid(f"BatchNorm {name!r} has the eps {eps}: it must be a finite number, 0 or above")


def _check_counts(name: str, num_values: int, num_steps: int | None) -> None:
    if num_values < 2:
        raise StatisticsInvalid(
            f"BatchNorm {name!r} has no unbiased variance over batches of {num_values} values a channel: num_values is "
            "instances times positions, at least 2"
        )
    if num_steps is not None and num_steps < 0:
        raise StatisticsInvalid(f"BatchNorm {name!r} can not have moved its averages {num_steps} times")


def _check_reachable(name: str, var: Channels, initial: float, num_steps: int | None) -> None:
    """Whatever the batches were, their variances only add to the share of the initial value."""
    below = var < initial * (1 - ROUNDING_OF_THE_INITIAL_SHARE)
    if below.any():
        raise StatisticsInvalid(
            f"BatchNorm {name!r} has less variance in channels {channels_where(below)} than the {initial:.3g} that "
            f"{num_steps} steps leave of its initial value: count the steps since the layer was new, and check momentum"
        )
