"""What a failed run says of the device: that it is out of memory for now, or lost until the process starts anew.

After an error such as an illegal memory access every further CUDA call of the process fails with the same error (CUDA
Runtime API, error codes "that leave the process in an inconsistent state"). Such a process can only end, and be
started again by whoever watches it.
"""

from __future__ import annotations

import re

from service.errors import DeviceLost, DeviceOutOfMemory, PredictionFailed

# ONNX Runtime: "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; …". The numbers are cudaError_t's.
STICKY = re.compile(r"CUDA (?:failure|error) (?:214|700|702|710|714|715|716|717|718|719)\b")
OUT_OF_MEMORY = re.compile(r"CUDA (?:failure|error) 2\b|Failed to allocate memory for requested buffer")


def explain_failure(message: str) -> PredictionFailed:
    """Say what a failed run means, by what ONNX Runtime says of it."""
    if STICKY.search(message):
        return DeviceLost(f"the GPU is lost to this process, which ends: {message}")
    if OUT_OF_MEMORY.search(message):
        return DeviceOutOfMemory(f"the device has no memory left for this run: {message}")
    return PredictionFailed(f"ONNX Runtime failed on this instance: {message}")
