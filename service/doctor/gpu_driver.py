"""What NVIDIA's driver itself says when it is woken: which GPUs it gives to this process, or its reason why none.

It is the call that ONNX Runtime's session would make first. A driver may be broken in ways that end the process, so
this is asked in another one (`apart.py`).
"""

from __future__ import annotations

import ctypes
from typing import Any

from service.doctor.finding import Finding, ok
from service.doctor.gpu_hardware import Severity

LIBRARY = "libcuda.so.1"
NAME_BYTES = 100
NAME = "GPU by CUDA"
# CUresult of the driver API: the ones that cuInit gives, what they mean and what mends them.
REASONS = {
    100: ("it finds no GPU", "look for CUDA_VISIBLE_DEVICES, for --gpus, and at nvidia-smi"),
    101: ("CUDA_VISIBLE_DEVICES names a GPU that is not there", "name one that nvidia-smi -L lists"),
    802: ("the GPUs are not ready yet", "on machines with NVSwitch, start nvidia-fabricmanager"),
    803: ("the library and the kernel's driver are of different versions", "restart the machine, or the container"),
    804: ("this GPU does not work with the CUDA compatibility package", "remove cuda-compat, or update the driver"),
    999: ("the driver failed without a reason", "sudo nvidia-modprobe -u -c=0; if that does not help, restart"),
}


def load_driver() -> Any:
    """Load the driver's library.

    Raises:
        OSError: it is not there, or misses something itself.
    """
    return ctypes.CDLL(LIBRARY)


def check_driver_answers(library: Any, severity: Severity) -> list[Finding]:
    """Does the driver give this process a GPU?"""
    code = library.cuInit(0)
    if code:
        meaning, step = REASONS.get(code, ("the driver refuses", "look at nvidia-smi and the kernel's log"))
        return [severity(NAME, f"cuInit failed with CUDA error {code}", meaning, step)]
    count, number = ctypes.c_int(), ctypes.c_int()
    library.cuDeviceGetCount(ctypes.byref(count))
    library.cuDriverGetVersion(ctypes.byref(number))
    if not count.value:
        return [severity(NAME, "the driver counts 0 GPUs", *REASONS[100])]
    names = ", ".join(_read_name(library, ordinal) for ordinal in range(count.value))
    return [ok(NAME, f"{names}; the driver knows CUDA up to {_write_version(number.value)}")]


def say_not_loadable(err: OSError, severity: Severity) -> list[Finding]:
    """Say what it means that the driver's library does not load."""
    step = "install NVIDIA's driver; in a container: --gpus all, and NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    return [severity(NAME, f"{LIBRARY} can not be loaded: {err}", "CUDA can not reach the driver", step)]


def _read_name(library: Any, ordinal: int) -> str:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(NAME_BYTES)
    if library.cuDeviceGet(ctypes.byref(device), ordinal) or library.cuDeviceGetName(name, NAME_BYTES, device):
        return f"GPU {ordinal}"
    return name.value.decode(errors="replace")


def _write_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
