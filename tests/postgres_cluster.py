"""A PostgreSQL of the tests' own: made with initdb in a temporary folder, reached by a Unix socket only."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

_PORT = 54321  # names the socket file only: nothing listens on the network
_SETTINGS = {
    "listen_addresses": "''",
    "unix_socket_directories": "'{folder}'",
    "port": str(_PORT),
    "fsync": "on",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
}


class Cluster:
    """One PostgreSQL server that can be stopped, killed and started again."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self._folder, self._binaries = folder, binaries
        self._data = folder / "data"
        self._names = itertools.count(1)
        # Neither initdb nor the server may run as root.
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = next(a for name in ("postgres", "nobody") if (a := _account(name)) is not None)
            os.chown(folder, account.pw_uid, account.pw_gid)
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def make(self) -> None:
        """Makes and starts it. Its default order of texts is not that of the bytes, as on most servers."""
        order = ["--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en"]
        self._run("initdb", "-D", str(self._data), "-U", "zhiyin", "-A", "trust", *order)
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value.format(folder=self._folder)}\n" for name, value in _SETTINGS.items())
        self.start()

    def start(self) -> None:
        """Starts it; after a kill, as soon as the last backend has noticed."""
        give_up = time.monotonic() + 30
        while True:
            done = self._run(
                "pg_ctl", "-D", str(self._data), "-l", str(self._folder / "log"), "-w", "start", check=False
            )
            if done.returncode == 0:
                return
            assert time.monotonic() < give_up, (self._folder / "log").read_text()[-2000:]
            time.sleep(0.2)

    def stop(self, mode: str = "immediate") -> None:
        """Stops it; does nothing where it does not run."""
        self._run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "stop", check=False)

    def kill(self) -> None:
        """kill -9 of the server's parent process; its children end as soon as they notice."""
        os.kill(self.pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """Of the server's parent process."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def url(self, database: str = "postgres", schema: str = "") -> str:
        """As an operator would give it to a service."""
        options = f"&options=-csearch_path%3D{schema}" if schema else ""
        return f"postgresql+psycopg://zhiyin@/{database}?host={self._folder}&port={_PORT}{options}"

    def connect(self, schema: str = "public") -> psycopg.Connection[Any]:
        """A connection of the driver, for the tests' own looks; every statement is its own transaction."""
        where = f"host={self._folder} port={_PORT} user=zhiyin dbname=postgres options=-csearch_path={schema}"
        return psycopg.connect(where, autocommit=True)

    @contextlib.contextmanager
    def store(self) -> Iterator[str]:
        """Room for a fresh store; yields its URL. A schema: a database each would take ten times as long to make."""
        name = f"test_{next(self._names)}"
        with self.connect() as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        yield self.url(schema=name)
        with contextlib.suppress(psycopg.OperationalError), self.connect() as connection:
            # Of services that a test killed.
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_class ON pg_class.oid = relation "
                "WHERE relnamespace = to_regnamespace(%s)::oid AND pid <> pg_backend_pid()",
                [name],
            )
            connection.execute(f"DROP SCHEMA {name} CASCADE")

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [str(self._binaries / program), *arguments],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            # Not a pipe: the server would keep it open.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
            **self._as,
        )
        assert not check or done.returncode == 0, f"{program} failed"
        return done


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A new server; gone without a trace at the end. Skips the test where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if found is None and not folders:
        pytest.skip("install PostgreSQL (Debian: apt install postgresql) to run the tests on it")
    binaries = (Path(found).resolve() if found is not None else folders[-1]).parent
    # Short, for the socket's name; and not below pytest's folder, which the server's user may not enter.
    folder = Path(tempfile.mkdtemp(prefix="zhiyin-pg-"))
    cluster = Cluster(folder, binaries)
    try:
        cluster.make()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """The server that tests share; those that kill one make their own."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def postgres_url(postgres_cluster: Cluster) -> Iterator[str]:
    """Of an empty store."""
    with postgres_cluster.store() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """What `store_url` is set to: empty for SQLite, else an empty store in PostgreSQL."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def _account(name: str) -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name)
    return None
