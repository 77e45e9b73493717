"""The DRA driver against a kubelet and an API server that are played."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from localcluster.apiclient import ApiError
from localcluster.dra import api, objects, unhealthy_file, visible_variable
from localcluster.dra.objects import Offer
from localcluster.dra.server import Driver, DriverSettings
from localcluster.model import ClusterSpec, DriverSpec, Layout

OFFER = Offer("mlu.example.com", "node-1", 4)
SLICE = "/apis/resource.k8s.io/v1/resourceslices/node-1-mlu.example.com"
CLAIM = "/apis/resource.k8s.io/v1/namespaces/team/resourceclaims/mine"


class Server:
    """Objects by path; a POST needs a collection, everything else the object."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}

    def request(self, method: str, path: str, body: Any = None) -> Any:
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                raise ApiError(method, path, 409, "exists")
        elif path not in self.objects:
            raise ApiError(method, path, 404, "not found")
        if body is not None:
            body["metadata"].setdefault("resourceVersion", "1")
            self.objects[path] = body
        return self.objects[path]


class Kubelet:
    """Calls the services of a driver's sockets."""

    def __init__(self, settings: DriverSettings) -> None:
        self._settings = settings

    def _call(self, socket: Path, method: str, request: Any, answer: Any) -> Any:
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            call = channel.unary_unary(
                f"/{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=answer.FromString,
            )
            return call(request, timeout=10, wait_for_ready=True)

    def register(self, accepted: bool = True) -> Any:
        info = self._call(
            self._settings.registration,
            f"{api.REGISTRATION}/GetInfo",
            api.InfoRequest(),
            api.PluginInfo,
        )
        status = api.RegistrationStatus(plugin_registered=accepted, error="" if accepted else "no")
        method = f"{api.REGISTRATION}/NotifyRegistrationStatus"
        self._call(self._settings.registration, method, status, api.RegistrationStatusResponse)
        return info

    def prepare(self, uid: str = "uid-1", name: str = "mine") -> Any:
        request = api.PrepareRequest(claims=[{"namespace": "team", "uid": uid, "name": name}])
        method = f"{api.DRA}/NodePrepareResources"
        return self._call(self._settings.endpoint, method, request, api.PrepareResponse).claims[uid]

    def unprepare(self, uid: str = "uid-1") -> Any:
        request = api.UnprepareRequest(claims=[{"namespace": "team", "uid": uid, "name": "mine"}])
        return self._call(
            self._settings.endpoint,
            f"{api.DRA}/NodeUnprepareResources",
            request,
            api.UnprepareResponse,
        )

    def health(self) -> Iterator[dict[str, int]]:
        with grpc.insecure_channel(f"unix:{self._settings.endpoint}") as channel:
            call = channel.unary_stream(
                f"/{api.HEALTH}/NodeWatchResources",
                request_serializer=api.WatchRequest.SerializeToString,
                response_deserializer=api.WatchResponse.FromString,
            )
            for answer in call(api.WatchRequest(), timeout=10, wait_for_ready=True):
                yield {device.device.device_name: device.health for device in answer.devices}


@pytest.fixture
def settings(short_path: Path) -> DriverSettings:
    return DriverSettings(
        OFFER,
        "MLU_VISIBLE_DEVICES",
        short_path / "unhealthy",
        short_path / "k",
        short_path / "cdi",
        poll_seconds=0.02,
    )


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def kubelet(settings: DriverSettings, server: Server) -> Iterator[Kubelet]:
    driver = Driver(settings, server)
    thread = threading.Thread(target=driver.run)
    thread.start()
    try:
        yield Kubelet(settings)
    finally:
        driver.stop()
        thread.join(timeout=10)
    assert not settings.endpoint.exists()
    assert not settings.registration.exists()


def until(look: Callable[[], Any]) -> Any:
    end = time.monotonic() + 10
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def claim(
    *devices: str, uid: str = "uid-1", driver: str = OFFER.driver, pool: str = OFFER.node
) -> Any:
    results = [
        {"request": "mlus", "driver": driver, "pool": pool, "device": name} for name in devices
    ]
    status = {"allocation": {"devices": {"results": results}}}
    return {"metadata": {"name": "mine", "namespace": "team", "uid": uid}, "status": status}


def test_devices_are_published_once_the_kubelet_has_taken_the_driver(
    kubelet: Kubelet, server: Server
) -> None:
    info = kubelet.register()
    assert (info.type, info.name) == ("DRAPlugin", "mlu.example.com")
    assert list(info.supported_versions) == ["v1.DRAPlugin", "v1alpha1.DRAResourceHealth"]
    found = until(lambda: server.objects.get(SLICE))
    assert [device["name"] for device in found["spec"]["devices"]] == [
        f"device-{index}" for index in range(4)
    ]
    assert "/apis/resource.k8s.io/v1/deviceclasses/mlu.example.com" in server.objects
    del server.objects[SLICE]
    until(lambda: SLICE in server.objects)


