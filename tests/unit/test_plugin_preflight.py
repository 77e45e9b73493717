"""``preflight``: the job that is made, what is read out of logs, who is named, how it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from inception_operator.accelerators.resolve import load_profiles, resolve
from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import NOT_FOUND, AnswerError, ClientError
from inception_operator.contract import names
from inception_operator.contract.assignment import to_json, work
from inception_operator.plugin import preflight_job, preflight_results
from inception_operator.plugin.preflight import judged
from inception_operator.plugin.preflight_results import CHECKS, Results, Seat
from inception_operator.pod.build import configuration
from inception_operator.spec.job import parse
from inception_trainer.config.training import from_mapping
from plugin_commands import Commands

Json = dict[str, Any]
MARK = "inception-preflight"
SAMPLES = sorted((Path(__file__).resolve().parents[2] / "manifests" / "samples").glob("*.yaml"))
PROFILES = load_profiles()


def jobs() -> Iterator[Any]:
    for path in SAMPLES:
        for each in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if each and each.get("kind") == names.KIND:
                yield pytest.param(each, id=path.stem)


@pytest.mark.parametrize("resource", list(jobs()))
def test_the_small_job_of_each_sample_is_one_that_operator_and_trainer_take(resource: Json) -> None:
    before = json.dumps(resource)
    made, remark = preflight_job.of(resource, 600)
    assert json.dumps(resource) == before
    job = parse({**made, "metadata": {**made["metadata"], "uid": "u", "namespace": "n"}})
    config = from_mapping(configuration(job, resolve(job, PROFILES)))
    assert config.mode == "Preflight"
    assert not job.program
    assert bool(remark) == bool(parse_original(resource).program)
    assert job.num_nodes == parse_original(resource).num_nodes
    assert (job.max_restarts, job.elastic) == (0, None)
    if job.checkpoint is not None:
        assert job.checkpoint_path != parse_original(resource).checkpoint_path


def parse_original(resource: Json) -> Any:
    return parse({**resource, "metadata": {"uid": "u", "namespace": "n", **resource["metadata"]}})


def test_the_small_job_ends_and_is_tried_once() -> None:
    run = {"suspend": True, "managedBy": "x", "schedulingPolicy": {"priorityClassName": "high"}}
    resource = {
        "metadata": {
            "name": "j" * 45,
            "labels": {names.LABEL_QUEUE: "q"},
            "annotations": {"a": ""},
        },
        "spec": {"training": {"profiler": {"steps": 1}}, "runPolicy": run, "elasticPolicy": {}},
    }
    made, _ = preflight_job.of(resource, 60)
    assert len(made["metadata"]["name"]) == names.MAX_JOB_NAME_LENGTH
    assert made["metadata"] == {
        "name": f"{'j' * 35}-preflight",
        "labels": {names.LABEL_QUEUE: "q"},
    }
    assert made["spec"] == {
        "training": {"mode": "Preflight"},
        "failurePolicy": {"maxRestarts": 0, "stragglerPolicy": "None"},
        "runPolicy": {
            "activeDeadlineSeconds": 180,
            "ttlSecondsAfterFinished": 3600,
            "cleanPodPolicy": "None",
            "schedulingPolicy": {"priorityClassName": "high"},
        },
    }
    with pytest.raises(ClientError, match="no spec"):
        preflight_job.of({"metadata": {}}, 60)


def line(rank: int, check: str, **others: Any) -> str:
    """What a rank writes."""
    return f"{MARK} {json.dumps({'rank': rank, 'check': check, 'ok': True, **others})}"


def all_of(rank: int, **others: Any) -> list[str]:
    """What a rank that is fit writes."""
    return [line(rank, check, seconds=1.0, **others) for check in CHECKS]


def seats(count: int) -> list[Seat]:
    return [Seat(rank, f"j-preflight-{rank}-1", f"node-{rank}") for rank in range(count)]


def results(*logs: Sequence[str]) -> Results:
    told: dict[int, dict[str, Json]] = {}
    for rank, lines in enumerate(logs):
        told |= preflight_results.read(lines, [rank])
    return preflight_results.judge(seats(len(logs)), told)


HOSTILE = (
    "inception-preflight",
    "inception-preflight {",
    "inception-preflight []",
    "inception-preflight " + "[" * 5000,
    "inception-preflight " + json.dumps({"rank": 0, "check": "data", "problem": "x" * 9000}),
    'inception-preflight {"rank": true, "check": "data", "ok": true}',
    'inception-preflight {"rank": "0", "check": "data", "ok": true}',
    'inception-preflight {"rank": 0, "check": ["data"], "ok": true}',
    'inception-preflight {"rank": 0, "check": "other", "ok": true}',
    # Of a rank that is another pod's.
    'inception-preflight {"rank": 1, "check": "data", "ok": false}',
)


def test_what_a_pod_writes_is_not_trusted() -> None:
    assert preflight_results.read(HOSTILE, [0]) == {0: {}}
    odd = {
        "ok": 1,
        "seconds": 1e300,
        "teraflops": True,
        "samples": "many",
        "imagesPerSecond": 12.5,
        "problem": "red \x1b[31mnode\x07\nand\rmore " + "x" * 1000,
        "remedy": 7,
        "sizes": [[1, 2, 3], [1, 2], "x", [1, 2, None], *([[0, 0, 0]] * 100)],
        "else": {"deep": []},
    }
    found = preflight_results.read([line(0, "data", **odd), "12 inception " + line(0, "link")], [0])
    data = found[0]["data"]
    assert data["ok"] is False
    assert data.keys() == {"ok", "imagesPerSecond", "problem", "sizes"}
    assert data["problem"].startswith("red node and more xxx")
    assert len(data["problem"]) == preflight_results.LONGEST_TEXT
    assert data["sizes"][0] == [1, 2, 3]
    assert len(data["sizes"]) < 32
    # Whatever stands in front of it, as the times of a log.
    assert found[0]["link"] == {"ok": True}
    huge = f"{MARK} " + '{"rank": 0, "check": "data", "seconds": ' + "9" * 5000 + "}"
    assert preflight_results.read([huge], [0]) == {0: {}}


def test_ranks_that_are_fit_have_no_problems() -> None:
    found = results(*(all_of(rank) for rank in range(3)))
    assert found.problems == []
    table = preflight_results.ranks_table(found).splitlines()
    assert len(table) == 4
    assert all(row.endswith("ok") for row in table[1:])
    assert found.as_dict()["ok"] is True


@pytest.mark.parametrize("check", ["matmul", "link"])
def test_a_rank_well_above_the_median_is_slow(check: str) -> None:
    logs = [all_of(rank) for rank in range(4)]
    logs[2] = [*logs[2], line(2, check, seconds=1.4)]
    assert results(*logs).problems == []
    logs[2] = [*logs[2], line(2, check, seconds=1.6)]
    (problem,) = results(*logs).problems
    assert problem.seat == Seat(2, "j-preflight-2-1", "node-2")
    assert problem.lines().startswith(
        f"rank 2 (pod j-preflight-2-1 on node node-2): {check}: slow: it takes 1.6 times"
    )
    assert problem.remedy in problem.lines()
    assert f"{check} slow" in preflight_results.ranks_table(results(*logs))


def test_storage_that_all_share_must_be_slower_to_be_called_so() -> None:
    logs = [all_of(rank) for rank in range(3)]
    slower = [[*logs[0], line(0, "data", seconds=2.5), line(0, "checkpoint", seconds=2.9)]]
    assert results(*slower, *logs[1:]).problems == []
    slower[0].append(line(0, "checkpoint", seconds=3.1))
    (problem,) = results(*slower, *logs[1:]).problems
    assert (problem.check, problem.seat) == ("checkpoint", seats(1)[0])


def test_a_rank_that_says_no_more_is_named_and_those_that_wait_for_it_are_not() -> None:
    logs = [all_of(0)[:4], all_of(1)[:2], all_of(2)[:4]]
    (problem,) = results(*logs).problems
    assert problem.seat is not None
    assert (problem.check, problem.seat.rank) == ("data", 1)
    assert "no answer" in problem.text


def test_what_is_wrong_is_shown_with_its_remedy() -> None:
    bad = line(1, "memory", ok=False, problem="no room", remedy="Raise the limit.")
    found = results(all_of(0), [*all_of(1), bad])
    assert found.as_dict()["problems"] == [
        {
            "rank": 1,
            "pod": "j-preflight-1-1",
            "node": "node-1",
            "check": "memory",
            "problem": "no room",
            "remedy": "Raise the limit.",
        }
    ]
    assert "memory failed" in preflight_results.ranks_table(found)
    remarked = results([*all_of(0), line(0, "data", remark="1 of 8"), line(0, "link", skipped="s")])
    assert preflight_results.remarks(remarked) == ["rank 0: data: 1 of 8", "link was not tried: s"]


def condition(kind: str, status: str, reason: str = "R", message: str = "") -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def job(*found: Json, **status: Any) -> Json:
    return {
        "metadata": {"name": "j-preflight", "generation": 1},
        "status": {"observedGeneration": 1, "conditions": list(found), **status},
    }


def test_a_rank_that_never_began_is_named_by_the_root_cause() -> None:
    root = {"reason": "ConfigError", "rank": 1, "message": "no device\x1b[2J", "pod": "p"}
    failed = job(condition("Failed", "True"), state="Failed", rootCause=root)
    found = judged(failed, results([], []), late=False)
    (problem,) = found.problems
    assert problem.lines() == (
        "rank 1 (pod j-preflight-1-1 on node node-1): job: ConfigError: no device"
    )
    # What the rank has said itself is better.
    bad = line(1, "memory", ok=False, problem="no room")
    assert len(judged(failed, results(all_of(0), [*all_of(1), bad]), late=False).problems) == 1
    gone = job(state="Failed", rootCause={"reason": "NodeLost", "pod": "p", "node": "n"})
    (problem,) = judged(gone, Results([]), late=False).problems
    assert "pod p on node n: NodeLost" in problem.text


def test_a_job_that_waits_for_nodes_says_what_it_waits_for() -> None:
    ready = condition("PodsReady", "False", message="0/3 nodes are available")
    waiting = job(ready, state="Pending")
    (problem,) = judged(waiting, Results([]), late=True).problems
    assert "is Pending: 0/3 nodes are available" in problem.text
    assert "--timeout" in problem.remedy


class Server(Cluster):
    """An API server that knows one job, its pods and their logs."""

    ending: Json
    logs: Sequence[Sequence[str]]
    requests: list[tuple[str, str]]

    @property
    def namespace(self) -> str:  # type: ignore[override]
        return "ns"

    def request(self, method: str, path: str, body: Any = None, *_: Any, **__: Any) -> Json:
        self.requests.append((method, path))
        if method == "POST":
            self.created = {**body, "metadata": {**body["metadata"], "uid": "u"}}
            return self.created
        if method == "DELETE":
            assert body["preconditions"] == {"uid": "u"}
            return {}
        raise AnswerError(404, "there is none", code=NOT_FOUND)

    def job(self, name: str) -> Json:
        assert name == self.created["metadata"]["name"]
        return {**self.created, "status": self.ending["status"]}

    def pods(self, name: str) -> list[Json]:
        return [
            {
                "metadata": {
                    "name": f"{name}-{slot}-1",
                    "labels": {names.LABEL_SLOT: str(slot)},
                    "annotations": {
                        names.ANNOTATION_ASSIGNMENT: to_json(
                            work(1, slot, len(self.logs), 1, "10.0.0.1", graceful=False)
                        )
                    },
                },
                "spec": {"nodeName": f"node-{slot}"},
            }
            for slot in range(len(self.logs))
        ]

    def lines(self, path: str, query: Any = (), seconds: float | None = None) -> Iterator[bytes]:
        assert ("container", "trainer") in query
        assert "limitBytes" in dict(query)
        slot = int(path.split("/pods/")[1].split("-")[2])
        yield from (text.encode() for text in self.logs[slot])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> type[Server]:
    Server.requests = []
    Server.logs = [all_of(0), all_of(1)]
    Server.ending = job(condition("Succeeded", "True"), state="Succeeded")
    monkeypatch.setattr("inception_operator.plugin.options.Cluster", Server)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return Server


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


OPTIONS = ("digits", "--recipe=bninception-digits", "--nodes=2")


def methods(server: type[Server]) -> list[str]:
    return [method for method, _ in server.requests]


def test_the_small_job_is_made_waited_for_read_and_deleted(
    command: Commands, server: type[Server]
) -> None:
    result = command("preflight", *OPTIONS)
    assert result.out.splitlines()[0].split()[:3] == ["RANK", "POD", "NODE"]
    assert result.out.endswith("2 ranks are fit for the job\n")
    assert "digits-preflight is created in the namespace ns" in result.err
    assert methods(server) == ["POST", "DELETE"]
    server.requests.clear()
    kept = command("preflight", *OPTIONS, "--keep", "-o", "json")
    assert methods(server) == ["POST"]
    assert kept.json["ok"] is True
    assert [rank["node"] for rank in kept.json["ranks"]] == ["node-0", "node-1"]
    assert kept.json["ranks"][1]["checks"]["data"]["seconds"] == 1.0


def test_the_bad_node_is_named_and_the_command_fails(
    command: Commands, server: type[Server]
) -> None:
    server.logs = [all_of(0), all_of(1), [*all_of(2), line(2, "link", seconds=9)]]
    result = command.run("preflight", *OPTIONS)
    assert result.code == 1
    assert "FAILED rank 2 (pod digits-preflight-2-1 on node node-2): link: slow" in result.out
    assert methods(server) == ["POST", "DELETE"]


def test_a_job_that_the_operator_rejects_ends_with_its_code(
    command: Commands, server: type[Server]
) -> None:
    server.logs = []
    server.ending = job(condition("Accepted", "False", "Rejected", "spec.image: missing"))
    server.ending["status"]["observedGeneration"] = None
    result = command.run("preflight", *OPTIONS)
    assert result.code == 78
    assert "spec.image: missing" in result.out


def test_the_time_that_is_over_has_the_code_of_every_command(
    command: Commands, server: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.ending = job(condition("PodsReady", "False", message="no node"), state="Pending")
    server.logs = []
    monkeypatch.setattr(Server, "lines", lambda *_, **__: iter(()))
    result = command.run("preflight", *OPTIONS, "--timeout=0s")
    assert result.code == 124
    assert "no node" in result.out
    assert methods(server)[-1] == "DELETE"


def test_a_file_says_what_the_job_is_and_options_do_not(
    command: Commands, server: type[Server], tmp_path: Path
) -> None:
    path = tmp_path / "job.yaml"
    text = yaml.safe_dump(
        {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": "mine", "namespace": "ns"},
            "spec": {"training": {"recipe": "bninception-digits"}, "numNodes": 2},
        }
    )
    path.write_text(text, encoding="utf-8")
    assert "mine-preflight is created" in command("preflight", f"--file={path}").err
    refused = command.run("preflight", f"--file={path}", "--nodes=3")
    assert (refused.code, "only --set" in refused.err) == (2, True)
    assert command.run("preflight").code == 2
    assert command.run("preflight", "digits", "--file=/nowhere").code == 2
