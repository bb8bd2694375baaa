"""A long constant load with reloads under it: `python -m benchmarks.soak --seconds 240`, or `make bench-soak`.

Clients keep their connections and speak all HTTP protocols in turn; a new version is put in every few seconds, and an
old one taken away. Every answer's bits are compared with those of the version that it names; no request may fail. The
server's memory is sampled, and a line is laid through it by least squares once a quarter of the time is over.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.computer import describe_computer
from benchmarks.soak_clients import Client, Question, Tally
from benchmarks.tables import table
from tests.service.exact_models import exact_instances, exact_model, expected_bits, write_exact_bundle
from tests.service.running_server import running_server

PACKAGES = ("uvicorn", "httptools", "uvloop", "fastapi", "numpy")
RESULTS = Path(__file__).parent / "results" / "soak.md"
SAMPLE_SECONDS = 0.25
WARM_SHARE = 0.25
VERSIONS_LEFT = 4  # in the folder; of these the server keeps two loaded
MEBIBYTE = 1 << 20
FIRST_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """For how long, how often a version is put in, how many clients ask at which pace."""

    seconds: float
    reload_seconds: float
    num_clients: int = 4
    pause_seconds: float = 0.002


@dataclass(frozen=True)
class Sample:
    """At a time since the load began: resident bytes, open files, and answers so far."""

    seconds: float
    num_bytes: int
    num_files: int
    num_answers: int


@dataclass(frozen=True)
class Soaked:
    """What came of it."""

    plan: Plan
    samples: tuple[Sample, ...]
    num_reloads: int
    tally: Tally

    @property
    def warm(self) -> tuple[Sample, ...]:
        """The samples once all was used."""
        return tuple(sample for sample in self.samples if sample.seconds > WARM_SHARE * self.plan.seconds)

    @property
    def slope(self) -> tuple[float, float]:
        """By how many bytes a second memory grows, and the standard error of that."""
        times = np.array([sample.seconds for sample in self.warm])
        sizes = np.array([sample.num_bytes for sample in self.warm], np.float64)
        centred = times - times.mean()
        slope = float(centred @ sizes / (centred @ centred))
        residuals = sizes - sizes.mean() - slope * centred
        return slope, float(np.sqrt(residuals @ residuals / (len(times) - 2) / (centred @ centred)))

    @property
    def grown_bytes(self) -> float:
        """By how much the line grew while it was laid."""
        return self.slope[0] * (self.warm[-1].seconds - self.warm[0].seconds)


def soak(plan: Plan, root: Path) -> Soaked:
    """Serve from below `root`, ask, and reload."""
    write_exact_bundle(root, exact_model(seed=FIRST_VERSION), version=str(FIRST_VERSION))
    arguments = ("--models", str(root), "--device", "cpu", "--watch-seconds", "0.2", "--versions", "2")
    instance = exact_instances(exact_model(), 1)[0]
    question = Question(instance, {})
    _know(question, FIRST_VERSION)
    tally = Tally()
    with running_server(*arguments) as server, _asking(server.url, question, tally, plan):
        samples = tuple(_sample(plan, root, question, tally, psutil.Process(server.process.pid)))
    return Soaked(plan, samples, len(question.bits) - 1, tally)


@contextmanager
def _asking(url: str, question: Question, tally: Tally, plan: Plan) -> Iterator[None]:
    address = url.removeprefix("http://")
    clients = [Client(address, question, tally, pause_seconds=plan.pause_seconds) for _ in range(plan.num_clients)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        for client in clients:
            client.stopped.set()
        for client in clients:
            client.join()


def _sample(plan: Plan, root: Path, question: Question, tally: Tally, process: psutil.Process) -> Iterator[Sample]:
    """Sample until the time is over, and put versions in when they are due."""
    started, version, due = time.perf_counter(), FIRST_VERSION, plan.reload_seconds
    while (seconds := time.perf_counter() - started) < plan.seconds:
        if seconds >= due:
            version, due = version + 1, due + plan.reload_seconds
            _put_in(root, question, version)
        with tally.lock:
            num_answers = tally.by_dialect.total()
        yield Sample(seconds, process.memory_info().rss, process.num_fds(), num_answers)
        time.sleep(SAMPLE_SECONDS)


def _put_in(root: Path, question: Question, version: int) -> None:
    """Put a version in; the oldest is taken away."""
    _know(question, version)
    write_exact_bundle(root, exact_model(seed=version), version=str(version))
    oldest = root / "digits" / str(version - VERSIONS_LEFT)
    if oldest.exists():
        shutil.rmtree(oldest)


def _know(question: Question, version: int) -> None:
    """Compute what a version answers, before it does."""
    question.bits[str(version)] = expected_bits(exact_model(seed=version), question.instance[None])


def render(soaked: Soaked, machine: dict[str, str]) -> str:
    """Write the report as Markdown."""
    return "\n\n".join(_sections(soaked, machine)) + "\n"


def _sections(soaked: Soaked, machine: dict[str, str]) -> Iterator[str]:
    yield "# A long load with reloads, measured"
    yield "\n".join(f"* {line}" for line in headlines(soaked))
    today = dt.datetime.now(dt.UTC).date().isoformat()
    yield f"{today}, by `python -m benchmarks.soak --seconds {soaked.plan.seconds:g}`."
    yield table(("machine", ""), list(machine.items()), left=frozenset({0, 1}))
    yield " ".join((__doc__ or "").split("\n\n", 1)[1].split())
    yield table(("protocol", "answers, all right"), [(name, f"{count:,}") for name, count in _sorted(soaked)])
    yield table(("s", "memory, MiB", "open files", "answers"), [_row(sample) for sample in _some(soaked.samples)])
    if soaked.tally.problems:
        yield "\n".join(f"* {problem}" for problem in soaked.tally.problems[:20])


def headlines(soaked: Soaked) -> list[str]:
    """Say what it comes down to."""
    slope, error = soaked.slope
    p50, p99 = np.percentile(soaked.tally.seconds, [50, 99]) * 1e3
    num_answers = soaked.tally.by_dialect.total()
    in_all = f"{soaked.grown_bytes / MEBIBYTE:+.2f} MiB in the time that was measured"
    return [
        f"{num_answers:,} answers in {soaked.plan.seconds:g} s, each with the bits of the version that it names",
        f"{len(soaked.tally.problems)} requests lost, refused or answered wrongly",
        f"{soaked.num_reloads} new versions under load",
        f"memory grows by {slope * 3600 / MEBIBYTE:+.1f} ± {error * 3600 / MEBIBYTE:.1f} MiB an hour ({in_all})",
        f"latency as a Python client sees it: median {p50:.2f} ms, 99th percentile {p99:.2f} ms",
    ]


def _sorted(soaked: Soaked) -> list[tuple[str, int]]:
    return sorted(soaked.tally.by_dialect.items())


def _some(samples: tuple[Sample, ...], count: int = 12) -> list[Sample]:
    places = np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)
    return [samples[place] for place in places]


def _row(sample: Sample) -> tuple[str, str, str, str]:
    memory = f"{sample.num_bytes / MEBIBYTE:.1f}"
    return f"{sample.seconds:.0f}", memory, str(sample.num_files), f"{sample.num_answers:,}"


def main(arguments: list[str]) -> int:
    """Soak, say what came of it, and write it down; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="A long load with reloads.")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--reloads", type=int, default=100, help="how many new versions in that time")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    plan = Plan(seconds=options.seconds, reload_seconds=options.seconds / (options.reloads + 1))
    with tempfile.TemporaryDirectory() as directory:
        soaked = soak(plan, Path(directory))
    options.results.write_text(render(soaked, describe_computer(PACKAGES)))
    sys.stdout.write("\n".join(headlines(soaked)) + "\n")
    return 1 if soaked.tally.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
