"""What `nvidia-smi` adds, where it is: memory that is taken, a GPU that is cut into MIG instances, who may use it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from service.doctor.finding import Finding, note, ok, one_line
from service.doctor.gpu_hardware import Severity

PATIENCE_SECONDS = 30
COLUMNS = "name,memory.used,memory.total,mig.mode.current,compute_mode"
ASK = (f"--query-gpu={COLUMNS}", "--format=csv,noheader,nounits")
LEAST_FREE_MIB = 1024  # a CUDA context with cuBLAS and cuDNN takes some hundred MiB
MIG_INSTANCE = re.compile(r"^\s+MIG .*\(UUID: (MIG-[^)]+)\)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Card:
    """One line of what nvidia-smi lists; numbers that it does not know are None."""

    name: str
    used_mib: int | None
    total_mib: int | None
    mig: str
    compute_mode: str


class ToolFailed(Exception):
    """nvidia-smi is there and does not answer; the message is its own."""


def ask_tool(tool: str) -> tuple[list[Card], tuple[str, ...]]:
    """Ask nvidia-smi for its cards, and for the UUIDs of MIG instances.

    Raises:
        ToolFailed: it does not answer.
    """
    cards = [_read_card(line) for line in _run(tool, *ASK).splitlines() if line.count(",") == COLUMNS.count(",")]
    return cards, tuple(MIG_INSTANCE.findall(_run(tool, "-L")))


def check_cards(
    cards: list[Card], instances: tuple[str, ...], environment: Mapping[str, str], severity: Severity
) -> list[Finding]:
    """Is there memory left, may a process use the cards, and how are they cut?"""
    found = [finding for card in cards for finding in (_check_memory(card), *_check_mode(card, severity))]
    return [*found, *_check_instances(cards, instances, environment, severity)]


def say_failed(err: ToolFailed, severity: Severity) -> list[Finding]:
    """Say what it means that nvidia-smi does not answer."""
    step = "restart the machine, or install the driver anew"
    if "mismatch" in str(err):
        step = "the driver was updated and the kernel still runs the old one: restart the machine"
    return [severity("nvidia-smi", one_line(err), "nothing can reach the GPU's driver", step)]


def _check_memory(card: Card) -> Finding:
    name = "GPU memory"
    if card.used_mib is None or card.total_mib is None:
        return ok(name, f"{card.name}: how much is taken is not told")
    words = f"{card.name}: {card.total_mib - card.used_mib:,} of {card.total_mib:,} MiB are free"
    if card.total_mib - card.used_mib >= LEAST_FREE_MIB:
        return ok(name, words)
    return note(name, words, "a session may fail for want of memory", "nvidia-smi shows who has taken it")


def _check_mode(card: Card, severity: Severity) -> list[Finding]:
    if card.compute_mode == "Prohibited":
        step = "nvidia-smi --compute-mode=DEFAULT, as root"
        return [severity("GPU compute mode", f"{card.name}: prohibited", "no process may use this GPU", step)]
    if card.compute_mode == "Exclusive_Process":
        meaning = "only one process may use it: a second worker or server is refused"
        return [note("GPU compute mode", f"{card.name}: exclusive", meaning, "serve it with --workers 1")]
    return []


def _check_instances(
    cards: list[Card], instances: tuple[str, ...], environment: Mapping[str, str], severity: Severity
) -> list[Finding]:
    name = "MIG"
    if not any(card.mig == "Enabled" for card in cards):
        return []
    if not instances:
        meaning = "a GPU in MIG mode without instances can not compute"
        return [severity(name, "on, but no instance was made", meaning, "nvidia-smi mig -cgi … -C, or turn MIG off")]
    words = f"on, instances: {', '.join(instances)}"
    if len(instances) == 1 or "MIG-" in environment.get("CUDA_VISIBLE_DEVICES", ""):
        return [ok(name, words)]
    step = f"one server for each instance, each with its own: CUDA_VISIBLE_DEVICES={instances[0]}"
    return [note(name, words, "a process uses one instance, the first that it sees; the others stay idle", step)]


def _read_card(line: str) -> Card:
    name, used, total, mig, mode = (part.strip() for part in line.split(","))
    return Card(name=name, used_mib=_number(used), total_mib=_number(total), mig=mig, compute_mode=mode)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _run(tool: str, *arguments: str) -> str:
    try:
        answer = subprocess.run(
            [tool, *arguments], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise ToolFailed(f"{tool} does not answer: {one_line(err)}") from err
    if answer.returncode:
        raise ToolFailed(f"{tool} fails: {one_line(answer.stdout + answer.stderr) or answer.returncode}")
    return answer.stdout
