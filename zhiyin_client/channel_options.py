"""Options of a channel to a service: when calls wait, when they are repeated, how soon a lost host is noticed.

What clients are told to use, in any language, is `service_config.json` beside this file (docs/errors.md explains it). A
call waits, as long as its deadline lasts, for a server that is there and says SERVING; so a restart costs no call.
Retried is what was not served: UNAVAILABLE, and CANCELLED when it is the server that says it (gRPC answers so, in the
name of a server that stops, to calls that had arrived and were not read yet; a caller's own cancelling is never
retried). Five attempts, the most that gRPC makes, with these pauses (or those that the server asks for by its pushback
trailer). Retries end after 500 failed attempts without success in between: an outage is not made worse by them.
"""

from __future__ import annotations

import copy
import json
from importlib import resources
from typing import Any

CLIENT_SERVICE_CONFIG: dict[str, Any] = json.loads(
    resources.files("zhiyin_client").joinpath("service_config.json").read_text(encoding="utf-8")
)


def client_channel_options(max_message_bytes: int = 16 << 20, *, repeat: bool = True) -> list[tuple[str, Any]]:
    """Options for `grpc.insecure_channel` and its like, sync or async.

    Args:
        max_message_bytes: Of one message, either way.
        repeat: False for calls that must not be made twice: they wait for a server as the others do, and what the
            server may have begun is not repeated. (What gRPC knows never reached it, still is.)
    """
    config = CLIENT_SERVICE_CONFIG
    if not repeat:
        config = copy.deepcopy(config)
        for method in config["methodConfig"]:
            del method["retryPolicy"]
    return [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.enable_retries", 1),
        # A host that vanished without a word is noticed within 15 s.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        # A service that is back is found within a second or so. The minimum is also the time that one attempt to
        # connect gets, and a peer that accepts and never answers holds calls up for as long.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
    ]
