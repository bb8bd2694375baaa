"""mosec, as its documentation shows it: a Worker whose `forward` takes decoded JSON, behind a server in Rust.

`python -m benchmarks.peers.mosec <model.onnx> <port>`, in an environment of its own. One worker, no batching (a batch
would have to wait for its members). In its favour: warnings only in its log, a timeout that no request reaches, and
ONNX Runtime on one thread, so that none spins beside the server's core.
"""

import os
import sys

import numpy as np
import onnxruntime as ort
from mosec import Server, Worker

MODEL_PATH = "FOLDSERVE_BENCH_MODEL"


class Predictor(Worker):
    """One model, in a process of its own."""

    def __init__(self) -> None:
        super().__init__()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ[MODEL_PATH], options, providers=["CPUExecutionProvider"])
        self.input_shape = (1, *self.session.get_inputs()[0].shape[1:])

    def forward(self, data: dict[str, list[float]]) -> dict[str, object]:
        """Label and scores."""
        instance = np.array(data["instance"], dtype=np.float32).reshape(self.input_shape)
        scores = self.session.run(["scores"], {"instance": instance})[0][0]
        return {"label": str(scores.argmax()), "scores": scores.tolist()}


if __name__ == "__main__":
    os.environ[MODEL_PATH] = sys.argv[1]
    # mosec reads its options from the command line.
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", sys.argv[2], "--log-level", "warning", "--timeout", "30000"]
    server = Server()
    server.append_worker(Predictor, num=1)
    server.run()
