"""The device plugin against a kubelet that is played over the same sockets."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from localcluster.deviceplugin import api, unhealthy_file, visible_variable
from localcluster.deviceplugin.server import DevicePlugin, PluginSettings, read_unhealthy
from localcluster.model import DeviceSpec, Layout

_SECONDS = 10.0
# A process of its own has grpc to import, on a machine that may have other things to do.
_START_SECONDS = 60.0


class Kubelet:
    """Accepts registrations; ``restart`` replaces its socket as a restarted kubelet does."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.registrations: queue.Queue[Any] = queue.Queue()
        self._server = self._start()

    def _start(self) -> grpc.Server:
        def register(request: Any, context: grpc.ServicerContext) -> Any:
            del context
            self.registrations.put(request)
            return api.Empty()

        handler = grpc.unary_unary_rpc_method_handler(
            register, api.RegisterRequest.FromString, api.Empty.SerializeToString
        )
        server = grpc.server(ThreadPoolExecutor(max_workers=1))
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("v1beta1.Registration", {"Register": handler}),)
        )
        server.add_insecure_port(f"unix:{self._directory / 'kubelet.sock'}")
        server.start()
        return server

    def stop(self) -> None:
        self._server.stop(grace=None).wait()
        (self._directory / "kubelet.sock").unlink(missing_ok=True)

    def restart(self) -> None:
        self.stop()
        self._server = self._start()

    def registration(self, seconds: float = _SECONDS) -> Any:
        return self.registrations.get(timeout=seconds)


@pytest.fixture
def settings(short_path: Path) -> PluginSettings:
    return PluginSettings(
        "cambricon.com/mlu", 4, "MLU_VISIBLE_DEVICES", short_path / "unhealthy", short_path, 0.02
    )


@pytest.fixture
def kubelet(settings: PluginSettings) -> Iterator[Kubelet]:
    kubelet = Kubelet(settings.directory)
    plugin = DevicePlugin(settings)
    thread = threading.Thread(target=plugin.run)
    thread.start()
    yield kubelet
    plugin.stop()
    thread.join(_SECONDS)
    kubelet.stop()
    assert not thread.is_alive()


@pytest.fixture
def channel(settings: PluginSettings, kubelet: Kubelet) -> Iterator[grpc.Channel]:
    endpoint = kubelet.registration().endpoint
    with grpc.insecure_channel(f"unix:{settings.directory / endpoint}") as channel:
        yield channel


def test_the_plugin_registers_its_resource(kubelet: Kubelet) -> None:
    request = kubelet.registration()
    assert (request.version, request.resource_name) == ("v1beta1", "cambricon.com/mlu")


def test_the_plugin_registers_again_when_the_kubelet_restarts(kubelet: Kubelet) -> None:
    kubelet.registration()
    kubelet.restart()
    assert kubelet.registration().resource_name == "cambricon.com/mlu"


def test_allocation_names_the_devices_of_each_container(channel: grpc.Channel) -> None:
    allocate = channel.unary_unary(
        "/v1beta1.DevicePlugin/Allocate",
        request_serializer=api.AllocateRequest.SerializeToString,
        response_deserializer=api.AllocateResponse.FromString,
    )
    request = api.AllocateRequest(
        container_requests=[{"devices_ids": ["10", "9"]}, {"devices_ids": ["0"]}]
    )
    answer = allocate(request, timeout=_SECONDS)
    values = [
        {env.key: env.value for env in container.envs} for container in answer.container_responses
    ]
    assert values == [{"MLU_VISIBLE_DEVICES": "9,10"}, {"MLU_VISIBLE_DEVICES": "0"}]


def test_devices_become_unhealthy_while_they_are_watched(
    channel: grpc.Channel, settings: PluginSettings
) -> None:
    watch = channel.unary_stream(
        "/v1beta1.DevicePlugin/ListAndWatch",
        request_serializer=api.Empty.SerializeToString,
        response_deserializer=api.ListAndWatchResponse.FromString,
    )
    answers = watch(api.Empty(), timeout=_SECONDS)
    first = {device.ID: device.health for device in next(answers).devices}
    settings.unhealthy.write_text("2\n")
    second = {device.ID: device.health for device in next(answers).devices}
    answers.cancel()
    assert first == dict.fromkeys("0123", "Healthy")
    assert second == {**first, "2": "Unhealthy"}


def test_messages_use_the_field_numbers_of_the_kubelet() -> None:
    # Bytes as k8s.io/kubelet's generated code writes them: tag = number << 3 | 2 for strings and
    # messages.
    request = api.RegisterRequest(version="v", endpoint="e", resource_name="r")
    assert request.SerializeToString() == b"\x0a\x01v\x12\x01e\x1a\x01r"
    devices = api.device_list(1, ())
    assert devices.SerializeToString() == b"\x0a\x0c\x0a\x010\x12\x07Healthy"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(None, frozenset(), id="no-file"),
        pytest.param("", frozenset(), id="empty"),
        pytest.param("1 3\n", frozenset({1, 3}), id="indices"),
        pytest.param("1 x", frozenset({1}), id="other-words"),
    ],
)
def test_unhealthy_devices_are_read_from_a_file(
    tmp_path: Path, text: str | None, expected: frozenset[int]
) -> None:
    path = tmp_path / "unhealthy"
    if text is not None:
        path.write_text(text)
    assert read_unhealthy(path) == expected


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        pytest.param(DeviceSpec("cambricon.com/mlu", 1), "MLU_VISIBLE_DEVICES", id="cambricon"),
        pytest.param(DeviceSpec("nvidia.com/gpu", 1), "NVIDIA_VISIBLE_DEVICES", id="nvidia"),
        pytest.param(DeviceSpec("nvidia.com/gpu", 1, "X"), "X", id="chosen"),
        pytest.param(
            DeviceSpec("some-vendor.example/card", 1), "SOME_VENDOR_VISIBLE_DEVICES", id="unknown"
        ),
    ],
)
def test_visible_variable(device: DeviceSpec, expected: str) -> None:
    assert visible_variable(device) == expected


@pytest.mark.timeout(200)
def test_one_process_serves_all_resources_and_ends_when_told(short_path: Path) -> None:
    kubelet = Kubelet(short_path)
    command = [
        sys.executable,
        "-m",
        "localcluster.deviceplugin",
        f"--plugin-directory={short_path}",
    ]
    devices = ["--device=cambricon.com/mlu=4", "--device=nvidia.com/gpu=2:X"]
    process = subprocess.Popen([*command, f"--unhealthy-folder={short_path}", *devices])
    try:
        names = {kubelet.registration(_START_SECONDS).resource_name for _ in devices}
        assert names == {"cambricon.com/mlu", "nvidia.com/gpu"}
        process.terminate()
        assert process.wait(_START_SECONDS) == 0
    finally:
        process.kill()
        process.wait(_SECONDS)
        kubelet.stop()


def test_devices_are_passed_on_as_they_are_read() -> None:
    for text in ("cambricon.com/mlu=4", "nvidia.com/gpu=2:X"):
        assert str(DeviceSpec.parse(text)) == text


def test_health_file_lies_in_the_cluster(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "one", tmp_path, 1)
    assert unhealthy_file(layout, "cambricon.com/mlu").is_relative_to(layout.root)
