"""What lower precision costs and saves: `python -m benchmarks.precision`, or `make bench-precision`.

Each network is folded, and lowered as `export --precision` lowers it. A run is one instance, alone, in a session with
the options that serve, on one thread of one core; blocks of runs of all precisions take turns. Accuracy, agreement and
differences are over the held-out split, by the service's own predictor. Networks with random weights have no accuracy.
For int8 the choices are measured too, each changed alone: how ranges are taken, 8 bits for a weight instead of 7, and
the first layer as the fold left it, its input not scaled.

bf16 is not in the table: ONNX Runtime has no bfloat16 kernels for the CPU, and `export` refuses it there.
"""

from __future__ import annotations

import datetime as dt
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.computer import describe_computer
from benchmarks.cores import on_cores, server_cores
from benchmarks.models import SHAPES, Shape, build_model, random_instances
from benchmarks.tables import table
from model_export.checkpoint import load_splits_of, read_checkpoint
from model_export.data import DataSource, Split
from model_export.fold.files import load_model, save_model
from model_export.ir import ir
from model_export.networks import NetworkOptions
from model_export.options import TrainingOptions
from model_export.pipeline import ExportRequest, build_bundle
from model_export.precision import draw_calibration, lower
from model_export.precision.integers import Choices, quantise
from model_export.precision.kept import find_kept
from model_export.precision.probe import BATCH_SIZE
from model_export.precision.scaling import standardise
from model_export.train import train
from service.bundle import Precision
from service.predictor import open_predictor
from service.runtime import ort
from service.session import Session, open_session

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
NUM_BLOCKS = 200
RUNS_PER_BLOCK = 50
PACKAGES = ("foldserve", "onnx", "numpy")
RESULTS = Path(__file__).parent / "results" / "precision.md"

Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Subject:
    """A folded float32 model in a file, what it is calibrated with, and the held-out split if it was trained."""

    name: str
    path: Path
    calibration: NDArray[np.float32]
    held_out: Split | None = None


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Accuracy on the held-out split; agreement and the largest and mean difference of a score, with float32."""

    accuracy: float
    agreement: float
    largest: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network in one precision. `ratio` is its time over float32's, the median over blocks."""

    subject: str
    precision: Precision
    num_bytes: int
    microseconds: float
    ratio: float
    quality: Quality | None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One network in int8, made with one choice changed."""

    subject: str
    choice: str
    quality: Quality


@dataclass(frozen=True)
class Trained:
    """A network to train before it is measured."""

    name: str
    source: DataSource
    network: NetworkOptions
    epochs: int


TRAINED = (
    Trained("digits, mlp", DataSource(spec="digits"), NetworkOptions(), 30),
    Trained("Fashion-MNIST, mlp", DataSource(spec="fashion-mnist"), NetworkOptions(), 3),
    Trained("Fashion-MNIST, convnet", DataSource(spec="fashion-mnist"), NetworkOptions(network="convnet"), 2),
)


def train_subject(trained: Trained, folder: Path) -> Subject:
    """Train, export in float32, and take the model out of the bundle."""
    options = TrainingOptions(epochs=trained.epochs)
    result = train(trained.source, trained.network, options, run_dir=folder / "run", device="cpu", progress=False)
    bundle = build_bundle(ExportRequest(checkpoint=result.best_path, out=folder / "model" / "1", device="cpu"))
    splits = load_splits_of(read_checkpoint(result.best_path))
    calibration = draw_calibration(splits.calibration, splits.instance_shape)
    return Subject(trained.name, bundle.model_path, calibration, splits.test)


def random_subject(shape: Shape, folder: Path) -> Subject:
    """A network of `benchmarks.models`, with random weights."""
    built = build_model(shape, folder)
    return Subject(f"{shape.name}, random weights", built.bundle.model_path, random_instances(shape, 1000))


def measure(subject: Subject, folder: Path, *, num_blocks: int = NUM_BLOCKS) -> tuple[Row, ...]:
    """The network in every precision."""
    model = load_model(subject.path)
    paths = {precision: _lowered(model, precision, subject, folder) for precision in PRECISIONS}
    blocks = _time_in_turns({name: open_session(path, device="cpu") for name, path in paths.items()}, num_blocks)
    scores = {name: _scores(path, subject.held_out) for name, path in paths.items()}
    return tuple(
        Row(
            subject=subject.name,
            precision=name,
            num_bytes=path.stat().st_size,
            microseconds=statistics.median(block[name] for block in blocks),
            ratio=statistics.median(block[name] / block["fp32"] for block in blocks),
            quality=_judge(scores[name], scores["fp32"], subject.held_out),
        )
        for name, path in paths.items()
    )


def measure_choices(subject: Subject, folder: Path) -> tuple[Choice, ...]:
    """The network in int8, made in other ways; nothing where it has no accuracy."""
    if subject.held_out is None:
        return ()
    exact = _scores(subject.path, subject.held_out)
    found = []
    for name, make in _ways(load_model(subject.path), subject.calibration).items():
        save_model(make(), folder / "choice.onnx")
        quality = _judge(_scores(folder / "choice.onnx", subject.held_out), exact, subject.held_out)
        if quality is not None:
            found.append(Choice(subject=subject.name, choice=name, quality=quality))
    return tuple(found)


def _ways(model: ir.Model, calibration: NDArray[np.float32]) -> dict[str, Callable[[], ir.Model]]:
    kept = frozenset(node.name or "" for node in find_kept(model))
    calibration = calibration[: len(calibration) // BATCH_SIZE * BATCH_SIZE]  # histograms are of equal batches only
    scaled = standardise(model, calibration)[0]
    return {
        "as chosen": lambda: quantise(scaled, calibration, kept),
        "ranges by entropy": lambda: quantise(scaled, calibration, kept, Choices(ranges="Entropy")),
        "ranges by percentile": lambda: quantise(scaled, calibration, kept, Choices(ranges="Percentile")),
        "8 bits for a weight": lambda: quantise(scaled, calibration, kept, Choices(reduce_range=False)),
        "ranges over 1,000 instances": lambda: quantise(
            standardise(model, calibration[:1000])[0], calibration[:1000], kept
        ),
        "input not scaled": lambda: quantise(model, calibration, kept),
    }


def _lowered(model: ir.Model, precision: Precision, subject: Subject, folder: Path) -> Path:
    if precision == "fp32":
        return subject.path
    path = folder / f"{precision}.onnx"
    save_model(lower(model, precision, subject.calibration).model, path)
    return path


def _time_in_turns(sessions: dict[Precision, Session], num_blocks: int) -> list[dict[Precision, float]]:
    """Microseconds of a run, over blocks of each session in turn; the first blocks warm up."""
    random = np.random.default_rng(0)
    for session in sessions.values():
        np.copyto(session.input, random.random(session.input.shape))
        _time_block(session)
    return [{name: _time_block(session) for name, session in sessions.items()} for _ in range(num_blocks)]


def _time_block(session: Session) -> float:
    start = time.perf_counter()
    for _ in range(RUNS_PER_BLOCK):
        session.run()
    return (time.perf_counter() - start) / RUNS_PER_BLOCK * 1e6


def _scores(path: Path, split: Split | None) -> Scores:
    """The predictor's scores, float64 (N, labels), one instance at a time; none without a split."""
    if split is None:
        return np.empty((0, 0))
    predictor = open_predictor(path, device="cpu")
    return np.stack([predictor.outputs(instance)["scores"] for instance in split.instances]).astype(np.float64)


