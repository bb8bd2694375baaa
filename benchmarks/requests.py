"""The requests of a run, real and all different, and what ONNX Runtime answers to them: the oracle of every server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.body_file import write_bodies
from benchmarks.dialects import PLAIN, Dialect
from benchmarks.models import BuiltModel, random_instances

NUM_REQUESTS = 64
REQUEST_SEED = 1


@dataclass(frozen=True, eq=False)
class Requests:
    """Bodies as they are posted, in a server's dialect, and the scores that belong to them, [requests, labels]."""

    dialect: Dialect
    bodies: tuple[bytes, ...]
    scores: NDArray[np.float32]

    @property
    def median_bytes(self) -> int:
        """How long a body is."""
        return int(np.median([len(body) for body in self.bodies]))

    def write(self, path: Path) -> Path:
        """Write the bodies for wrk and for the generator."""
        return write_bodies(path, self.bodies)


def make_requests(built: BuiltModel, count: int = NUM_REQUESTS, *, dialect: Dialect = PLAIN) -> Requests:
    """Make `count` requests for this model. An instance is a flat list of numbers."""
    instances = random_instances(built.shape, count, seed=REQUEST_SEED)
    bodies = tuple(map(dialect.write, instances))
    return Requests(dialect, bodies, _ask_onnxruntime(built.bundle.model_path, instances))


def _ask_onnxruntime(model_path: Path, instances: NDArray[np.float32]) -> NDArray[np.float32]:
    session: Any = ort.InferenceSession(str(model_path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["scores"], {"instance": instance[None]})[0] for instance in instances])
