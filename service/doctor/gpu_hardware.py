"""Which NVIDIA GPUs the kernel knows of, which of them this process may use, and if their driver is new enough.

A card on the PCI bus, a driver in the kernel and device nodes are three things. In a container that was started without
`--gpus` the driver shows and the nodes do not; a machine may have a card and no driver.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from service.doctor.finding import Finding, note, ok, wrong
from service.doctor.surroundings import Surroundings

NVIDIA = "0x10de"
DISPLAY_CLASS = "0x03"
DRIVER_VERSION = re.compile(r"\b\d{3,}\.\d+(?:\.\d+)?\b")
# NVIDIA's "CUDA Compatibility", the table of minor version compatibility: the first driver branch that will do.
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
NO_GPUS = {"", "-1", "none", "void", "NoDevFiles"}
ASKED_FOR = {"cuda", "tensorrt"}
BY_CONTAINER = "docker run --gpus all, or nvidia.com/gpu in the pod's limits; the host needs nvidia-container-toolkit"

# What a finding is that keeps the GPU from being used: wrong if a GPU was asked for, else a note.
Severity = Callable[[str, str, str, str], Finding]


def severity_of(device: str) -> Severity:
    """Say how bad it is that no GPU can be used, for what `--device` asks for."""
    return wrong if device in ASKED_FOR else note


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What there is of NVIDIA: cards on the bus, the driver's version, nodes, and those that may not be opened.

    `driver` is empty where the kernel has none. WSL has neither a card nor a driver of its own, but a node `dxg`.
    """

    num_cards: int
    driver: str
    nodes: tuple[str, ...]
    refused: tuple[str, ...] = ()

    @property
    def is_absent(self) -> bool:
        """If nothing at all is there."""
        return not (self.num_cards or self.driver or self.nodes)


def look_for_hardware(surroundings: Surroundings) -> Hardware:
    """Look for all of it."""
    cards = [path for path in surroundings.sys.glob("bus/pci/devices/*/vendor") if _is_gpu(surroundings, path)]
    driver = DRIVER_VERSION.search(surroundings.read(surroundings.proc / "driver" / "nvidia" / "version"))
    nodes = [*sorted(surroundings.dev.glob("nvidia[0-9]*")), *surroundings.dev.glob("dxg")]
    return Hardware(
        num_cards=len(cards),
        driver=driver[0] if driver else "",
        nodes=tuple(node.name for node in nodes),
        refused=tuple(str(node) for node in nodes if not os.access(node, os.R_OK | os.W_OK)),
    )


def check_hardware(hardware: Hardware, severity: Severity) -> list[Finding]:
    """Is there a GPU that this process may open?"""
    name = "GPU"
    if hardware.refused:
        return [
            severity(
                name,
                f"{', '.join(hardware.refused)} may not be opened by this user",
                "CUDA finds no device",
                "give the user the group of these nodes, or start the container with --gpus",
            )
        ]
    if hardware.nodes:
        return [
            ok(name, f"device nodes {', '.join(hardware.nodes)}; driver {hardware.driver or 'outside this kernel'}")
        ]
    return [severity(name, *_why_no_nodes(hardware))]


def check_driver(hardware: Hardware, cuda: str, severity: Severity) -> list[Finding]:
    """Is the driver new enough for the CUDA that ONNX Runtime was built for?"""
    major = int(cuda.partition(".")[0] or 0)
    oldest = OLDEST_DRIVER.get(major)
    if not hardware.driver or oldest is None:
        return []
    if int(hardware.driver.partition(".")[0]) >= oldest:
        return [ok("GPU driver", f"{hardware.driver}; CUDA {major} needs {oldest} or newer")]
    return [
        severity(
            "GPU driver",
            f"{hardware.driver}, but this ONNX Runtime is built for CUDA {major}",
            f"CUDA {major} needs driver {oldest} or newer",
            f"update the driver of the machine (not of the container) to {oldest} or newer",
        )
    ]


def check_hidden(surroundings: Surroundings, severity: Severity) -> list[Finding]:
    """Does the environment hide the GPUs from CUDA?"""
    name = "CUDA_VISIBLE_DEVICES"
    value = surroundings.environment.get(name)
    if value is None:
        return []
    # CUDA reads up to the first entry that names no GPU; nothing at all is such an entry.
    if value.partition(",")[0].strip() in NO_GPUS:
        step = f"take it out of the environment, or name a GPU: {name}=0"
        return [severity(name, f"is {value[:80]!r}", "every GPU is hidden from this process", step)]
    return [ok(name, f"is {value[:80]!r}")]


def _is_gpu(surroundings: Surroundings, vendor: os.PathLike[str]) -> bool:
    folder = surroundings.sys.joinpath(vendor).parent
    kind = surroundings.read(folder / "class")
    return surroundings.read(folder / "vendor") == NVIDIA and kind.startswith(DISPLAY_CLASS)


def _why_no_nodes(hardware: Hardware) -> tuple[str, str, str]:
    if hardware.driver:
        return (
            f"the kernel has NVIDIA's driver {hardware.driver}, but there are no device nodes /dev/nvidia0 …",
            "so it is in a container that was given no GPU",
            BY_CONTAINER,
        )
    if hardware.num_cards:
        return (
            f"{hardware.num_cards} NVIDIA GPU on the PCI bus, but no driver in the kernel",
            "nothing can use it",
            "install NVIDIA's driver on the machine; nvidia-smi shows when it works",
        )
    return (
        "no NVIDIA GPU here: no card on the PCI bus, no driver, no device nodes",
        "models run on the CPU, where small networks are faster anyway; with --device cuda none runs",
        "take a machine with a GPU, or say by --device cpu that none is wanted",
    )
