"""`zhiyin check`, `backup` and `restore` on the state of real services: faults are found, what was kept comes back."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from benchmarks.stack import Stack, running_stack
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceStub
from zhiyin_offline.upkeep.check import check_ranking, check_retrieval
from zhiyin_offline.upkeep.findings import Report
from zhiyin_offline.upkeep.locations import Locations

BATCH = 5
GRAPH_FROM = "60"


def zhiyin(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zhiyin_cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={"PATH": "", "COLUMNS": "200"})


@dataclass
class Written:
    """What a writer was told before and after a moment."""

    items: dict[str, str] = field(default_factory=dict)
    events: set[str] = field(default_factory=set)
    revisions: dict[str, int] = field(default_factory=dict)
    token: str = ""


def write(stack: Stack, number: int, written: Written) -> None:
    """A batch of items and one of events about them; noted once both are acknowledged."""
    ids = [f"item-{number % 40}-{i}" for i in range(BATCH)]
    items = [Item(id=name, title=f"thing {name}", text=f"version {number} of thing {name}") for name in ids]
    with grpc.insecure_channel(stack.retrieval_address) as channel:
        reply = RetrievalServiceStub(channel).UpsertItems(
            retrieval.UpsertItemsRequest(catalog="default", items=items), timeout=30
        )
    written.items.update({item.id: item.text for item in items})
    written.revisions.update({result.item_id: result.revision for result in reply.results})
    events = [
        ranking.Event(
            event_id=f"event-{number}-{i}", user_id=f"user-{number % 7}", item_id=name, type=ranking.EVENT_TYPE_LIKE
        )
        for i, name in enumerate(ids)
    ]
    for event in events:
        event.time.FromSeconds(1_790_000_000 + number)
    with grpc.insecure_channel(stack.ranking_address) as channel:
        answer = RankingServiceStub(channel).RecordEvents(
            ranking.RecordEventsRequest(catalog="default", events=events), timeout=30
        )
    written.events.update(event.event_id for event in events)
    written.token = answer.consistency_token


def put_rule(stack: Stack, rule_id: str) -> None:
    rule = ranking.Rule(id=rule_id, action=ranking.RULE_ACTION_COLLAPSE, similarity=0.99)
    with grpc.insecure_channel(stack.ranking_address) as channel:
        RankingServiceStub(channel).PutRule(ranking.PutRuleRequest(catalog="default", rule=rule), timeout=30)


@dataclass
class Scene:
    """A backup that was taken under writes, and the data folder as its services left it when they were stopped."""

    stopped: Path
    backup: Path
    before: Written
    later: Written
    live_check: subprocess.CompletedProcess[str]
    refused_restore: subprocess.CompletedProcess[str]
    refused_repair: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def scene(minilm_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("upkeep")
    data, backup = folder / "data", folder / "backup"
    before, later = Written(), Written()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZHIYIN_RETRIEVAL_GRAPH_MIN_VECTORS", GRAPH_FROM)
        with running_stack(data, str(minilm_model_dir)) as stack:
            for number in range(60):
                write(stack, number, before)
            put_rule(stack, "kept")
            stop = threading.Event()

            def go_on() -> None:
                number = 60
                while not stop.is_set():
                    write(stack, number, later)
                    number += 1

            writer = threading.Thread(target=go_on)
            writer.start()
            address = ["--retrieval-address", stack.retrieval_address]
            try:
                taken = zhiyin("backup", str(backup), "--data-dir", str(data))
                assert taken.returncode == 0, taken.stderr
                live = zhiyin("check", "--data-dir", str(data), *address)
            finally:
                stop.set()
                writer.join()
            write(stack, 10_000, later)
            put_rule(stack, "after the backup")
            refused = zhiyin("restore", str(backup), "--data-dir", str(data), "--replace")
            repair = zhiyin("check", "--data-dir", str(data), "--repair", *address)
    yield Scene(data, backup, before, later, live, refused, repair)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def data(scene: Scene, tmp_path: Path) -> Path:
    """A copy of the stopped services' folder, to be harmed."""
    return Path(shutil.copytree(scene.stopped, tmp_path / "data", ignore=shutil.ignore_patterns("models", "logs")))


def test_a_check_beside_services_that_write_finds_nothing_wrong(scene: Scene) -> None:
    assert scene.live_check.returncode == 0, scene.live_check.stdout
    said = re.search(
        r"index in service, .*: (\d+) vectors as in the store(?:, (\d+) written meanwhile)?", scene.live_check.stdout
    )
    assert said is not None, scene.live_check.stdout
    compared, meanwhile = int(said[1]), int(said[2] or 0)
    assert compared > 0
    assert compared + meanwhile == 200


