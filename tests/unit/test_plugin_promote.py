"""``checkpoints promote``: who does it, and what is made of the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import ClientError
from inception_operator.contract import names
from inception_operator.plugin import helper_pod, pod_exec, promote
from inception_operator.plugin.pod_exec import Ending
from plugin_commands import Commands

Json = dict[str, Any]
DONE = {
    "name": "step-000000012",
    "step": 12,
    "place": "/checkpoint/digits/promoted/step-000000012",
    "isNew": True,
    "files": {"model.safetensors": "ab"},
}
LAUNCH = ["/opt/python3.12", "-m", "inception_trainer", "launch"]


def pod(phase: str = "Running", command: Sequence[str] = LAUNCH) -> Json:
    claim = {"claimName": "mine"}
    container = {
        "name": names.CONTAINER,
        "image": "trainer:1",
        "command": list(command),
        "env": [{"name": "A", "value": "b"}],
        "resources": {"limits": {"nvidia.com/gpu": "8"}},
        "volumeMounts": [
            {"name": "checkpoint", "mountPath": "/checkpoint"},
            {"name": "kube-api-access-x", "mountPath": "/var/run"},
        ],
    }
    return {
        "metadata": {"name": "digits-0-1", "labels": {names.LABEL_SLOT: "0"}},
        "status": {"phase": phase},
        "spec": {
            "nodeName": "gone",
            "securityContext": {"runAsUser": 1},
            "initContainers": [{"name": "i"}],
            "volumes": [
                {"name": "checkpoint", "persistentVolumeClaim": claim},
                {"name": "kube-api-access-x", "projected": {}},
                {"name": "sidecar"},
            ],
            "containers": [{"name": "sidecar"}, container],
        },
    }


class Server(Cluster):
    """A job with one pod, and whatever pods the command makes."""

    found: Json
    made: list[Json]
    deleted: list[str]
    log: list[str]
    ending: Json

    def job(self, name: str) -> Json:
        return {
            "metadata": {"name": name, "uid": "u"},
            "status": {"checkpointPath": "/checkpoint/digits"},
        }

    @property
    def namespace(self) -> str:  # type: ignore[override]
        return "ns"

    def pods(self, name: str) -> list[Json]:
        return [self.found] if self.found else []

    def request(self, method: str, path: str, body: Any = None, *_: Any, **__: Any) -> Json:
        if method == "POST":
            self.made.append(body)
            return dict(body)
        if method == "DELETE":
            self.deleted.append(path.rpartition("/")[2])
            return {}
        return {"status": self.ending}

    def lines(self, path: str, query: Any = (), seconds: float | None = None) -> Iterator[bytes]:
        assert "limitBytes" in dict(query)
        yield from (line.encode() for line in self.log)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> type[Server]:
    Server.found, Server.made, Server.deleted = pod(), [], []
    Server.log = ["a warning", json.dumps(DONE), ""]
    Server.ending = {"phase": "Succeeded"}
    monkeypatch.setattr("inception_operator.plugin.options.Cluster", Server)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return Server


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that ran in a pod; each answers as ``answers`` says."""
    commands: list[list[str]] = []

    def run(
        _cluster: Any, _pod: Json, command: list[str], sink: Callable[[bytes], object], _: float
    ) -> Ending:
        commands.append(command)
        sink(b"a warning\n" + json.dumps(DONE).encode() + b"\n")
        return Ending(0, "")

    monkeypatch.setattr(pod_exec, "run", run)
    return commands


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


def test_a_pod_that_runs_does_it(
    command: Commands, server: type[Server], executed: list[list[str]]
) -> None:
    result = command("checkpoints", "promote", "digits", "12", "--name=good", "--to=s3://b/x")
    assert result.out == f"step 12 is promoted: {DONE['place']}\n"
    (words,) = executed
    assert words[:4] == ["/opt/python3.12", "-m", "inception_trainer", "promote"]
    assert words[4:] == ["/checkpoint/digits", "12", "--name=good", "--to=s3://b/x"]
    assert server.made == []
    # Options may stand in front, as kubectl's users write them.
    assert command("checkpoints", "-n", "ns", "promote", "digits", "-o", "json").json == DONE
    assert executed[1][-1] == "/checkpoint/digits"


