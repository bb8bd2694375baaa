"""The command line as a person meets it: help that helps, one sentence when something is wrong, exit codes."""

from __future__ import annotations

import io
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image
from rich.console import Console

from model_export.commands.present import show_statistics
from service.bundle import read_bundle
from tests.model_export.fold.graphs import GraphBuilder, num_batchnorms


def _run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_export", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    """One BatchNorm that folds, one that a padded convolution keeps."""
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    normal = b.batchnorm("x", 2, "first")
    hidden = b.node("Conv", [normal, b.weight("conv.weight", 3, 2, 3, 3)], "conv", pads=[1, 1, 1, 1])
    output = b.batchnorm(hidden, 3, "second")
    ir.save(b.model((2, 4, 4), [output]), tmp_path / "in.onnx")
    return tmp_path / "in.onnx"


def test_fold_writes_the_model_the_ledger_and_says_what_it_did(model_path: Path) -> None:
    folder = model_path.parent
    done = _run("fold", "in.onnx", "out.onnx", "--report", "ledger.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "1 of 2 BatchNorms folded" in done.stdout
    assert num_batchnorms(ir.load(folder / "out.onnx")) == 1
    entries = json.loads((folder / "ledger.json").read_text())["entries"]
    assert [(entry["batchnorm"], entry["outcome"]) for entry in entries] == [("first", "kept"), ("second", "folded")]
    assert "pads with zeros" in entries[0]["reason"]


def test_fold_says_how_far_the_models_differ_on_random_instances(model_path: Path) -> None:
    done = _run("fold", "in.onnx", "out.onnx", cwd=model_path.parent)
    assert "largest difference" in done.stdout


def test_the_report_also_holds_totals_the_comparison_and_the_latency(model_path: Path) -> None:
    _run("fold", "in.onnx", "out.onnx", "--report", "ledger.json", cwd=model_path.parent)
    report = json.loads((model_path.parent / "ledger.json").read_text())
    assert report["totals"] == {"folded": 1, "merged": 0, "kept": 1}
    assert 0 <= report["comparison"]["in_noise_floors"] < 30
    assert report["latency"]["after_us"] > 0


def test_what_is_to_be_kept_is_kept_and_then_the_model_is_the_original(model_path: Path) -> None:
    done = _run("fold", "in.onnx", "out.onnx", "--keep", "sec*", cwd=model_path.parent)
    assert "it is to be kept: --keep sec*" in done.stdout
    assert (model_path.parent / "out.onnx").read_bytes() == model_path.read_bytes()


def test_folding_what_was_folded_changes_no_byte(model_path: Path) -> None:
    folder = model_path.parent
    _run("fold", "in.onnx", "once.onnx", cwd=folder)
    _run("fold", "once.onnx", "twice.onnx", cwd=folder)
    assert (folder / "once.onnx").read_bytes() == (folder / "twice.onnx").read_bytes() != model_path.read_bytes()


def test_a_model_without_batchnorms_is_said_to_have_none(model_path: Path) -> None:
    golden = Path(__file__).parent.parent / "golden" / "players" / "1" / "model.onnx"
    done = _run("fold", str(golden), "--check-only", cwd=model_path.parent)
    assert "there is no BatchNorm in it" in done.stdout


def test_a_check_writes_nothing(model_path: Path) -> None:
    done = _run("fold", "in.onnx", "--check-only", cwd=model_path.parent)
    assert "nothing: this was a check only" in done.stdout
    assert [path.name for path in model_path.parent.iterdir()] == ["in.onnx"]


def test_explain_tells_one_story_and_writes_nothing(model_path: Path) -> None:
    done = _run("fold", "in.onnx", "--explain", "first", cwd=model_path.parent)
    assert done.stdout.startswith("first: kept")
    assert "blocked   by conv" in done.stdout
    assert "second" not in done.stdout
    assert [path.name for path in model_path.parent.iterdir()] == ["in.onnx"]


def test_diff_of_a_model_and_its_fold_says_that_they_answer_alike(model_path: Path) -> None:
    _run("fold", "in.onnx", "out.onnx", cwd=model_path.parent)
    done = _run("diff", "in.onnx", "out.onnx", cwd=model_path.parent)
    assert (done.returncode, "They answer alike" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("fold", "absent.onnx", "out.onnx"), "there is no such file"),
        (("fold", ".", "out.onnx"), ". is a folder: expected an ONNX file"),
        (("fold", "in.onnx"), "OUT.onnx is missing"),
        (("fold", "in.onnx", "out.onnx", "--check-only"), "--check-only writes no model"),
        (
            ("fold", "in.onnx", "out.onnx", "--keep", "third"),
            "no BatchNorm is called third; the model has first, second",
        ),
        (("fold", "in.onnx", "--explain", "third"), "no BatchNorm is called third; the model has first, second"),
        (("fold", "in.onnx", "out.onnx", "--report", "in.onnx"), "name two files"),
        (("diff", "in.onnx", "absent.onnx"), "there is no such file"),
        (("fold", "in.onnx", "in.onnx/out.onnx"), "can not be written"),
        (("inspect", "."), "it has no manifest.json"),
        (("export", "absent.ckpt", "--out", "models/a/1"), "there is no checkpoint absent.ckpt"),
        (("export", "absent.ckpt", "--out", "models/a/one"), "the model version 'one' is not allowed"),
        (
            ("export", "absent.ckpt", "--out", "models/a/1", "--statistics", "best"),
            "expected one of exact, precise, ema",
        ),
        (
            ("export", "absent.ckpt", "--out", "models/a/1", "--precision", "fp8"),
            "--precision is 'fp8': expected one of fp32, fp16, bf16, int8",
        ),
        (
            ("export", "absent.ckpt", "--out", "models/a/1", "--precision", "int8", "--max-accuracy-drop", "nan"),
            "--max-accuracy-drop is nan: expected a share from 0 to 1",
        ),
        (
            ("export", "absent.ckpt", "--out", "models/a/1", "--max-accuracy-drop", "0.1"),
            "fp32 costs nothing, drop it",
        ),
        (
            ("export", "absent.ckpt", "--out", "models/a/1", "--precision", "bf16", "--device", "cpu"),
            "--precision bf16 needs a GPU",
        ),
        (("train", "--data", "absent.csv"), "there is no data 'absent.csv'"),
        (("train", "--network", "transformer"), "no network 'transformer'"),
        (("train", "--momentum", "2"), "--momentum is 2.0"),
        (("train", "--hidden", "many"), "--hidden is 'many'"),
        (("train", "--device", "tpu"), "expected one of auto, cpu, cuda"),
        (("train", "--precision", "fp8"), "--precision is fp8: expected 32 or bf16"),
        (("train", "--resume", "absent.ckpt"), "there is no checkpoint absent.ckpt"),
        (("train", "--resume", "absent.ckpt", "--epochs", "9"), "--epochs can not be changed"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(model_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    done = _run(*arguments, cwd=model_path.parent)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert complaint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_says_how_to_go_on(tmp_path: Path, number: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "model_export", "train", "--epochs", "100000", "--quiet", "--out", "my run"]
    training = subprocess.Popen([*command, "--device", "cpu"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "my run" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    training.send_signal(number)
    _, complaint = training.communicate(timeout=60)
    assert complaint.strip() == "interrupted: go on with --resume 'my run/last.ckpt'"
    assert training.returncode == code


def test_the_next_command_can_be_pasted_and_names_are_printed_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "my :b: data [red]"
    for label in range(2):
        (folder / str(label)).mkdir(parents=True)
        for index in range(10):
            Image.new("L", (4, 4), 20 * index + label).save(folder / str(label) / f"{index}.png")
    done = _run("train", "--data", folder.name, "--epochs", "1", "--quiet", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"on {folder.name} in" in done.stdout
    path, model = shlex.split(done.stdout.splitlines()[-2])[4::2]  # then comes the report
    assert path == f"runs/{folder.name}/best.ckpt"
    assert model == "models/my-b-data-red/1"


def test_a_narrow_terminal_still_tells_the_batchnorms_apart() -> None:
    golden = Path(__file__).parent.parent / "golden" / "players" / "1"
    console = Console(width=60, file=io.StringIO(), emoji=False)
    manifest = read_bundle(golden).manifest
    show_statistics(manifest.statistics, manifest.signature, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # of StringIO
    assert all(layer.batchnorm in shown for layer in manifest.statistics.layers)


def test_help_says_how_keras_momentum_is_converted() -> None:
    words = " ".join(_run("train", "--help").stdout.replace("│", " ").split())
    assert "their 0.99 is 0.01 here" in words


@pytest.mark.parametrize("command", ["train", "statistics", "export", "fold", "diff", "inspect", "study", "demo"])
def test_every_command_explains_itself(command: str) -> None:
    done = _run(command, "--help")
    assert done.returncode == 0
    assert command in done.stdout


def test_inspect_shows_the_golden_bundle() -> None:
    golden = Path(__file__).parent.parent / "golden" / "players" / "1"
    done = _run("inspect", str(golden))
    assert done.returncode == 0, done.stderr
    for words in ("players version 1", "3 features: height, weight, surface", "3 of 3 BatchNorms folded", "float64"):
        assert words in done.stdout
