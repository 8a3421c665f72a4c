"""A disk that is full or takes no writes: refused with a reason, nothing lost, reads go on, well again by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from tests.durability.kill_rounds import ServiceProcess, service_process
from tests.durability.small_disk import failing_disk, small_disk
from tests.ranking_service.user_side_harness import event
from tests.retrieval_service.fake_encoder_server import FakeEncoder, running_fake_encoder
from tests.retrieval_service.retrieval_harness import item, many_items, running_retrieval
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceStub

_MOST_WRITES = 600  # far more than the free pages of a write-ahead log can take
BOTH = ("retrieval", "ranking")
RETRIEVAL_SHORT = ("retrieval", pytest.param("ranking", marks=pytest.mark.long))
RANKING_SHORT = (pytest.param("retrieval", marks=pytest.mark.long), "ranking")


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The stable reason of a refusal, which has to say when to try again."""
    status = rpc_status.from_call(error)
    assert status is not None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert any(detail.Unpack(retry) for detail in status.details)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    return info.reason


class Subject(Protocol):
    """One service and how a test writes to it and looks at what it holds."""

    data: Path
    module: str

    @property
    def flags(self) -> list[str]:
        """Of the command line."""
        ...

    async def write(self, service: ServiceProcess, number: int) -> None:
        """One write of about 30 kB."""
        ...

    async def held(self, service: ServiceProcess) -> set[int]:
        """Numbers of the writes that are there, each wholly."""
        ...

    async def serves(self, service: ServiceProcess) -> None:
        """Asks for what callers live on, which has to be answered whatever the disk does."""
        ...


@dataclass
class Items:
    """Retrieval."""

    data: Path
    encoder: str
    module: str = "retrieval_service"

    @property
    def flags(self) -> list[str]:
        graph = ["--graph-min-vectors", "60", "--snapshot-every-writes", "40"]
        return ["--data-dir", str(self.data), "--encoder-address", self.encoder, *graph]

    async def write(self, service: ServiceProcess, number: int) -> None:
        items = [item(f"{number}-{i}", f"title {number} {i}", text=f"{number} {i}" + "x" * 3000) for i in range(8)]
        stub = RetrievalServiceStub(service.channel)
        await stub.UpsertItems(pb.UpsertItemsRequest(catalog="default", items=items), timeout=20)

    async def held(self, service: ServiceProcess) -> set[int]:
        stub = RetrievalServiceStub(service.channel)
        counts: dict[int, int] = {}
        token = ""
        while True:
            page = await stub.ListItems(
                pb.ListItemsRequest(catalog="default", page_size=500, page_token=token), timeout=20
            )
            for stored in page.items:
                number = int(stored.id.split("-")[0])
                counts[number] = counts.get(number, 0) + 1
            token = page.next_page_token
            if not token:
                break
        assert set(counts.values()) <= {8}
        stats = await stub.GetCatalogStats(pb.GetCatalogStatsRequest(catalog="default"), timeout=20)
        assert stats.indexed_count == stats.item_count == 8 * len(counts)
        assert stats.sequence == stats.applied_sequence == len(counts)
        return set(counts)

    async def serves(self, service: ServiceProcess) -> None:
        stub = RetrievalServiceStub(service.channel)
        found = await stub.Search(
            pb.SearchRequest(catalog="default", queries=[pb.SearchQuery(text="title 3 4", limit=5)]), timeout=20
        )
        assert len(found.results[0].item_indices) == 5


@dataclass
class Events:
    """Ranking, with a retrieval service beside it whose disk is well."""

    data: Path
    retrieval: str
    module: str = "ranking_service"
    highest: int = -1

    @property
    def flags(self) -> list[str]:
        return ["--data-dir", str(self.data), "--retrieval-address", self.retrieval, "--snapshot-every-events", "100"]

    async def write(self, service: ServiceProcess, number: int) -> None:
        events = [
            event(f"user-{number}", "LIKE", f"item-{i:05d}", 1.7e9, event_id=f"{number}/{i}", text="x" * 2500)
            for i in range(10)
        ]
        self.highest = max(self.highest, number)
        stub = RankingServiceStub(service.channel)
        await stub.RecordEvents(ranking_pb.RecordEventsRequest(catalog="default", events=events), timeout=20)

    async def held(self, service: ServiceProcess) -> set[int]:
        stub = RankingServiceStub(service.channel)
        found = set()
        for number in range(self.highest + 1):
            request = ranking_pb.GetUserRequest(catalog="default", user_id=f"user-{number}")
            with contextlib.suppress(grpc.aio.AioRpcError):
                user = (await stub.GetUser(request, timeout=20)).user
                assert user.event_count == 10
                found.add(number)
        return found

    async def serves(self, service: ServiceProcess) -> None:
        stub = RankingServiceStub(service.channel)
        request = ranking_pb.RecommendRequest(catalog="default", user_id="user-1", page_size=5)
        answer = await stub.Recommend(request, timeout=20)
        assert len(answer.items) == 5


