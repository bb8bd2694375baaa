"""How fast each way over a GPU is: `python -m benchmarks.gpu`, or `make bench-gpu`; needs an NVIDIA GPU.

PyTorch is needed, all else is measured where it is installed: without ONNX Runtime PyTorch's ways alone, without
FastAPI all but the whole service; what is left out is said. `--models`, `--batches` and `--ways` choose. Without a GPU
it says so, and writes nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.computer import describe_computer
from benchmarks.errors import BenchmarkError
from benchmarks.gpu_plan import BATCHES, MODELS, WAYS, Feasible, Plan, fit_plan, why_no_gpu, why_not_here
from benchmarks.gpu_report import Findings, Report, render

RESULTS = Path(__file__).parent / "results" / "gpu.md"
PACKAGES = ("torch", "onnxruntime-gpu", "tensorrt", "tensorrt-cu13", "numpy", "fastapi", "uvicorn")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the report; return the exit code."""
    options = _read_options(arguments)
    reason = why_no_gpu()
    if reason:
        return _complain(f"no GPU can be measured here: {reason}; nothing was written")
    try:
        text = render(measure(options.plan))
    except BenchmarkError as err:
        return _complain(str(err))
    options.out.write_text(text)
    sys.stdout.write(text)
    return 0


def measure(plan: Plan, *, why_not: Callable[[str], str] = why_not_here, device: str = "cuda") -> Report:
    """Measure what of the plan can be measured here; `why_not` says what can not.

    Raises:
        WrongAnswer: a way does not answer as the network does.
        PeerFailed: a server did not start, or failed.
    """
    from benchmarks.gpu_ways import compute_in_full  # needs PyTorch, as all that measures

    compute_in_full()
    feasible = fit_plan(plan, why_not)
    found = Findings(left_out=feasible.left_out)
    for name in plan.models:
        found += _measure_model(name, plan, feasible, device)
    return Report(machine=_describe_machine(device), plan=plan, found=found)


def _measure_model(name: str, plan: Plan, feasible: Feasible, device: str) -> Findings:
    from benchmarks.gpu_measuring import Bench, measure_model
    from benchmarks.gpu_models import build_subject, write_onnx

    subject = build_subject(name)
    needs_files = feasible.service or any(way.runtime != "torch" for way in feasible.ways)
    with tempfile.TemporaryDirectory(prefix="foldserve-bench-") as folder:
        paths = write_onnx(subject, Path(folder)) if needs_files else {}
        return measure_model(Bench(subject, paths, Path(folder), plan, device), feasible)


def _describe_machine(device: str) -> dict[str, str]:
    machine = describe_computer([name for name in PACKAGES if _is_installed(name)])
    if device != "cuda":
        return machine
    import torch

    properties = torch.cuda.get_device_properties(0)
    gpu = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda} in PyTorch"
    return {"GPU": gpu, **machine}


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _complain(line: str) -> int:
    sys.stderr.write(f"benchmarks.gpu: {line}\n")
    return 1


def _read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [way.name for way in WAYS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--ways", nargs="+", choices=names, default=names, metavar="WAY", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    parser.add_argument("--seconds", type=float, default=Plan.seconds, help="of a way's turn in a round")
    parser.add_argument("--no-service", action="store_true", help="leave the whole service out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    options.plan = Plan(
        models=tuple(options.models),
        batches=tuple(options.batches),
        ways=tuple(options.ways),
        rounds=options.rounds,
        seconds=options.seconds,
        service=not options.no_service,
    )
    return options


if __name__ == "__main__":
    sys.exit(main())
