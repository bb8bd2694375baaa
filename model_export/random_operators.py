"""The ONNX operators that draw random numbers: a model with one of them answers differently at every run."""

from __future__ import annotations

RANDOM_OPERATORS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
