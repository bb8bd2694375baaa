"""A bundle that foldserve 0.1.0 wrote, once and for all: every later reader opens it, or refuses it by name.

It was made from a table of players (height, weight, surface: clay, grass or hard) with
`train --data players.csv --target group --hidden 8,6 --epochs 60 --batch-size 16` and `export`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from service.bundle import FORMAT_VERSION, check_free, read_bundle, write_bundle
from service.errors import BundleNotFound, BundleUnwritable, DigestMismatch, FormatVersionUnknown, ManifestInvalid
from service.predictor import open_predictor

GOLDEN = Path(__file__).parent / "golden" / "players" / "1"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "players" / "1"))


def _edit(bundle: Path, **changes: object) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | changes))


def test_the_golden_bundle_opens_and_answers_as_it_did_when_it_was_made() -> None:
    bundle = read_bundle(GOLDEN)
    predictor = open_predictor(bundle.model_path, bundle.manifest.signature, "cpu")
    tolerances = {output.output: output.tolerance for output in bundle.manifest.parity.outputs}
    check = predictor.self_check(bundle.examples, tolerances)
    assert check.num_examples == 16
    assert [feature.name for feature in bundle.manifest.signature.features] == ["height", "weight", "surface"]


@pytest.mark.parametrize("found", [0, 2, 99])
def test_another_format_version_is_refused_by_its_number(copy: Path, found: int) -> None:
    _edit(copy, format_version=found)
    with pytest.raises(
        FormatVersionUnknown, match=f"format version {found}, this foldserve reads version {FORMAT_VERSION}"
    ):
        read_bundle(copy)


def test_a_field_that_a_later_foldserve_added_is_passed_over(copy: Path) -> None:
    _edit(copy, something_new={"deep": [1, 2, 3]})
    assert read_bundle(copy).manifest == read_bundle(GOLDEN).manifest


def test_a_manifest_without_a_needed_field_says_which(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["signature"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ManifestInvalid, match="signature"):
        read_bundle(copy)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format_version": "one"}', "[" * 100_000])
def test_a_manifest_that_is_no_manifest_is_refused_in_one_sentence(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_text(content)
    with pytest.raises(ManifestInvalid, match=r"manifest\.json"):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["model.onnx", "examples.json"])
def test_one_flipped_bit_is_refused_by_its_files_name(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(DigestMismatch, match=name):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["model.onnx", "examples.json", "manifest.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleNotFound, match=name):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "..", "a/b"])
def test_a_manifest_can_not_reach_out_of_its_bundle(copy: Path, name: str) -> None:
    files = json.loads((copy / "manifest.json").read_text())["files"]
    _edit(copy, files=files | {name: "0" * 64})
    with pytest.raises(ManifestInvalid, match="not the name of a file in the bundle"):
        read_bundle(copy)


@pytest.mark.parametrize("place", ["file", "file/players", "file/players/1"])
def test_a_place_behind_a_file_is_refused_before_anything_is_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleUnwritable, match="is no directory"):
        check_free(tmp_path / place, overwrite=True)


@pytest.mark.parametrize("name", ["model.onnx", "examples.json", "manifest.json"])
def test_a_directory_where_a_file_should_go_is_one_sentence(tmp_path: Path, name: str) -> None:
    bundle = read_bundle(GOLDEN)
    place = tmp_path / "players" / "1"
    (place / name).mkdir(parents=True)
    with pytest.raises(BundleUnwritable, match="can not be written"):
        write_bundle(
            place, manifest=bundle.manifest, model_path=bundle.model_path, examples=bundle.examples, overwrite=True
        )
