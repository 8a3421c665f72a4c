"""Runs a service: opens the port, starts it, keeps its health true, and drains it at a signal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol
from wsgiref.simple_server import WSGIServer

import grpc
import prometheus_client
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service_runtime.admission import Door
from service_runtime.errors import ZhiyinError
from service_runtime.parent_watch import when_parent_is_gone
from service_runtime.security import server_credentials
from service_runtime.settings import ServerSettings
from service_runtime.status_interceptor import StatusInterceptor
from service_runtime.telemetry import SERVICE_READY, configure_logging, get_logger

_log = get_logger(__name__)
LIVENESS = "zhiyin.liveness"
_READINESS_PERIOD_S = 0.25
# Beyond the calls that are served: room for health checks, and for refusals that say more than gRPC's own.
_SPARE_CALLS = 256
_DRAIN_POLL_S = 0.05
# Threads that compute hold the interpreter for so long before the event loop gets its turn. At Python's 5 ms a busy
# service needs a fifth of a second to read a call and refuse it.
_SWITCH_INTERVAL_S = 0.001
_LAST_ANSWERS_S = 0.5  # for answers on their way when the last call has ended


class Service(Protocol):
    """What a service gives to the runtime."""

    name: str
    full_name: str

    async def start(self) -> None:
        """Loads everything. The port is open meanwhile; health says NOT_SERVING."""
        ...

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the servicer."""
        ...

    def readiness(self) -> str | None:
        """Why the service cannot serve, from its own state only; None: it can."""
        ...

    def doors(self) -> Mapping[str, Door]:
        """What lets calls in, by full method name; methods without one are bounded by `max_concurrent_rpcs` alone."""
        ...

    async def close(self) -> None:
        """Flushes and closes. Called once, after the last call."""
        ...


def run_service(service_factory: Callable[[], Service], settings: ServerSettings) -> None:
    """Runs a service until SIGTERM or SIGINT, then drains it. For `__main__`."""
    import uvloop

    try:
        service = service_factory()
    except OSError as error:
        raise SystemExit(f"cannot start: {error}") from error
    configure_logging(service.name, settings.log_level, settings.log_format)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run_until_signal(service, settings))


