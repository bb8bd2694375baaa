"""The proof of a GPU: a session is opened on it, with the very options that serve, and gives the right answer.

All other checks only explain why this one fails.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from service.device import GpuOptions
from service.doctor.finding import Finding, ok
from service.doctor.gpu_hardware import Severity
from service.errors import FoldserveError
from service.providers import Gpu
from service.session import Session, open_session

NAME = "GPU session"
NUM_RUNS = 50
# y = Relu(x), x and y float32 [n, 1], opset 18: an ONNX file, of which tests/service/test_doctor.py tells the making.
TINIEST_MODEL = (
    b'\x08\n:=\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x14\n\x01x\x12\x0f\n\r\x08\x01\x12\t\n\x03\x12\x01n\n\x02\x08\x01'
    b"b\x14\n\x01y\x12\x0f\n\r\x08\x01\x12\t\n\x03\x12\x01n\n\x02\x08\x01B\x04\n\x00\x10\x12"
)


def try_gpu(gpu: Gpu, options: GpuOptions, severity: Severity) -> list[Finding]:
    """Does a session run on the GPU?"""
    with tempfile.TemporaryDirectory(prefix="foldserve-doctor-") as folder:
        path = Path(folder) / "tiniest.onnx"
        path.write_bytes(TINIEST_MODEL)
        try:
            session = open_session(path, device=gpu, gpu=options)
        except FoldserveError as err:
            reason = str(err).replace(f" for {path}", "")
            meaning = "models run on the CPU; with --device cuda or tensorrt none runs"
            return [severity(NAME, reason, meaning, "mend what is named here and above, and ask again")]
        return [judge_session(session, severity)]


def judge_session(session: Session, severity: Severity) -> Finding:
    """Does the session compute, and how long does it take?"""
    for value in (2.0, -2.0):
        session.input[...] = value
        session.run()
        answer = float(session.outputs[0][0, 0])
        if answer != max(value, 0.0):
            step = "try another driver; nvidia-smi -q shows errors of the memory"
            return severity(NAME, f"Relu({value}) came out as {answer}", "this GPU computes wrongly", step)
    graphs = f"; CUDA graphs: {session.placement.graphs}" if session.placement.graphs else ""
    return ok(NAME, f"{session.placement.provider}: the tiniest model takes {_measure(session):.0f} µs{graphs}")


def _measure(session: Session) -> float:
    return 1e6 * statistics.median(_time(session) for _ in range(NUM_RUNS))


def _time(session: Session) -> float:
    start = time.perf_counter()
    session.run()
    return time.perf_counter() - start
