"""The frozen BatchNorm: a layer that can do nothing but apply fixed statistics, in whatever mode the network is.

`nn.BatchNorm2d` in inference mode is one `model.train()` away from moving its statistics again. This layer has no code
that writes to them and none that looks at a batch. It is no subclass of `nn.BatchNorm2d`, so that nothing that searches
a network for BatchNorms to train, to synchronise or to measure takes it for one.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

from model_export.errors import NetworkInvalid


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


def freeze_layer(name: str, batchnorm: _BatchNorm) -> None:
    """Turn `batchnorm` into a `FrozenBatchNorm`, in place, so that all who share it share it still.

    Raises:
        NetworkInvalid: its class is one's own or was made by a parametrization, so it may do more than normalise.
    """
    kind = type(batchnorm)
    if kind.__module__ != _BatchNorm.__module__:
        raise NetworkInvalid(
            f"BatchNorm {name!r} is a {kind.__module__}.{kind.__qualname__}, which may do more than normalise, so it "
            "can not be frozen: use torch's own class, or call torch.nn.utils.parametrize.remove_parametrizations first"
        )
    batchnorm.__dict__["kind"] = kind
    batchnorm.__class__ = FrozenBatchNorm  # type: ignore[assignment]  # its attributes are all that the class needs


def thaw_layer(frozen: FrozenBatchNorm) -> None:
    """Turn `frozen` back into the BatchNorm that it was, in place."""
    kind = frozen.__dict__.pop("kind")
    frozen.__class__ = kind
