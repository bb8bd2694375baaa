"""A model opened as the server would open it, its examples replayed, a run timed; in a process of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from service.bundle import Bundle, read_bundle
from service.device import GpuOptions, ServingDevice
from service.doctor.finding import Finding, note, ok, one_line, wrong
from service.doctor.model_files import NOT_SERVED, name_model
from service.errors import DeviceUnavailable, FoldserveError, SelfCheckFailed
from service.predictor import Predictor, SelfCheck, open_predictor

NEXT_STEPS: dict[type[FoldserveError], str] = {
    DeviceUnavailable: "see what is said of the GPU above, or take --device auto",
    SelfCheckFailed: "export the model again, or serve it on the device where it was verified",
}


def check_model(path: Path, device: ServingDevice, options: GpuOptions) -> Finding:
    """Does the model open on the device, and answer its examples as recorded?"""
    name = name_model(path)
    try:
        check = _check_bare if path.is_file() else _check_bundle
        return check(name, path, device, options)
    except FoldserveError as err:
        return wrong(name, one_line(err), NOT_SERVED, NEXT_STEPS.get(type(err), "export the model again"))


def _check_bundle(name: str, path: Path, device: ServingDevice, options: GpuOptions) -> Finding:
    bundle = read_bundle(path)
    manifest = bundle.manifest
    options = replace(options, precision=manifest.precision.name if manifest.precision else "fp32")
    predictor = open_predictor(bundle.model_path, manifest.signature, device, options)
    tolerances = {parity.output: parity.tolerance for parity in manifest.parity.outputs}
    check = predictor.self_check(bundle.examples, tolerances)
    words = f"{_describe(predictor, check)}; {_describe_examples(bundle, check, tolerances)}"
    if check.num_examples:
        return ok(name, words)
    return note(name, words, "nothing shows that it answers as it was trained", "export it again, with examples")


def _check_bare(name: str, path: Path, device: ServingDevice, options: GpuOptions) -> Finding:
    predictor = open_predictor(path, None, device, options)
    return ok(name, _describe(predictor, predictor.self_check((), {})))


def _describe(predictor: Predictor, check: SelfCheck) -> str:
    return f"opens with {predictor.placement.provider}, {check.median_seconds * 1e6:,.0f} µs a run"


def _describe_examples(bundle: Bundle, check: SelfCheck, tolerances: dict[str, float]) -> str:
    worst = [
        f", {name} differ by {value:.2g} at most ({tolerances[name]:.2g} is allowed)"
        for name, value in check.max_differences.items()
    ]
    return f"{len(bundle.examples)} examples replayed{''.join(worst)}"
