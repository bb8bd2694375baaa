"""What is run and what came of it, as values: a subject, a trial of it with all that decides its course, its outcome.

Two trials that are equal are the same run: claims that need it share it, and a results file that holds it need not run
it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WITHOUT: Final = "none"  # the placement of a network without BatchNorm, as in `networks.options`
AS_BUILT: Final = "as built"  # the placement of one's own network as its factory returns it


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network that is looked at with BatchNorm and without.

    Attributes:
        title: what the page calls it.
        network: `mlp`, `convnet`, or one's own as `package.module:factory`.
        placement: where BatchNorm stands in the arm that has it, as in `networks.options`; or `AS_BUILT`.
        activation: the nonlinearity; None is the network's own.
        hidden: the widths of the hidden layers; None are the network's own.
        read_batches: whether trained networks are also asked with the statistics of small batches.
    """

    title: str
    network: str = "mlp"
    placement: str = "before"
    activation: str | None = None
    hidden: tuple[int, ...] | None = None
    read_batches: bool = False

    @property
    def arms(self) -> tuple[str, str]:
        """The placements that are compared: with BatchNorm, without."""
        return (self.placement, WITHOUT)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run: the network, where BatchNorm stands in it, and all else that decides the course.

    `weight_scale` multiplies the first weights; `looks` is about how often the run is measured on its
    way. The seed decides weights and order of instances, so two trials that differ in the placement alone begin with
    the same weights and see the same batches.
    """

    network: str
    placement: str
    activation: str | None
    hidden: tuple[int, ...] | None
    learning_rate: float
    weight_scale: float
    steps: int
    looks: int
    seed: int
    read_batches: bool

    @property
    def cost(self) -> float:
        """About how long it takes, beside other trials: for the estimate of the time that is left."""
        depth = 1 + len(self.hidden or (1, 1))
        return self.steps * depth * (1.0 if self.placement == WITHOUT else 1.8)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A look at the network after `step` steps.

    Attributes:
        step: how many steps were done.
        valid_accuracy: in inference mode with exact statistics over `data.Data.calibration`.
        first_gradient: Frobenius norm of the gradient of the first layer's weights, in this step's batch.
        last_gradient: that of the last layer's.
    """

    step: int
    valid_accuracy: float
    first_gradient: float
    last_gradient: float


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a trained network answers when its BatchNorms use these statistics.

    `source` is `exact`, `ema`, `shuffled` or `sorted`: the last two use each batch's own, of batches of `batch_size`
    instances out of a shuffled stream or one that is sorted by class.
    """

    source: str
    batch_size: int
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a trial.

    Attributes:
        trial: which.
        diverged_in: the step in which the loss, a gradient or an answer was no finite number; None if none was.
        curve: looks at it, in order of their steps; they end where it diverged.
        valid_accuracy: at the end, in inference mode, with exact statistics over the whole training set; what a
            network answers that diverged is chance.
        test_accuracy: the same on the test split.
        readings: empty unless the trial asks for them.
        cpu_seconds: how long it took.
    """

    trial: Trial
    diverged_in: int | None
    curve: tuple[Point, ...]
    valid_accuracy: float
    test_accuracy: float
    readings: tuple[Reading, ...]
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How thorough a study is.

    Attributes:
        steps: of each run.
        looks: how often a run is measured on its way, about.
        repeats: runs with the seeds 0, 1, …
        rates: learning rates, ascending.
        tuning_rates: those of `rates` among which the best is taken where the claim is not about learning rates.
        weight_scales: what the first weights are multiplied with, ascending.
        num_train: training instances at most.
        num_valid: held-out instances that rates are chosen by and curves drawn by, at most.
        num_test: held-out instances whose accuracy is told, at most.
        batch_size: instances in a step.
    """

    steps: int
    looks: int
    repeats: int
    rates: tuple[float, ...]
    tuning_rates: tuple[float, ...]
    weight_scales: tuple[float, ...]
    num_train: int
    num_valid: int
    num_test: int
    batch_size: int = 60  # Ioffe & Szegedy 2015, section 4.1