def _judge(scores: Scores, exact: Scores, split: Split | None) -> Quality | None:
    if split is None:
        return None
    labels, difference = scores.argmax(axis=1), np.abs(scores - exact)
    return Quality(
        accuracy=float((labels == split.labels).mean()),
        agreement=float((labels == exact.argmax(axis=1)).mean()),
        largest=float(difference.max()),
        mean=float(difference.mean()),
    )


def render(rows: tuple[Row, ...], choices: tuple[Choice, ...], computer: dict[str, str]) -> str:
    """The report, as Markdown."""
    quality = ("accuracy", "labels as fp32", "largest difference of a score", "mean")
    method = (__doc__ or "").partition("\n\n")[2].strip()
    return (
        "\n\n".join(
            [
                "# Lower precision, measured",
                f"{dt.datetime.now(dt.UTC).date()}, by `python -m benchmarks.precision`.",
                table(("machine", ""), list(computer.items()), left=frozenset({0, 1})),
                method,
                "## Precisions",
                table(
                    ("network", "precision", "model, kB", "µs a run", "of fp32's", *quality),
                    [(*_about(row), *_cells(row.quality)) for row in rows],
                    left=frozenset({0, 1}),
                ),
                "## int8's choices",
                table(
                    ("network", "int8", *quality),
                    [(choice.subject, choice.choice, *_cells(choice.quality)) for choice in choices],
                    left=frozenset({0, 1}),
                ),
            ]
        )
        + "\n"
    )


def _about(row: Row) -> tuple[str, ...]:
    numbers = (f"{row.num_bytes / 1000:,.0f}", f"{row.microseconds:.1f}", f"{row.ratio:.2f}×")
    return (row.subject, row.precision, *numbers)


def _cells(quality: Quality | None) -> tuple[str, ...]:
    if quality is None:
        return ("",) * 4
    return (
        f"{quality.accuracy:.4f}",
        f"{quality.agreement:.2%}",
        f"{quality.largest:.1e}",
        f"{quality.mean:.1e}",
    )


def main() -> None:
    """Train, measure, show, write; some four minutes."""
    console = Console(width=160)
    rows: tuple[Row, ...] = ()
    choices: tuple[Choice, ...] = ()
    makers: list[tuple[str, Callable[[Path], Subject]]] = [
        *((trained.name, partial(train_subject, trained)) for trained in TRAINED),
        *((shape.name, partial(random_subject, shape)) for shape in SHAPES),
    ]
    with tempfile.TemporaryDirectory(prefix="foldserve-bench-") as root:
        for name, make in makers:
            folder = Path(root) / str(len(rows))
            folder.mkdir()
            with console.status(f"Measuring {name}"):
                subject = make(folder)
                with on_cores(server_cores()):
                    rows += measure(subject, folder)
                choices += measure_choices(subject, folder)
    text = render(rows, choices, describe_computer(PACKAGES) | {"ONNX Runtime": ort.__version__})
    console.print(text, markup=False)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
