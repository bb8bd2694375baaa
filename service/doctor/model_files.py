"""Which bundles there are, and if their files are, byte for byte, what was written: nothing is opened yet."""

from __future__ import annotations

from pathlib import Path

from service.bundle import MANIFEST_FILE, NAME_PATTERN, VERSION_PATTERN, Bundle, read_bundle
from service.doctor.finding import Finding, note, ok, one_line, wrong
from service.errors import DigestMismatch, FoldserveError, FormatVersionUnknown

NOT_SERVED = "this version can not be served"
NEXT_STEPS: dict[type[FoldserveError], str] = {
    DigestMismatch: "copy the bundle again from where it was exported, all its files, or export it again",
    FormatVersionUnknown: "export it again with this foldserve, or serve it with the one that wrote it",
}


def list_models(models: Path) -> list[Path]:
    """List the bare model, the one bundle, or every version of every bundle that `models` stands for."""
    if models.is_file() or (models / MANIFEST_FILE).is_file():
        return [models]
    found = (path.parent for path in models.glob(f"*/*/{MANIFEST_FILE}"))
    return sorted(filter(is_in_place, found), key=lambda path: (path.parent.name, int(path.name)))


def is_in_place(directory: Path) -> bool:
    """If a bundle in this directory would be found, by the directory's name and the one above."""
    named = NAME_PATTERN.fullmatch(directory.parent.name) and VERSION_PATTERN.fullmatch(directory.name)
    return named is not None


def name_model(path: Path) -> str:
    """Name a model as people find it again: `digits/1`, or the file's name."""
    absolute = path.absolute()
    return path.name if path.is_file() else f"{absolute.parent.name}/{absolute.name}"


def check_models(models: Path, paths: list[Path], default_model: str | None) -> list[Finding]:
    """Is there anything to serve, and the default model among it?"""
    name = "models"
    expected = "expected a bundle, a directory of bundles (…/<name>/<version>/manifest.json), or one .onnx file"
    if not paths:
        state = "there is no bundle in" if models.is_dir() else "there is nothing at"
        step = "name another place by --models, or export a model: python -m model_export demo"
        return [wrong(name, f"{state} {models}: {expected}", "the server does not start", step)]
    names = {path.absolute().parent.name for path in paths}
    if default_model and models.is_dir() and paths != [models] and default_model not in names:
        words = f"{models} has no {default_model!r}, the default model"
        return [wrong(name, words, "the server does not start", f"name one of: {', '.join(sorted(names))}")]
    return [ok(name, f"{len(paths)} in {models}" if models.is_dir() else str(models))]


def check_files(path: Path, *, is_alone: bool) -> list[Finding]:
    """Are the files of a bundle whole, and where they belong? A bare model says nothing about itself."""
    name = f"{name_model(path)} files"
    if path.is_file():
        return [note(name, f"a bare model, {_size([path])}", "no digests, no examples to replay", "export a bundle")]
    try:
        bundle = read_bundle(path)
    except FoldserveError as err:
        return [wrong(name, one_line(err), NOT_SERVED, NEXT_STEPS.get(type(err), "export it again"))]
    except OSError as err:
        return [wrong(name, f"{err.filename or path}: {err.strerror}", NOT_SERVED, "let the server's user read it")]
    return [_check_place(name, bundle) if not is_alone else _describe(name, bundle)]


def _check_place(name: str, bundle: Bundle) -> Finding:
    manifest, place = bundle.manifest, bundle.directory.absolute()
    if (place.parent.name, place.name) == (manifest.name, manifest.version):
        return _describe(name, bundle)
    words = f"holds model {manifest.name!r}, version {manifest.version!r}"
    return wrong(name, words, NOT_SERVED, f"move it to …/{manifest.name}/{manifest.version}")


def _describe(name: str, bundle: Bundle) -> Finding:
    manifest = bundle.manifest
    precision = manifest.precision.name if manifest.precision else "fp32"
    entries = manifest.fold.entries
    kept = [entry for entry in entries if entry.outcome == "kept"]
    words = (
        f"digests match, format {manifest.format_version}, {precision}, {_size(list(bundle.directory.iterdir()))}; "
        f"BatchNorms: {len(entries) - len(kept)} folded, {len(kept)} kept"
    )
    if not kept:
        return ok(name, words)
    meaning = f"each one kept is computed at every request; {kept[0].batchnorm}: {one_line(kept[0].reason)}"
    return note(name, words, meaning, "python -m model_export inspect shows the ledger")


def _size(paths: list[Path]) -> str:
    kibibytes = sum(path.stat().st_size for path in paths) / 1024
    return f"{kibibytes:,.0f} KiB" if kibibytes < 10_000 else f"{kibibytes / 1024:,.0f} MiB"
