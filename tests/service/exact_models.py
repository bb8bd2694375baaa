"""Models whose answers are known to the last bit, whatever the order of summing: all numbers are eighths.

A product of two eighths is a whole number of 64ths, and so is every sum of them. As long as that stays far below 2²⁴
of them, float32 and float64 hold it exactly. So numpy in float64 is an oracle for bits, independent of ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from service.bundle import Bundle, Example
from tests.service.tiny_models import Array, TinyModel, tiny_model, write_tiny_bundle

LARGEST = 32  # eighths: values between -4 and 4


def exact_model(shape: tuple[int, ...] = (64,), *, num_labels: int = 10, seed: int = 0) -> TinyModel:
    """Build a model of one dense layer; another seed is another model, with other answers."""
    labels = tuple(map(str, range(num_labels)))
    model = tiny_model(shape, num_labels=num_labels, labels=labels)
    rng = np.random.default_rng(seed)
    return replace(model, weight=eighths(rng, model.weight.shape), bias=eighths(rng, model.bias.shape))


def exact_instances(model: TinyModel, count: int = 4, *, seed: int = 0) -> Array:
    """Draw instances, float32 [count, *shape]."""
    return eighths(np.random.default_rng(1000 + seed), (count, *model.signature.input.shape))


def expected_bits(model: TinyModel, instances: Array) -> bytes:
    """Give the scores of all instances as the bytes of float32 [count, labels]."""
    return np.stack([model.oracle(instance) for instance in instances]).astype(np.float32).tobytes()


def write_exact_bundle(root: Path, model: TinyModel, *, name: str = "digits", version: str = "1") -> Bundle:
    """Write a whole bundle below `root`, with examples that are exact too."""
    root.mkdir(parents=True, exist_ok=True)
    examples = tuple(
        Example(instance=instance.ravel().tolist(), outputs={"scores": tuple(model.oracle(instance).tolist())})
        for instance in exact_instances(model, seed=1)
    )
    return write_tiny_bundle(root, model, name=name, version=version, examples=examples)


def eighths(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw numbers between -4 and 4 that are a whole number of eighths."""
    return rng.integers(-LARGEST, LARGEST + 1, shape).astype(np.float32) / np.float32(8)
