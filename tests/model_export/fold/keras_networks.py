"""Keras networks with BatchNorms, trained, exported by Keras itself, with Keras's answers beside them.

    python -m tests.model_export.fold.keras_networks FOLDER    writes NAME.onnx and NAME.npz for each network

A program of its own, since Keras reads its backend from the environment when it is imported, once for a process.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NUM_INSTANCES = 4


def dense(keras: Any) -> Any:
    """BatchNorms behind activations: each can go into the Dense that reads it."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, activation="elu"),
            layers.BatchNormalization(momentum=0.5),
            layers.Dense(16, activation="elu"),
            layers.BatchNormalization(momentum=0.5),
            layers.Dense(4),
        ]
    )


def convolutional(keras: Any, padding: str) -> Any:
    """The same with images, channels last as Keras has it: torch's convs stand between transposes."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((10, 10, 3)),
            layers.Conv2D(8, 3, padding=padding, activation="elu"),
            layers.BatchNormalization(momentum=0.5),
            layers.Conv2D(8, 3, padding=padding, activation="elu"),
            layers.BatchNormalization(momentum=0.5),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )


def normalised_first(keras: Any) -> Any:
    """BatchNorms before activations: each can go into the layer that it reads, whatever the padding."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((10, 10, 3)),
            layers.Conv2D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.5),
            layers.Activation("relu"),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.BatchNormalization(momentum=0.5, scale=False),
            layers.Activation("relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(8),
            layers.BatchNormalization(momentum=0.5, center=False),
            layers.Activation("relu"),
            layers.Dense(4),
        ]
    )


NETWORKS: dict[str, Callable[[Any], Any]] = {
    "dense": dense,
    "valid": lambda keras: convolutional(keras, "valid"),
    "same": lambda keras: convolutional(keras, "same"),
    "normalised_first": normalised_first,
}


def main(folder: Path) -> None:
    """Write every network into `folder`."""
    keras = importlib.import_module("keras")  # has no types
    for name, network in NETWORKS.items():
        keras.utils.set_random_seed(0)
        trained = network(keras)
        rng = np.random.default_rng(0)
        _train(keras, trained, rng)
        trained.export(folder / f"{name}.onnx", format="onnx", verbose=False)
        x = _instances(trained, NUM_INSTANCES, rng)
        np.savez(folder / f"{name}.npz", x=x, answers=_answers(keras, network, trained, x))


def _train(keras: Any, network: Any, rng: np.random.Generator) -> None:
    """A few steps, and γ and β as a long training would leave them: of both signs, not 1 and 0."""
    x = _instances(network, 256, rng)
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(x, rng.integers(0, 4, size=256), epochs=3, batch_size=32, verbose=0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for parameter in layer.trainable_weights:
                parameter.assign(rng.choice([-1.0, 1.0], parameter.shape) * rng.uniform(0.5, 1.5, parameter.shape))


def _answers(keras: Any, network: Callable[[Any], Any], trained: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the same network says to `x` in float64."""
    keras.config.set_dtype_policy("float64")
    exact = network(keras)
    keras.config.set_dtype_policy("float32")
    exact.set_weights(trained.get_weights())
    return np.asarray(exact.predict(x.astype(np.float64), verbose=0))


def _instances(network: Any, number: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return rng.normal(1.0, 2.0, size=(number, *network.input_shape[1:])).astype(np.float32)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
