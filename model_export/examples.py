"""Picks the held-out instances that a bundle carries: they document it, warm it up and check it where it is served."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_export.data import Splits, instance_as_json
from model_export.verify import Answers
from service.bundle import Example

MAX_EXAMPLES = 16
MAX_VALUES = 500_000  # in all examples together: about 5 MB of JSON


def pick_examples(splits: Splits, answers: Answers) -> tuple[Example, ...]:
    """The first held-out instance of each class, then others in order, with the answers of the unfolded network.

    `answers` has an array (instances, labels) for each output, in the order of `splits.test`.
    """
    return tuple(_example(splits, answers, int(index)) for index in _pick(splits.test.labels, splits.instance_shape))


def _pick(labels: NDArray[np.int64], instance_shape: tuple[int, ...]) -> NDArray[np.int64]:
    of_each_class = np.unique(labels, return_index=True)[1]
    others = np.setdiff1d(np.arange(len(labels)), of_each_class)
    num_examples = max(1, min(MAX_EXAMPLES, MAX_VALUES // int(np.prod(instance_shape))))
    return np.concatenate([of_each_class, others])[:num_examples]


def _example(splits: Splits, answers: Answers, index: int) -> Example:
    return Example(
        instance=instance_as_json(splits.test.instances[index], splits.features),
        outputs={name: tuple(rows[index].tolist()) for name, rows in answers.items()},
        label=splits.labels[splits.test.labels[index]],
    )
