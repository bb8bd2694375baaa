"""`python -m service doctor`: looks at everything, then says what is wrong and what to do; exit code 1 if anything is.

It takes the server's own flags and environment, and so looks at what that server would meet. ONNX Runtime may be
missing or broken, which is one of the things to find out: what needs it is imported when it is its turn.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from service.doctor import capacity, gpu_hardware, gpu_tool, identity, pace, packages, report
from service.doctor.apart import ask_apart
from service.doctor.cgroup import read_limits
from service.doctor.finding import Finding, examine, ok, one_line, wrong
from service.doctor.surroundings import Surroundings, look_around

if TYPE_CHECKING:
    from service.settings import Settings

EXIT_WRONG = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells say it
JSON_FLAG = "--json"
HELP_FLAGS = {"-h", "--help"}
MODEL_SECONDS = 900.0  # TensorRT may take minutes to compile a model
HELP = """usage: python -m service doctor [--models PATH] [--device DEVICE] [--json] [any other flag of the server]

Looks at this machine, at what is installed and, with --models, at every bundle, as the server with these flags would
meet them. Each finding is "ok", "note" (it serves, but could be better) or "wrong", with what to do.

--json  print the findings as a JSON list

Exit code: 0 if nothing is wrong, else 1.
"""


def main(arguments: Sequence[str]) -> int:
    """Look, print, and return the exit code."""
    if HELP_FLAGS & set(arguments):
        _print(HELP)
        return 0
    try:
        findings = list(diagnose([argument for argument in arguments if argument != JSON_FLAG], look_around()))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    lines = [report.write_json(findings)] if JSON_FLAG in arguments else report.write_text(findings)
    _print("".join(f"{line}\n" for line in lines))
    return EXIT_WRONG if any(finding.verdict == "wrong" for finding in findings) else 0


def diagnose(arguments: Sequence[str], surroundings: Surroundings) -> Iterator[Finding]:
    """Look at all of it, from Python up to the bundles."""
    installed = packages.list_installed()
    yield from examine("Python", packages.check_python)
    yield from examine("foldserve", packages.check_foldserve)
    yield from examine("ONNX Runtime wheel", lambda: packages.check_runtime_wheels(installed))
    yield from examine("speed", packages.check_accelerators)
    runtime = examine("ONNX Runtime", partial(_check_runtime, installed, surroundings))
    yield from runtime
    settings = None
    if all(finding.verdict != "wrong" for finding in runtime):
        settings, complaints = _read_settings(arguments)
        yield from complaints
    yield from _look_at_machine(surroundings, settings)
    if settings is not None:
        yield from _look_at_gpu(arguments, settings, surroundings)
        yield from _look_at_models(arguments, settings)


def _print(text: str) -> None:
    """Print in what letters the terminal has; a reader that has gone, such as `head`, is no failure."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that nothing is left to be flushed at exit


def _check_runtime(installed: dict[str, str], surroundings: Surroundings) -> list[Finding]:
    from service.doctor import runtime_build

    try:
        from service.runtime import ort
    except Exception as err:  # noqa: BLE001 - half a package fails in many ways
        step = "see what is said of its wheel; install foldserve[gpu], or [cpu]"
        return [wrong("ONNX Runtime", f"can not be imported: {one_line(err)}", "no model can be opened", step)]
    return [*runtime_build.check_build(ort, installed), *runtime_build.check_telemetry(surroundings)]


def _read_settings(arguments: Sequence[str]) -> tuple[Settings | None, list[Finding]]:
    from service.errors import SettingsInvalid
    from service.settings import read_settings

    try:
        return read_settings(arguments), []
    except SettingsInvalid as err:
        step = "mend the flag, or the variable FOLDSERVE_… of the same name; python -m service --help lists them"
        return None, [wrong("settings", one_line(err), "the server does not start, and no model was looked at", step)]


def _look_at_machine(surroundings: Surroundings, settings: Settings | None) -> Iterator[Finding]:
    limits, workers = read_limits(surroundings), settings.workers if settings else 1
    connections = settings.max_connections if settings else capacity.USUAL_CONNECTIONS
    yield from examine("cores", lambda: capacity.check_cores(limits, capacity.count_cores(), workers))
    yield from examine("memory", lambda: capacity.check_memory(surroundings, limits, workers))
    yield from examine("open files", lambda: capacity.check_open_files(capacity.count_open_files(), connections))
    yield from examine("temporary files", lambda: capacity.check_temporary(workers))
    yield from examine("clock", lambda: pace.check_clock(surroundings))
    yield from examine("CPU governor", lambda: pace.check_governor(surroundings))
    yield from examine("user", identity.check_user)
    yield from examine("process", identity.check_process)
    if settings is not None:
        from service.doctor import places

        yield from examine("port", lambda: places.check_ports(settings))
        yield from examine("files", lambda: places.check_files(settings))


def _look_at_gpu(arguments: Sequence[str], settings: Settings, surroundings: Surroundings) -> Iterator[Finding]:
    """Look at each piece that a GPU needs, then try it; where there is nothing at all, that is said once."""
    from service.doctor.runtime_build import cuda_version
    from service.runtime import ort

    if settings.device == "cpu":
        yield ok("GPU", "not asked for (--device cpu)")
        return
    severity, cuda = gpu_hardware.severity_of(settings.device), cuda_version(ort)
    hardware = gpu_hardware.look_for_hardware(surroundings)
    yield from examine("GPU", lambda: gpu_hardware.check_hardware(hardware, severity))
    if hardware.is_absent:
        return
    yield from examine("GPU driver", lambda: gpu_hardware.check_driver(hardware, cuda, severity))
    yield from examine("GPU", lambda: gpu_hardware.check_hidden(surroundings, severity))
    yield from examine("nvidia-smi", lambda: _ask_tool(surroundings, severity))
    yield from ask_apart("GPU by CUDA", "driver", arguments)
    if cuda:
        yield from ask_apart("CUDA libraries", "libraries", arguments)
    yield from ask_apart("GPU session", "session", arguments)


def _ask_tool(surroundings: Surroundings, severity: gpu_hardware.Severity) -> list[Finding]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        return gpu_tool.check_cards(*gpu_tool.ask_tool(tool), surroundings.environment, severity)
    except gpu_tool.ToolFailed as err:
        return gpu_tool.say_failed(err, severity)


def _look_at_models(arguments: Sequence[str], settings: Settings) -> Iterator[Finding]:
    from service.doctor import leftovers, model_files

    models = settings.models
    if "models" not in settings.model_fields_set:
        yield ok("models", "none were named: --models PATH has every bundle looked at")
        return
    paths = model_files.list_models(models)
    yield from examine("models", lambda: model_files.check_models(models, paths, settings.default_model))
    for path in paths:
        yield from _look_at_model(path, arguments, is_alone=path == models)
    yield from examine("leftovers", lambda: leftovers.find_leftovers(models))


def _look_at_model(path: Path, arguments: Sequence[str], *, is_alone: bool) -> Iterator[Finding]:
    """Look at the files, and only if they are whole open the model."""
    from service.doctor import model_files

    name = model_files.name_model(path)
    found = examine(name, lambda: model_files.check_files(path, is_alone=is_alone))
    yield from found
    if all(finding.verdict != "wrong" for finding in found):
        yield from ask_apart(name, "model", [str(path), *arguments], patience_seconds=MODEL_SECONDS)
