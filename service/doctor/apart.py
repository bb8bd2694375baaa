"""Asks a question in a process of its own, where the answer may be a crash: drivers and models are not to be trusted.

A session that ends its process, or never comes back, is so a finding like any other.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

import msgspec

from service.doctor.finding import Finding, one_line, wrong

PATIENCE_SECONDS = 120.0


def ask_apart(
    name: str, probe: str, arguments: Sequence[str], *, patience_seconds: float = PATIENCE_SECONDS
) -> list[Finding]:
    """Have one of `probes` answered; `arguments` are the server's, after what the probe itself takes."""
    command = [sys.executable, "-W", "ignore", "-m", "service.doctor.probes", name, probe, *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=patience_seconds, check=False)
    except subprocess.TimeoutExpired:
        return [wrong(name, f"no answer within {patience_seconds:.0f} s", "it hangs, or the machine is very busy")]
    try:
        return msgspec.json.decode(answer.stdout.splitlines()[-1], type=list[Finding])
    except (IndexError, msgspec.DecodeError):
        last = answer.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        end = f"the process that looked ended {_describe_end(answer.returncode)}"
        return [wrong(name, f"{end}: {one_line(last)}" if last else end)]


def _describe_end(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
