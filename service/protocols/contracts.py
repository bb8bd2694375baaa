"""All protocols of one model version, by name: where a new one is put in."""

from __future__ import annotations

from service.protocols.contract import Contract
from service.protocols.invocations import Invocations
from service.protocols.open_inference.contract import OpenInference
from service.protocols.paths import GRPC, INVOCATIONS, OPEN_INFERENCE, OWN, TENSORFLOW, VERTEX
from service.protocols.predict import Endpoint
from service.protocols.tensorflow import TensorFlowServing
from service.protocols.vertex import VertexAI
from service.repository import ServedModel


def create_contracts(model: ServedModel, *, grpc: bool = False) -> dict[str, Contract]:
    """Create a model version's contracts; gRPC's only where it is wanted, as it needs protobuf."""
    return {
        OWN: Endpoint(model),
        OPEN_INFERENCE: OpenInference(model),
        TENSORFLOW: TensorFlowServing(model),
        INVOCATIONS: Invocations(model),
        VERTEX: VertexAI(model),
        **(_create_grpc(model) if grpc else {}),
    }


def _create_grpc(model: ServedModel) -> dict[str, Contract]:
    from service.open_inference_grpc.contract import OpenInferenceGrpc

    return {GRPC: OpenInferenceGrpc(model)}
