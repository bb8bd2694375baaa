"""A small Keras network trained a few hundred steps, with all that is needed to train it again elsewhere.

    python -m tests.model_export.keras_training FOLDER    writes training.npz

A program of its own, since Keras reads its backend from the environment when it is imported, once for a process.
In float32: Keras' BatchNormalization computes in it even under the policy float64 (`result_type` in its `call`).
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_STEPS, BATCH_SIZE, LEARNING_RATE = 300, 8, 0.02
IMAGE, KERNEL = (6, 6, 2), 3
NUM_POSITIONS = 4 * 4  # that a convolution without padding leaves of an image


def network(keras: Any) -> Any:
    """BatchNorms over images, channels last, and over vectors; with γ and β, without γ, without β, without both."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(IMAGE),
            layers.Conv2D(4, KERNEL, use_bias=False, name="conv"),
            layers.BatchNormalization(name="both"),
            layers.Activation("relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(6, use_bias=False, name="dense0"),
            layers.BatchNormalization(name="bias_only", scale=False),
            layers.Activation("tanh"),
            layers.Dense(5, use_bias=False, name="dense1"),
            layers.BatchNormalization(name="weight_only", center=False, momentum=0.95, epsilon=1e-2),
            layers.Activation("tanh"),
            layers.BatchNormalization(name="neither", scale=False, center=False),
            layers.Dense(3, name="dense2"),
        ]
    )


def main(folder: Path) -> None:
    """Train, and write the data, the variables before and after, and the answers to the first batch."""
    keras = importlib.import_module("keras")  # has no types
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 2.0, size=(NUM_STEPS, BATCH_SIZE, *IMAGE)).astype(np.float32)
    y = rng.normal(size=(NUM_STEPS, BATCH_SIZE, 3)).astype(np.float32)
    trained = network(keras)
    before = _weights(trained, "before")
    trained.compile(keras.optimizers.SGD(LEARNING_RATE), keras.losses.MeanSquaredError())
    for batch, targets in zip(x, y, strict=True):
        trained.train_on_batch(batch, targets)
    answers = np.asarray(trained.predict(x[0], verbose=0))
    arrays: dict[str, Any] = {"x": x, "y": y, "answers": answers} | before | _weights(trained, "after")
    np.savez(folder / "training.npz", **arrays)


def _weights(network: Any, when: str) -> dict[str, NDArray[Any]]:
    """All variables by `when/layer/name`, as they are now."""
    return {
        f"{when}/{layer.name}/{variable.name}": np.array(keras_value)
        for layer in network.layers
        for variable, keras_value in zip(layer.variables, layer.get_weights(), strict=True)
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
