"""The side story of an export in lower precision: convert, serve, hold it against float32, refuse it or report.

It begins when the folded float32 model has been verified, and ends with another model file and what it is worth. Both
models answer the whole held-out split, one instance at a time, by the service's own predictor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_export.data import Split
from model_export.errors import AccuracyLost, ExportError
from model_export.fold.files import save_model
from model_export.ir import ir
from model_export.precision import HALVES, Lowered, device_for, draw_calibration, lower, rehearse
from model_export.statistics import Instances
from model_export.tolerances import TOLERANCES
from model_export.verify import Reference, Served, Verification, accuracy_of, serve, verify_served
from service.bundle import Precision, PrecisionReport, Signature
from service.device import CPU_PROVIDER, Device
from service.predictor import open_predictor

# One instance in a hundred: about what the draw of a held-out split of some thousands moves an accuracy by, too. Who
# can not give that, or can give more, says --max-accuracy-drop.
MAX_ACCURACY_DROP = 0.01
REHEARSAL_FILE = "rehearsal.onnx"
EXACT_DIGITS = 9  # a drop of exactly the limit is allowed, however the difference of two shares is rounded


@dataclass(frozen=True, kw_only=True)
class Lowering:
    """Which precision, where it is verified, and how much accuracy it may cost."""

    precision: Precision
    device: Device = "auto"
    max_accuracy_drop: float = MAX_ACCURACY_DROP


@dataclass(frozen=True, kw_only=True, eq=False)
class Exact:
    """The folded float32 model, its file, what it answered to the split, and what the unfolded network answers."""

    model: ir.Model
    path: Path
    signature: Signature
    split: Split
    served: Served
    reference: Reference


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trial:
    """The lowered model, its file, what it answered, and what it would have with every value rounded, if it was not."""

    lowered: Lowered
    path: Path
    served: Served
    rounded: Served | None
    num_calibration: int | None


def check_lowering(lowering: Lowering) -> None:
    """Refuse what can be seen to be impossible before anything is computed.

    Raises:
        ExportError: the accuracy that may be lost is no share.
        PrecisionUnavailable: the device can not run that precision.
    """
    if not 0 <= lowering.max_accuracy_drop <= 1:
        raise ExportError(
            f"--max-accuracy-drop is {lowering.max_accuracy_drop}: expected a share from 0 to 1, such as 0.01"
        )
    device_for(lowering.precision, lowering.device)


def lower_and_verify(
    lowering: Lowering, exact: Exact, training: Instances, path: Path
) -> tuple[Verification, PrecisionReport]:
    """Write the model in the lower precision to `path`, and see what it is worth.

    `training` is what int8's ranges are taken from, in memory or a stream.

    Raises:
        PrecisionUnavailable: the model can not be lowered, or not be run on the device.
        AccuracyLost: it costs more accuracy than is allowed.
        ParityFailed: an answer is further from the network's than this precision explains.
    """
    trial = _try(lowering, exact, training, path)
    report = _report(lowering, exact, trial)
    _check_accuracy(report)
    tolerances = TOLERANCES[lowering.precision]
    if trial.rounded is not None:
        verify_served(exact.reference, trial.rounded, exact.split, tolerances)
    return verify_served(exact.reference, trial.served, exact.split, tolerances), report


def _try(lowering: Lowering, exact: Exact, training: Instances, path: Path) -> _Trial:
    calibration = draw_calibration(training, exact.signature.input.shape)
    lowered = lower(exact.model, lowering.precision, calibration)
    save_model(lowered.model, path)
    device = device_for(lowering.precision, lowering.device)
    served = serve(open_predictor(path, exact.signature, device), exact.split)
    return _Trial(
        lowered=lowered,
        path=path,
        served=served,
        rounded=_rehearse(lowering.precision, lowered, exact, path) if served.provider == CPU_PROVIDER else None,
        num_calibration=len(calibration) if lowering.precision == "int8" else None,
    )


def _rehearse(precision: Precision, lowered: Lowered, exact: Exact, path: Path) -> Served | None:
    """What a device answers that rounds every value; the CPU rounds fp16's weights only."""
    if precision not in HALVES:
        return None
    rehearsal_path = path.with_name(REHEARSAL_FILE)
    save_model(rehearse(lowered.model, HALVES[precision]), rehearsal_path)
    return serve(open_predictor(rehearsal_path, exact.signature, "cpu"), exact.split)


def _report(lowering: Lowering, exact: Exact, trial: _Trial) -> PrecisionReport:
    scores, found = exact.served.answers["scores"], trial.served.answers["scores"]
    rounded = trial.rounded
    return PrecisionReport(
        name=lowering.precision,
        num_instances=len(exact.split),
        accuracy=accuracy_of(trial.served, exact.split),
        fp32_accuracy=accuracy_of(exact.served, exact.split),
        max_accuracy_drop=lowering.max_accuracy_drop,
        label_agreement=float((found.argmax(axis=1) == scores.argmax(axis=1)).mean()),
        max_score_difference=float(np.abs(found - scores).max()),
        model_bytes=trial.path.stat().st_size,
        fp32_model_bytes=exact.path.stat().st_size,
        float32_layers=trial.lowered.float32_layers,
        standardised=trial.lowered.standardised,
        num_calibration_instances=trial.num_calibration,
        rounded_accuracy=None if rounded is None else accuracy_of(rounded, exact.split),
        rounded_score_difference=(None if rounded is None else float(np.abs(rounded.answers["scores"] - scores).max())),
    )


def _check_accuracy(report: PrecisionReport) -> None:
    accuracy = min(report.accuracy, report.accuracy if report.rounded_accuracy is None else report.rounded_accuracy)
    if round(report.fp32_accuracy - accuracy, EXACT_DIGITS) > report.max_accuracy_drop:
        raise AccuracyLost(
            f"--precision {report.name} costs too much accuracy: {accuracy:.4f} on {report.num_instances} held-out "
            f"instances, {report.fp32_accuracy:.4f} in fp32: {report.fp32_accuracy - accuracy:.4f} less, allowed are "
            f"{report.max_accuracy_drop:g} (labels agree for {report.label_agreement:.2%}, the largest difference of a "
            f"score is {report.max_score_difference:.2g}); no bundle was written. Choose a higher --precision, or "
            "allow more with --max-accuracy-drop"
        )
