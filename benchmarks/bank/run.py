"""The run: every tool on every case in both variants, in processes that may crash without ending it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bank.case import Case
from benchmarks.bank.judge import Judgement, num_nodes
from benchmarks.bank.tools import Tool
from benchmarks.bank.worker import DIFFERENT, SQUARE

Job = tuple[str, str]  # the case, and which variant of it
SECONDS_FOR_ALL = 900
Command = Callable[[str, Path], list[str]]  # from the tool's name and where verdicts go
WORST_FIRST = ("invalid", "wrong", "left", "folded", "unjudged")


@dataclass(frozen=True)
class Outcome:
    """What one tool made of one case in its two variants."""

    different: Judgement
    square: Judgement

    @property
    def worst(self) -> Judgement:
        """The worse of the two, for a tool must be right on both."""
        return min(self.different, self.square, key=lambda judgement: WORST_FIRST.index(judgement.verdict))

    @property
    def num_nodes(self) -> int:
        """Nodes left in both."""
        return self.different.num_nodes + self.square.num_nodes


Results = Mapping[str, Mapping[str, Outcome]]  # by the tool's name, then by the case's


def run_all(tools: Sequence[Tool], cases: Sequence[Case], done: Callable[[Tool], None]) -> Results:
    """As many tools at once as there are cores; `done` is called after each."""

    def one(tool: Tool) -> Mapping[str, Outcome]:
        outcomes = run_tool(tool, cases)
        done(tool)
        return outcomes

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip((tool.name for tool in tools), pool.map(one, tools), strict=True))


def worker_command(tool_name: str, path: Path) -> list[str]:
    """How to start a worker."""
    return [sys.executable, "-m", "benchmarks.bank.worker", tool_name, str(path)]


def run_tool(tool: Tool, cases: Sequence[Case], command: Command = worker_command) -> Mapping[str, Outcome]:
    """One tool on all cases; a case on which its process dies is invalid, and another process goes on behind it."""
    jobs = [(case.name, sizes) for case in cases for sizes in (DIFFERENT, SQUARE)]
    judged: dict[Job, Judgement] = {}
    while left := [job for job in jobs if job not in judged]:
        found, ending = _work(tool, left, command)
        judged |= found
        if unfinished := [job for job in left if job not in found]:
            judged[unfinished[0]] = Judgement("invalid", _raw_nodes(cases, unfinished[0]), ending)
    return {case.name: Outcome(judged[case.name, DIFFERENT], judged[case.name, SQUARE]) for case in cases}


def _work(tool: Tool, jobs: Sequence[Job], command: Command) -> tuple[dict[Job, Judgement], str]:
    """What one process judged, and how it ended."""
    with tempfile.TemporaryDirectory(prefix="foldserve-bank-") as folder:
        path = Path(folder) / "verdicts.jsonl"
        lines = "".join(f"{name} {sizes}\n" for name, sizes in jobs)
        try:
            process = subprocess.run(
                command(tool.name, path),
                input=lines,
                text=True,
                timeout=SECONDS_FOR_ALL,
                capture_output=True,
                check=False,
            )
            ending = f"its process ended with {process.returncode}: {process.stderr.strip()[-200:]}"
        except subprocess.TimeoutExpired:
            ending = f"it was not done after {SECONDS_FOR_ALL} s"
        return _read(path), ending


def _read(path: Path) -> dict[Job, Judgement]:
    """Verdicts by job; the last line of a process that died may be cut off."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    records = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return {
        (record["case"], record["sizes"]): Judgement(record["verdict"], record["num_nodes"], record["detail"])
        for record in records
    }


def _raw_nodes(cases: Sequence[Case], job: Job) -> int:
    case = next(case for case in cases if case.name == job[0])
    return num_nodes(case.variant(square=job[1] == SQUARE, dtype="float32"))
