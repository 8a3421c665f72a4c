"""What `zhiyin doctor` says of what answers, or does not, where the services should be."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tests.certificates import Authority
from tests.zhiyin_offline.doctor.conftest import notes, only, patient, problems
from zhiyin.ranking.v1 import ranking_service_pb2
from zhiyin_offline.doctor.clocks import check_clocks
from zhiyin_offline.doctor.patient import FULL_NAMES
from zhiyin_offline.doctor.ports import check_ports
from zhiyin_offline.doctor.services import check_services


@contextmanager
def _healthy(full_name: str, serving: bool = True, pool: Any = None, tls: Any = None) -> Iterator[str]:
    """A gRPC server that says it is a service."""
    servicer = health.HealthServicer()
    status = health_pb2.HealthCheckResponse
    servicer.set(full_name, status.SERVING if serving else status.NOT_SERVING)
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection((full_name,), server, pool=pool)
    port = server.add_secure_port("127.0.0.1:0", tls) if tls else server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_free_ports_are_worth_a_note_only() -> None:
    found = list(check_ports(patient()))
    assert problems(found) == []
    assert any("ranking: nobody listens" in each for each in notes(found))


def test_another_program_on_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_hang_up, args=(listener,), daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        found = only(problems(check_ports(patient(addresses={"ranking": address}))))
        listener.shutdown(socket.SHUT_RDWR)
    assert f"what listens at {address} does not answer as ours" in found


def _hang_up(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.close()


def test_addresses_that_were_mixed_up() -> None:
    with _healthy(FULL_NAMES["retrieval"]) as address:
        found = only(problems(check_ports(patient(addresses={"ranking": address}))))
    assert f"another gRPC server listens at {address} -> correct the address" in found


def test_a_service_that_is_not_ready() -> None:
    with _healthy(FULL_NAMES["encoder"], serving=False) as address:
        assert "says NOT_SERVING" in only(problems(check_ports(patient(addresses={"encoder": address}))))


def test_the_address_by_which_ranking_calls_retrieval() -> None:
    with _healthy(FULL_NAMES["encoder"]) as address:
        found = only(problems(check_ports(patient(ZHIYIN_RANKING_RETRIEVAL_ADDRESS=address))))
    assert found.startswith("retrieval, as ranking calls it,: another gRPC server")


def test_an_encoder_with_tls_of_another_authority(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    cert, key = ours.issue("encoder")
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
    with _healthy(FULL_NAMES["encoder"], tls=credentials) as address:
        by = {"ZHIYIN_RETRIEVAL_ENCODER_ADDRESS": address, "ZHIYIN_RANKING_ENCODER_ADDRESS": address}
        good = by | {
            "ZHIYIN_RETRIEVAL_ENCODER_TLS_CA_FILE": str(ours.file),
            "ZHIYIN_RANKING_DEPENDENCY_TLS_CA_FILE": str(ours.file),
        }
        assert problems(check_ports(patient(**good))) == []
        found = problems(check_ports(patient(**good | {"ZHIYIN_RETRIEVAL_ENCODER_TLS_CA_FILE": str(theirs.file)})))
    assert only(found).startswith("encoder, as retrieval calls it,")
    assert "with the CA of its certificate" in found[0]


# ---- releases


def _older_contract() -> descriptor_pool.DescriptorPool:
    """Ranking as it was before it could explain."""
    pool, done = descriptor_pool.DescriptorPool(), set()

    def add(file: Any) -> None:
        if file.name in done:
            return
        done.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        proto = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(proto)
        for service in proto.service:
            kept = [method for method in service.method if method.name != "Explain"]
            del service.method[:]
            service.method.extend(kept)
        pool.Add(proto) if hasattr(pool, "Add") else pool.AddSerializedFile(proto.SerializeToString())

    add(ranking_service_pb2.DESCRIPTOR)
    return pool


def test_a_service_of_another_release() -> None:
    name = FULL_NAMES["ranking"]
    with _healthy(name) as same, _healthy(name, pool=_older_contract()) as older:
        assert problems(check_services(patient(addresses={"ranking": same}))) == []
        found = only(problems(check_services(patient(addresses={"ranking": older}))))
    assert "ranking is of another release than this command: it lacks RankingService.Explain" in found


# ---- clocks


@pytest.mark.parametrize(("skew_s", "told"), [(0.0, None), (3600.0, "3600 s ahead of"), (-90.0, "90 s behind")])
def test_a_clock_that_is_wrong(skew_s: float, told: str | None) -> None:
    class Metrics(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", formatdate(time.time() + skew_s, usegmt=True))
            self.end_headers()

    server = http.server.HTTPServer(("127.0.0.1", 0), Metrics)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        port = server.server_address[1]
        found = list(check_clocks(patient(ZHIYIN_RANKING_METRICS_PORT=str(port))))
    finally:
        server.shutdown()
        server.server_close()
    if told is None:
        assert [each.status for each in found] == ["ok"]
    else:
        # The header has whole seconds, and time goes on.
        assert any(str(int(told.split()[0]) + off) in only(problems(found)) for off in (-1, 0, 1, 2))
        assert told.split(" ", 2)[2] in only(problems(found))
