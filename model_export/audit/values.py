"""What an audit finds, in JSON's types: `statistics CHECKPOINT --json FILE` writes an `Audit` as it is."""

from __future__ import annotations

from dataclasses import dataclass

from model_export.measuring import Method


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is audited: the training's course, and over how much of its data the exact statistics were measured.

    `weights_match` says whether the averages were kept beside these very weights; None if no digest tells.
    """

    num_instances: int
    num_training_instances: int
    batch_size: int
    weights_match: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Residual:
    """The largest deviation, over channels, of the normalised input's mean and variance from what they should be.

    See `LayerStatistics` in the bundle: mean from 0, biased variance from σ²/(σ²+ε).
    """

    mean: float
    variance: float


@dataclass(frozen=True, kw_only=True)
class AgainstExact:
    """A moving average against exact statistics, over the channels that are not dead.

    Attributes:
        mean_shift: the largest |μ_ema − μ_exact| / √(σ²_exact + ε), at channel `mean_shift_channel`.
        std_ratio: √((σ²_ema + ε)/(σ²_exact + ε)) furthest from 1, at channel `std_ratio_channel`.
        median_std_ratio: the same ratio, at the channel in the middle.
    """

    mean_shift: float
    mean_shift_channel: int
    std_ratio: float
    std_ratio_channel: int
    median_std_ratio: float


@dataclass(frozen=True, kw_only=True)
class LayerAudit:
    """One BatchNorm.

    Attributes:
        batchnorm: its qualified name.
        num_channels: and so many means and variances.
        eps: the number inside the root.
        momentum: PyTorch's; None for the plain average.
        num_steps: how many training batches moved its averages.
        initial_weight: the share that the initial mean 0 and variance 1 still have in them, (1 − momentum)^num_steps;
            None where no steps were counted.
        against_exact: how far the averages are off; None without any, or if all channels are dead.
        residuals: of each kind of statistics, measured over the training set behind frozen layers of that kind.
        smallest_var: the smallest σ²_exact of a channel that is not dead, to hold against eps; 0 if all are.
        max_gain: the largest |γ|/√(σ²_exact + ε).
        dead_channels: never varied in training, or have γ = 0.
        amplifying_channels: |γ|/√(σ²_exact + ε) is above 1,000.
        float16_channels: μ or σ² is beyond float16's range.
    """

    batchnorm: str
    num_channels: int
    eps: float
    momentum: float | None
    num_steps: int
    initial_weight: float | None
    against_exact: AgainstExact | None
    residuals: dict[Method, Residual]
    smallest_var: float
    max_gain: float
    dead_channels: tuple[int, ...] = ()
    amplifying_channels: tuple[int, ...] = ()
    float16_channels: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One kind of statistics, and how good the network is with it: accuracy from 0 to 1, mean cross-entropy.

    None where these statistics do not exist or can not be used; then `problem` says why.
    """

    method: Method
    accuracy: float | None = None
    loss: float | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All that was found. `advice` is one sentence; `cautions` are about channels, whichever statistics are chosen."""

    subject: Subject
    layers: tuple[LayerAudit, ...]
    choices: tuple[Choice, ...]
    num_valid: int
    num_right_with_exact_only: int
    num_right_with_ema_only: int
    unreached: tuple[str, ...] = ()
    usable: bool = True
    advice: str = ""
    cautions: tuple[str, ...] = ()

    def choice(self, method: Method) -> Choice:
        """What came of one kind of statistics."""
        return next((choice for choice in self.choices if choice.method == method), Choice(method=method))
