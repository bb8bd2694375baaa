"""How fast the fold is: `python -m benchmarks.fold_speed`, or `make bench-fold`.

nodes      chains of Conv, BatchNorm and ReLU from 50 to 5,000 nodes: time for a node, which stays the same if the
           work is linear; with the checks of every single fold, which are part of it
ResNet-50  the whole command in a process of its own, everything included: imports, the comparison with the
           original in ONNX Runtime at two levels and batch sizes, the latency, the writing; and its peak memory
           beyond that of the same command on a model of one BatchNorm, as a multiple of the model's size
start-up   `fold --help`, and the whole command on that model of one BatchNorm
"""

from __future__ import annotations

import datetime as dt
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from benchmarks.computer import describe_computer
from benchmarks.resnet50 import write_resnet50
from benchmarks.tables import table
from model_export.fold import fold

SIZES = (50, 160, 500, 1600, 5000)
REPEATS = 5
NUM_RESNET_BATCHNORMS = 53
PACKAGES = ("foldserve", "onnx", "onnx-ir", "numpy")
CHANNELS = 8
RESULTS = Path(__file__).parent / "results" / "fold_speed.md"


@dataclass(frozen=True)
class Scaling:
    """A chain of so many nodes, and the median time to fold it."""

    num_nodes: int
    seconds: float

    @property
    def us_per_node(self) -> float:
        """Microseconds for one node."""
        return 1e6 * self.seconds / self.num_nodes


@dataclass(frozen=True)
class Run:
    """One run of the command in its own process: seconds, and the most memory it held, in bytes."""

    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Report:
    """All that was measured."""

    scaling: tuple[Scaling, ...]
    help_seconds: float
    small: Run
    resnet50: Run
    resnet50_bytes: int
    resnet50_fold_seconds: float

    @property
    def memory_ratio(self) -> float:
        """Peak memory for ResNet-50 beyond that for a tiny model, in sizes of the model."""
        return (self.resnet50.peak_bytes - self.small.peak_bytes) / self.resnet50_bytes


def chain(num_nodes: int) -> ir.Model:
    """Conv, BatchNorm, ReLU, over and over."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    value = "x"
    for index in range(num_nodes // 3):
        draws = {"w": rng.normal(size=(CHANNELS, CHANNELS, 1, 1)) / np.sqrt(CHANNELS)}
        draws |= {name: rng.uniform(0.5, 1.5, CHANNELS) for name in ("scale", "offset", "mean", "var")}
        named = {f"{name}{index}": array.astype(np.float32) for name, array in draws.items()}
        weights += [numpy_helper.from_array(array, name) for name, array in named.items()]
        weight, *parameters = named
        nodes.append(helper.make_node("Conv", [value, weight], [f"conv{index}"], f"conv{index}"))
        nodes.append(
            helper.make_node("BatchNormalization", [f"conv{index}", *parameters], [f"bn{index}"], f"bn{index}")
        )
        nodes.append(helper.make_node("Relu", [f"bn{index}"], [f"relu{index}"], f"relu{index}"))
        value = f"relu{index}"
    shape: list[str | int | None] = ["batch", CHANNELS, 4, 4]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", value)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))


def measure_scaling(sizes: tuple[int, ...] = SIZES, repeats: int = REPEATS) -> tuple[Scaling, ...]:
    """Fold chains of these sizes, taking turns."""
    models = {size: chain(size) for size in sizes}
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size, model in models.items():
            start = time.perf_counter()
            fold(model)
            seconds[size].append(time.perf_counter() - start)
    return tuple(Scaling(len(models[size].graph), statistics.median(seconds[size])) for size in sizes)


def fold_seconds(path: Path, repeats: int = REPEATS) -> float:
    """The median time of the fold alone, in this process: planned, each fold checked in float64, applied."""
    model, seconds = ir.load(path), []
    for _ in range(repeats):
        start = time.perf_counter()
        fold(model)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def run_command(*arguments: str, repeats: int = REPEATS) -> Run:
    """Run `python -m model_export` a few times; the medians.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    runs = [_run_once(arguments) for _ in range(repeats)]
    return Run(statistics.median(run.seconds for run in runs), int(statistics.median(run.peak_bytes for run in runs)))


def _run_once(arguments: tuple[str, ...]) -> Run:
    """In a process that does nothing else than wait for it: the kernel tells the peak of its children."""
    code = (
        "import resource, subprocess, sys, time; start = time.perf_counter(); "
        "subprocess.run([sys.executable, '-m', 'model_export', *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL); "
        "print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    seconds, peak_kilobytes = done.stdout.split()
    return Run(float(seconds), int(peak_kilobytes) * 1024)


def measure() -> Report:
    """All of it; a minute."""
    scaling = measure_scaling()
    with tempfile.TemporaryDirectory(prefix="foldserve-bench-") as folder:
        tiny, large, out = (Path(folder) / name for name in ("tiny.onnx", "resnet50.onnx", "out.onnx"))
        ir.save(chain(3), tiny)
        write_resnet50(large)
        return Report(
            scaling=scaling,
            help_seconds=run_command("fold", "--help").seconds,
            small=run_command("fold", str(tiny), str(out)),
            resnet50=run_command("fold", str(large), str(out)),
            resnet50_bytes=large.stat().st_size,
            resnet50_fold_seconds=fold_seconds(large),
        )


def render(report: Report) -> str:
    """The report as Markdown."""
    rows = [(f"{row.num_nodes:,}", f"{1e3 * row.seconds:.0f}", f"{row.us_per_node:.0f}") for row in report.scaling]
    commands = [
        ("`fold --help`", f"{report.help_seconds:.2f}", ""),
        ("`fold` on one BatchNorm", f"{report.small.seconds:.2f}", f"{report.small.peak_bytes / 2**20:.0f}"),
        ("`fold` on ResNet-50", f"{report.resnet50.seconds:.2f}", f"{report.resnet50.peak_bytes / 2**20:.0f}"),
    ]
    machine = [(name, value) for name, value in describe_computer(PACKAGES).items()]
    return (
        "\n\n".join(
            [
                "# The fold, measured",
                f"{dt.datetime.now(dt.UTC).date()}, by `python -m benchmarks.fold_speed`; medians of {REPEATS} runs.",
                table(("machine", ""), machine, left=frozenset({0, 1})),
                "## Nodes",
                "Chains of Conv, BatchNorm and ReLU; planned, each fold checked in float64, applied.",
                table(("nodes", "ms", "µs a node"), rows, left=frozenset()),
                "## The command",
                _about_the_command(report),
                table(("command", "seconds", "peak MiB"), commands),
            ]
        )
        + "\n"
    )


def _about_the_command(report: Report) -> str:
    size = f"{report.resnet50_bytes / 2**20:.0f} MiB"
    return (
        f"A process of its own, everything included. ResNet-50 has {size} of weights at 224 × 224; beyond what the "
        f"command needs for one BatchNorm it takes {report.memory_ratio:.2f} times that. The fold itself, with the "
        f"check of each of its {NUM_RESNET_BATCHNORMS} BatchNorms, is {report.resnet50_fold_seconds:.2f} s of it; the "
        "rest is imports, reading, writing, and two models run by ONNX Runtime at two levels and batch sizes."
    )


def main() -> None:
    """Measure, print, and write the report."""
    report = measure()
    text = render(report)
    RESULTS.write_text(text)
    Console(width=120).print(text, markup=False, highlight=False)


if __name__ == "__main__":
    main()
