"""Every RPC of the contract is served, and none says that it cannot work yet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from zhiyin.encoder.v1 import encoder_service_pb2
from zhiyin.ranking.v1 import ranking_service_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2

ROOT = Path(__file__).parents[2]
# An empty request is complete for these; a stream answers an empty batch with an error of its own.
ANSWER_EMPTY = {"GetLimits", "GetModelInfo", "ListCatalogs", "EmbedStream", "ImportItems", "StreamEvents"}
SERVICES: dict[str, ServiceDescriptor] = {
    "encoder": encoder_service_pb2.DESCRIPTOR.services_by_name["EncoderService"],
    "retrieval": retrieval_service_pb2.DESCRIPTOR.services_by_name["RetrievalService"],
    "ranking": ranking_service_pb2.DESCRIPTOR.services_by_name["RankingService"],
}
METHODS = [(kind, method) for kind, service in SERVICES.items() for method in service.methods]


def call(address: str, method: MethodDescriptor) -> Iterator[Any]:
    """Calls a method by its descriptor with one empty request."""
    request = message_factory.GetMessageClass(method.input_type)()
    answer = message_factory.GetMessageClass(method.output_type)
    path = f"/{method.containing_service.full_name}/{method.name}"
    shape = (
        ("stream" if method.client_streaming else "unary") + "_" + ("stream" if method.server_streaming else "unary")
    )
    with grpc.insecure_channel(address, options=[("grpc.enable_retries", 0)]) as channel:
        make = getattr(channel, shape)
        invoke = make(path, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString)
        result = invoke(iter([request]) if method.client_streaming else request, timeout=10)
        yield from result if method.server_streaming else [result]


@pytest.mark.parametrize(("kind", "method"), METHODS, ids=lambda value: getattr(value, "name", value))
def test_an_empty_request_is_answered_or_refused_by_name(
    kind: str, method: MethodDescriptor, zhiyin_stack: Any
) -> None:
    address = getattr(zhiyin_stack, f"{kind}_address")
    if method.name in ANSWER_EMPTY:
        assert list(call(address, method))
        return
    with pytest.raises(grpc.RpcError) as refused:
        list(call(address, method))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, refused.value.details()
    status = rpc_status.from_call(refused.value)
    assert status is not None, "a refusal without details"
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "zhiyin"


@pytest.mark.parametrize(("kind", "method"), METHODS, ids=lambda value: getattr(value, "name", value))
def test_bytes_that_are_no_message_are_invalid_everywhere(
    kind: str, method: MethodDescriptor, zhiyin_stack: Any
) -> None:
    path = f"/{method.containing_service.full_name}/{method.name}"
    broken = b"\x0a\xff\xff"
    sends = [b"", broken]  # in a stream, after a batch that can be read
    shape = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"

    def answers(channel: grpc.Channel) -> list[bytes]:
        call = getattr(channel, shape)(path)
        result = call(iter(sends) if method.client_streaming else broken, timeout=10)
        return list(result) if method.server_streaming else [result]

    address = getattr(zhiyin_stack, f"{kind}_address")
    options = [("grpc.enable_retries", 0)]
    with grpc.insecure_channel(address, options) as channel, pytest.raises(grpc.RpcError) as refused:
        answers(channel)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, refused.value.details()


def test_no_rpc_says_that_it_cannot_work_yet() -> None:
    said = set()
    for path in (ROOT / "protos").rglob("*_service.proto"):
        comment = ""
        for line in path.read_text().splitlines():
            stripped = line.strip()
            if stripped.startswith("//"):
                comment += stripped
            elif match := re.match(r"rpc (\w+)\(", stripped):
                if "UNIMPLEMENTED in this release" in comment:
                    said.add(match[1])
                comment = ""
            else:
                comment = ""
    assert said == set()
