"""What lies beside the bundles and is never served: unfinished exports, other names, models in the wrong place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from service.bundle import MANIFEST_FILE
from service.doctor.finding import Finding, note
from service.doctor.model_files import is_in_place

LABELS_FILE = "labels.json"
MAX_LABELS_BYTES = 64 << 10
NOT_SERVED = "it is passed over"
WHERE = f"expected …/<name>/<version>/{MANIFEST_FILE}, the version a whole number"

Leftover = tuple[Path, str, str]  # where, what it is, what to do


def find_leftovers(models: Path) -> list[Finding]:
    """Find them in a directory of bundles; one bundle, or one model, has nothing beside it."""
    if not models.is_dir() or (models / MANIFEST_FILE).is_file():
        return []
    found = (*_misplaced(models), *_unfinished(models), *_bare_models(models), *_drafts(models), *_labels(models))
    shown = [one for one in found if not any(part.startswith(".") for part in one[0].relative_to(models).parts)]
    return [note("leftover", f"{path.relative_to(models)}: {words}", NOT_SERVED, step) for path, words, step in shown]


def _misplaced(models: Path) -> Iterator[Leftover]:
    for pattern in (f"*/{MANIFEST_FILE}", f"*/*/{MANIFEST_FILE}", f"*/*/*/{MANIFEST_FILE}"):
        for manifest in sorted(models.glob(pattern)):
            directory = manifest.parent
            if directory.parent.parent != models or not is_in_place(directory):
                yield directory, f"a bundle in the wrong place; {WHERE}", "move it, or remove it"


def _unfinished(models: Path) -> Iterator[Leftover]:
    """Versions without a manifest, which is written last, and models without a version."""
    for directory in sorted(models.glob("*/*/")):
        if not any(directory.glob(MANIFEST_FILE)) and not any(directory.glob(f"*/{MANIFEST_FILE}")):
            yield directory, f"no {MANIFEST_FILE} in it, which is written last", "export it again, or remove it"
    for directory in sorted(models.glob("*/")):
        if not any(directory.glob("*/")) and not (directory / MANIFEST_FILE).is_file():
            yield directory, "no version in it", "export one, or remove it"


def _bare_models(models: Path) -> Iterator[Leftover]:
    for path in sorted(models.glob("*.onnx")):
        yield path, "a bare model beside bundles", f"serve it by itself: --models {path}; or export a bundle of it"


def _drafts(models: Path) -> Iterator[Leftover]:
    for pattern in ("*.partial", "*/*.partial", "*/*/*.partial"):
        for path in sorted(models.glob(pattern)):
            yield path, "a draft that was never finished", "remove it"


def _labels(models: Path) -> Iterator[Leftover]:
    for path in sorted(models.glob(f"*/{LABELS_FILE}")):
        try:
            labels = msgspec.json.decode(_read_plain_file(path), type=dict[str, int | str])
        except (OSError, msgspec.MsgspecError, ValueError) as err:
            yield path, f"can not be read: {err}", 'write labels and versions, such as {"stable": 1}'
            continue
        for label, version in labels.items():
            if not (path.parent / str(version) / MANIFEST_FILE).is_file():
                words = f"label {label[:40]!r} points to version {str(version)[:20]}, which is not there"
                yield path, words, "mend the file"


def _read_plain_file(path: Path) -> bytes:
    if not path.is_file():  # to open a pipe may take for ever
        raise ValueError("expected a plain file; this is a directory, a pipe or a device")
    with path.open("rb") as file:
        return file.read(MAX_LABELS_BYTES)
