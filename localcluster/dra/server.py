"""The driver's sides: the services that the kubelet calls, files for the container runtime, and the
ResourceSlice.
"""

from __future__ import annotations

import http
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc

from localcluster.apiclient import ApiError
from localcluster.deviceplugin.server import read_unhealthy
from localcluster.nodeconfig import CDI_DIRECTORY

from . import api, objects
from .objects import Offer

KUBELET_DIRECTORY = Path("/var/lib/kubelet")
_GROUP = f"/apis/{objects.API_VERSION}"


class Api(Protocol):
    """Requests to the API server."""

    def request(self, method: str, path: str, body: object = None) -> Any:
        """One request; raises ApiError."""


@dataclass(frozen=True)
class DriverSettings:
    """What is offered under which variable, and where the health of the devices is read."""

    offer: Offer
    variable: str
    unhealthy: Path
    kubelet: Path = KUBELET_DIRECTORY
    cdi: Path = CDI_DIRECTORY
    poll_seconds: float = 0.5
    health_seconds: float = 10.0

    @property
    def endpoint(self) -> Path:
        """Socket of the driver's services."""
        return self.kubelet / "plugins" / self.offer.driver / "dra.sock"

    @property
    def registration(self) -> Path:
        """Socket by which the kubelet finds the driver."""
        return self.kubelet / "plugins_registry" / f"{self.offer.driver}.sock"


