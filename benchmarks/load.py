"""One window of load: wrk for some seconds against one server, and what it measured. One error, and there is none."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.cores import on_cores
from benchmarks.dialects import JSON, Headers
from benchmarks.errors import LoadFailed, ToolMissing

SCRIPT = Path(__file__).with_name("wrk.lua")
HOW_TO_INSTALL = "wrk is not installed: `apt-get install wrk` on Debian and Ubuntu, `brew install wrk` on macOS"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What wrk's script writes: requests answered, duration in µs, latencies in µs, errors by kind."""

    requests: int
    microseconds: int
    p50: int
    p99: int
    errors: dict[str, int]

    @property
    def requests_per_second(self) -> float:
        """The throughput."""
        return self.requests / (self.microseconds * 1e-6)


def find_wrk() -> str:
    """Where wrk is.

    Raises:
        ToolMissing: nowhere; says how to install it.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise ToolMissing(HOW_TO_INSTALL)
    return wrk


def apply_load(  # noqa: PLR0913 - wrk has as many options
    url: str,
    bodies: Path,
    *,
    connections: int,
    seconds: int,
    headers: Headers = JSON,
    cores: frozenset[int] | None = None,
) -> Measured:
    """Let wrk post the bodies over so many keep-alive connections, each with one request on its way at a time.

    `bodies` is a file as `body_file` writes it.

    Raises:
        ToolMissing: there is no wrk.
        LoadFailed: wrk failed, or an answer was missing, late or not a success.
    """
    command = [find_wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(SCRIPT), url, "--", str(bodies)]
    command += [f"{name}: {value}" for name, value in headers]
    with on_cores(cores):
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise LoadFailed(f"wrk failed: {finished.stderr.strip() or finished.stdout.strip()}")
    measured = read_output(finished.stdout)
    check(measured)
    return measured


def read_output(output: str) -> Measured:
    """Read the script's line, the last one of what wrk writes.

    Raises:
        LoadFailed: it is not there.
    """
    lines = output.strip().splitlines() or [""]
    try:
        return msgspec.json.decode(lines[-1], type=Measured)
    except msgspec.MsgspecError as err:
        raise LoadFailed(f"expected wrk's last line to be the script's JSON, got {lines[-1]!r}") from err


def check(measured: Measured) -> None:
    """Refuse a window with errors, or without answers.

    Raises:
        LoadFailed: and says how many of which kind.
    """
    errors = {kind: count for kind, count in measured.errors.items() if count}
    if errors or not measured.requests:
        counted = ", ".join(f"{count} {kind}" for kind, count in errors.items()) or "none"
        raise LoadFailed(f"{measured.requests} requests were answered; errors: {counted}")