@contextlib.asynccontextmanager
async def subject_on(name: str, data: Path, aside: Path) -> AsyncIterator[Subject]:
    """The service under test; `data` is on the disk that is squeezed, `aside` on another."""
    if name == "retrieval":
        async with running_fake_encoder(FakeEncoder()) as encoder:
            yield Items(data, encoder)
        return
    async with running_retrieval(aside) as retrieval:
        await retrieval.upsert(*many_items(40))
        yield Events(data, retrieval.address)


@dataclass
class Ledger:
    """What was acknowledged."""

    written: set[int] = field(default_factory=set)
    next: int = 0

    async def write(self, subject: Subject, service: ServiceProcess) -> None:
        number, self.next = self.next, self.next + 1
        await subject.write(service, number)
        self.written.add(number)

    async def refusal(self, subject: Subject, service: ServiceProcess) -> grpc.aio.AioRpcError | None:
        """Writes; returns why that was refused, None when it was taken."""
        try:
            await self.write(subject, service)
        except grpc.aio.AioRpcError as error:
            return error
        return None

    async def until_refused(self, subject: Subject, service: ServiceProcess) -> str:
        """Writes until that is refused; returns the reason."""
        while self.next < _MOST_WRITES:
            refused = await self.refusal(subject, service)
            if refused is not None:
                assert "writes are then taken again" in (refused.details() or "")
                return reason_of(refused)
        raise AssertionError("the disk never became full")

    async def until_taken(self, subject: Subject, service: ServiceProcess, seconds: float = 10.0) -> None:
        """Writes until that is taken again."""
        give_up = time.monotonic() + seconds
        while await self.refusal(subject, service) is not None:
            assert time.monotonic() < give_up, "writes are still refused though there is room"
            await asyncio.sleep(0.2)


async def is_serving(service: ServiceProcess) -> bool:
    health = health_pb2_grpc.HealthStub(service.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def squeezed_and_relieved(
    subject: Subject, squeeze: Callable[[ServiceProcess], None], relieve: Callable[[ServiceProcess], None]
) -> None:
    """The whole story on one running process."""
    ledger = Ledger()
    async with service_process(subject.module, subject.flags) as service:
        for _ in range(20):
            await ledger.write(subject, service)
        for _ in range(2):
            squeeze(service)
            assert await ledger.until_refused(subject, service) == "STORE_FULL"
            await subject.serves(service)
            assert await subject.held(service) == ledger.written
            assert await is_serving(service)
            assert service.process.returncode is None
            relieve(service)
            await ledger.until_taken(subject, service)
            await ledger.write(subject, service)
        # The write-ahead log is moved into the database again, and used from its beginning.
        (database,) = subject.data.glob("*.sqlite3")
        before = database.stat().st_size
        while database.stat().st_size == before:
            await ledger.write(subject, service)
        await subject.serves(service)
        assert await subject.held(service) == ledger.written
        service.kill()
    async with service_process(subject.module, subject.flags) as service:
        assert await subject.held(service) == ledger.written


@pytest.mark.parametrize("name", RETRIEVAL_SHORT)
async def test_a_full_disk_refuses_writes_and_nothing_else(tmp_path: Path, name: str) -> None:
    with small_disk(tmp_path / "disk", megabytes=16) as disk:
        async with subject_on(name, disk.path / "data", tmp_path / "aside") as subject:
            await squeezed_and_relieved(subject, lambda _: disk.fill(), lambda _: disk.make_room())


@pytest.mark.parametrize("name", RANKING_SHORT)
async def test_a_limit_on_the_size_of_files_is_as_a_full_disk(tmp_path: Path, name: str) -> None:
    """The signal that comes with it (SIGXFSZ) ends nobody."""
    data = tmp_path / "data"

    def squeeze(service: ServiceProcess) -> None:
        largest = max(path.stat().st_size for path in data.glob("*.sqlite3*"))
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (largest + 8192, resource.RLIM_INFINITY))

    def relieve(service: ServiceProcess) -> None:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, unlimited)

    async with subject_on(name, data, tmp_path / "aside") as subject:
        await squeezed_and_relieved(subject, squeeze, relieve)