def test_where_none_runs_a_pod_of_the_same_kind_does_it_and_goes(
    command: Commands, server: type[Server]
) -> None:
    server.found = pod("Succeeded")
    result = command("checkpoints", "promote", "digits")
    assert result.out.startswith("step 12 is promoted")
    (made,) = server.made
    assert server.deleted == [made["metadata"]["name"]]
    assert names.LABEL_JOB not in made["metadata"]["labels"]
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u"
    spec = made["spec"]
    assert [volume["name"] for volume in spec["volumes"]] == ["checkpoint"]
    assert spec["securityContext"] == {"runAsUser": 1}
    assert "nodeName" not in spec
    (container,) = spec["containers"]
    assert container["command"][1:4] == ["-m", "inception_trainer", "promote"]
    assert (container["image"], container["env"][0]["name"]) == ("trainer:1", "A")
    assert "limits" not in container["resources"]
    assert [mount["name"] for mount in container["volumeMounts"]] == ["checkpoint"]


def test_where_the_last_one_has_just_ended_a_pod_of_the_same_kind_does_it(
    command: Commands, server: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any) -> Ending:
        raise pod_exec.ContainerEndedError("the trainer of digits-0-1 has just ended")

    monkeypatch.setattr(pod_exec, "run", run)
    assert command("checkpoints", "promote", "digits").out.startswith("step 12 is promoted")
    assert len(server.made) == 1


def test_what_the_trainer_refuses_is_said_and_the_pod_goes_all_the_same(
    command: Commands, server: type[Server]
) -> None:
    server.found = pod("Failed")
    server.log = ["DataError: /x is \x1b[31mdamaged"]
    server.ending = {
        "phase": "Failed",
        "containerStatuses": [{"state": {"terminated": {"exitCode": 65}}}],
    }
    result = command.run("checkpoints", "promote", "digits")
    assert result.code == 1
    assert result.err.endswith("error: DataError: /x is damaged\n")
    assert len(server.deleted) == 1
    server.ending["containerStatuses"][0]["state"]["terminated"]["exitCode"] = 64
    assert "its image is older" in command.run("checkpoints", "promote", "digits").err


def test_what_cannot_be_done_names_the_remedy(command: Commands, server: type[Server]) -> None:
    server.found = pod(command=["python3", names.LAUNCHER_MOUNT])
    refused = command.run("checkpoints", "promote", "digits")
    assert (refused.code, "program of its own" in refused.err) == (1, True)
    server.found = {}
    nobody = command.run("checkpoints", "promote", "digits", "5")
    assert "inception-trainer promote /checkpoint/digits 5" in nobody.err
    for wrong in (("digits", "../x"), ("digits", "--name=a/b"), ("digits", "--to=relative")):
        assert command.run("checkpoints", "promote", *wrong).code == 2


@pytest.mark.parametrize(
    "line",
    ["", "[]", "3", "[" * 9999, '{"name": "x"}', json.dumps({**DONE, "files": 3}), "no JSON"],
)
def test_an_answer_that_is_none_is_an_error(line: str) -> None:
    with pytest.raises(ClientError, match="has not said what it has promoted"):
        promote.answer([line])


def test_the_answer_of_a_pod_is_shown_as_text() -> None:
    odd = {**DONE, "place": "/x\x1b[2J\n" + "y" * 5000, "isNew": "yes", "more": {}}
    found = promote.answer(["first", json.dumps(odd), "a last word"])
    assert found["place"].startswith("/x y")
    assert len(found["place"]) == 1024
    assert found["isNew"] is False
    assert "more" not in found


def test_a_pod_that_does_not_begin_says_why(
    server: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.ending = {"phase": "Pending", "conditions": [{"message": "0/3 nodes are available"}]}
    monkeypatch.setattr(helper_pod, "_SECONDS", -1)
    job = Server().job("digits")
    with pytest.raises(ClientError, match="0/3 nodes are available"):
        helper_pod.run(Server(), job, pod("Succeeded"), ["true"])
    assert len(server.deleted) == 1
