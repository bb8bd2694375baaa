"""The story of an export, told once: from a checkpoint to a bundle that is proved to answer as the network does.

Everything that can be refused is refused before the bundle's directory holds a manifest.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from model_export.checkpoint import Run, load_network, load_splits_of, read_checkpoint
from model_export.data import Splits
from model_export.examples import pick_examples
from model_export.export import export_raw
from model_export.fold import FoldedModel, fold
from model_export.fold.check import Comparison, compare, record
from model_export.fold.files import save_model
from model_export.fold.provenance import Measured, Provenance, provenance_of, sha256_of_file, stamp
from model_export.freeze import freeze
from model_export.ir import ir
from model_export.lowering import MAX_ACCURACY_DROP, Exact, Lowering, check_lowering, lower_and_verify
from model_export.measuring import (
    MeasuringOptions,
    Method,
    Statistics,
    Trained,
    as_trained,
    check_consistent,
    measure_statistics,
)
from model_export.statistics import Tell, count_instances, describe_statistics, named_batchnorms, sample
from model_export.threads import threads_for
from model_export.verify import Verification, compute_reference, serve, verify_served
from service.bundle import (
    MODEL_FILE,
    Bundle,
    Manifest,
    Precision,
    PrecisionReport,
    Signature,
    StatisticsReport,
    TensorSpec,
    TrainingReport,
    check_free,
    check_name_and_version,
    write_bundle,
)
from service.device import Device
from service.predictor import open_predictor
from service.runtime import ort

Announce = Callable[[str], None]
PRODUCERS = ("foldserve", "torch", "onnx", "onnx-ir", "onnxscript", "numpy")


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What to export, how, and where to. `raw_path` keeps the graph before folding, for those who want to look.

    A `precision` below fp32 is applied after the fold, and may cost `max_accuracy_drop` of held-out accuracy.
    """

    checkpoint: Path
    out: Path
    statistics: Method = "exact"
    measuring: MeasuringOptions = field(default_factory=MeasuringOptions)
    device: Device = "auto"
    overwrite: bool = False
    raw_path: Path | None = None
    precision: Precision = "fp32"
    max_accuracy_drop: float = MAX_ACCURACY_DROP

    @property
    def lowering(self) -> Lowering | None:
        """What is to be lowered, and within which limit; None for float32."""
        if self.precision == "fp32":
            return None
        return Lowering(precision=self.precision, device=self.device, max_accuracy_drop=self.max_accuracy_drop)

    @property
    def name(self) -> str:
        """The model's name: the last but one part of the place."""
        return self.out.resolve().parent.name

    @property
    def version(self) -> str:
        """The model's version: the last part of the place."""
        return self.out.resolve().name


def build_bundle(request: ExportRequest, announce: Announce = lambda _: None, *, tell: Tell | None = None) -> Bundle:
    """Build the bundle that `request` asks for; `announce` is told what is being done, `tell` how far measuring is.

    Raises:
        ExportError: a room refused, and says why and what to do.
        BundleError, BundleExists: the place can not take the bundle, or the model can not be opened.
    """
    _check_request(request)
    checkpoint = read_checkpoint(request.checkpoint)
    splits = load_splits_of(checkpoint)
    trained = as_trained(checkpoint, load_network(checkpoint), splits)
    with threads_for(trained.network, splits.instance_shape, trained.batch_size):
        announce(f"Measuring the {request.statistics} statistics")
        statistics = measure_statistics(request.statistics, trained, request.measuring, tell=tell)
        return _build(request, announce, checkpoint.run, splits, trained, statistics)


