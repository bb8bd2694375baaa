"""Where a precision can be run: what the device can not do is refused by name before anything is computed.

ONNX Runtime 1.31 on the CPU computes fp16 as float32 between casts and int8 with integers; of bfloat16 it has no kernel
for any layer there (neither MatMul, Gemm nor Conv), so such a model does not even load. Its CUDA provider has none of
the layers that a QDQ model becomes (QLinearConv, QLinearMatMul, QGemm), and does not take their int32 biases.
"""

from __future__ import annotations

from model_export.errors import PrecisionUnavailable
from service.bundle import Precision
from service.device import Device, why_no_cuda


def device_for(precision: Precision, device: Device) -> Device:
    """Where a model of this precision is to be verified, if `device` was asked for.

    Raises:
        PrecisionUnavailable: it can not be run there.
    """
    if precision == "int8":
        return _device_for_int8(device)
    return _device_for_bf16(device) if precision == "bf16" else device


def _device_for_int8(device: Device) -> Device:
    if device == "cuda":
        raise PrecisionUnavailable(
            "--precision int8 is for the CPU: ONNX Runtime's CUDA provider has no layers in integers. Export with "
            "--device cpu, or choose --precision fp16 or bf16 for a GPU"
        )
    return "cpu"


def _device_for_bf16(device: Device) -> Device:
    reason = "--device cpu was asked for" if device == "cpu" else why_no_cuda()
    if reason:
        raise PrecisionUnavailable(
            "--precision bf16 needs a GPU: ONNX Runtime has no bfloat16 kernels for the CPU, so what would be served "
            f"can not be verified here ({reason}). Export with --device cuda on a machine with a GPU, or choose "
            "--precision fp16, int8 or fp32"
        )
    return "cuda"
