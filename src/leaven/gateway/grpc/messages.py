"""Which messages does the protocol have?

Their classes live in a pool of their own, so that a process which holds another copy of the protocol (the stock client
brings one) can hold this as well: in protobuf's common pool two copies refuse each other.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from leaven.gateway.grpc.descriptors import SET

SERVICE = "inference.GRPCInferenceService"

_pool = DescriptorPool()
for _file in FileDescriptorSet.FromString(SET).file:
    _pool.AddSerializedFile(_file.SerializeToString())


def message(name: str) -> Any:
    """Return the class of a message of the package `inference`."""
    return GetMessageClass(_pool.FindMessageTypeByName(f"inference.{name}"))


def methods() -> dict[str, tuple[Any, Any]]:
    """Return the service's methods: by name, the classes of what each takes and gives."""
    service = _pool.FindServiceByName(SERVICE)
    return {
        method.name: (GetMessageClass(method.input_type), GetMessageClass(method.output_type))
        for method in service.methods
    }


InferResponse = message("ModelInferResponse")