class Driver:
    """Serves one driver's devices on one node until ``stop``."""

    def __init__(self, settings: DriverSettings, client: Api) -> None:
        self._settings = settings
        self._offer = settings.offer
        self._client = client
        self._stopped = threading.Event()
        self._registered = threading.Event()

    def run(self) -> None:
        """Serve the kubelet, and keep the ResourceSlice as it should be: the kubelet removes it
        when it starts.
        """
        sockets = (self._settings.endpoint, self._settings.registration)
        self._write_cdi("devices", objects.device_spec(self._offer, self._settings.variable))
        server = self._serve(sockets)
        try:
            while not self._stopped.is_set():
                if self._registered.is_set():
                    self._try_to_publish()
                self._stopped.wait(self._settings.poll_seconds)
        finally:
            for socket in sockets:
                socket.unlink(missing_ok=True)
            server.stop(grace=0.5).wait()

    def stop(self) -> None:
        """End ``run`` and all open streams."""
        self._stopped.set()

    def _serve(self, sockets: tuple[Path, ...]) -> grpc.Server:
        server = grpc.server(ThreadPoolExecutor(max_workers=8))
        server.add_generic_rpc_handlers(self._handlers())
        for socket in sockets:
            socket.parent.mkdir(parents=True, exist_ok=True)
            socket.unlink(missing_ok=True)
            server.add_insecure_port(f"unix:{socket}")
        server.start()
        return server

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        unary = grpc.unary_unary_rpc_method_handler
        stream = grpc.unary_stream_rpc_method_handler
        registration = {
            "GetInfo": unary(
                self._info, api.InfoRequest.FromString, api.PluginInfo.SerializeToString
            ),
            "NotifyRegistrationStatus": unary(
                self._notified,
                api.RegistrationStatus.FromString,
                api.RegistrationStatusResponse.SerializeToString,
            ),
        }
        dra = {
            "NodePrepareResources": unary(
                self._prepare, api.PrepareRequest.FromString, api.PrepareResponse.SerializeToString
            ),
            "NodeUnprepareResources": unary(
                self._unprepare,
                api.UnprepareRequest.FromString,
                api.UnprepareResponse.SerializeToString,
            ),
        }
        health = {
            "NodeWatchResources": stream(
                self._watch, api.WatchRequest.FromString, api.WatchResponse.SerializeToString
            )
        }
        services = ((api.REGISTRATION, registration), (api.DRA, dra), (api.HEALTH, health))
        return tuple(
            grpc.method_handlers_generic_handler(name, methods) for name, methods in services
        )

    # --- the kubelet ------------------------------------------------------------------------------

    def _info(self, request: Any, context: grpc.ServicerContext) -> Any:
        del request, context
        return api.plugin_info(self._offer.driver, str(self._settings.endpoint))

    def _notified(self, request: Any, context: grpc.ServicerContext) -> Any:
        del context
        if request.plugin_registered:
            self._registered.set()
        else:
            print(f"{self._offer.driver}: the kubelet did not accept the driver: {request.error}")
        return api.RegistrationStatusResponse()

    def _prepare(self, request: Any, context: grpc.ServicerContext) -> Any:
        del context
        return api.PrepareResponse(
            claims={claim.uid: self._prepared(claim) for claim in request.claims}
        )

    def _prepared(self, claim: Any) -> dict[str, Any]:
        try:
            pairs = self._allocated(claim)
        except (ApiError, OSError) as error:
            return {"error": f"claim {claim.namespace}/{claim.name}: {error}"}
        driver, pool = self._offer.driver, self._offer.node
        names = [device for _, device in pairs]
        self._write_cdi(
            claim.uid, objects.claim_spec(driver, self._settings.variable, claim.uid, names)
        )
        # The variable of the whole claim comes once, with the first of its devices.
        extras = [[objects.claim_id(driver, claim.uid)], *([] for _ in pairs[1:])]
        devices = [
            {
                "request_names": [request],
                "pool_name": pool,
                "device_name": device,
                "cdi_device_ids": [objects.device_id(driver, device), *extra],
            }
            for (request, device), extra in zip(pairs, extras, strict=True)
        ]
        return {"devices": devices}

    def _allocated(self, claim: Any) -> tuple[tuple[str, str], ...]:
        found = self._client.request(
            "GET", f"{_GROUP}/namespaces/{claim.namespace}/resourceclaims/{claim.name}"
        )
        pairs = objects.allocated(found, self._offer)
        if found["metadata"]["uid"] != claim.uid or not pairs:
            raise OSError("there is no such allocation")
        return pairs

    def _unprepare(self, request: Any, context: grpc.ServicerContext) -> Any:
        del context
        for claim in request.claims:
            self._cdi_file(claim.uid).unlink(missing_ok=True)
        return api.UnprepareResponse(claims={claim.uid: {} for claim in request.claims})

    def _watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """The health of all devices, whenever it changes and often enough for the kubelet to
        remember it.
        """
        del request
        told: frozenset[str] | None = None
        quiet = 0.0
        while not self._stopped.is_set() and context.is_active():
            broken = self._broken()
            if broken != told or quiet >= self._settings.health_seconds:
                told, quiet = broken, 0.0
                yield api.device_health(self._offer.node, self._offer.devices, broken)
            self._stopped.wait(self._settings.poll_seconds)
            quiet += self._settings.poll_seconds

    def _broken(self) -> frozenset[str]:
        numbers = read_unhealthy(self._settings.unhealthy)
        return frozenset(name for name in self._offer.devices if objects.index_of(name) in numbers)

    # --- the container runtime --------------------------------------------------------------------

    def _cdi_file(self, name: str) -> Path:
        return self._settings.cdi / f"{self._offer.driver}-{name}.json"

    def _write_cdi(self, name: str, spec: objects.Object) -> None:
        path = self._cdi_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The runtime reads the folder at any moment, but only files called .json or .yaml.
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(spec))
        draft.replace(path)

    # --- the API server ---------------------------------------------------------------------------

    def _try_to_publish(self) -> None:
        try:
            self._publish()
        except (ApiError, OSError) as error:
            print(f"{self._offer.driver}: not published: {error}")

    def _publish(self) -> None:
        """Make class and slice where they are missing, and taint what is broken."""
        broken = self._broken()
        path = f"{_GROUP}/resourceslices"
        found = self._unless(http.HTTPStatus.NOT_FOUND, "GET", f"{path}/{self._offer.slice_name}")
        if found is None:
            kind = objects.device_class(self._offer.driver)
            self._unless(http.HTTPStatus.CONFLICT, "POST", f"{_GROUP}/deviceclasses", kind)
            self._client.request("POST", path, objects.resource_slice(self._offer, broken))
            print(f"{self._offer.driver}: {self._offer.count} devices published")
        elif objects.tainted(found) != broken:
            generation = found["spec"]["pool"]["generation"] + 1
            wanted = objects.resource_slice(self._offer, broken, generation=generation)
            wanted["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
            self._client.request("PUT", f"{path}/{self._offer.slice_name}", wanted)

    def _unless(self, status: http.HTTPStatus, method: str, path: str, body: object = None) -> Any:
        """The answer to a request, None when it is this status."""
        try:
            return self._client.request(method, path, body)
        except ApiError as error:
            if error.status != status:
                raise
            return None
