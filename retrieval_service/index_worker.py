"""The index worker: the process that holds every index of the service, so that a crash of native code or a long hold
of the GIL never touches the service's event loop.

    python -m retrieval_service.index_worker --socket PATH

Speaks frames (see `frames`) over a Unix socket, a thread a connection. It never saves an index: snapshots are made by
`snapshot_builder`. It ends when its standard input closes, that is, when the service is gone, however it went.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: one thread a search, many searches

import argparse
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pyroaring import BitMap

from retrieval_service import frames, snapshot
from retrieval_service.frames import Array, Header
from retrieval_service.parent_watch import exit_with_parent
from retrieval_service.space_index import Geometry, IndexQuery, SpaceIndex

# Rows the graph takes in while searches wait: 16 rows are about 6 ms.
_ABSORB_ROWS = 16


class UnknownIndexError(Exception):
    """The worker does not hold that index; the service loads it again."""


class IndexWorker:
    """Indexes by key, and what can be asked of them. Safe for many threads."""

    def __init__(self) -> None:
        self._indexes: dict[str, SpaceIndex] = {}
        self._work = threading.Event()
        self._operations: dict[str, Callable[[Header, list[Array]], tuple[Header, Sequence[Array]]]] = {
            "ping": lambda header, arrays: ({"pid": os.getpid()}, ()),
            "open": self._open,
            "load": self._load,
            "apply": self._apply,
            "search": self._search,
            "scores": self._scores,
            "vectors": self._vectors,
            "move": self._move,
            "drop": self._drop,
            "stats": self._stats,
        }

    def handle(self, header: Header, arrays: list[Array]) -> tuple[Header, Sequence[Array]]:
        """Answers one frame; an error becomes a header with `error` and `message`."""
        try:
            return self._operations[header["op"]](header, arrays)
        except UnknownIndexError as error:
            return {"error": "unknown_index", "message": str(error)}, ()
        except snapshot.SnapshotDamagedError as error:
            return {"error": "snapshot_damaged", "message": str(error)}, ()
        except Exception as error:
            return {"error": "failed", "message": f"{type(error).__name__}: {error}"}, ()

    def absorb_forever(self) -> None:
        """Takes waiting rows into the graphs, a few at a time, for as long as the process lives."""
        while True:
            busy = [index for index in list(self._indexes.values()) if index.graph_backlog]
            if not busy:
                self._work.wait(timeout=1.0)
                self._work.clear()
            for index in busy:
                index.absorb(_ABSORB_ROWS)

    def _index(self, header: Header) -> SpaceIndex:
        index = self._indexes.get(header["key"])
        if index is None:
            raise UnknownIndexError(header["key"])
        return index

    def _open(self, header: Header, arrays: list[Array]) -> tuple[Header, Sequence[Array]]:
        geometry = Geometry(
            header["dimensions"], arrays[0] if arrays else None, header["epoch"], normalize=header["normalize"]
        )
        self._indexes[header["key"]] = SpaceIndex(geometry)
        return {}, ()

    def _load(self, header: Header, arrays: list[Array]) -> tuple[Header, Sequence[Array]]:
        index = snapshot.load(Path(header["path"]), dimensions=header["dimensions"], normalize=header["normalize"])
        self._indexes[header["key"]] = index
        return {"sequence": index.sequence, "epoch": index.geometry.epoch}, ()

    def _apply(self, header: Header, arrays: list[Array]) -> tuple[Header, Sequence[Array]]:
        index = self._index(header)
        index.apply(header["sequence"], *arrays)
        if index.graph_backlog:
            self._work.set()
        return _figures(index), ()

    def _search(self, header: Header, arrays: list[Array]) -> tuple[Header, Sequence[Array]]:
        answers, sequence = self._index(header).search(_queries(header, arrays[0], arrays[1:]))
        reply = {
            "sequence": sequence,
            "counts": [len(hits.numbers) for hits in answers],
            "plans": [hits.plan.value for hits in answers],
        }
        return reply, (
            np.concatenate([hits.numbers for hits in answers]),
            np.concatenate([hits.scores for hits in answers]),
            np.stack([hits.vector for hits in answers]),
        )

    def _scores(self, header: Header, arrays: list[Array]) -> tuple[Header, Sequence[Array]]:
        queries = _queries(header, arrays[0], arrays[1:-1])
        return {}, (self._index(header).scores(queries, arrays[-1]),)

    def _vectors(self, header: Header, arrays: list[Array]) -> tuple[Header, Sequence[Array]]:
        return {}, (self._index(header).vectors(arrays[0]).astype("<f2"),)

    def _move(self, header: Header, arrays: list[Array]) -> tuple[Header, Sequence[Array]]:
        self._indexes[header["to"]] = self._index(header)
        del self._indexes[header["key"]]
        return {}, ()

    def _drop(self, header: Header, arrays: list[Array]) -> tuple[Header, Sequence[Array]]:
        self._indexes.pop(header["key"], None)
        return {}, ()

    def _stats(self, header: Header, arrays: list[Array]) -> tuple[Header, Sequence[Array]]:
        return _figures(self._index(header)), ()


def _queries(header: Header, vectors: Array, filters: Sequence[Array]) -> list[IndexQuery]:
    allowed = [BitMap.deserialize(bitmap.tobytes()) for bitmap in filters]
    return [
        IndexQuery(
            limit=query["limit"],
            vector=vectors[query["vector"]] if query["vector"] >= 0 else None,
            examples=query["examples"],
            allowed=allowed[query["filter"]] if query["filter"] >= 0 else None,
            denied=query["denied"],
            exact=query["exact"],
        )
        for query in header["queries"]
    ]


def _figures(index: SpaceIndex) -> Header:
    return {
        "sequence": index.sequence,
        "live": len(index),
        "tombstones": index.tombstones,
        "epoch": index.geometry.epoch,
        "has_graph": index.has_graph,
        "graph_backlog": index.graph_backlog,
    }


def serve_connection(worker: IndexWorker, connection: socket.socket) -> None:
    """Answers the frames of one connection until it closes."""
    with connection, contextlib.suppress(frames.ConnectionLostError):
        while True:
            header, arrays = frames.receive(connection)
            frames.send(connection, *worker.handle(header, arrays))


def main(argv: Sequence[str] | None = None) -> None:
    """Serves until standard input closes."""
    parser = argparse.ArgumentParser(description="Holds the indexes of a retrieval service.")
    parser.add_argument("--socket", required=True, help="path of the Unix socket to listen on")
    arguments = parser.parse_args(argv)
    worker = IndexWorker()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(arguments.socket)
        Path(arguments.socket).chmod(0o600)
        listener.listen(64)
        exit_with_parent(leaving=Path(arguments.socket).parent)
        threading.Thread(target=worker.absorb_forever, name="absorb", daemon=True).start()
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_connection, args=(worker, connection), daemon=True).start()


if __name__ == "__main__":
    main()
