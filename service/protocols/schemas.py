"""What is posted and what comes back in each protocol, as JSON schemas with a model's own shapes, for OpenAPI."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import msgspec

from service.bundle import Feature, Signature, TensorSpec
from service.protocols.descriptions import example_request
from service.protocols.image_requests import image_content, image_schema
from service.protocols.open_inference.datatypes import DATATYPE_OF
from service.protocols.paths import INVOCATIONS, OPEN_INFERENCE, OWN
from service.repository import ServedModel

BYTES: dict[str, Any] = {"type": "string", "format": "binary"}
TOP_K: dict[str, Any] = {
    "name": "top_k",
    "in": "query",
    "description": "give so many labels with their scores, the largest first",
    "schema": {"type": "integer", "minimum": 1},
}


class Wire(NamedTuple):
    """A route's request and answer, as OpenAPI's `content` has them, and its parameters."""

    request: dict[str, Any]
    answer: dict[str, Any]
    parameters: list[dict[str, Any]]


def describe_wire(protocol: str, model: ServedModel) -> Wire:
    """Describe what one protocol carries for a model."""
    signature = model.predictor.signature
    if protocol == OWN:
        pictures = image_content(signature.image) if signature.image else {}
        request = json_content(request_schema(signature), example_request(model))
        return Wire(request | pictures, json_content(answer_schema(signature)), [TOP_K])
    if protocol == OPEN_INFERENCE:
        request = json_content(_tensors_schema(signature), _example_tensors(model))
        return Wire(request | _binary(), json_content(_outputs_schema()) | _binary(), [])
    request = json_content({"type": "object"}, _example_instances(model))
    if protocol == INVOCATIONS:
        texts = {"text/csv": {"schema": {"type": "string"}}, "application/x-npy": {"schema": BYTES}}
        return Wire(request | texts | _binary(), json_content({"type": "object"}) | texts, [])
    return Wire(request, json_content(_rows_schema()), [])


def json_content(schema: dict[str, Any], example: object = None) -> dict[str, Any]:
    """Give a body of JSON as OpenAPI's `content` has it."""
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"application/json": content}


def _binary() -> dict[str, Any]:
    return {"application/octet-stream": {"schema": BYTES}}


# --- the other protocols ---------------------------------------------------------------------------------------------


def _tensors_schema(signature: Signature) -> dict[str, Any]:
    spec = signature.input
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"const": spec.name},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "description": _describe(spec)},
            "datatype": {"const": DATATYPE_OF[spec.dtype]},
            "data": {"type": "array"},
        },
    }
    properties = {"id": {"type": "string"}, "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": 1}}
    return {"type": "object", "required": ["inputs"], "properties": properties}


def _describe(spec: TensorSpec) -> str:
    return f"[instances, {', '.join(map(str, spec.shape))}]"


def _outputs_schema() -> dict[str, Any]:
    tensor = {"type": "object", "required": ["name", "shape", "datatype"]}
    return {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {"outputs": {"type": "array", "items": tensor}},
    }


def _rows_schema() -> dict[str, Any]:
    return {"type": "object", "anyOf": [{"required": ["predictions"]}, {"required": ["outputs"]}]}


def _example_tensors(model: ServedModel) -> dict[str, Any]:
    spec, packed = model.predictor.signature.input, _pack_example(model)
    tensor = {"name": spec.name, "shape": [1, *spec.shape], "datatype": DATATYPE_OF[spec.dtype], "data": packed}
    return {"inputs": [tensor]}


def _pack_example(model: ServedModel) -> list[Any]:
    body = msgspec.json.encode(example_request(model))
    values: list[Any] = model.predictor.reader.decode(body).ravel().tolist()
    return values


def _example_instances(model: ServedModel) -> dict[str, Any]:
    return {"instances": [example_request(model)["instance"]]}


# --- our own ---------------------------------------------------------------------------------------------------------


def request_schema(signature: Signature) -> dict[str, Any]:
    """Give the JSON schema of a request body."""
    numbers = _object({"instance": _instance_schema(signature)})
    return {"oneOf": [numbers, image_schema(signature.image)]} if signature.image else numbers


def answer_schema(signature: Signature) -> dict[str, Any]:
    """Give the JSON schema of a prediction."""
    label = {"type": "string", "enum": list(signature.labels)} if signature.labels else {"type": "integer"}
    scores = _array({"type": "number"}, signature.outputs[0].shape[0])
    version = {"type": ["string", "null"]}
    prediction = _object({"label": label, "scores": scores})
    best = _object({"label": label, "labels": {"type": "array", "items": label}, "scores": {"type": "array"}})
    return _object(
        {
            "prediction": {"oneOf": [prediction, best]},
            "model": _object({"name": {"type": "string"}, "version": version}),
        }
    )


def _instance_schema(signature: Signature) -> dict[str, Any]:
    number = {"type": "integer" if signature.input.dtype == "int64" else "number"}
    if signature.features:
        return _row_schema(signature.features, number)
    flat = _array(number, math.prod(signature.input.shape))
    if len(signature.input.shape) == 1:
        return flat
    nested = number
    for size in reversed(signature.input.shape):
        nested = _array(nested, size)
    return {"oneOf": [flat, nested]}


def _row_schema(features: tuple[Feature, ...], number: dict[str, Any]) -> dict[str, Any]:
    kinds = [_feature_schema(feature, number) for feature in features]
    named = _object({feature.name: kind for feature, kind in zip(features, kinds, strict=True)})
    ordered = {"type": "array", "prefixItems": kinds, "minItems": len(kinds), "maxItems": len(kinds)}
    return {"oneOf": [named, ordered]}


def _feature_schema(feature: Feature, number: dict[str, Any]) -> dict[str, Any]:
    return {"type": "string", "enum": list(feature.categories)} if feature.categories else number


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }


def _array(items: dict[str, Any], size: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": size, "maxItems": size}
