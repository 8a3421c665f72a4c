"""Frames between the service and its index worker: a JSON header and raw arrays, over a Unix socket.

    4 bytes header length | header | array bytes ...

The header says what is asked and, under `arrays`, dtype and shape of each array that follows. Numpy bytes travel
as they lie in memory, both ends being one machine.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH = struct.Struct(">I")
_MAX_HEADER = 16 << 20

Header = dict[str, Any]
Array = NDArray[Any]


class ConnectionLostError(Exception):
    """The other end went away in the middle of an exchange."""


def send(connection: socket.socket, header: Header, arrays: Sequence[Array] = ()) -> None:
    """Sends one frame; blocks until the kernel has it."""
    header = {**header, "arrays": [[array.dtype.str, array.shape] for array in arrays]}
    body = json.dumps(header, separators=(",", ":")).encode()
    parts: list[bytes | memoryview] = [_LENGTH.pack(len(body)) + body]
    parts += [np.ascontiguousarray(array).data.cast("B") for array in arrays if array.size]
    try:
        for part in parts:
            connection.sendall(part)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise ConnectionLostError(str(error)) from None


def receive(connection: socket.socket) -> tuple[Header, list[Array]]:
    """Receives one frame.

    Raises:
        ConnectionLostError: The other end closed or died.
        TimeoutError: The socket's timeout passed.
    """
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size))
    if length > _MAX_HEADER:
        raise ConnectionLostError(f"a header of {length} bytes: not our protocol")
    header: Header = json.loads(_read(connection, length))
    arrays = []
    for dtype, shape in header.pop("arrays"):
        array = np.empty(shape, dtype=dtype)
        if array.size:
            _read_into(connection, array.data.cast("B"))
        arrays.append(array)
    return header, arrays


def _read(connection: socket.socket, count: int) -> bytearray:
    buffer = bytearray(count)
    _read_into(connection, memoryview(buffer))
    return buffer


def _read_into(connection: socket.socket, view: memoryview) -> None:
    while view:
        try:
            count = connection.recv_into(view)
        except ConnectionResetError as error:
            raise ConnectionLostError(str(error)) from None
        if not count:
            raise ConnectionLostError("the other end closed the connection")
        view = view[count:]
