"""The protocol's messages, made from their descriptors: no generated code, and no names that another copy could take.

The descriptors live in a pool of their own. So a process that also has a client's copy of the same protocol in it has
no two definitions of one name, which protobuf's common pool refuses.

`descriptors.binpb` is generated from the `.proto` files beside it, in this directory, by protoc, of any version:

    python -m grpc_tools.protoc -I . --descriptor_set_out=descriptors.binpb *.proto
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from service.errors import BodyMalformed

DESCRIPTORS = "descriptors.binpb"
INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"


@cache
def load_pool() -> DescriptorPool:
    """Load the descriptors of all messages and services."""
    packed = resources.files(__package__).joinpath(DESCRIPTORS).read_bytes()
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(packed).file:
        pool.Add(file)
    return pool


@cache
def message_type(name: str) -> Any:
    """Give the class of a message, such as `inference.ModelInferRequest`."""
    return GetMessageClass(load_pool().FindMessageTypeByName(name))


@cache
def types_of_call(service: str, call: str) -> tuple[Any, Any]:
    """Give the classes of what a call takes and gives."""
    method = load_pool().FindServiceByName(service).methods_by_name[call]
    return message_type(method.input_type.full_name), message_type(method.output_type.full_name)


def parse(kind: Any, body: bytes) -> Any:
    """Read a message.

    Raises:
        BodyMalformed: the bytes are no such message.
    """
    try:
        return kind.FromString(body)
    except DecodeError as err:
        name = kind.DESCRIPTOR.name
        raise BodyMalformed(
            f"the message: expected a {name}, got {len(body)} bytes that are none",
            field="the message",
            expected=f"a {name}",
            got=f"{len(body)} bytes",
        ) from err