async def _run_until_signal(service: Service, settings: ServerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    if settings.exit_with_parent:
        when_parent_is_gone(lambda: os.kill(os.getpid(), signal.SIGTERM))
    running = RunningServer(service, settings)
    await running.open()
    try:
        starting = asyncio.ensure_future(running.start())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            try:
                starting.result()  # a service that cannot start ends the process with its error
            except ZhiyinError as error:
                raise SystemExit(f"{service.name}: cannot start: {error.message}") from error
            except OSError as error:  # of the data directory: read-only, full, not ours
                raise SystemExit(f"{service.name}: cannot start: {error}") from error
            await stopping
        else:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        stopping.cancel()
    finally:
        await running.stop()


class RunningServer:
    """A gRPC server around one service, with health, reflection and drain."""

    def __init__(self, service: Service, settings: ServerSettings) -> None:
        self._service, self._settings = service, settings
        self._health = health.aio.HealthServicer()
        self._interceptor = StatusInterceptor(
            settings.default_deadline_s,
            self._refusal,
            settings.max_concurrent_rpcs,
            settings.max_streams,
            settings.stream_idle_s,
            service.doors(),
        )
        self._started = False
        self._draining = False
        self._watch: asyncio.Task[None] | None = None
        self._metrics: tuple[WSGIServer, threading.Thread] | None = None
        self._server = grpc.aio.server(
            interceptors=[self._interceptor],
            maximum_concurrent_rpcs=settings.max_concurrent_rpcs + _SPARE_CALLS,
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                ("grpc.max_connection_age_ms", int(settings.max_connection_age_s * 1000)),
                ("grpc.max_connection_age_grace_ms", int(settings.grace_s * 1000)),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        self.port = 0

    @property
    def address(self) -> str:
        """host:port to call."""
        return _target(self._settings.host, self.port)

    async def open(self) -> None:
        """Binds the port: alive, not ready."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._service.register(self._server)
        names = (self._service.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._set_ready(False)
        credentials = server_credentials(self._settings)
        target = _target(self._settings.host, self._settings.port)
        try:
            self.port = (
                self._server.add_insecure_port(target)
                if credentials is None
                else self._server.add_secure_port(target, credentials)
            )
        except RuntimeError as error:
            raise SystemExit(f"{self._service.name}: cannot listen on {target}: {error}") from None
        self._open_metrics()
        await self._server.start()
        _log.info("listening", service=self._service.name, address=self.address, tls=credentials is not None)

    def _open_metrics(self) -> None:
        host, port = self._settings.host, self._settings.metrics_port
        if not port:
            return
        try:
            self._metrics = prometheus_client.start_http_server(port, addr=host.strip("[]"))
        except OSError as error:
            message = f"{self._service.name}: cannot serve metrics on {_target(host, port)}: {error.strerror}"
            raise SystemExit(message) from None

    async def start(self) -> None:
        """Starts the service and reports SERVING once it is ready."""
        await self._service.start()
        self._started = True
        await self._set_ready(self._service.readiness() is None)
        self._watch = asyncio.create_task(self._watch_readiness())
        _log.info("started", service=self._service.name, address=self.address)

    async def stop(self) -> None:
        """NOT_SERVING, time for load balancers to notice, no new calls, grace for running ones, flush, close."""
        self._draining = True
        if self._watch is not None:
            self._watch.cancel()
        await self._set_ready(False)
        _log.info("draining", service=self._service.name, in_flight=self._interceptor.in_flight)
        if self._started:
            await asyncio.sleep(self._settings.drain_delay_s)
        await self._finish_calls()
        await self._service.close()
        if self._metrics is not None:
            endpoint, thread = self._metrics
            await asyncio.to_thread(endpoint.shutdown)
            endpoint.server_close()
            await asyncio.to_thread(thread.join)
        _log.info("stopped", service=self._service.name, in_flight=self._interceptor.in_flight)

    async def _finish_calls(self) -> None:
        """Refuses new calls and waits for the running ones; not for those who watch our health, who never leave."""
        stopped = asyncio.create_task(self._server.stop(self._settings.grace_s))
        self._interceptor.end_streams()
        while self._interceptor.in_flight and not stopped.done():
            await asyncio.wait({stopped}, timeout=_DRAIN_POLL_S)
        await self._server.stop(min(_LAST_ANSWERS_S, self._settings.grace_s))
        await stopped

    def _refusal(self) -> str | None:
        if not self._started:
            return f"the {self._service.name} service is starting"
        # Calls that arrive while load balancers catch up with NOT_SERVING are still served.
        return self._service.readiness() if not self._draining else None

    async def _watch_readiness(self) -> None:
        ready: bool | None = None
        while True:
            reason = self._service.readiness()
            if (reason is None) != ready:
                ready = reason is None
                await self._set_ready(ready)
                _log.info("readiness", service=self._service.name, ready=ready, reason=reason)
            await asyncio.sleep(_READINESS_PERIOD_S)

    async def _set_ready(self, ready: bool) -> None:
        serving = health_pb2.HealthCheckResponse
        status = serving.SERVING if ready else serving.NOT_SERVING
        SERVICE_READY.labels(self._service.name).set(1 if ready else 0)
        for name in ("", self._service.full_name):
            await self._health.set(name, status)


def _target(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


@contextlib.asynccontextmanager
async def running_server(service: Service, settings: ServerSettings) -> AsyncIterator[str]:
    """A started server in this process, for tests and tools; yields its address."""
    running = RunningServer(service, settings)
    await running.open()
    try:
        await running.start()
        yield running.address
    finally:
        await running.stop()
