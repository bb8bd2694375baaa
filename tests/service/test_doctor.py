"""The doctor: each thing that can be wrong is made wrong, for real where that goes, and is named with what to do."""

from __future__ import annotations

import ctypes
import json
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from service.device import AS_USUAL, why_no_cuda
from service.doctor import capacity, gpu_hardware, gpu_tool, identity, pace, packages, places, report, runtime_build
from service.doctor.apart import ask_apart
from service.doctor.cgroup import Limits, read_limits
from service.doctor.command import diagnose, main
from service.doctor.cuda_libraries import check_libraries, list_needed, locate
from service.doctor.finding import Finding, Verdict, examine, note, wrong
from service.doctor.gpu_driver import check_driver_answers
from service.doctor.gpu_hardware import Hardware, check_driver, check_hardware, check_hidden, look_for_hardware
from service.doctor.gpu_trial import TINIEST_MODEL, judge_session
from service.doctor.leftovers import find_leftovers
from service.doctor.model_files import check_files, check_models, list_models
from service.doctor.model_run import check_model
from service.doctor.surroundings import Surroundings, look_around
from service.runtime import ort
from service.session import open_session
from service.settings import read_settings
from tests.service.fake_cuda import FakeFunction
from tests.service.tiny_models import tiny_examples, tiny_model, with_wrong_answer, write_tiny_bundle

ROOT = Path(__file__).parent.parent.parent
ON_LINUX = sys.platform == "linux"
CUDA_12_WHEELS = {"nvidia-cublas-cu12": "12.9.1", "numpy": "2.0"}
LINKED = ("libcublasLt.so.13", "libcudart.so.13")


