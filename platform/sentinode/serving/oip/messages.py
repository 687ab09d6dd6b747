"""The protobuf messages of ``inference.GRPCInferenceService``, made from their description when first asked for.

Generated modules are tied to the protobuf release that made them; these work with whichever is installed. They live
in a pool of their own, so a client that brings the same names (tritonclient) can be imported beside them. Numbers and
types are those of KServe's ``open_inference_grpc.proto`` and of Triton's ``model_config.proto``. Two things are
written otherwise and are the same bytes: a map is a repeated entry, and an enumeration a number.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE: Final = "inference"
SERVICE: Final = f"{PACKAGE}.GRPCInferenceService"
METHODS: Final = (
    "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelInfer",
    "RepositoryIndex",
)  # fmt: skip
_FIELD: Final = re.compile(r"(repeated )?(\w+) (\w+) = (\d+);")
_MESSAGES: Final = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live = 1;",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready = 1;",
    "ModelReadyRequest": "string name = 1; string version = 2;",
    "ModelReadyResponse": "bool ready = 1;",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name = 1; string version = 2; repeated string extensions = 3;",
    "ModelMetadataRequest": "string name = 1; string version = 2;",
    "TensorMetadata": "string name = 1; string datatype = 2; repeated int64 shape = 3;",
    "ModelMetadataResponse": """
        string name = 1; repeated string versions = 2; string platform = 3;
        repeated TensorMetadata inputs = 4; repeated TensorMetadata outputs = 5;
    """,
    "ModelConfigRequest": "string name = 1; string version = 2;",
    "ModelInput": "string name = 1; int32 data_type = 2; repeated int64 dims = 4; bool optional = 8;",
    "ModelOutput": "string name = 1; int32 data_type = 2; repeated int64 dims = 3;",
    "ModelConfig": """
        string name = 1; string platform = 2; int32 max_batch_size = 4; repeated ModelInput input = 5;
        repeated ModelOutput output = 6; string backend = 17;
    """,
    "ModelConfigResponse": "ModelConfig config = 1;",
    "RepositoryIndexRequest": "string repository_name = 1; bool ready = 2;",
    "ModelIndex": "string name = 1; string version = 2; string state = 3; string reason = 4;",
    "RepositoryIndexResponse": "repeated ModelIndex models = 1;",
    "InferParameter": """
        bool bool_param = 1; int64 int64_param = 2; string string_param = 3; double double_param = 4;
        uint64 uint64_param = 5;
    """,
    "Parameter": "string key = 1; InferParameter value = 2;",
    "InferTensorContents": """
        repeated bool bool_contents = 1; repeated int32 int_contents = 2; repeated int64 int64_contents = 3;
        repeated uint32 uint_contents = 4; repeated uint64 uint64_contents = 5; repeated float fp32_contents = 6;
        repeated double fp64_contents = 7; repeated bytes bytes_contents = 8;
    """,
    "InferInputTensor": """
        string name = 1; string datatype = 2; repeated int64 shape = 3; repeated Parameter parameters = 4;
        InferTensorContents contents = 5;
    """,
    "InferRequestedOutputTensor": "string name = 1; repeated Parameter parameters = 2;",
    "ModelInferRequest": """
        string model_name = 1; string model_version = 2; string id = 3; repeated Parameter parameters = 4;
        repeated InferInputTensor inputs = 5; repeated InferRequestedOutputTensor outputs = 6;
        repeated bytes raw_input_contents = 7;
    """,
    "InferOutputTensor": "string name = 1; string datatype = 2; repeated int64 shape = 3;",
    "ModelInferResponse": """
        string model_name = 1; string model_version = 2; string id = 3; repeated Parameter parameters = 4;
        repeated InferOutputTensor outputs = 5; repeated bytes raw_output_contents = 6;
    """,
}
RAW_INPUT_CONTENTS: Final = 7
TRITON_TYPES: Final = {"TYPE_BOOL": 1, "TYPE_UINT8": 2, "TYPE_FP32": 11, "TYPE_STRING": 13}
"""Of ``model_config.proto``'s enumeration ``DataType``."""


@cache
def message(name: str) -> Any:
    """The class of a message."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="sentinode/oip.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for repeated, kind, field_name, number in _FIELD.findall(fields):
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            one = described.field.add(name=field_name, number=int(number), label=label)
            if kind in _MESSAGES:
                one.type, one.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
            else:
                one.type = field.Type.Value(f"TYPE_{kind.upper()}")
    # InferParameter's fields exclude each other, and 0 and "" are values of them.
    choice = next(one for one in file.message_type if one.name == "InferParameter")
    choice.oneof_decl.add(name="parameter_choice")
    for one in choice.field:
        one.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool
