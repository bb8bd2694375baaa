"""The tutorial's server: FastAPI, a `def` endpoint, pydantic in and out, ONNX Runtime with its defaults.

`python -m benchmarks.peers.tutorial <model.onnx> <port> <threads of ONNX Runtime>`. Where tutorials differ it does what
is faster: httptools and uvloop, no access log, no middleware, no model name in the answer.

By default ONNX Runtime starts a thread for each further core and binds it there itself: it leaves the core that the
server was put on, and spins where the load generator runs. With one thread the server stays where it was put.
"""
# No `from __future__ import annotations` here: FastAPI reads the endpoint's annotations, as in a tutorial.

import sys

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers.host import host


class PredictRequest(BaseModel):
    """One instance, flat."""

    instance: list[float]


class PredictResponse(BaseModel):
    """The label of the largest score, and all scores."""

    label: str
    scores: list[float]


def create_app(model_path: str, num_threads: int) -> FastAPI:
    """The app of the tutorials, for one model; 0 threads are ONNX Runtime's default."""
    app = FastAPI()
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = ort.InferenceSession(model_path, options, providers=["CPUExecutionProvider"])
    input_shape = (1, *session.get_inputs()[0].shape[1:])

    @app.post("/predict")
    def predict(request: PredictRequest) -> PredictResponse:
        instance = np.array(request.instance, dtype=np.float32).reshape(input_shape)
        scores = session.run(None, {"instance": instance})[0][0]
        return PredictResponse(label=str(scores.argmax()), scores=scores.tolist())

    return app


if __name__ == "__main__":
    _, path, port, threads = sys.argv
    host(create_app(path, int(threads)), int(port))