@pytest.mark.parametrize("name", RETRIEVAL_SHORT)
async def test_a_restart_on_a_full_disk_serves_what_is_there(tmp_path: Path, name: str) -> None:
    ledger = Ledger()
    with small_disk(tmp_path / "disk", megabytes=16) as disk:
        async with subject_on(name, disk.path / "data", tmp_path / "aside") as subject:
            async with service_process(subject.module, subject.flags) as service:
                for _ in range(20):
                    await ledger.write(subject, service)
                disk.fill()
                await ledger.until_refused(subject, service)
                service.kill()
            async with service_process(subject.module, subject.flags) as service:
                assert await subject.held(service) == ledger.written
                await subject.serves(service)
                assert await ledger.until_refused(subject, service) == "STORE_FULL"
                disk.make_room()
                await ledger.until_taken(subject, service)
                assert await subject.held(service) == ledger.written


@pytest.mark.long
async def test_a_snapshot_that_finds_no_room_is_told_and_made_later(tmp_path: Path) -> None:
    """Writes still find room in the write-ahead log, which has been emptied once and is used again."""
    ledger = Ledger()
    with small_disk(tmp_path / "disk", megabytes=40) as disk:
        async with (
            subject_on("retrieval", disk.path / "data", tmp_path / "aside") as subject,
            service_process(subject.module, subject.flags) as service,
        ):
            stub = RetrievalServiceStub(service.channel)

            async def stats() -> pb.GetCatalogStatsResponse:
                return await stub.GetCatalogStats(pb.GetCatalogStatsRequest(catalog="default"), timeout=20)

            async def until(condition: Callable[[pb.GetCatalogStatsResponse], bool]) -> None:
                give_up = time.monotonic() + 30
                while not condition(await stats()):
                    assert time.monotonic() < give_up
                    await asyncio.sleep(0.1)

            for _ in range(90):
                await ledger.write(subject, service)
            await until(lambda told: told.snapshot_sequence == told.sequence)
            disk.fill()
            for _ in range(10):
                await ledger.write(subject, service)
            await until(lambda told: any("snapshot could not be made" in text for text in told.notices))
            told = await stats()
            assert any("No space left on device" in text for text in told.notices)
            assert told.snapshot_sequence < told.sequence
            await subject.serves(service)
            disk.make_room()
            await until(lambda told: told.snapshot_sequence == told.sequence)
            assert await subject.held(service) == ledger.written
            assert not list((disk.path / "data" / "snapshots").glob("*/.writing-*"))


async def cannot_start(module: str, flags: list[str]) -> str:
    """Starts a service that ends at once; returns the last line it said."""
    command = [sys.executable, "-m", module, "--port", "0", *flags]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=30, text=True, check=False)
    assert ended.returncode == 1
    return str(ended.stderr.strip().splitlines()[-1])


@pytest.mark.parametrize("name", RANKING_SHORT)
async def test_a_read_only_disk_at_start_is_named_and_ends_the_process(tmp_path: Path, name: str) -> None:
    with small_disk(tmp_path / "disk", megabytes=16) as disk:
        async with subject_on(name, disk.path / "data", tmp_path / "aside") as subject:
            async with service_process(subject.module, subject.flags) as service:
                await Ledger().write(subject, service)
            disk.read_only()
            try:
                known = await cannot_start(subject.module, subject.flags)
                new = await cannot_start(subject.module, ["--data-dir", str(disk.path / "new")])
            finally:
                disk.read_only(False)
            for said, named in ((known, disk.path / "data"), (new, disk.path / "new")):
                assert "cannot start" in said
                assert "Read-only file system" in said
                assert str(named) in said
            async with service_process(subject.module, subject.flags) as service:
                await subject.held(service)


@pytest.mark.parametrize("name", BOTH)
async def test_a_disk_that_fails_is_read_only_to_writers_and_served_to_readers(tmp_path: Path, name: str) -> None:
    """A real file system after an error: what it was told before is there when it is mounted again."""
    ledger = Ledger()
    with failing_disk(tmp_path / "disk") as fail:
        async with (
            subject_on(name, tmp_path / "disk" / "data", tmp_path / "aside") as subject,
            service_process(subject.module, subject.flags) as service,
        ):
            for _ in range(5):
                await ledger.write(subject, service)
            fail()
            for _ in range(3):
                refused = await ledger.refusal(subject, service)
                assert refused is not None
                assert reason_of(refused) == "STORE_READ_ONLY"
                assert "Make its disk writable" in (refused.details() or "")
            await subject.serves(service)
            assert await subject.held(service) == ledger.written
            assert await is_serving(service)


