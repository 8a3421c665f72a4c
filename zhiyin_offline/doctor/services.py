"""The running services beside each other: one contract, one model, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import sqlalchemy as sa
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from sqlalchemy.exc import SQLAlchemyError

from retrieval_service import store_schema as schema
from retrieval_service.named_spaces import SEMANTIC
from service_runtime.errors import ZhiyinError
from zhiyin.encoder.v1 import encoder_service_pb2 as encoder_pb
from zhiyin.encoder.v1 import encoder_service_pb2_grpc as encoder_grpc
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb  # noqa: F401 - its descriptor
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval_pb
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc
from zhiyin_offline.doctor.answers import CALL_S, ask_health, connected
from zhiyin_offline.doctor.diagnosis import Diagnosis, note, ok, problem
from zhiyin_offline.doctor.patient import FULL_NAMES, Patient
from zhiyin_offline.doctor.stores import read_only, store_urls

_SUBJECT = "services"


def check_services(patient: Patient) -> Iterator[Diagnosis]:
    """What can only be known while they run."""
    running = {
        name: address
        for name, address in patient.addresses.items()
        if ask_health(address, FULL_NAMES[name], patient.tls).status == "SERVING"
    }
    for name, address in running.items():
        try:
            with connected(address, patient.tls) as channel:
                yield _same_contract(name, channel)
        except grpc.RpcError as error:
            yield note(_SUBJECT, f"{name} does not tell its contract ({error.code().name})")
    if "encoder" in running:
        yield from _models(patient, running["encoder"])
    if "retrieval" in running:
        yield from _notices(patient, running["retrieval"])


def _same_contract(name: str, channel: grpc.Channel) -> Diagnosis:
    """Compares the protos that the service was built with with those of this command."""
    symbol = FULL_NAMES[name]
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    answer = next(iter(stub.ServerReflectionInfo(iter([request]), timeout=CALL_S)))
    theirs = descriptor_pb2.FileDescriptorProto()
    for each in answer.file_descriptor_response.file_descriptor_proto:
        candidate = descriptor_pb2.FileDescriptorProto.FromString(each)
        if any(f"{candidate.package}.{service.name}" == symbol for service in candidate.service):
            theirs = candidate
    ours = descriptor_pb2.FileDescriptorProto()
    descriptor_pool.Default().FindFileContainingSymbol(symbol).CopyToProto(ours)
    if _shape(theirs) == _shape(ours):
        return ok(_SUBJECT, f"{name} has the contract of this command")
    missing, extra = _shape(ours) - _shape(theirs), _shape(theirs) - _shape(ours)
    parts = [f"{word} {', '.join(sorted(names)[:3])}" for word, names in (("lacks", missing), ("adds", extra)) if names]
    return problem(
        _SUBJECT,
        f"{name} is of another release than this command: it {' and '.join(parts)}",
        "run one release everywhere; encoder first, then retrieval, then ranking",
    )


def _shape(file: descriptor_pb2.FileDescriptorProto) -> set[str]:
    """Methods and fields by name and number."""
    methods = {f"{service.name}.{method.name}" for service in file.service for method in service.method}
    return methods | {f"{each.name}.{field.name}={field.number}" for each in file.message_type for field in each.field}


def _models(patient: Patient, address: str) -> Iterator[Diagnosis]:
    """Whether the encoder serves the model that the vectors of each catalogue were made with."""
    try:
        with connected(address, patient.tls) as channel:
            info = encoder_grpc.EncoderServiceStub(channel).GetModelInfo(
                encoder_pb.GetModelInfoRequest(), timeout=CALL_S
            )
    except grpc.RpcError as error:
        yield problem(_SUBJECT, f"the encoder does not tell its model ({error.code().name})", "see its log")
        return
    yield ok(_SUBJECT, f"the encoder serves {info.model_name}, {info.precision}, on {info.provider}")
    for catalog, fingerprint in _spaces(patient).items():
        if fingerprint == info.space_fingerprint:
            yield ok(_SUBJECT, f"{catalog}: its vectors are of the model that the encoder serves")
        else:
            yield problem(
                _SUBJECT,
                f"{catalog}: its vectors are of another model ({fingerprint[:12]}) than the encoder serves "
                f"({info.space_fingerprint[:12]}): writes and texts are refused (SPACE_MISMATCH)",
                "serve the model it was filled with (`zhiyin up --model`), or import into a new catalogue",
            )


def _spaces(patient: Patient) -> dict[str, str]:
    """The fingerprint of the semantic space of every catalogue, from the store."""
    urls = store_urls(patient)
    if "retrieval" not in urls:
        return {}
    query = (
        sa.select(schema.catalogs.c.name, schema.spaces.c.fingerprint)
        .join(schema.spaces, schema.spaces.c.catalog_id == schema.catalogs.c.catalog_id)
        .where(schema.spaces.c.space == SEMANTIC)
    )
    try:
        with read_only(urls["retrieval"][1]) as connection:
            return {str(name): str(fingerprint) for name, fingerprint in connection.execute(query)}
    except (ZhiyinError, SQLAlchemyError):
        return {}  # told under stores


def _notices(patient: Patient, address: str) -> Iterator[Diagnosis]:
    """What retrieval says of its catalogues: writes that searches do not see, and faults it has mended."""
    try:
        with connected(address, patient.tls) as channel:
            stub = retrieval_grpc.RetrievalServiceStub(channel)
            catalogs = stub.ListCatalogs(retrieval_pb.ListCatalogsRequest(page_size=100), timeout=CALL_S).catalogs
            for catalog in catalogs:
                request = retrieval_pb.GetCatalogStatsRequest(catalog=catalog.name)
                stats = stub.GetCatalogStats(request, timeout=CALL_S)
                behind = stats.sequence - stats.applied_sequence - stats.queued_writes
                if behind > 0:
                    yield problem(
                        _SUBJECT,
                        f"{catalog.name}: searches are {behind} writes behind the store",
                        "look again in a moment; if it stays, see docs/alerts.md, ZhiyinIndexBehind",
                    )
                for text in stats.notices:
                    yield note(_SUBJECT, f"{catalog.name}: {text}", "it was mended; look why if it comes again")
    except grpc.RpcError as error:
        yield problem(_SUBJECT, f"retrieval does not tell its figures ({error.code().name})", "see its log")
