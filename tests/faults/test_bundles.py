"""Faults 16 to 19: bundles that are broken, changed, wrong, or not wholly there. Refused at the start; beside a good
version that serves, noticed, explained, and harmless.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper

from service.bundle import MANIFEST_FILE, MODEL_FILE, write_bundle
from tests.faults.standing import Standing, check_alive_and_right, complaints, standing
from tests.service.exact_models import exact_model, write_exact_bundle
from tests.service.running_server import run_and_fail
from tests.service.tiny_models import TinyModel, tiny_examples, tiny_manifest, tiny_model, with_wrong_answer

WATCH_SECONDS = 0.1
NOTICED_SECONDS = 10.0
SEED = 5


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A server of version 1 that looks for new ones often."""
    with standing(tmp_path_factory.mktemp("models"), "--watch-seconds", str(WATCH_SECONDS)) as running:
        yield running


def state_of(stand: Standing, version: str) -> dict[str, Any]:
    """What the index says of a version; empty as long as it does not know it."""
    index: list[dict[str, Any]] = httpx.post(f"{stand.url}/v2/repository/index", timeout=10).json()
    return next((entry for entry in index if entry["version"] == version), {})


def wait_for_state(stand: Standing, version: str, state: str) -> str:
    """Wait until a version is in a state; give the reason."""
    until = time.perf_counter() + NOTICED_SECONDS
    while (entry := state_of(stand, version)).get("state") != state:
        if time.perf_counter() > until:
            raise AssertionError(f"expected version {version} to be {state}, it is {entry}")
        time.sleep(WATCH_SECONDS / 2)
    return str(entry.get("reason", ""))


# --- what can be wrong -----------------------------------------------------------------------------------------------


def write_with(model: TinyModel, spoil: Callable[[Path], None]) -> Callable[[Path], None]:
    """Write a bundle whose model file was spoilt before its digest was taken: only ONNX Runtime can tell."""

    def write(directory: Path) -> None:
        draft = model.save(directory.parent / "draft.onnx")
        spoil(draft)
        manifest = tiny_manifest(model, version=directory.name)
        write_bundle(directory, manifest=manifest, model_path=draft, examples=tiny_examples(model))
        draft.unlink()

    return write


def then(write: Callable[[Path], None], spoil: Callable[[Path], None]) -> Callable[[Path], None]:
    """Write a bundle, aside, and spoil it before it is put in its place."""

    def both(directory: Path) -> None:
        aside = directory.parent.parent / "aside" / directory.parent.name / directory.name
        write(aside)
        spoil(aside)
        shutil.copytree(aside, directory, ignore=shutil.ignore_patterns(MANIFEST_FILE))
        shutil.copy(aside / MANIFEST_FILE, directory)
        shutil.rmtree(aside.parent.parent)

    return both


def write_good(directory: Path) -> None:
    write_exact_bundle(directory.parent.parent, exact_model(seed=SEED), version=directory.name)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def write_html(path: Path) -> None:
    path.write_text("<!doctype html><title>404</title><p>Not found")


def write_noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(SEED).bytes(5000))


def write_opset(number: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        model = onnx.load(path)
        model.opset_import[0].version = number
        onnx.save(model, path)

    return write


def lose_external_data(path: Path) -> None:
    model = onnx.load(path)
    external_data_helper.convert_model_to_external_data(model, location="lost.bin", size_threshold=0)
    onnx.save(model, path)
    path.with_name("lost.bin").unlink()


def use_unknown_operator(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[0].op_type = "Cats"
    onnx.save(model, path)


def flip_bit(directory: Path) -> None:
    """In the middle of the weights: ONNX Runtime would load that."""
    content = bytearray((directory / MODEL_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (directory / MODEL_FILE).write_bytes(content)


def rename_output(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "answers"
    model.graph.output[0].name = "answers"
    onnx.save(model, path)


def narrow_output(path: Path) -> None:
    """Promise ten scores, and give one."""
    model = onnx.load(path)
    node = model.graph.node[-1]
    node.output[0] = "many"
    model.graph.node.append(helper.make_node("ReduceMax", ["many"], ["scores"], keepdims=1))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 1]))
    onnx.save(model, path)


def narrow_input(path: Path) -> None:
    """Promise to take 64 values, and take 63."""
    tiny_model((63,), num_labels=10).save(path)


def answer_wrongly(directory: Path) -> None:
    model = tiny_model((64,), num_labels=10)
    draft = model.save(directory.parent / "draft.onnx")
    wrong = with_wrong_answer(tiny_examples(model))
    write_bundle(directory, manifest=tiny_manifest(model, version=directory.name), model_path=draft, examples=wrong)
    draft.unlink()


def break_manifest(directory: Path) -> None:
    manifest = json.loads((directory / MANIFEST_FILE).read_text())
    del manifest["signature"]
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest))


def forget_weights(directory: Path) -> None:
    (directory / MODEL_FILE).unlink()


