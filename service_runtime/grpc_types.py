"""Names for gRPC classes that are generic for the type checker and plain at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    ServicerContext = grpc.aio.ServicerContext[Any, Any]
    RpcMethodHandler = grpc.RpcMethodHandler[Any, Any]
else:
    ServicerContext = grpc.aio.ServicerContext
    RpcMethodHandler = grpc.RpcMethodHandler
