"""MLServer, as its documentation shows it: an MLModel with `load` and `predict`, asked by its V2 protocol.

`python -m benchmarks.peers.mlserver <model.onnx> <port>`, in an environment of its own, is `mlserver start`. In its
favour: no inference pool (`parallel_workers: 0`: the model runs in the server's process, no hop), metrics, debug log
and compression off, httptools installed so that uvicorn finds it, and ONNX Runtime on one thread, so that none spins
beside the server's core.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
from mlserver import MLModel, types
from mlserver.cli.main import root as main
from mlserver.codecs import NumpyCodec

NAME = "model"


class Predictor(MLModel):
    """One model."""

    async def load(self) -> bool:
        """Open the model."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        path = self.settings.parameters.uri
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input_shape = (1, *self.session.get_inputs()[0].shape[1:])
        return True

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        """Scores, float32 [1, labels]."""
        instance = NumpyCodec.decode_input(payload.inputs[0]).reshape(self.input_shape).astype(np.float32, copy=False)
        scores = self.session.run(["scores"], {"instance": instance})[0]
        outputs = [NumpyCodec.encode_output("scores", scores)]
        return types.InferenceResponse(model_name=self.name, outputs=outputs)


def write_settings(folder: Path, model_path: str, port: int) -> None:
    """Write what `mlserver start` reads from a folder."""
    server = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": 0,
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "debug": False,
        "use_structured_logging": False,
        "gzip_enabled": False,
    }
    model = {
        "name": NAME,
        "implementation": "benchmarks.peers.mlserver.Predictor",
        "parameters": {"uri": model_path, "version": "1"},
    }
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(model))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="foldserve-mlserver-") as folder:
        write_settings(Path(folder), sys.argv[1], int(sys.argv[2]))
        main(["start", folder])
