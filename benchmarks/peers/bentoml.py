"""BentoML, as its documentation shows it: a class with `@bentoml.service` and a method with `@bentoml.api`.

`python -m benchmarks.peers.bentoml <model.onnx> <port>`, in an environment of its own; it becomes `bentoml serve`. One
API worker. In its favour: production mode (no reload), metrics and access log off, no usage tracking, a plain
`list[float]` as input instead of an array type, httptools and uvloop installed so that uvicorn finds them, and ONNX
Runtime on one thread, so that none spins beside the server's core.
"""

import os
import sys

import bentoml
import numpy as np
import onnxruntime as ort

MODEL_PATH = "FOLDSERVE_BENCH_MODEL"


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Predictor:
    """One model."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ[MODEL_PATH], options, providers=["CPUExecutionProvider"])
        self.input_shape = (1, *self.session.get_inputs()[0].shape[1:])

    @bentoml.api
    def predict(self, instance: list[float]) -> dict[str, object]:
        """Label and scores."""
        array = np.array(instance, dtype=np.float32).reshape(self.input_shape)
        scores = self.session.run(["scores"], {"instance": array})[0][0]
        return {"label": str(scores.argmax()), "scores": scores.tolist()}


if __name__ == "__main__":
    os.environ |= {MODEL_PATH: sys.argv[1], "BENTOML_DO_NOT_TRACK": "True"}
    arguments = ["serve", "benchmarks.peers.bentoml:Predictor", "--host", "127.0.0.1", "--port", sys.argv[2]]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *arguments])  # noqa: S606 - a fixed list, no shell
