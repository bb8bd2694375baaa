"""Clients whose requirements do not agree with ours, each in an environment of its own.

`python -m tests.clients.environments` makes them, in the versions of `<name>.txt` beside this file. Tests of a client
whose environment is not there are skipped.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent / ".venv-clients"
NAMES = ("kserve", "mlserver")


def python_of(environment: str | None) -> str:
    """The interpreter of an environment; ours for None."""
    return sys.executable if environment is None else str(ROOT / environment / "bin" / "python")


def is_ready(environment: str | None) -> bool:
    """Say if an environment is there, in the versions that are wanted now."""
    return environment is None or _stamp(environment) == _wanted(environment)


def prepare(environment: str) -> None:
    """Make an environment, if it is not there as its requirements say."""
    if is_ready(environment):
        return
    sys.stdout.write(f"installing {environment} into {ROOT.name}/{environment}\n")
    venv.create(ROOT / environment, with_pip=True, clear=True)
    command = [
        python_of(environment),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ]
    subprocess.run([*command, HERE / f"{environment}.txt"], check=True)
    (ROOT / environment / "installed.txt").write_text(_wanted(environment))


def _stamp(environment: str) -> str:
    path = ROOT / environment / "installed.txt"
    return path.read_text() if path.exists() else ""


def _wanted(environment: str) -> str:
    return (HERE / f"{environment}.txt").read_text()


def main() -> None:
    """Make all of them."""
    for name in NAMES:
        prepare(name)


if __name__ == "__main__":
    main()
