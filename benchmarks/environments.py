"""Each other model server in an environment of its own, in pinned versions: their requirements need not agree."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from rich.console import Console

from benchmarks.errors import PeerFailed

ROOT = Path(__file__).parent.parent / ".venv-peers"
REQUIREMENTS = Path(__file__).parent / "peers"


def python_of(environment: str | None) -> str:
    """The interpreter of an environment; ours for None."""
    return sys.executable if environment is None else str(ROOT / environment / "bin" / "python")


def requirements_of(environment: str) -> Path:
    """The file that pins what is in an environment."""
    return REQUIREMENTS / f"requirements-{environment}.txt"


def prepare(environment: str, console: Console) -> None:
    """Make the environment, if it is not there as its requirements say.

    Raises:
        PeerFailed: pip could not install it; says why.
    """
    stamp, wanted = ROOT / environment / "installed.txt", requirements_of(environment).read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    console.print(f"installing {environment} into {ROOT.name}/{environment}", highlight=False)
    venv.create(ROOT / environment, with_pip=True, clear=True)
    _install(environment)
    stamp.write_text(wanted)


def versions_in(environment: str, packages: tuple[str, ...]) -> str:
    """Say which versions of these packages an environment has."""
    pinned = dict(
        line.split("==") for line in requirements_of(environment).read_text().splitlines() if not line.startswith("#")
    )
    return ", ".join(f"{name} {pinned[name]}" for name in packages if name in pinned)


def _install(environment: str) -> None:
    command = [python_of(environment), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    finished = subprocess.run(
        [*command, "--requirement", str(requirements_of(environment))], capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise PeerFailed(f"{environment} could not be installed: {finished.stderr.strip()[-500:]}")
