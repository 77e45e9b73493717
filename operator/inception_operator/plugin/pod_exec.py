"""Runs a command in the container of a pod that trains, as ``kubectl exec`` does."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import UNAVAILABLE, ClientError
from inception_operator.client.figures import name_of, part
from inception_operator.client.questions import refuse, status_of
from inception_operator.client.text import clean_line
from inception_operator.contract import names
from inception_operator.contract.types import Json

_OUTPUT: Final = 1
_ERRORS: Final = 2
_ENDING: Final = 3
# The API server passes it on to the kubelet as it is; it is as old as WebSockets are there.
_PROTOCOL: Final = "v4.channel.k8s.io"
_ERROR_BYTES: Final = 1 << 12
# What the kubelet says: a pod shows the end of its container up to a second later.
_NO_CONTAINER: Final = "container not found"
_PYTHON: Final = re.compile(r"(.*/)?python(\d+(\.\d+)?)?")
Sink = Callable[[bytes], object]


class ContainerEndedError(ClientError):
    """The container has ended already, although the pod does not show it yet."""


@dataclass(frozen=True)
class Ending:
    """How a command has ended: its exit code, and the end of what it wrote to stderr."""

    code: int
    errors: str

    @property
    def last_words(self) -> str:
        """The last line of what it wrote to stderr, else the exit code."""
        return (self.errors.strip().splitlines() or [f"exit code {self.code}"])[-1]


def run(cluster: Cluster, pod: Json, command: Sequence[str], sink: Sink, seconds: float) -> Ending:
    """Run a command; its output goes to ``sink``. Silence of so many seconds is an error.

    Raises ContainerEndedError where there is nothing any more to run it in.
    """
    from kubernetes.stream.ws_client import WSClient
    from websocket import WebSocketException

    try:
        address, headers = _address(cluster, pod, command)
        client: Any = WSClient(  # type: ignore[no-untyped-call]
            cluster.configuration, address, headers, capture_all=False, binary=True
        )
        try:
            return _read(client, name_of(pod), sink, seconds)
        finally:
            # Its own close leaves the socket open where the server has said goodbye first.
            client.sock.shutdown()
    except (WebSocketException, OSError) as error:
        raise _refusal(error, pod) from error


def run_for_output(
    cluster: Cluster, pod: Json, command: Sequence[str], seconds: float, most: int
) -> tuple[Ending, bytes]:
    """Run a command; how it has ended, and its output. More than so many bytes are an error."""
    output = bytearray()

    def take(data: bytes) -> None:
        output.extend(data)
        if len(output) > most:
            raise ClientError(
                f"the pod {name_of(pod)} answers with more than {most} bytes, "
                "which is not what it was asked for"
            )

    return run(cluster, pod, command, take, seconds), bytes(output)


def _address(cluster: Cluster, pod: Json, command: Sequence[str]) -> tuple[str, dict[str, str]]:
    from kubernetes.stream.ws_client import get_websocket_url

    query = [("container", names.CONTAINER), ("stdout", "true"), ("stderr", "true")]
    query += [("command", word) for word in command]
    address, headers = cluster.signed(cluster.core_path("pods", name_of(pod), "exec"), query)
    url = str(get_websocket_url(address))  # type: ignore[no-untyped-call]
    return url, {**headers, "sec-websocket-protocol": _PROTOCOL}


def _read(client: Any, pod: str, sink: Sink, seconds: float) -> Ending:
    errors = b""
    heard = time.monotonic()
    while client.is_open():
        client.update(timeout=1)
        output, said = client.read_channel(_OUTPUT), client.read_channel(_ERRORS)
        if output or said:
            heard = time.monotonic()
            sink(output)
            errors = (errors + said)[-_ERROR_BYTES:]
        elif time.monotonic() - heard > seconds:
            raise ClientError(
                f"the pod {pod} has said nothing for {seconds:.0f} s", code=UNAVAILABLE
            )
    ending = client.read_channel(_ENDING)
    return Ending(_code(ending), errors.decode("utf-8", "replace"))


def _code(ending: bytes) -> int:
    """The exit code in what the kubelet says at the end of a command."""
    status = status_of(ending)
    if part(status, "status") == "Success":
        return 0
    causes = part(status, "details", "causes") or []
    codes = [str(cause.get("message")) for cause in causes if cause.get("reason") == "ExitCode"]
    if not codes or not codes[0].isdigit():
        message = part(status, "message") or "the connection broke"
        raise ClientError(f"the command could not be run: {clean_line(message)}", code=UNAVAILABLE)
    return int(codes[0])


def _refusal(error: Exception, pod: Json) -> ClientError:
    """What an answer without a connection means."""
    status, body = getattr(error, "status_code", None), getattr(error, "resp_body", None) or b""
    if not isinstance(status, int):
        text = f"the pod {name_of(pod)} cannot be reached: {clean_line(error)}"
        return ClientError(text, code=UNAVAILABLE)
    try:
        refuse(status, status_of(body), body, f"exec in {name_of(pod)}")
    except ClientError as refused:
        if _NO_CONTAINER in refused.message:
            text = f"the trainer of {name_of(pod)} has just ended"
            return ContainerEndedError(text, code=UNAVAILABLE)
        return refused


def runs(pod: Json) -> bool:
    """Whether a command can be run in a pod."""
    return part(pod, "status", "phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


def interpreter(pod: Json) -> str:
    """The Python that runs the launcher of a pod: its image may have several."""
    command = _command(pod)
    return command[0] if command and _PYTHON.fullmatch(command[0]) else "python3"


def has_trainer(pod: Json) -> bool:
    """Whether the image of a pod has the bundled trainer."""
    return names.LAUNCHER_MOUNT not in _command(pod)[1:2]


def of_launcher(pod: Json, module: str, *arguments: str) -> list[str]:
    """The command that runs a module of the launcher, in the trainer's image or another."""
    python = interpreter(pod)
    if has_trainer(pod):
        return [python, "-m", f"inception_trainer.launcher.{module}", *arguments]
    code = (
        f"import sys; sys.path.insert(0, {names.LAUNCHER_MOUNT!r}); "
        f"from inception_launcher.{module} import main; sys.exit(main(sys.argv[1:]))"
    )
    return [python, "-c", code, *arguments]


def _command(pod: Json) -> list[str]:
    return [str(word) for word in trainer_container(pod).get("command") or ()]


def trainer_container(pod: Json) -> Json:
    """The container of a pod that trains; empty where there is none."""
    containers = part(pod, "spec", "containers") or []
    return next((each for each in containers if each.get("name") == names.CONTAINER), {})