def surroundings(root: Path, files: dict[str, str], **environment: str) -> Surroundings:
    """Write what the kernel would say, and look there."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Surroundings(environment=environment, proc=root / "proc", sys=root / "sys", dev=root / "dev")


def script(path: Path, text: str) -> str:
    """Write a program."""
    path.write_text(f"#!/bin/sh\n{textwrap.dedent(text)}")
    path.chmod(0o755)
    return str(path)


def verdicts(findings: list[Finding]) -> list[Verdict]:
    return [finding.verdict for finding in findings]


def words(finding: Finding) -> str:
    return f"{finding.name} {finding.found} {finding.meaning} {finding.next_step}"


def run_doctor(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"{before}\nimport sys\nfrom service.doctor.command import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)


# --- packages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "verdict", "said"),
    [
        ({"onnxruntime-gpu": "1.31.1"}, "ok", "onnxruntime-gpu 1.31.1"),
        ({"onnxruntime": "1.31.1", "onnxruntime-genai": "1.0"}, "ok", "onnxruntime 1.31.1"),
        (
            {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.0"},
            "wrong",
            "pip uninstall --yes onnxruntime onnxruntime",
        ),
        ({"numpy": "2.0"}, "wrong", "neither onnxruntime nor onnxruntime-gpu"),
    ],
)
def test_there_has_to_be_one_runtime_and_not_two(installed: dict[str, str], verdict: str, said: str) -> None:
    (finding,) = packages.check_runtime_wheels(installed)
    assert finding.verdict == verdict
    assert said in words(finding)


def test_the_runtime_of_this_environment_is_the_one_that_is_imported() -> None:
    installed = packages.list_installed()
    assert verdicts(packages.check_runtime_wheels(installed)) == ["ok"]
    (finding,) = runtime_build.check_build(ort, installed)
    assert finding.verdict == "ok"
    assert ort.__version__ in finding.found


def test_files_of_another_version_than_the_wheels_are_wrong() -> None:
    (finding,) = runtime_build.check_build(ort, {"onnxruntime": "0.1"})
    assert finding.verdict == "wrong"
    assert "0.1" in finding.found


def test_half_a_runtime_is_wrong() -> None:
    assert verdicts(runtime_build.check_build(SimpleNamespace(), {"onnxruntime": "1.31.1"})) == ["wrong"]


def test_an_old_python_is_wrong() -> None:
    assert verdicts(packages.check_python((3, 10, 9))) == ["wrong"]
    assert verdicts(packages.check_python((3, 11, 0))) == ["ok"]


def test_what_would_make_it_faster_is_a_note() -> None:
    first, second = packages.check_accelerators({"json": "", "no_such_module": "it is slow"})
    assert (first.verdict, second.verdict, second.meaning) == ("ok", "note", "it is slow")


@pytest.mark.parametrize(("value", "verdict"), [("0", "note"), ("1", "ok"), (None, "ok")])
def test_telemetry_that_was_turned_on_is_a_note(tmp_path: Path, value: str | None, verdict: str) -> None:
    environment = {} if value is None else {"ORT_DISABLE_TELEMETRY": value}
    (finding,) = runtime_build.check_telemetry(surroundings(tmp_path, {}, **environment))
    assert finding.verdict == verdict


# --- the GPU ---------------------------------------------------------------------------------------------------------

CARD = {"sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n", "sys/bus/pci/devices/0000:01:00.0/class": "0x030200\n"}
DRIVER = {
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no NVIDIA GPU here"),
        ({key: text.replace("0x03", "0x0c") for key, text in CARD.items()}, "no NVIDIA GPU here"),
        (CARD, "install NVIDIA's driver on the machine"),
        (CARD | DRIVER, "docker run --gpus all"),
        (DRIVER, "docker run --gpus all"),
    ],
)
def test_each_piece_of_a_gpu_that_is_missing_is_named(tmp_path: Path, files: dict[str, str], said: str) -> None:
    hardware = look_for_hardware(surroundings(tmp_path, files))
    for severity, verdict in ((note, "note"), (wrong, "wrong")):
        (finding,) = check_hardware(hardware, severity)
        assert finding.verdict == verdict
        assert said in words(finding)


def test_a_whole_gpu_is_found(tmp_path: Path) -> None:
    hardware = look_for_hardware(surroundings(tmp_path, CARD | DRIVER | {"dev/nvidia0": "", "dev/nvidiactl": ""}))
    assert hardware == Hardware(num_cards=1, driver="570.86.15", nodes=("nvidia0",))
    assert verdicts(check_hardware(hardware, wrong)) == ["ok"]


def test_nodes_that_may_not_be_opened_are_named() -> None:
    hardware = Hardware(num_cards=1, driver="580.1", nodes=("nvidia0",), refused=("/dev/nvidia0",))
    (finding,) = check_hardware(hardware, wrong)
    assert finding.verdict == "wrong"
    assert "/dev/nvidia0 may not be opened" in finding.found


@pytest.mark.parametrize(
    ("driver", "cuda", "expected"),
    [
        ("570.86.15", "13.0", ["wrong"]),
        ("580.65.06", "13.0", ["ok"]),
        ("570.86.15", "12.8", ["ok"]),
        ("510.1", "12.8", ["wrong"]),
        ("", "13.0", []),
        ("570.86.15", "", []),
    ],
)
def test_a_driver_that_is_older_than_cuda_needs_is_wrong(driver: str, cuda: str, expected: list[str]) -> None:
    assert verdicts(check_driver(Hardware(num_cards=1, driver=driver, nodes=()), cuda, wrong)) == expected


@pytest.mark.parametrize(("value", "verdict"), [("", "wrong"), ("-1", "wrong"), ("-1,0", "wrong"), ("0", "ok")])
def test_hidden_gpus_are_found(tmp_path: Path, value: str, verdict: str) -> None:
    (finding,) = check_hidden(surroundings(tmp_path, {}, CUDA_VISIBLE_DEVICES=value), wrong)
    assert finding.verdict == verdict
    assert check_hidden(surroundings(tmp_path, {}), wrong) == []


def test_only_where_a_gpu_was_asked_for_its_absence_is_wrong() -> None:
    devices = ("auto", "fastest", "cuda", "tensorrt")
    found = {device: gpu_hardware.severity_of(device)("GPU", "", "", "").verdict for device in devices}
    assert found == {"auto": "note", "fastest": "note", "cuda": "wrong", "tensorrt": "wrong"}


class FakeDriver:
    """What libcuda exports, as far as it is asked: a driver with some GPUs, or one that refuses."""

    def __init__(self, *, code: int = 0, count: int = 2) -> None:
        self.cuInit = FakeFunction(lambda _: code)
        self.cuDeviceGetCount = FakeFunction(lambda number: self._set(number, count))
        self.cuDriverGetVersion = FakeFunction(lambda number: self._set(number, 13_010))
        self.cuDeviceGet = FakeFunction(self._set)
        self.cuDeviceGetName = FakeFunction(self._name)

    @staticmethod
    def _set(number: Any, value: int) -> int:
        number._obj.value = value
        return 0

    @staticmethod
    def _name(name: Any, size: int, device: ctypes.c_int) -> int:
        name.value = f"Fake GPU {device.value}".encode()[:size]
        return 0


def test_the_driver_names_its_gpus() -> None:
    (finding,) = check_driver_answers(FakeDriver(), wrong)
    assert finding.verdict == "ok"
    assert finding.found == "Fake GPU 0, Fake GPU 1; the driver knows CUDA up to 13.1"


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (FakeDriver(code=803), "different versions"),
        (FakeDriver(code=802), "nvidia-fabricmanager"),
        (FakeDriver(code=12345), "CUDA error 12345"),
        (FakeDriver(count=0), "0 GPUs"),
    ],
)
def test_a_driver_that_refuses_is_explained(driver: FakeDriver, said: str) -> None:
    (finding,) = check_driver_answers(driver, wrong)
    assert finding.verdict == "wrong"
    assert said in words(finding)


def smi(folder: Path, line: str, instances: str = "") -> str:
    listing = f"GPU 0: Fake (UUID: GPU-1)\n{instances}"
    return script(folder / "nvidia-smi", f'if [ "$1" = -L ]; then echo "{listing}"; else echo "{line}"; fi\n')


@pytest.mark.parametrize(
    ("line", "instances", "found"),
    [
        ("Fake, 10, 81559, Disabled, Default", "", {"GPU memory": "ok"}),
        ("Fake, [N/A], [N/A], [N/A], Default", "", {"GPU memory": "ok"}),
        ("Fake, 81000, 81559, Disabled, Default", "", {"GPU memory": "note"}),
        ("Fake, 10, 81559, Disabled, Prohibited", "", {"GPU memory": "ok", "GPU compute mode": "wrong"}),
        ("Fake, 10, 81559, Disabled, Exclusive_Process", "", {"GPU memory": "ok", "GPU compute mode": "note"}),
        ("Fake, 10, 81559, Enabled, Default", "", {"GPU memory": "ok", "MIG": "wrong"}),
        (
            "Fake, 10, 81559, Enabled, Default",
            "  MIG 1g.10gb Device 0: (UUID: MIG-a)",
            {"GPU memory": "ok", "MIG": "ok"},
        ),
        (
            "Fake, 10, 81559, Enabled, Default",
            "  MIG 1g.10gb Device 0: (UUID: MIG-a)\n  MIG 1g.10gb Device 1: (UUID: MIG-b)",
            {"GPU memory": "ok", "MIG": "note"},
        ),
    ],
)
def test_what_nvidia_smi_tells_is_judged(tmp_path: Path, line: str, instances: str, found: dict[str, str]) -> None:
    answers = gpu_tool.check_cards(*gpu_tool.ask_tool(smi(tmp_path, line, instances)), {}, wrong)
    assert {finding.name: finding.verdict for finding in answers} == found


def test_an_nvidia_smi_that_fails_is_a_finding(tmp_path: Path) -> None:
    text = "Failed to initialize NVML: Driver/library version mismatch"
    for tool in (script(tmp_path / "fails", f"echo '{text}'; exit 18\n"), str(tmp_path / "missing")):
        with pytest.raises(gpu_tool.ToolFailed) as caught:
            gpu_tool.ask_tool(tool)
        (finding,) = gpu_tool.say_failed(caught.value, wrong)
        assert finding.verdict == "wrong"
    with pytest.raises(gpu_tool.ToolFailed) as caught:
        gpu_tool.ask_tool(str(tmp_path / "fails"))
    assert "restart the machine" in gpu_tool.say_failed(caught.value, wrong)[0].next_step


def test_all_libraries_that_are_missing_are_named_and_so_are_the_wheels_of_another_cuda() -> None:
    (finding,) = check_libraries(LINKED, lambda _: "", CUDA_12_WHEELS, "13.0", wrong)
    assert finding.verdict == "wrong"
    assert "missing: libcublasLt.so.13, libcudart.so.13" in finding.found
    assert "nvidia-cublas-cu12 12.9.1" in finding.found


def test_libraries_are_shown_with_the_folder_they_come_from() -> None:
    found = check_libraries(LINKED, lambda name: f"/wheels/lib/{name}", {}, "13.0", wrong)
    assert verdicts(found) == ["ok", "ok"]
    assert "from /wheels/lib" in found[0].found


def test_without_cudnn_only_convolutions_are_lost() -> None:
    found = check_libraries(LINKED, lambda name: "" if "cudnn" in name else f"/lib/{name}", {}, "13.0", wrong)
    assert verdicts(found) == ["ok", "note"]


def test_the_linked_libraries_are_those_that_the_loader_lists(tmp_path: Path) -> None:
    ldd = script(
        tmp_path / "ldd",
        """
        cat <<END
        \tlinux-vdso.so.1 (0x0)
        \tlibcublasLt.so.13 => not found
        \tlibcudart.so.13 => /usr/lib/libcudart.so.13 (0x0)
        \tlibcuda.so.1 => not found
        \tlibc.so.6 => /lib/libc.so.6 (0x0)
        END
        """,
    )
    assert list_needed(tmp_path / "provider.so", ldd) == LINKED


@pytest.mark.skipif(not ON_LINUX, reason="shared libraries have other names elsewhere")
def test_a_library_is_found_where_it_was_loaded_from() -> None:
    assert Path(locate("libc.so.6", look_around())).name.startswith("libc")
    assert locate("libnothing_of_the_kind.so.1", look_around()) == ""


def test_a_provider_of_cuda_is_linked_with_cuda() -> None:
    provider = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    if not provider.is_file():
        pytest.skip("this is ONNX Runtime's CPU build")
    major = ort.cuda_version.partition(".")[0]
    assert f"libcudart.so.{major}" in list_needed(provider)
    first = list_needed(provider, None)
    assert set(first) <= set(list_needed(provider))


def relu(operator: str = "Relu") -> onnx.ModelProto:
    instance, scores = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in "xy")
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "g", [instance], [scores])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_the_tiniest_model_is_a_relu() -> None:
    assert onnx.load_from_string(TINIEST_MODEL) == relu()


@pytest.mark.parametrize(("operator", "verdict"), [("Relu", "ok"), ("Identity", "wrong"), ("Neg", "wrong")])
def test_a_session_has_to_compute_rightly(tmp_path: Path, operator: str, verdict: str) -> None:
    onnx.save(relu(operator), tmp_path / "m.onnx")
    assert judge_session(open_session(tmp_path / "m.onnx", device="cpu"), wrong).verdict == verdict


# --- the machine -----------------------------------------------------------------------------------------------------

GIBIBYTE = 1 << 30


def test_limits_of_version_2_are_read_from_the_group_and_from_those_above(tmp_path: Path) -> None:
    here = surroundings(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/container\n",
            "sys/fs/cgroup/pod/container/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pod/container/cpu.stat": "usage_usec 5\nnr_throttled 7\n",
            "sys/fs/cgroup/pod/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/pod/container/memory.max": f"{2 * GIBIBYTE}\n",
            "sys/fs/cgroup/pod/container/memory.current": f"{GIBIBYTE}\n",
            "sys/fs/cgroup/pod/container/memory.stat": "anon 1\ninactive_file 1000\n",
            "sys/fs/cgroup/pod/memory.max": "max\n",
        },
    )
    assert read_limits(here) == Limits(cores=1.5, free_bytes=GIBIBYTE + 1000, num_throttled=7)


def test_limits_of_version_1_are_read_by_controller(tmp_path: Path) -> None:
    here = surroundings(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n0::/\n",
            "sys/fs/cgroup/cpu/docker/a/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/docker/a/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes": f"{GIBIBYTE}\n",
            "sys/fs/cgroup/memory/docker/a/memory.usage_in_bytes": "1000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "5000\n",
        },
    )
    assert read_limits(here) == Limits(cores=0.5, free_bytes=GIBIBYTE - 1000)


@given(quotas=st.lists(st.none() | st.integers(min_value=1, max_value=10**7), min_size=1, max_size=4))
@settings(deadline=None, max_examples=30)
def test_the_tightest_quota_of_all_groups_holds(
    quotas: list[int | None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    groups = [f"g{number}" for number in range(len(quotas))]
    files = {"proc/self/cgroup": f"0::/{'/'.join(groups)}\n"}
    for depth, quota in enumerate(quotas, start=1):
        folder = "/".join(groups[:depth])
        files[f"sys/fs/cgroup/{folder}/cpu.max"] = f"{'max' if quota is None else quota} 100000\n"
    expected = min((quota / 100_000 for quota in quotas if quota is not None), default=None)
    assert read_limits(surroundings(tmp_path_factory.mktemp("machine"), files)).cores == expected


def test_a_machine_without_groups_has_no_limits(tmp_path: Path) -> None:
    assert read_limits(surroundings(tmp_path / "bare", {})) == Limits()
    unlimited = {
        "proc/self/cgroup": "4:memory:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "5000\n",
    }
    assert read_limits(surroundings(tmp_path / "root", unlimited)) == Limits()


@pytest.mark.parametrize(
    ("limits", "num_cores", "workers", "verdict", "said"),
    [
        (Limits(), 4, 4, "ok", "no quota"),
        (Limits(cores=1.5), 8, 1, "ok", "quota of 1.5"),
        (Limits(cores=0.5), 8, 1, "note", "--workers 1"),
        (Limits(cores=2.5), 8, 4, "note", "--workers 2"),
        (Limits(), 2, 4, "note", "--workers 2"),
        (Limits(cores=2, num_throttled=9), 8, 1, "note", "9 times"),
    ],
)
def test_cores_are_compared_with_workers(limits: Limits, num_cores: int, workers: int, verdict: str, said: str) -> None:
    (finding,) = capacity.check_cores(limits, num_cores, workers)
    assert finding.verdict == verdict
    assert said in words(finding)


def test_memory_is_what_the_tightest_limit_leaves(tmp_path: Path) -> None:
    here = surroundings(tmp_path, {"proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 4194304 kB\n"})
    assert verdicts(capacity.check_memory(here, Limits(), 1)) == ["ok"]
    (finding,) = capacity.check_memory(here, Limits(free_bytes=100 << 20), 1)
    assert finding.verdict == "note"
    assert finding.found == "100 MiB are free below the limit of the container"
    assert verdicts(capacity.check_memory(here, Limits(), 17)) == ["note"]


def test_open_files_are_compared_with_connections() -> None:
    assert verdicts(capacity.check_open_files(1024)) == ["ok"]
    (finding,) = capacity.check_open_files(256)
    assert finding.verdict == "note"
    assert "at most 192 clients" in finding.meaning
    assert verdicts(capacity.check_open_files(1024, connections=5000)) == ["note"]


@pytest.mark.parametrize(("workers", "verdict"), [(1, "note"), (2, "wrong")])
def test_temporary_files_are_a_must_for_several_workers(tmp_path: Path, workers: int, verdict: str) -> None:
    assert verdicts(capacity.check_temporary(workers, tmp_path)) == ["ok"]
    assert list(tmp_path.iterdir()) == []
    assert verdicts(capacity.check_temporary(workers, tmp_path / "missing")) == [verdict]


@pytest.mark.parametrize(("clock", "expected"), [("hpet", ["note"]), ("tsc", ["ok"]), ("", [])])
def test_a_slow_clock_is_a_note(tmp_path: Path, clock: str, expected: list[str]) -> None:
    name = "sys/devices/system/clocksource/clocksource0/current_clocksource"
    assert verdicts(pace.check_clock(surroundings(tmp_path, {name: clock}))) == expected


@pytest.mark.parametrize(("governor", "expected"), [("powersave", ["note"]), ("performance", ["ok"])])
def test_cores_that_save_power_are_a_note(tmp_path: Path, governor: str, expected: list[str]) -> None:
    names = [f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_governor" for number in range(2)]
    here = surroundings(tmp_path, {names[0]: "performance\n", names[1]: f"{governor}\n"})
    assert verdicts(pace.check_governor(here)) == expected
    assert pace.check_governor(surroundings(tmp_path / "none", {})) == []


def test_root_and_the_first_process_are_notes() -> None:
    assert verdicts(identity.check_user(0) + identity.check_user(1000)) == ["note", "ok"]
    assert verdicts(identity.check_process(1) + identity.check_process(2)) == ["note", "ok"]


def test_a_port_that_is_taken_is_wrong_and_one_that_was_not_named_is_not_looked_at() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        (finding,) = places.check_ports(read_settings(["--port", str(port)]))
        assert finding.verdict == "wrong"
        assert "Address already in use" in finding.found
    assert verdicts(places.check_ports(read_settings(["--port", "0"]))) == ["ok"]
    assert places.check_ports(read_settings(["--workers", "2"])) == []


def test_a_file_that_a_setting_names_has_to_be_there(tmp_path: Path) -> None:
    class Named:
        """The settings, with a file more."""

        model_fields_set = frozenset({"keys", "models"})
        keys, models = tmp_path / "keys.txt", tmp_path / "nowhere"

    (finding,) = places.check_files(Named())  # type: ignore[arg-type]
    assert (finding.verdict, finding.name) == ("wrong", "--keys")
    Named.keys.touch()
    assert verdicts(places.check_files(Named())) == ["ok"]  # type: ignore[arg-type]


# --- bundles ---------------------------------------------------------------------------------------------------------


def test_a_good_bundle_is_described(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path, tiny_model())
    (files,) = check_files(bundle.directory, is_alone=False)
    run = check_model(bundle.directory, "cpu", AS_USUAL)
    assert (files.verdict, run.verdict, run.name) == ("ok", "ok", "digits/1")
    assert "digests match, format 1, fp32" in files.found
    assert "BatchNorms: 1 folded, 0 kept" in files.found
    assert "3 examples replayed, scores differ by" in run.found


def test_each_version_of_each_bundle_is_listed_in_order(tmp_path: Path) -> None:
    for name, version in (("b", "2"), ("b", "10"), ("a", "1")):
        write_tiny_bundle(tmp_path, tiny_model(), name=name, version=version)
    found = [str(path.relative_to(tmp_path)) for path in list_models(tmp_path)]
    assert found == ["a/1", "b/2", "b/10"]


@pytest.mark.parametrize("file", ["model.onnx", "examples.json"])
def test_a_flipped_bit_is_wrong(tmp_path: Path, file: str) -> None:
    path = write_tiny_bundle(tmp_path, tiny_model()).directory / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (finding,) = check_files(path.parent, is_alone=False)
    assert finding.verdict == "wrong"
    assert f"{file} was changed after it was written" in finding.found
    assert "copy the bundle again" in finding.next_step


def test_an_answer_that_is_not_the_recorded_one_is_wrong(tmp_path: Path) -> None:
    model = tiny_model()
    bundle = write_tiny_bundle(tmp_path, model, examples=with_wrong_answer(tiny_examples(model)))
    finding = check_model(bundle.directory, "cpu", AS_USUAL)
    assert finding.verdict == "wrong"
    assert "example 3 is answered otherwise than recorded" in finding.found


def test_a_bundle_under_another_name_is_wrong_unless_it_is_served_by_itself(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, tiny_model())
    moved = (tmp_path / "digits").rename(tmp_path / "letters") / "1"
    (finding,) = check_files(moved, is_alone=False)
    assert (finding.verdict, finding.next_step) == ("wrong", "move it to …/digits/1")
    assert verdicts(check_files(moved, is_alone=True)) == ["ok"]


def test_a_bundle_without_examples_is_a_note(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path, tiny_model(), examples=())
    assert check_model(bundle.directory, "cpu", AS_USUAL).verdict == "note"


def test_a_bare_model_is_opened_too(tmp_path: Path) -> None:
    path = tiny_model().save(tmp_path / "m.onnx")
    assert list_models(path) == [path]
    assert verdicts(check_files(path, is_alone=True)) == ["note"]
    assert check_model(path, "cpu", AS_USUAL).verdict == "ok"
    path.write_bytes(b"no model")
    assert check_model(path, "cpu", AS_USUAL).verdict == "wrong"


def test_nothing_to_serve_is_wrong_and_so_is_a_default_that_is_not_there(tmp_path: Path) -> None:
    assert verdicts(check_models(tmp_path, [], None)) == ["wrong"]
    assert verdicts(check_models(tmp_path / "missing", [], None)) == ["wrong"]
    paths = [write_tiny_bundle(tmp_path, tiny_model()).directory]
    assert verdicts(check_models(tmp_path, paths, "digits")) == ["ok"]
    assert verdicts(check_models(tmp_path, paths, "letters")) == ["wrong"]


def test_each_leftover_is_a_note(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path, tiny_model()).directory
    for place in ("digits/latest", "flat", "a/b/3"):
        shutil.copytree(bundle, tmp_path / place)
    (tmp_path / "digits" / "2").mkdir()
    (tmp_path / "digits" / "2" / "model.onnx").touch()
    (bundle / "manifest.json.partial").touch()
    (tmp_path / "bare.onnx").touch()
    (tmp_path / "digits" / "labels.json").write_text('{"stable": 1, "canary": 7}')
    (tmp_path / "README.md").touch()
    for folder in ("digits/notes", "letters", ".git/refs"):
        (tmp_path / folder).mkdir(parents=True)
    found = find_leftovers(tmp_path)
    assert set(verdicts(found)) == {"note"}
    assert {finding.found.partition(":")[0] for finding in found} == {
        "digits/latest",
        "flat",
        "a/b/3",
        "digits/2",
        "digits/1/manifest.json.partial",
        "bare.onnx",
        "digits/labels.json",
        "digits/notes",
        "letters",
    }
    assert len(found) == 9
    assert [path.name for path in list_models(tmp_path)] == ["1"]


def test_a_tidy_directory_has_no_leftovers(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path, tiny_model()).directory
    (tmp_path / "digits" / "labels.json").write_text('{"stable": 1}')
    assert find_leftovers(tmp_path) == []
    assert find_leftovers(bundle) == []
    (tmp_path / "digits" / "labels.json").write_text("[")
    assert len(find_leftovers(tmp_path)) == 1


# --- whatever happens ------------------------------------------------------------------------------------------------


def test_a_check_that_fails_itself_is_a_finding() -> None:
    def fails() -> list[Finding]:
        raise ValueError("two\nlines")

    assert examine("it", fails) == [wrong("it", "the check itself failed: ValueError: two lines")]


def test_a_question_that_ends_its_process_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", "echo last words >&2; kill -SEGV $$\n"))
    (finding,) = ask_apart("it", "driver", [])
    assert finding == wrong("it", "the process that looked ended by SIGSEGV: last words")


def test_a_question_that_hangs_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", "exec sleep 30\n"))
    (finding,) = ask_apart("it", "driver", [], patience_seconds=0.2)
    assert finding.verdict == "wrong"
    assert "no answer" in finding.found


@pytest.mark.parametrize("probe", ["session", "driver", "libraries", "no such probe"])
def test_every_probe_answers_with_findings(probe: str) -> None:
    found = ask_apart("it", probe, ["--device", "auto"])
    assert found
    assert not any("Traceback" in words(finding) for finding in found)
    assert ("wrong" in verdicts(found)) == (probe == "no such probe")


@given(st.lists(st.tuples(st.sampled_from(["ok", "note", "wrong"]), *[st.text("ab \n\x1b\udc80→", max_size=300)] * 4)))
@settings(deadline=None)
def test_text_has_whole_lines_that_fit_a_screen_unless_a_word_does_not(rows: list[tuple[Any, ...]]) -> None:
    findings = [Finding(verdict=row[0], name=row[1], found=row[2], meaning=row[3], next_step=row[4]) for row in rows]
    for line in report.write_text(findings):
        assert line.isprintable()
        assert len(line) <= report.COLUMNS or max(map(len, line.split())) > report.COLUMNS // 2
    assert len(json.loads(report.write_json(findings))) == len(findings)


def test_a_long_sentence_is_broken_where_the_screen_ends() -> None:
    lines = list(report.write_text([note("name", "found " * 40, "meaning " * 40, "step " * 40)]))
    assert 90 < max(map(len, lines)) <= 100


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_arrows_gets_the_rest(encoding: str) -> None:
    done = run_doctor("--port", "99999", before=f"import sys; sys.stdout.reconfigure(encoding={encoding!r})")
    assert (done.returncode, done.stderr) == (1, "")


def test_a_reader_that_goes_is_no_failure() -> None:
    command = f"{sys.executable} -m service.doctor --device cpu | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.stderr == ""


# --- the whole -------------------------------------------------------------------------------------------------------


def test_a_good_machine_with_a_good_bundle_exits_with_0(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, tiny_model())
    done = run_doctor("--models", str(tmp_path), "--device", "cpu")
    assert (done.returncode, done.stderr) == (0, "")
    assert "examples replayed" in done.stdout
    assert ", 0 wrong\n" in done.stdout


def test_a_bad_bundle_exits_with_1_and_json_can_be_read(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path, tiny_model()).model_path
    path.write_bytes(path.read_bytes()[:-1])
    done = run_doctor("--models", str(tmp_path), "--device", "cpu", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    found = json.loads(done.stdout)
    assert {frozenset(finding) for finding in found} == {
        frozenset({"name", "verdict", "found", "meaning", "next_step"})
    }
    assert [finding["name"] for finding in found if finding["verdict"] == "wrong"] == ["digits/1 files"]


def test_the_module_can_be_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service.doctor", "--models", str(tmp_path), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "there is no bundle in" in " ".join(done.stdout.split())


def test_without_a_runtime_it_still_says_so() -> None:
    done = run_doctor("--models", "anywhere", before="import sys; sys.modules['onnxruntime'] = None")
    assert (done.returncode, done.stderr) == (1, "")
    assert "can not be imported" in done.stdout


def test_a_setting_that_can_not_be_used_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "99999"]) == 1
    assert "--port: " in capsys.readouterr().out


def test_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(("device", "verdict"), [("auto", "note"), ("cuda", "wrong"), ("cpu", "ok")])
def test_a_missing_gpu_is_wrong_only_if_it_was_asked_for(device: str, verdict: str) -> None:
    here = look_around()
    if not why_no_cuda() or not look_for_hardware(here).is_absent:
        pytest.skip("there is a GPU here, or a part of one")
    found = {finding.name: finding.verdict for finding in diagnose(["--device", device], here)}
    assert found["GPU"] == verdict


def test_a_driver_in_a_container_without_a_gpu_is_followed_to_the_end(tmp_path: Path) -> None:
    """Every part of the way is looked at; here no part can be in order, and none may crash."""
    if not why_no_cuda():
        pytest.skip("there is a GPU driver here")
    here = surroundings(tmp_path, CARD | DRIVER, CUDA_VISIBLE_DEVICES="")
    found = {finding.name: finding.verdict for finding in diagnose(["--device", "cuda"], here)}
    assert {found[name] for name in ("GPU", "CUDA_VISIBLE_DEVICES", "GPU by CUDA", "GPU session")} == {"wrong"}
    assert "the check itself failed" not in str(found)


@pytest.mark.gpu
def test_a_gpu_is_proved_by_a_session() -> None:
    if why_no_cuda():
        pytest.skip(why_no_cuda())
    found = {finding.name: finding.verdict for finding in diagnose(["--device", "cuda"], look_around())}
    assert {found[name] for name in ("GPU", "GPU by CUDA", "CUDA libraries", "GPU session")} == {"ok"}
