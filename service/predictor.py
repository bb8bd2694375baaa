"""A model that is ready to predict for one instance, on the device and with the options that serve.

The same `Predictor` answers clients, replays a bundle's examples at start, and is what an export is verified against:
what was checked is what is served.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.batches import Batches
from service.batching import Batching, plan_batching
from service.bundle import Example, Signature
from service.device import AS_USUAL, GpuOptions, ServingDevice
from service.errors import InstanceInvalid, RequestError, SelfCheckFailed
from service.fastest import open_fastest
from service.instance import InstanceReader
from service.placement import Placement
from service.session import Session, open_session

NUM_WARM_UP_RUNS = 10
NUM_TIMED_RUNS = 50

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says about one instance.

    `index` is the place of the largest score, `label` its name (the index itself where the model names no labels),
    `scores` has shape [labels].
    """

    index: int
    label: str | int
    scores: Array


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """How a model did at start, on the device that serves.

    `max_differences` holds for each output the largest absolute difference from the recorded answers;
    `median_seconds` is what one run of the model takes, decoding and encoding left out.
    """

    num_examples: int
    max_differences: dict[str, float]
    median_seconds: float


class Predictor:
    """Predicts for one instance at a time; for one thread at a time, as the session's buffers are shared."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._input = session.input[0]
        self._labels: Sequence[str | int] = self.signature.labels or range(self.signature.outputs[0].shape[0])
        self.reader = InstanceReader(self.signature)

    @property
    def signature(self) -> Signature:
        """What one instance is, and what comes back for it."""
        return self._session.signature

    @property
    def placement(self) -> Placement:
        """On which device the model runs."""
        return self._session.placement

    def predict(self, instance: Array) -> Prediction:
        """Predict for one instance of the signature's dtype and shape.

        Raises:
            InstanceInvalid: the array has another dtype or shape, or the network's scores for it are not finite.
            PredictionFailed: ONNX Runtime failed.
        """
        scores = self.outputs(instance)[self.signature.outputs[0].name]
        refuse_not_finite(scores)
        index = int(scores.argmax())
        return Prediction(index, self._labels[index], scores)

    def outputs(self, instance: Array) -> dict[str, Array]:
        """Compute all outputs for one instance, without the batch axis, by the output's name.

        Raises:
            InstanceInvalid: the array has another dtype or shape.
            PredictionFailed: ONNX Runtime failed.
        """
        self._compute(instance)
        pairs = zip(self.signature.outputs, self._session.outputs, strict=True)
        return {spec.name: output[0].copy() for spec, output in pairs}

    def plan_batching(self, examples: Sequence[Example], check: SelfCheck, *, bitwise: bool = True) -> Batching:
        """Find out in batches of which sizes the model may be run; after its self check."""
        instances = [self._read(example) for example in examples]
        return plan_batching(self._session, instances, check.median_seconds, bitwise=bitwise)

    def open_batches(self, batching: Batching) -> Batches:
        """Bind buffers for the sizes that are allowed."""
        return Batches(self._session, batching.sizes)

    def self_check(self, examples: Sequence[Example], tolerances: Mapping[str, float]) -> SelfCheck:
        """Replay recorded examples, from JSON to outputs, then measure how long a run takes.

        `tolerances` are the largest absolute differences that are allowed, by output.

        Raises:
            SelfCheckFailed: an example does not fit the signature, or is answered otherwise than recorded.
        """
        worst: dict[str, float] = {}
        for number, example in enumerate(examples, start=1):
            for name, difference in self._replay(number, example).items():
                _check_difference(number, name, difference, tolerances)
                worst[name] = max(difference, worst.get(name, 0.0))
        return SelfCheck(num_examples=len(examples), max_differences=worst, median_seconds=self._measure())

    def _compute(self, instance: Array) -> None:
        if instance.shape != self._input.shape or instance.dtype != self._input.dtype:
            raise _array_refused(expected=self._input, got=instance)
        np.copyto(self._input, instance)
        self._session.run()

    def _replay(self, number: int, example: Example) -> dict[str, float]:
        try:
            instance = self._read(example)
        except RequestError as err:
            raise SelfCheckFailed(f"example {number} is no instance of the model's signature: {err}") from err
        outputs = self.outputs(instance)
        if outputs.keys() != example.outputs.keys():
            raise SelfCheckFailed(
                f"example {number} records the outputs {sorted(example.outputs)}, the model has {sorted(outputs)}"
            )
        return {name: _max_difference(number, name, outputs[name], example.outputs[name]) for name in outputs}

    def _read(self, example: Example) -> Array:
        return self.reader.decode(msgspec.json.encode({"instance": example.instance}))

    def _measure(self) -> float:
        for _ in range(NUM_WARM_UP_RUNS):
            self._session.run()
        return statistics.median(_time(self._session) for _ in range(NUM_TIMED_RUNS))


def open_predictor(
    model_path: Path,
    signature: Signature | None = None,
    device: ServingDevice = "auto",
    gpu: GpuOptions = AS_USUAL,
) -> Predictor:
    """Open a model for prediction; without a signature, the one that its own inputs and outputs spell.

    Raises:
        ModelUnloadable: ONNX Runtime refuses the file, or its inputs and outputs are not of a form that can be served.
        SignatureMismatch: the model's inputs and outputs are not the signature's.
        DeviceUnavailable: `device` is "cuda" or "tensorrt", and can not be used.
    """
    if device == "fastest":
        return Predictor(open_fastest(model_path, signature=signature, gpu=gpu))
    return Predictor(open_session(model_path, signature=signature, device=device, gpu=gpu))


def refuse_not_finite(scores: Array) -> None:
    """Refuse an instance whose scores [labels] are not all finite.

    Raises:
        InstanceInvalid: and says which score it is.
    """
    finite = np.isfinite(scores)
    if finite.all():
        return
    place = int(finite.argmin())
    raise InstanceInvalid(
        f"the network overflows on this instance: score {place} is {scores[place]}; are the values in the range, and "
        "of the scale, that it was trained on?",
        field="instance",
        expected="an instance with finite scores",
        got=f"score {place} is {scores[place]}",
    )


def _array_refused(*, expected: Array, got: Array) -> InstanceInvalid:
    wanted, found = (f"{array.dtype} of shape {list(array.shape)}" for array in (expected, got))
    return InstanceInvalid(f"expected one instance, {wanted}; got {found}", expected=wanted, got=found)


def _max_difference(number: int, name: str, output: Array, recorded: Sequence[float]) -> float:
    if output.size != len(recorded):
        raise SelfCheckFailed(
            f"example {number} records {len(recorded)} values of {name!r}, the model has {output.size}"
        )
    difference = np.abs(output.ravel().astype(np.float64) - np.asarray(recorded, dtype=np.float64))
    return float(difference.max(initial=0.0))


def _check_difference(number: int, name: str, difference: float, tolerances: Mapping[str, float]) -> None:
    if name not in tolerances:
        raise SelfCheckFailed(f"the manifest's parity report allows no tolerance for output {name!r}")
    # Written so that NaN, which compares false with everything, is a failure too.
    if not difference <= tolerances[name]:
        raise SelfCheckFailed(
            f"example {number} is answered otherwise than recorded: {name!r} differs by {difference:.3g}, "
            f"allowed are {tolerances[name]:.3g}; export the model again, or serve it where it was verified"
        )


def _time(session: Session) -> float:
    start = time.perf_counter()
    session.run()
    return time.perf_counter() - start
