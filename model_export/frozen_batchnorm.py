"""The frozen BatchNorm: a layer that can do nothing but apply fixed statistics, in whatever mode the network is.

`nn.BatchNorm2d` in inference mode is one `model.train()` away from moving its statistics again. This layer has no code
that writes to them and none that looks at a batch. It is no subclass of `nn.BatchNorm2d`, so that nothing of torch's
that searches a network for BatchNorms, to synchronise them say, takes it for one.
"""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm


class FrozenBatchNorm(nn.Module):
    """y = weight·(x − running_mean)/√(running_var + eps) + bias for each channel of x, shape (N, C, …).

    It is made of a BatchNorm by `freeze_layer`, in place, and keeps its parameters, buffers and hooks under the same
    names: state dicts fit both. `weight` and `bias` still learn; None where the BatchNorm had none.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor | None
    momentum: float | None
    eps: float
    num_features: int
    kind: type[_BatchNorm]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.BatchNorm's name for it
        """Apply the fixed scale and shift; the shape and dtype stay."""
        return batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )

    def extra_repr(self) -> str:
        """What `print` shows, beside the name."""
        return f"{self.num_features}, eps={self.eps}, was {self.kind.__name__}"


class StaysInInference(nn.Module):
    """Makes a BatchNorm of one's own class stay in inference mode, where it applies its statistics and moves none.

    Such a class may do more than normalise (an activation, a parametrization), so its code must be kept.
    """

    kind: type[_BatchNorm]

    def train(self, mode: bool = True) -> Self:
        """Stay as it is, whatever `mode` the network goes into."""
        del mode
        return super().train(False)


Frozen = FrozenBatchNorm | StaysInInference


def freeze_layer(batchnorm: _BatchNorm) -> None:
    """Freeze `batchnorm` in place, so that all who share it share it still; it must be in inference mode.

    One of torch's own classes becomes a `FrozenBatchNorm`, any other stays what it is, and in inference mode.
    """
    kind = type(batchnorm)
    batchnorm.__dict__["kind"] = kind
    if kind.__module__ == _BatchNorm.__module__:
        batchnorm.__class__ = FrozenBatchNorm  # type: ignore[assignment]  # its attributes are all that the class needs
    else:
        batchnorm.__class__ = type(f"Frozen{kind.__name__}", (StaysInInference, kind), {})


def thaw_layer(frozen: Frozen) -> None:
    """Turn `frozen` back into the BatchNorm that it was, in place."""
    kind = frozen.__dict__.pop("kind")
    frozen.__class__ = kind
