"""The image and its manifests, held against the service that they start: what can be said without building anything."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.protocols.directory import Directory
from service.protocols.probes import answer_probe
from service.server import SHUTDOWN_SECONDS
from service.settings import Settings

ROOT = Path(__file__).parent.parent
MANIFESTS = ("compose.yaml", "kubernetes.yaml")
PORT = Settings.model_fields["port"].default


@dataclass(frozen=True)
class Stage:
    """One `FROM base AS name`, and its instructions in order."""

    name: str
    base: str
    instructions: tuple[tuple[str, str], ...]

    def words(self, instruction: str) -> list[str]:
        return [words for name, words in self.instructions if name == instruction]


def read_stages() -> list[Stage]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = [line.split(maxsplit=1) for line in text.replace("\\\n", "").splitlines() if line.strip()]
    starts = [number for number, (name, _) in enumerate(lines) if name == "FROM"]
    stages = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        base, _, name = lines[start][1].partition(" AS ")
        stages.append(Stage(name, base, tuple((name, words) for name, words in lines[start + 1 : end])))
    return stages


STAGES = {stage.name: stage for stage in read_stages()}


def ancestry(target: str) -> list[Stage]:
    """Give a stage and what it is built on, the last one first."""
    stage = STAGES[target]
    return [stage, *(ancestry(stage.base) if stage.base in STAGES else [])]


def effective(target: str, instruction: str) -> str:
    """Give the words of an instruction that hold in the end."""
    return next(words for stage in ancestry(target) for words in reversed(stage.words(instruction)))


def environment(target: str) -> dict[str, str]:
    words = [word for stage in reversed(ancestry(target)) for env in stage.words("ENV") for word in env.split()]
    return dict(word.split("=", 1) for word in words)


def copied_from_the_context() -> set[str]:
    copies = [words.split() for stage in STAGES.values() for words in stage.words("COPY")]
    return {source for words in copies if not words[0].startswith("--from") for source in words[:-1]}


def read_manifests(file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "deploy" / file).read_text("utf-8")))


def deployment() -> dict[str, Any]:
    return next(manifest for manifest in read_manifests("kubernetes.yaml") if manifest["kind"] == "Deployment")


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = deployment()["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    return dict(only)


def compose() -> dict[str, Any]:
    (only,) = read_manifests("compose.yaml")
    services: dict[str, Any] = only["services"]
    return services


targets = pytest.mark.parametrize("target", ["cpu", "gpu"])


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (it comes with the extra `dev`)")
    result = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_only_the_service_and_its_packaging_get_in() -> None:
    assert copied_from_the_context() == {"LICENSE", "constraints.txt", "pyproject.toml", "service"}


def test_the_context_is_what_the_dockerfile_copies_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    patterns = [line for line in lines if not line.startswith("#")]
    assert patterns[0] == "*"
    assert {pattern[1:] for pattern in patterns if pattern.startswith("!")} == copied_from_the_context()


def test_a_plain_build_makes_the_cpu_image() -> None:
    assert [*STAGES][-1] == "cpu"


@targets
def test_a_target_installs_its_own_runtime_and_no_other(target: str) -> None:
    copied = [words for stage in ancestry(target) for words in stage.words("COPY")]
    assert [words for words in copied if "--from=build-" in words] == [f"--from=build-{target} /venv /venv"]
    installs = [words for words in STAGES[f"build-{target}"].words("RUN") if "install" in words]
    assert [re.findall(r"\.\[([^]]*)\]", words) for words in installs] == [[f"{target}${{EXTRAS}}"]]
    assert "EXTRAS=" in STAGES["build"].words("ARG")  # none, unless the build says so
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert target in extras


def test_the_cpu_image_asks_for_the_cpu_and_the_gpu_image_takes_what_it_is_told() -> None:
    assert environment("cpu")["FOLDSERVE_DEVICE"] == "cpu"
    assert "FOLDSERVE_DEVICE" not in environment("gpu")


@targets
def test_a_target_runs_as_a_number_that_is_not_root(target: str) -> None:
    user, group = effective(target, "USER").split(":")
    assert int(user) > 0
    assert int(group) > 0


@targets
def test_a_target_starts_the_server_directly_so_that_sigterm_reaches_it(target: str) -> None:
    assert json.loads(effective(target, "ENTRYPOINT")) == ["python", "-m", "service"]
    assert effective(target, "STOPSIGNAL") == "SIGTERM"


@targets
def test_the_healthcheck_asks_for_readiness_in_python_that_parses(target: str) -> None:
    _, _, command = effective(target, "HEALTHCHECK").partition("CMD ")
    python, flag, program = json.loads(command)
    ast.parse(program)
    assert (python, flag) == ("python", "-c")
    assert "'/health/ready'" in program


@targets
def test_a_target_listens_where_it_says(target: str) -> None:
    settings = environment(target)
    assert settings["FOLDSERVE_HOST"] == "0.0.0.0"  # noqa: S104
    assert settings["FOLDSERVE_PORT"] == effective(target, "EXPOSE") == str(PORT)
    assert settings["FOLDSERVE_MODELS"] == "/models"


@targets
def test_nothing_is_told_to_anybody_about_the_models(target: str) -> None:
    """ONNX Runtime sends telemetry by default on Linux, from 1.29 on, unless this is set before it is imported."""
    assert environment(target)["ORT_DISABLE_TELEMETRY"] == "1"


@targets
def test_every_setting_of_the_image_is_one_that_the_server_reads(target: str) -> None:
    assert unknown_settings(environment(target)) == set()


def test_every_setting_of_the_manifests_is_one_that_the_server_reads() -> None:
    composed = [name for service in compose().values() for name in service.get("environment", {})]
    assert unknown_settings([*composed, *(variable["name"] for variable in container()["env"])]) == set()


def unknown_settings(names: Any) -> set[str]:
    known = {f"FOLDSERVE_{name.upper()}" for name in Settings.model_fields}
    return {name for name in names if name.startswith("FOLDSERVE_")} - known


@pytest.mark.parametrize("file", MANIFESTS)
def test_a_manifest_says_first_what_it_is_and_how_to_use_it(file: str) -> None:
    first = (ROOT / "deploy" / file).read_text("utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert f"-f deploy/{file}" in first


def test_the_probes_ask_routes_that_the_server_has() -> None:
    probes = {kind: container()[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    asked = [answer_probe("GET", probe["path"], Directory()) for probe in probes.values()]
    assert None not in asked
    assert probes["liveness"]["path"] == "/health/live"
    assert probes["startup"]["path"] == probes["readiness"]["path"] == "/health/ready"
    (port,) = container()["ports"]
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert port["containerPort"] == PORT


def test_the_service_of_kubernetes_finds_its_pods() -> None:
    service = next(manifest for manifest in read_manifests("kubernetes.yaml") if manifest["kind"] == "Service")
    labels = deployment()["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment()["spec"]["selector"]["matchLabels"] == labels
    assert {port["targetPort"] for port in service["spec"]["ports"]} == {"http"}


def test_kubernetes_does_not_set_our_port_by_accident() -> None:
    """For a Service named foldserve it would set FOLDSERVE_PORT=tcp://10.0.0.1:80 in every pod."""
    assert pod()["enableServiceLinks"] is False


def test_kubernetes_waits_until_the_server_is_done() -> None:
    drain = next(float(variable["value"]) for variable in container()["env"] if "DRAIN" in variable["name"])
    assert pod()["terminationGracePeriodSeconds"] > drain + SHUTDOWN_SECONDS


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_compose_waits_until_the_server_is_done(name: str) -> None:
    assert float(compose()[name]["stop_grace_period"].removesuffix("s")) > SHUTDOWN_SECONDS


def test_kubernetes_gives_the_server_no_rights_that_it_does_not_need() -> None:
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["automountServiceAccountToken"] is False
    assert container()["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container()["volumeMounts"]}
    assert mounts == {"/models": True, "/tmp": False}  # noqa: S108


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_compose_gives_the_server_no_rights_that_it_does_not_need(name: str) -> None:
    service = compose()[name]
    assert service["build"]["target"] == name
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [(volume["target"], volume["read_only"]) for volume in service["volumes"]] == [("/models", True)]


def test_the_gpu_of_compose_is_a_gpu_or_nothing() -> None:
    service = compose()["gpu"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert service["environment"]["FOLDSERVE_DEVICE"] == "cuda"
    assert service["profiles"] == ["gpu"]