def test_what_a_service_works_on_is_neither_restored_nor_repaired(scene: Scene) -> None:
    assert scene.refused_restore.returncode == 1
    assert "another process works on" in scene.refused_restore.stderr
    assert scene.refused_repair.returncode == 1
    assert "stop them" in scene.refused_repair.stderr


def test_a_check_of_what_stopped_services_left_proves_snapshot_and_statistics(data: Path) -> None:
    done = zhiyin("check", "--data-dir", str(data))
    assert done.returncode == 0, done.stdout
    assert "vectors as in the store at write" in done.stdout
    assert "pairs of user and item as a recount of the log says" in done.stdout
    assert "user store, catalogue default: 2 rules" in done.stdout


def sql(file: str, statement: str) -> Callable[[Path], None]:
    def harm(data: Path) -> None:
        with sqlite3.connect(data / file) as connection:
            assert connection.execute(statement).rowcount > 0
        connection.close()

    return harm


def flip_a_byte(pattern: str) -> Callable[[Path], None]:
    def harm(data: Path) -> None:
        (file,) = data.glob(pattern)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)

    return harm


ITEMS, USERS = "retrieval/items.sqlite3", "ranking/users.sqlite3"
SOME = "(SELECT {0} FROM {1} ORDER BY {0} LIMIT 1)"
# What is done to the state, what the check says of it, and whether it can be made anew.
HARM = {
    "count of vectors": (sql(ITEMS, "UPDATE spaces SET vector_count = vector_count + 1"), "it says that it has", True),
    "sum of vectors": (sql(ITEMS, "UPDATE spaces SET vector_total = zeroblob(3072)"), "their sum is another", True),
    "snapshot damaged": (flip_a_byte("retrieval/snapshots/*/*/matrix.npy"), "another checksum", True),
    "snapshot differs": (
        sql(ITEMS, f"UPDATE vectors SET data = (SELECT data FROM vectors ORDER BY number DESC LIMIT 1) "
                   f"WHERE number = {SOME.format('number', 'vectors')}"),
        "1 vectors are missing or others",
        True,
    ),
    "statistics damaged": (flip_a_byte("ranking/statistics/*.statistics"), "its checksum does not match", True),
    "statistics differ": (
        sql(USERS, "DELETE FROM events WHERE sequence = (SELECT max(sequence) FROM events)"),
        "they differ from a recount",
        True,
    ),
    "count of events": (sql(USERS, "UPDATE users SET event_count = 0"), "7 users with a wrong count of events", True),
    "vector lost": (
        sql(ITEMS, f"DELETE FROM vectors WHERE number = {SOME.format('number', 'vectors')}"),
        "1 items without a vector",
        False,
    ),
    "other words": (sql(ITEMS, "UPDATE items SET passage_hash = zeroblob(16)"), "200 items with other words", False),
    "write of the future": (
        sql(ITEMS, "UPDATE catalog_head SET seq = 1"), "rows of items after the last write", False
    ),
    "rule damaged": (sql(USERS, "UPDATE rules SET payload = x'0aff'"), "2 rules that cannot be read", False),
    "rule unheard of": (sql(USERS, "UPDATE catalogs SET rules_sequence = 0"), "rules after the last write", False),
    "events of nobody": (
        sql(USERS, f"DELETE FROM users WHERE user_key = {SOME.format('user_key', 'users')}"), "events of nobody", False
    ),
}  # fmt: skip


def checked(data: Path, *, repair: bool = False) -> Report:
    report = Report()
    check_retrieval(Locations(data), report, repair=repair)
    check_ranking(Locations(data), report, 30 * 86_400.0, repair=repair)
    return report


def test_the_command_says_what_can_be_repaired_repairs_it_and_says_what_cannot(data: Path) -> None:
    HARM["count of events"][0](data)
    found = zhiyin("check", "--data-dir", str(data))
    assert found.returncode == 1
    assert "REPAIRABLE: --repair  user store, catalogue default: 7 users with a wrong count" in found.stdout
    repaired = zhiyin("check", "--data-dir", str(data), "--repair")
    assert repaired.returncode == 0
    assert "repaired  user store" in repaired.stdout
    HARM["other words"][0](data)
    damaged = zhiyin("check", "--data-dir", str(data), "--repair")
    assert damaged.returncode == 1
    assert "DAMAGED  item store, catalogue default: 200 items with other words" in damaged.stdout