MODEL = tiny_model((64,), num_labels=10)
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "16 the model is empty": (write_with(MODEL, empty), ""),
    "16 the model is cut off": (write_with(MODEL, truncate), ""),
    "16 the model is a web page": (write_with(MODEL, write_html), ""),
    "16 the model is noise": (write_with(MODEL, write_noise), ""),
    "16 the model is of a later opset": (write_with(MODEL, write_opset(9999)), "9999"),
    "16 the model is of no opset": (write_with(MODEL, write_opset(0)), ""),
    "16 the weights beside the model are lost": (write_with(MODEL, lose_external_data), "lost.bin"),
    "16 the model wants an unknown operator": (write_with(MODEL, use_unknown_operator), "Cats"),
    "16 the model is not there": (then(write_good, forget_weights), MODEL_FILE),
    "16 the manifest is of another form": (then(write_good, break_manifest), "signature"),
    "17 one bit is flipped": (then(write_good, flip_bit), "changed after it was written"),
    "18 another output than was promised": (write_with(MODEL, rename_output), "scores"),
    "18 another shape than was promised": (write_with(MODEL, narrow_output), "scores"),
    "18 other answers than were recorded": (answer_wrongly, "differs by 0.5"),
    "18 another width than was promised": (write_with(MODEL, narrow_input), "x"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_fault_16_to_18_a_server_does_not_start_with_a_broken_bundle_and_says_why(tmp_path: Path, how: str) -> None:
    write, said = BROKEN[how]
    (tmp_path / "digits").mkdir()
    write(tmp_path / "digits" / "1")
    refused = run_and_fail("--models", str(tmp_path), "--device", "cpu")
    assert refused.returncode == 1
    assert refused.stdout == ""
    [line] = refused.stderr.splitlines()
    assert said in line
    assert "Traceback" not in line


@pytest.mark.parametrize("how", BROKEN)
def test_fault_16_to_18_a_broken_version_beside_a_good_one_is_refused_and_the_good_one_serves(
    watching: Standing, how: str
) -> None:
    write, said = BROKEN[how]
    version = str(100 + list(BROKEN).index(how))
    with placed(watching.root / "digits" / version, write):
        reason = wait_for_state(watching, version, "UNAVAILABLE")
        assert said in reason
        assert reason
        assert "Traceback" not in reason
        assert state_of(watching, "1")["state"] == "READY"
        check_alive_and_right(watching)


@contextmanager
def placed(directory: Path, write: Callable[[Path], object]) -> Iterator[None]:
    """Write something below a running server, and take it away afterwards."""
    write(directory)
    try:
        yield
    finally:
        shutil.rmtree(directory)


def test_fault_16_beside_a_broken_newest_version_a_server_starts_with_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    write_with(MODEL, truncate)(tmp_path / "digits" / "2")
    with standing(tmp_path) as stand:
        assert state_of(stand, "2")["state"] == "UNAVAILABLE"
        check_alive_and_right(stand)


def test_fault_17_files_that_change_below_a_running_server_change_no_answer(tmp_path: Path) -> None:
    with standing(tmp_path, "--watch-seconds", str(WATCH_SECONDS)) as stand:
        flip_bit(tmp_path / "digits" / "1")
        time.sleep(5 * WATCH_SECONDS)
        check_alive_and_right(stand)


def test_fault_16_a_models_folder_that_vanishes_changes_no_answer(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    with standing(root, "--watch-seconds", str(WATCH_SECONDS)) as stand:
        shutil.move(root, tmp_path / "away")
        time.sleep(5 * WATCH_SECONDS)
        check_alive_and_right(stand)
        assert len(complaints(stand)) <= 2  # it is said once, and not at every look


# --- 19: not wholly there --------------------------------------------------------------------------------------------


def test_fault_19_a_bundle_that_is_still_being_copied_is_ignored_until_its_manifest_is_there(tmp_path: Path) -> None:
    root, done = tmp_path / "models", tmp_path / "done"
    root.mkdir()
    done.mkdir()
    model = exact_model(seed=SEED)
    written = write_exact_bundle(done, model, version="2").directory
    with standing(root, "--watch-seconds", str(WATCH_SECONDS)) as stand:
        place = root / "digits" / "2"
        place.mkdir()
        for path in sorted(written.iterdir(), key=lambda path: path.name == MANIFEST_FILE):
            grow(path, place / path.name)
            if path.name != MANIFEST_FILE:
                assert state_of(stand, "2").get("state") in {None, "UNAVAILABLE"}
                check_alive_and_right(stand)
        wait_for_state(stand, "2", "READY")
        check_alive_and_right(replace(stand, model=model))


def grow(source: Path, place: Path) -> None:
    """Copy as slow storage does: piece by piece, and longer than a look takes."""
    content = source.read_bytes()
    for end in range(0, len(content), len(content) // 4 + 1):
        place.write_bytes(content[:end])
        time.sleep(2 * WATCH_SECONDS)
    place.write_bytes(content)


@pytest.mark.parametrize("name", ["tmp", "2.partial", ".2", "v2", "02", "-2", "2 (copy)"])
def test_fault_19_a_folder_that_is_no_version_is_ignored(watching: Standing, name: str) -> None:
    aside = watching.root.parent / "aside"
    write_good(aside / "digits" / "2")
    with placed(watching.root / "digits" / name, lambda place: shutil.move(aside / "digits" / "2", place)):
        time.sleep(5 * WATCH_SECONDS)
        assert [entry["version"] for entry in httpx.post(f"{watching.url}/v2/repository/index").json()] == ["1"]
        check_alive_and_right(watching)