def test_nothing_is_published_for_a_kubelet_that_refuses(
    kubelet: Kubelet, server: Server, settings: DriverSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    kubelet.register(accepted=False)
    next(kubelet.health())
    assert server.objects == {}
    assert "did not accept the driver: no" in capfd.readouterr().out


def test_a_claim_brings_its_devices_their_variables_and_the_vendors_one(
    kubelet: Kubelet, server: Server, settings: DriverSettings
) -> None:
    server.objects[CLAIM] = claim("device-3", "device-1")
    answer = kubelet.prepare()
    ids = {device.device_name: list(device.cdi_device_ids) for device in answer.devices}
    assert ids == {
        "device-3": ["mlu.example.com/device=device-3", "mlu.example.com/claim=uid-1"],
        "device-1": ["mlu.example.com/device=device-1"],
    }
    assert all(list(device.request_names) == ["mlus"] for device in answer.devices)
    files = {path.name: json.loads(path.read_text()) for path in settings.cdi.glob("*.json")}
    assert variables(files["mlu.example.com-uid-1.json"]) == {"uid-1": "MLU_VISIBLE_DEVICES=1,3"}
    assert (
        variables(files["mlu.example.com-devices.json"])["device-3"]
        == "MLU_VISIBLE_DEVICES_3=device-3"
    )
    kubelet.unprepare()
    assert [path.name for path in settings.cdi.glob("*.json")] == ["mlu.example.com-devices.json"]
    assert kubelet.unprepare().claims["uid-1"].error == "", "asking twice is no error"


def variables(spec: Any) -> dict[str, str]:
    return {device["name"]: device["containerEdits"]["env"][0] for device in spec["devices"]}


@pytest.mark.parametrize(
    "found",
    [
        None,
        claim("device-1", uid="another"),
        claim("device-1", driver="gpu.example.com"),
        claim("device-1", pool="node-2"),
        {**claim(), "status": {}},
    ],
    ids=["absent", "successor", "driver", "node", "not allocated"],
)
def test_a_claim_that_is_not_ours_is_an_error(kubelet: Kubelet, server: Server, found: Any) -> None:
    if found is not None:
        server.objects[CLAIM] = found
    answer = kubelet.prepare()
    assert list(answer.devices) == []
    assert answer.error.startswith("claim team/mine: ")


def test_a_broken_device_is_reported_and_no_longer_given_to_anybody(
    kubelet: Kubelet, server: Server, settings: DriverSettings
) -> None:
    kubelet.register()
    until(lambda: server.objects.get(SLICE))
    health = kubelet.health()
    assert set(next(health).values()) == {api.HEALTHY}
    settings.unhealthy.write_text("2\n")
    assert next(health) == {
        f"device-{index}": api.UNHEALTHY if index == 2 else api.HEALTHY for index in range(4)
    }
    until(lambda: objects.tainted(server.objects[SLICE]) == {"device-2"})
    assert server.objects[SLICE]["spec"]["pool"]["generation"] == 2
    settings.unhealthy.unlink()
    assert set(next(health).values()) == {api.HEALTHY}
    until(lambda: objects.tainted(server.objects[SLICE]) == frozenset())


def test_health_is_repeated_before_the_kubelet_forgets_it(settings: DriverSettings) -> None:
    assert settings.health_seconds < api.HEALTH_SECONDS


def test_specs_and_names(tmp_path: Path) -> None:
    spec = DriverSpec.parse("mlu.example.com=4:MLU_VISIBLE_DEVICES")
    assert spec == DriverSpec("mlu.example.com", 4, "MLU_VISIBLE_DEVICES")
    assert (
        visible_variable(spec)
        == visible_variable(DriverSpec("mlu.example.com", 1))
        == "MLU_VISIBLE_DEVICES"
    )
    cluster = ClusterSpec("one", drivers=(spec,))
    assert ClusterSpec.from_json(cluster.to_json()) == cluster
    layout = Layout(tmp_path, tmp_path / "bin", 1)
    assert (
        unhealthy_file(layout, spec.name)
        == tmp_path / "run" / "devices" / "mlu.example.com.unhealthy"
    )


@pytest.mark.parametrize(
    "text", ["mlu.example.com", "example.com/mlu=4", "=4", "mlu.example.com=many"]
)
def test_a_driver_that_makes_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected DRIVER=COUNT\[:VARIABLE\]"):
        DriverSpec.parse(text)
