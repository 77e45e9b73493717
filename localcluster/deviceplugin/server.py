"""The plugin's two sides: the service that the kubelet calls, and the registration with the
kubelet.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from . import api, slug

PLUGIN_DIRECTORY = Path("/var/lib/kubelet/device-plugins")
KUBELET_SOCKET = "kubelet.sock"
_REGISTER_TIMEOUT = 5.0


@dataclass(frozen=True)
class PluginSettings:
    """What is offered, and where the health of the devices is read."""

    resource: str
    count: int
    variable: str
    unhealthy: Path
    directory: Path = PLUGIN_DIRECTORY
    poll_seconds: float = 0.5

    @property
    def endpoint(self) -> str:
        """Name of the plugin's socket in the kubelet's directory."""
        return f"{slug(self.resource)}.sock"


def read_unhealthy(path: Path) -> frozenset[int]:
    """Indices of the devices that a test declared broken."""
    try:
        words = path.read_text().split()
    except FileNotFoundError:
        return frozenset()
    return frozenset(int(word) for word in words if word.isdigit())


class DevicePlugin:
    """Serves one resource until ``stop``."""

    def __init__(self, settings: PluginSettings) -> None:
        self._settings = settings
        self._stopped = threading.Event()

    def run(self) -> None:
        """Serve, and start again whenever the kubelet does: it forgets its plugins and removes
        their sockets.
        """
        while not self._stopped.is_set():
            identity = self._kubelet_identity()
            if identity is None:
                self._stopped.wait(self._settings.poll_seconds)
            else:
                self._serve_kubelet(identity)

    def stop(self) -> None:
        """End ``run`` and all open streams."""
        self._stopped.set()

    def _kubelet_identity(self) -> tuple[int, int] | None:
        try:
            status = (self._settings.directory / KUBELET_SOCKET).stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_ctime_ns

    def _serve_kubelet(self, identity: tuple[int, int]) -> None:
        socket = self._settings.directory / self._settings.endpoint
        socket.unlink(missing_ok=True)
        gone = threading.Event()
        server = grpc.server(ThreadPoolExecutor(max_workers=4))
        server.add_generic_rpc_handlers((self._handlers(gone),))
        server.add_insecure_port(f"unix:{socket}")
        server.start()
        try:
            if self._register():
                while not self._stopped.is_set() and self._kubelet_identity() == identity:
                    self._stopped.wait(self._settings.poll_seconds)
        finally:
            gone.set()
            server.stop(grace=0.5).wait()

    def _register(self) -> bool:
        request = api.RegisterRequest(
            version=api.VERSION,
            endpoint=self._settings.endpoint,
            resource_name=self._settings.resource,
        )
        with grpc.insecure_channel(f"unix:{self._settings.directory / KUBELET_SOCKET}") as channel:
            call = channel.unary_unary(
                f"/{api.PACKAGE}.Registration/Register",
                request_serializer=api.RegisterRequest.SerializeToString,
                response_deserializer=api.Empty.FromString,
            )
            try:
                call(request, timeout=_REGISTER_TIMEOUT)
            except grpc.RpcError as error:
                print(f"{self._settings.resource}: the kubelet did not accept the plugin: {error}")
                self._stopped.wait(self._settings.poll_seconds)
                return False
        print(f"{self._settings.resource}: {self._settings.count} devices registered")
        return True

    def _handlers(self, gone: threading.Event) -> grpc.GenericRpcHandler:
        def options(request: Any, context: grpc.ServicerContext) -> Any:
            del request, context
            return api.DevicePluginOptions()

        def allocate(request: Any, context: grpc.ServicerContext) -> Any:
            del context
            return api.allocation(request, self._settings.variable)

        def list_and_watch(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            del request
            return self._device_lists(gone, context)

        methods = {
            "GetDevicePluginOptions": grpc.unary_unary_rpc_method_handler(
                options, api.Empty.FromString, api.DevicePluginOptions.SerializeToString
            ),
            "Allocate": grpc.unary_unary_rpc_method_handler(
                allocate, api.AllocateRequest.FromString, api.AllocateResponse.SerializeToString
            ),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                list_and_watch, api.Empty.FromString, api.ListAndWatchResponse.SerializeToString
            ),
        }
        return grpc.method_handlers_generic_handler(f"{api.PACKAGE}.DevicePlugin", methods)

    def _device_lists(self, gone: threading.Event, context: grpc.ServicerContext) -> Iterator[Any]:
        reported: frozenset[int] | None = None
        while not gone.is_set() and context.is_active():
            unhealthy = read_unhealthy(self._settings.unhealthy)
            if unhealthy != reported:
                reported = unhealthy
                yield api.device_list(self._settings.count, unhealthy)
            gone.wait(self._settings.poll_seconds)
