"""`zhiyin doctor` beside the three running services."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.stack import SERVICES, Stack, free_ports, running_stack
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceStub


@pytest.fixture(scope="module")
def deployment(
    minilm_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Stack, dict[str, str]]]:
    """Its folder, the services, and how to reach them."""
    data_dir = tmp_path_factory.mktemp("doctor")
    shutil.copytree(minilm_model_dir, data_dir / "models/minilm")
    ports = free_ports(3)
    flags = [w for name, port in zip(SERVICES, ports, strict=True) for w in (f"--{name}-metrics-port", str(port))]
    with running_stack(data_dir, str(data_dir / "models/minilm"), *flags) as stack:
        with grpc.insecure_channel(stack.retrieval_address) as channel:
            items = [Item(id=f"{n}", title=f"A film about {n} ships") for n in range(3)]
            RetrievalServiceStub(channel).UpsertItems(pb.UpsertItemsRequest(catalog="default", items=items), timeout=60)
        ours = {name: value for name, value in stack.environment().items() if not name.startswith("ZHIYIN_TEST_")}
        addresses = {
            "ZHIYIN_RANKING_ENCODER_ADDRESS": stack.encoder_address,
            "ZHIYIN_RANKING_RETRIEVAL_ADDRESS": stack.retrieval_address,
            "ZHIYIN_RETRIEVAL_ENCODER_ADDRESS": stack.encoder_address,
        }
        yield data_dir, stack, ours | addresses


def _doctor(environment: dict[str, str], *arguments: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "zhiyin_cli", "doctor", "--json", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_deployment_that_is_well(deployment: tuple[Path, Stack, dict[str, str]]) -> None:
    data_dir, stack, environment = deployment
    code, found = _doctor(environment, "--data-dir", str(data_dir))
    assert (code, found["problems"]) == (0, 0), found
    said = {each["what"] for each in found["findings"]}
    assert {each["subject"] for each in found["findings"]} >= {"settings", "tls", "model", "stores", "index", "ports"}
    assert f"ranking serves at {stack.ranking_address}" in said
    assert {f"{name} has the contract of this command" for name in SERVICES} <= said
    assert "default: its vectors are of the model that the encoder serves" in said
    held = [what for what in said if "is held by process" in what]
    assert len(held) == 2
    for line in held:
        os.kill(int(line.rsplit(" ", 1)[1]), 0)


def test_a_catalogue_of_another_model(deployment: tuple[Path, Stack, dict[str, str]], tmp_path: Path) -> None:
    data_dir, _, environment = deployment
    (tmp_path / "retrieval").mkdir()
    with (
        sqlite3.connect(data_dir / "retrieval/items.sqlite3") as source,
        sqlite3.connect(tmp_path / "retrieval/items.sqlite3") as copy,
    ):
        source.backup(copy)
        copy.execute("UPDATE spaces SET fingerprint = 'another-model-entirely'")
    source.close()
    copy.close()
    code, found = _doctor(environment, "--data-dir", str(tmp_path))
    assert (code, found["problems"]) == (1, 1), found
    (sick,) = [each for each in found["findings"] if each["status"] == "problem"]
    assert sick["subject"] == "services"
    assert "SPACE_MISMATCH" in sick["what"]
    assert "zhiyin up --model" in sick["advice"]


def test_addresses_that_were_mixed_up_in_words(deployment: tuple[Path, Stack, dict[str, str]]) -> None:
    data_dir, stack, environment = deployment
    mixed = environment | {"ZHIYIN_ENCODER_ADDRESS": stack.ranking_address, "ZHIYIN_ENCODER_THREADS": "-1"}
    done = subprocess.run(
        [sys.executable, "-m", "zhiyin_cli", "doctor", "--data-dir", str(data_dir)],
        env=mixed,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    at = lines.index(f"problem ports     encoder: another gRPC server listens at {stack.ranking_address}")
    assert lines[at + 1].strip().startswith("-> correct the address")
    assert any(line.startswith("problem settings  encoder: setting threads") for line in lines)
    assert lines[-1] == "2 problems"
