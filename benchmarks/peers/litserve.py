"""LitServe, as its documentation shows it: a LitAPI with setup, decode_request, predict and encode_response.

`python -m benchmarks.peers.litserve <model.onnx> <port>`, in an environment of its own. One worker, one API server.
In its favour: `fast_queue`, which its documentation recommends for throughput (ZeroMQ instead of a manager's queue),
no client file, warnings only in its log, and ONNX Runtime on one thread, so that none spins beside the server's core.
"""

import sys

import litserve
import numpy as np
import onnxruntime as ort


class Api(litserve.LitAPI):
    """One model."""

    def __init__(self, model_path: str) -> None:
        super().__init__()
        self.model_path = model_path

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Open the model, in the worker process."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(self.model_path, options, providers=["CPUExecutionProvider"])
        self.input_shape = (1, *self.session.get_inputs()[0].shape[1:])

    def decode_request(self, request: dict[str, list[float]]) -> np.ndarray:
        """Make an array of a request's JSON."""
        return np.array(request["instance"], dtype=np.float32).reshape(self.input_shape)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Scores, float32 [labels]."""
        return self.session.run(["scores"], {"instance": x})[0][0]  # type: ignore[no-any-return]

    def encode_response(self, output: np.ndarray) -> dict[str, object]:
        """Label and scores."""
        return {"label": str(output.argmax()), "scores": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(sys.argv[1]), accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, log_level="warning", generate_client_file=False
    )
