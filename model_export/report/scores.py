"""How well each class is told from the others: counts, and what follows from them, over the held-out split."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

TWO_SIDED_95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """`count` instances of the class `true` that were taken for `predicted`, as a `share` of those of `true`."""

    true: int
    predicted: int
    count: int
    share: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What a classifier comes to on K classes.

    Attributes:
        confusion: int64 [K, K], how many instances of the class of the row were taken for the class of the column.
        precision: float64 [K], of those taken for the class, the share that are of it; NaN if none was.
        recall: float64 [K], of those of the class, the share that was found; NaN if there are none.
        f1: float64 [K], the harmonic mean of both, 2·TP/(2·TP + FP + FN); NaN if the class plays no part at all.
    """

    confusion: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]

    @property
    def support(self) -> NDArray[np.int64]:
        """How many instances each class has, int64 [K]."""
        return np.asarray(self.confusion.sum(axis=1), dtype=np.int64)

    @property
    def num_instances(self) -> int:
        """How many there are in all."""
        return int(self.confusion.sum())

    @property
    def num_right(self) -> int:
        """How many were put into the right class."""
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> float:
        """The share of those put into the right class."""
        return self.num_right / self.num_instances


def score(labels: NDArray[np.int64], predictions: NDArray[np.int64], *, num_classes: int) -> Scores:
    """Compare predictions with labels, both class indices, int64 [N] with N > 0; a class may be absent from either."""
    classes = np.arange(num_classes)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predictions, labels=classes, zero_division=np.nan
    )
    cells = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    confusion = cells.reshape(num_classes, num_classes).astype(np.int64)
    return Scores(confusion=confusion, precision=precision, recall=recall, f1=f1)


def most_confused(scores: Scores, *, most: int) -> tuple[Confusion, ...]:
    """The pairs of classes that were confused most often, most often first; equally often: the larger share first."""
    wrong = scores.confusion.copy()
    np.fill_diagonal(wrong, 0)
    pairs = [
        Confusion(true=int(t), predicted=int(p), count=int(wrong[t, p]), share=float(wrong[t, p] / scores.support[t]))
        for t, p in np.argwhere(wrong)
    ]
    return tuple(sorted(pairs, key=lambda pair: (-pair.count, -pair.share, pair.true, pair.predicted))[:most])


def wilson_interval(num_right: int, num_instances: int) -> tuple[float, float]:
    """The 95 % interval of a share, by E. B. Wilson (1927), "Probable Inference, the Law of Succession".

    Unlike share ± 2 standard errors it stays within 0 and 1, and holds for few instances and for shares near 1.
    """
    share, z2n = num_right / num_instances, TWO_SIDED_95**2 / num_instances
    centre = (share + z2n / 2) / (1 + z2n)
    half = math.sqrt(share * (1 - share) * z2n + z2n**2 / 4) / (1 + z2n)
    return max(0.0, centre - half), min(1.0, centre + half)