@pytest.mark.parametrize("harm", HARM)
def test_what_does_not_agree_is_found_and_repaired_where_it_can_be(harm: str, data: Path) -> None:
    do, said, repairable = HARM[harm]
    do(data)
    found = checked(data)
    assert any(said in finding.what for finding in found.findings), found
    assert all(finding.derived for finding in found.findings) == repairable, found
    assert checked(data, repair=True).healthy == repairable
    assert (checked(data).findings == []) == repairable


def test_a_restored_backup_has_all_that_was_acknowledged_before_it_and_serves(
    scene: Scene, minilm_model_dir: Path, tmp_path: Path
) -> None:
    data = tmp_path / "restored"
    done = zhiyin("restore", str(scene.backup), "--data-dir", str(data))
    assert done.returncode == 0, done.stderr
    with running_stack(data, str(minilm_model_dir)) as stack:
        with grpc.insecure_channel(stack.retrieval_address) as channel:
            stub = RetrievalServiceStub(channel)
            listed = stub.ListItems(retrieval.ListItemsRequest(catalog="default", page_size=1000), timeout=20).items
            stored = {item.id: item for item in listed}
        versions: dict[str, set[str]] = {}
        for name, text in scene.before.items.items():
            number = int(stored[name].text.split()[1])
            assert number >= int(text.split()[1]), "older than what was acknowledged"
            versions.setdefault(name.split("-")[1], set()).add(str(number))
        assert all(len(found) == 1 for found in versions.values()), "half of a write"
        after = Written()
        with grpc.insecure_channel(stack.ranking_address) as channel:
            stub = RankingServiceStub(channel)
            exported = {
                event.event_id
                for user in range(7)
                for part in stub.ExportUser(
                    ranking.ExportUserRequest(catalog="default", user_id=f"user-{user}"), timeout=20
                )
                for event in part.events.events
            }
            rules = stub.ListRules(ranking.ListRulesRequest(catalog="default"), timeout=20).rules
            assert [(rule.id, rule.similarity) for rule in rules] == [("kept", 0.99)]
            assert scene.before.events <= exported
            assert exported < scene.before.events | scene.later.events, "what came after the backup is not there"
            request = ranking.RecommendRequest(catalog="default", user_id="user-1", consistency_token=scene.later.token)
            with pytest.raises(grpc.RpcError) as refusal:
                stub.Recommend(request, timeout=20)
            assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION, "a token of the lost time"
            write(stack, 20_000, after)
            request.consistency_token = after.token
            assert stub.Recommend(request, timeout=20).items
        highest = max([*scene.before.revisions.values(), *scene.later.revisions.values()])
        assert min(after.revisions.values()) > 0
        with grpc.insecure_channel(stack.retrieval_address) as channel:
            fresh = RetrievalServiceStub(channel).UpsertItems(
                retrieval.UpsertItemsRequest(catalog="default", items=[Item(id="new", title="a new one")]), timeout=20
            )
        assert fresh.results[0].revision > highest, "a revision of the lost time would come again"
    assert zhiyin("check", "--data-dir", str(data)).returncode == 0


def test_a_restore_refuses_what_is_damaged_and_where_something_is(scene: Scene, data: Path, tmp_path: Path) -> None:
    there = zhiyin("restore", str(scene.backup), "--data-dir", str(data))
    assert there.returncode == 1
    assert "--replace" in there.stderr
    backup = Path(shutil.copytree(scene.backup, tmp_path / "backup"))
    flip_a_byte("retrieval/items.sqlite3")(backup)
    damaged = zhiyin("restore", str(backup), "--data-dir", str(tmp_path / "new"))
    assert damaged.returncode == 1
    assert "another checksum" in damaged.stderr
    assert not (tmp_path / "new" / "retrieval" / "items.sqlite3").exists()
    manifest = json.loads((backup / "manifest.json").read_text())
    (backup / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    newer = zhiyin("restore", str(backup), "--data-dir", str(tmp_path / "new"))
    assert "has format 2; this release reads 1" in newer.stderr


def test_replacing_puts_the_old_state_aside(scene: Scene, data: Path) -> None:
    old = (data / "ranking" / "users.sqlite3").read_bytes()
    done = zhiyin("restore", str(scene.backup), "--data-dir", str(data), "--replace")
    assert done.returncode == 0, done.stderr
    (aside,) = data.glob("replaced-*")
    assert (aside / "ranking" / "users.sqlite3").read_bytes() == old
    assert zhiyin("check", "--data-dir", str(data)).returncode == 0
