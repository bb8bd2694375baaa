"""The README's commands are run, in order, in an empty folder, and print what the README says they print.

Numbers differ between machines and are not compared; a line `…` stands for any lines, a `…` in a line for any text.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from service.settings import Settings
from tests.model_export.fold.graphs import GraphBuilder

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
NOT_RUN_HERE = ("git clone", "make test")  # this is the clone, and this is what `make test` runs
START_SECONDS = 60
COLUMNS = "100"


@dataclass(frozen=True)
class Step:
    """One command of the README and the lines that it should print."""

    command: str
    lines: tuple[str, ...]


def _steps() -> Iterator[Step]:
    for block in re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.rstrip("\n").split("\n")
            yield Step(command, tuple(lines))


def _pattern(line: str) -> re.Pattern[str]:
    """A line of the README as a pattern: numbers are any numbers, rules and table borders are any length."""
    text = re.escape(line.rstrip())
    text = text.replace("…", ".*")
    text = re.sub(r"(\\?[─━]){2,}", r"[─━]+", text)
    text = re.sub(r"\d+(\\\.\d+)?(e\\?-?\d+)?", r"[\\d.e+-]+", text)
    return re.compile(text + r"\s*$")


def _missing(lines: tuple[str, ...], output: str) -> list[str]:
    """The lines of the README that the output lacks, looked for in order."""
    found, missing = iter(output.splitlines()), []
    for line in lines:
        if line.strip() != "…" and not any(_pattern(line).match(candidate) for candidate in found):
            missing.append(line)
            found = iter(output.splitlines())
    return missing


@dataclass
class Walk:
    """A folder of one's own, a port of one's own, and the server that the README has running at the moment."""

    folder: Path
    port: int
    grpc_port: int
    server: subprocess.Popen[str] | None = None

    def run(self, command: str) -> str:
        """Run a command as the README means it; one that ends in & goes on until the next of its kind."""
        words = command.removesuffix("&").strip()
        words = _recipe(words) if words.startswith("make ") else words
        words = words.replace(".venv/bin/", f"{shlex.quote(str(Path(sys.executable).parent))}/")
        words = words.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}").replace("_PORT=8000", f"_PORT={self.port}")
        words = words.replace("--grpc-port 8001", f"--grpc-port {self.grpc_port}")
        return self._start(words) if command.endswith("&") else self._finish(words)

    def stop(self) -> None:
        """Stop the server, if there is one."""
        if self.server is not None:
            self.server.terminate()
            self.server.communicate(timeout=START_SECONDS)
        self.server = None

    def _finish(self, words: str) -> str:
        done = subprocess.run(  # noqa: S602 - the README's pipes need a shell
            words, shell=True, cwd=self.folder, env=self._environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _start(self, words: str) -> str:
        self.stop()
        self.server = subprocess.Popen(
            shlex.split(words), cwd=self.folder, env=self._environment(), stdout=subprocess.PIPE, text=True
        )
        return "".join(self._until_ready(self.server))

    def _until_ready(self, server: subprocess.Popen[str]) -> Iterator[str]:
        for line in server.stdout or ():
            yield line
            if line.startswith("try: "):
                return
        raise AssertionError("the server of the README did not start")

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "FOLDSERVE_PORT": str(self.port), "COLUMNS": COLUMNS, "PYTHONPATH": str(ROOT)}


def _recipe(make: str) -> str:
    """What make would run once everything is installed."""
    target = make.split()[1]
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert recipe is not None, f"the Makefile has no {target}"
    return recipe.group(1).strip().removeprefix("@").replace("$(BIN)", ".venv/bin")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    normal = b.batchnorm("x", 2, "first")
    hidden = b.node("Conv", [normal, b.weight("conv.weight", 3, 2, 3, 3)], "conv", pads=[1, 1, 1, 1])
    ir.save(b.model((2, 4, 4), [b.batchnorm(hidden, 3, "second")]), tmp_path / "in.onnx")
    files = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", README, flags=re.DOTALL))
    assert files.keys() == {"mynet.py", "mydata.py", "clients.py"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    walk = Walk(tmp_path, _free_port(), _free_port())
    clients = (tmp_path / "clients.py").read_text()
    (tmp_path / "clients.py").write_text(
        clients.replace(":8000", f":{walk.port}").replace(":8001", f":{walk.grpc_port}")
    )
    yield walk
    walk.stop()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README asks with curl")
def test_the_commands_of_the_readme_print_what_it_says(walk: Walk) -> None:
    for step in _steps():
        if not step.command.startswith(NOT_RUN_HERE):
            output = walk.run(step.command)
            assert _missing(step.lines, output) == [], f"$ {step.command}\n{output}"


def test_the_comparison_can_fail() -> None:
    assert _missing(("accuracy 0.98", "…", "{…}"), "accuracy 0.97\nmore\n{}") == []
    assert _missing(("accuracy 0.98",), "accuracy unknown") == ["accuracy 0.98"]


def test_the_first_prediction_stands_on_the_first_screen() -> None:
    assert "predicted 3" in "\n".join(README.splitlines()[:40])


def test_the_settings_table_is_the_settings() -> None:
    rows = re.findall(r"^\| `(--[a-z0-9-]+)` \| `([A-Z0-9_]+)` \| (?:`([^`]*)`)? *\|", README, flags=re.MULTILINE)
    fields = Settings.model_fields
    expected = [
        (
            f"--{name.replace('_', '-')}",
            f"FOLDSERVE_{name.upper()}",
            "" if field.default is None else str(field.default),
        )
        for name, field in fields.items()
    ]
    assert rows == expected


def test_nothing_in_the_readme_is_left_to_be_filled_in() -> None:
    assert not re.search(r"TODO|TBD|MEASURED", README)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:tests|deploy|service|model_export|benchmarks)/[\w./-]+)`", README)))
)
def test_every_file_that_the_readme_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()