@pytest.mark.parametrize("name", RANKING_SHORT)
async def test_a_start_on_a_full_disk_waits_for_room(tmp_path: Path, name: str) -> None:
    """After a clean stop SQLite needs a new file of 32 KiB to open the store: alive, not ready, and told why."""
    ledger = Ledger()
    with small_disk(tmp_path / "disk", megabytes=16) as disk:
        async with subject_on(name, disk.path / "data", tmp_path / "aside") as subject:
            async with service_process(subject.module, subject.flags) as service:
                await ledger.write(subject, service)
                service.process.terminate()
                await service.process.wait()
            disk.fill()

            async def make_room_when_told(service: ServiceProcess) -> None:
                while not service.logged("store_not_available"):
                    await asyncio.sleep(0.05)
                assert not await is_serving(service)
                disk.make_room()

            async with service_process(subject.module, subject.flags, meanwhile=make_room_when_told) as service:
                assert await subject.held(service) == ledger.written
                await ledger.write(subject, service)


@pytest.mark.parametrize("name", BOTH)
async def test_a_disk_that_becomes_read_only_is_outlived(tmp_path: Path, name: str) -> None:
    """As a kernel does after an error of the disk: every call that would write to the store's files is refused."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: it makes the kernel refuse calls")
    data, ledger = tmp_path / "data", Ledger()
    async with (
        subject_on(name, data, tmp_path / "aside") as subject,
        service_process(subject.module, subject.flags) as service,
    ):
        await ledger.write(subject, service)
        await ledger.write(subject, service)
        async with refusing_writes(service, data, "EROFS"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await ledger.write(subject, service)
            assert reason_of(refused.value) in ("STORE_READ_ONLY", "STORE_UNAVAILABLE")
            assert "nothing was written" in (refused.value.details() or "")
            await subject.serves(service)
            assert await subject.held(service) == ledger.written
            assert await is_serving(service)
        await ledger.until_taken(subject, service)
        assert await subject.held(service) == ledger.written


@pytest.mark.parametrize("name", BOTH)
async def test_a_disk_that_does_not_confirm_is_told_so(tmp_path: Path, name: str) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: it makes the kernel refuse calls")
    data, ledger = tmp_path / "data", Ledger()
    async with (
        subject_on(name, data, tmp_path / "aside") as subject,
        service_process(subject.module, subject.flags) as service,
    ):
        await ledger.write(subject, service)
        await ledger.write(subject, service)
        async with refusing_writes(service, data, "EIO", calls="fsync,fdatasync"):
            with pytest.raises(grpc.aio.AioRpcError, match="may or may not be durable") as refused:
                await ledger.write(subject, service)
            assert reason_of(refused.value) == "STORE_UNAVAILABLE"
            assert await subject.held(service) == ledger.written
        await ledger.until_taken(subject, service)
        assert await subject.held(service) == ledger.written


@contextlib.asynccontextmanager
async def refusing_writes(
    service: ServiceProcess, data: Path, error: str, calls: str = "write,pwrite64,ftruncate,fallocate"
) -> AsyncIterator[None]:
    """Has the kernel refuse the service's calls on files of its store."""
    paths = [word for file in sorted(data.glob("*.sqlite3*")) for word in ("-P", str(file))]
    tracer = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-p", str(service.pid), "-o", os.devnull, *paths),
        *("-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert tracer.stderr is not None
    said = await asyncio.wait_for(tracer.stderr.readline(), 10)
    try:
        if b"attached" not in said:
            pytest.skip(f"strace may not attach here: {said.decode().strip()}")
        yield
    finally:
        if tracer.returncode is None:
            tracer.send_signal(signal.SIGINT)
        await tracer.wait()


@pytest.mark.parametrize("name", RETRIEVAL_SHORT)
async def test_a_log_that_cannot_be_written_costs_the_log_and_nothing_else(tmp_path: Path, name: str) -> None:
    """Standard error on a full disk, from the first line on."""
    ledger = Ledger()
    async with subject_on(name, tmp_path / "data", tmp_path / "aside") as subject:
        with Path("/dev/full").open("wb") as full:
            async with service_process(subject.module, subject.flags, stderr=full) as service:
                await ledger.write(subject, service)
                await subject.serves(service)
                assert await subject.held(service) == ledger.written
                assert await is_serving(service)