def _build(  # noqa: PLR0913, PLR0917 - what came of each step so far
    request: ExportRequest,
    announce: Announce,
    run: Run,
    splits: Splits,
    trained: Trained,
    statistics: Statistics,
) -> Bundle:
    announce("Freezing them")
    report = _describe(trained, statistics, request)
    frozen = freeze(trained.network, statistics, unreached=report.unreached)
    announce("Exporting to ONNX")
    raw = export_raw(frozen, instance_shape=splits.instance_shape)
    announce("Folding")
    folded = fold(raw)
    announce("Verifying on the held-out split")
    reference = compute_reference(frozen, splits.test.instances)
    with _saved(folded.model, raw, request.raw_path) as (raw_path, model_path):
        signature = _signature(run, splits)
        exact = Exact(
            model=folded.model,
            path=model_path,
            signature=signature,
            split=splits.test,
            served=serve(open_predictor(model_path, signature, request.device), splits.test),
            reference=reference,
        )
        verified = _lower(request, announce, exact, splits)
        announce("Writing the bundle")
        comparison = compare(record(raw_path), model_path)
        stamp(verified.path, _provenance(raw_path, folded, request.statistics, comparison))
        return write_bundle(
            request.out,
            manifest=Manifest(
                name=request.name,
                version=request.version,
                signature=signature,
                statistics=report,
                fold=folded.report,
                parity=verified.verification.parity,
                training=_training(run, splits, verified.verification.accuracy),
                producer=_producer(),
                created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                precision=verified.precision,
            ),
            model_path=verified.path,
            examples=pick_examples(splits, reference.answers),
            overwrite=request.overwrite,
        )


@dataclass(frozen=True, kw_only=True)
class _Verified:
    """The model file that goes into the bundle, and how it was verified."""

    path: Path
    verification: Verification
    precision: PrecisionReport | None = None


def _lower(request: ExportRequest, announce: Announce, exact: Exact, splits: Splits) -> _Verified:
    """Verify float32, and then what is made of it, if a lower precision is asked for."""
    verification = verify_served(exact.reference, exact.served, exact.split)
    if request.lowering is None:
        return _Verified(path=exact.path, verification=verification)
    announce(f"Lowering it to {request.precision}, and verifying that")
    path = exact.path.with_name(f"{request.precision}.onnx")
    verification, report = lower_and_verify(request.lowering, exact, splits.calibration, path)
    return _Verified(path=path, verification=verification, precision=report)


def _check_request(request: ExportRequest) -> None:
    """Refuse what can be seen to be impossible before anything is computed."""
    if request.lowering is not None:
        check_lowering(request.lowering)
    check_name_and_version(request.name, request.version)
    check_free(request.out, overwrite=request.overwrite)


def _describe(trained: Trained, statistics: Statistics, request: ExportRequest) -> StatisticsReport:
    calibration = sample(trained.calibration, request.measuring.samples)
    layers = describe_statistics(trained.network, statistics, calibration, device=request.measuring.device)
    if request.statistics == "exact":
        check_consistent(trained.network, statistics, layers)
    return StatisticsReport(
        method=request.statistics,
        num_instances=trained.num_instances if request.measuring.samples is None else count_instances(calibration),
        num_training_instances=trained.num_instances,
        layers=layers,
        unreached=tuple(name for name in named_batchnorms(trained.network) if name not in statistics),
    )


@contextlib.contextmanager
def _saved(folded: ir.Model, raw: ir.Model, raw_path: Path | None) -> Iterator[tuple[Path, Path]]:
    """The raw and the folded model as files, for as long as they are compared; the raw one stays if it is wanted."""
    with tempfile.TemporaryDirectory(prefix="foldserve-") as folder:
        paths = raw_path or Path(folder) / "raw.onnx", Path(folder) / MODEL_FILE
        for model, path in zip((raw, folded), paths, strict=True):
            save_model(model, path)
        yield paths


def _provenance(raw_path: Path, folded: FoldedModel, method: Method, comparison: Comparison) -> Provenance:
    """What the model itself says of where it comes from, whoever finds it without its bundle."""
    measured = Measured(comparison.relative_difference, comparison.in_noise_floors)
    return provenance_of(folded.report, measured, source_sha256=sha256_of_file(raw_path), statistics=method)


def _signature(run: Run, splits: Splits) -> Signature:
    labels = (run.spec.num_outputs,)
    return Signature(
        input=TensorSpec(name="instance", dtype="float32", shape=run.spec.instance_shape),
        outputs=tuple(TensorSpec(name=name, dtype="float32", shape=labels) for name in ("scores", "logits")),
        labels=run.labels,
        features=run.features,
        image=splits.image,
    )


def _training(run: Run, splits: Splits, accuracy: float) -> TrainingReport:
    return TrainingReport(
        data=run.data_name,
        network=run.spec.options.network,
        seed=run.options.seed,
        num_epochs=len(run.history),
        num_train=len(splits.train),
        num_test=len(splits.test),
        test_accuracy=accuracy,
    )


def _producer() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in PRODUCERS}
    return {"python": platform.python_version(), **versions, "onnxruntime": ort.__version__}
