"""What is asked in a process of its own: `python -m service.doctor.probes NAME PROBE …`, with the server's arguments.

The last line of its output is the answer, a JSON list of findings; whatever a driver or a library prints comes before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from service.device import preload_cuda_libraries
from service.doctor.cuda_libraries import check_libraries, list_needed, locate
from service.doctor.finding import Finding, examine
from service.doctor.gpu_driver import check_driver_answers, load_driver, say_not_loadable
from service.doctor.gpu_hardware import severity_of
from service.doctor.gpu_trial import try_gpu
from service.doctor.model_run import check_model
from service.doctor.packages import list_installed
from service.doctor.runtime_build import cuda_version
from service.doctor.surroundings import look_around
from service.providers import Gpu
from service.runtime import ort
from service.settings import Settings, read_settings


def main(arguments: Sequence[str]) -> int:
    """Answer one probe."""
    name, probe, *rest = arguments
    findings = examine(name, lambda: PROBES[probe](rest))
    sys.stdout.write(f"\n{msgspec.json.encode(findings).decode()}\n")
    return 0


def _ask_driver(arguments: Sequence[str]) -> list[Finding]:
    severity = severity_of(read_settings(arguments).device)
    try:
        library = load_driver()
    except OSError as err:
        return say_not_loadable(err, severity)
    return check_driver_answers(library, severity)


def _find_libraries(arguments: Sequence[str]) -> list[Finding]:
    provider = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    needed = list_needed(provider)
    preload_cuda_libraries()
    surroundings = look_around()
    return check_libraries(
        needed,
        lambda name: locate(name, surroundings),
        list_installed(),
        cuda_version(ort),
        severity_of(read_settings(arguments).device),
    )


def _open_on_gpu(arguments: Sequence[str]) -> list[Finding]:
    settings = read_settings(arguments)
    return try_gpu(_choose_gpu(settings), settings.gpu_options(), severity_of(settings.device))


def _choose_gpu(settings: Settings) -> Gpu:
    return "tensorrt" if settings.device == "tensorrt" else "cuda"


def _run_model(arguments: Sequence[str]) -> list[Finding]:
    path, *rest = arguments
    settings = read_settings(rest)
    return [check_model(Path(path), settings.device, settings.gpu_options())]


PROBES: dict[str, Callable[[Sequence[str]], list[Finding]]] = {
    "driver": _ask_driver,
    "libraries": _find_libraries,
    "session": _open_on_gpu,
    "model": _run_model,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
