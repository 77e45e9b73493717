"""The commands that look at jobs and steer them, against an API server over HTTP.

tests/integration has the same on the real one; here is what it does not do at will: logs that are
refused, pods that do not stop, an API server that is away, and what a shell completes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inception_operator.client import following, pod_logs
from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import AnswerError, ClientError
from inception_operator.client.questions import Questions, Request, answered
from inception_operator.contract import names
from inception_operator.contract.types import Json
from inception_operator.plugin import cli, waiting
from job_api import NAMESPACE, ROOT_CAUSE, JobApi
from plugin_commands import Commands

T0 = "2026-01-01T00:00:0"
SUCCEEDED = {"type": "Succeeded", "status": "True", "reason": "Completed", "message": "all done"}
FAILED = {"type": "Failed", "status": "True", "reason": "FailedByRule", "message": "code 65"}
SUSPENDED = {"type": "Suspended", "status": "True", "reason": "Suspended", "message": "held"}
REJECTED = {"type": "Accepted", "status": "False", "reason": "InvalidSpec", "message": "no"}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobApi]:
    monkeypatch.setattr(pod_logs, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(following, "_PAUSE", 0.01)
    with JobApi() as found:
        # Nobody may see events, as for many users.
        found.refusals["/events"] = (403, "may not list events")
        yield found


@pytest.fixture
def kubeconfig(api: JobApi, tmp_path: Path) -> Path:
    return api.kubeconfig(tmp_path)


@pytest.fixture
def command(kubeconfig: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys, f"--kubeconfig={kubeconfig}")


def three_jobs(api: JobApi) -> None:
    """One that runs, one that has failed, one that waits."""
    trainer = {"progressPercentage": 50, "step": 120, "samplesPerSecond": "800"}
    api.put("running", state="Running", attempt=1, trainerStatus=trainer)
    api.put("broken", state="Failed", conditions=[FAILED], rootCause=ROOT_CAUSE)
    api.put("waiting", state="Pending")


def column(text: str, name: str) -> list[str]:
    """A column of a table."""
    header, *rows = text.splitlines()
    at = header.index(name)
    return [row[at:].split()[0] for row in rows]


def test_jobs_are_listed_by_name_state_and_as_others_read_them(
    api: JobApi, command: Commands
) -> None:
    three_jobs(api)
    listed = command("list").out
    assert column(listed, "NAME") == ["broken", "running", "waiting"]
    assert column(listed, "STATE") == ["Failed", "Running", "Pending"]
    assert column(command("list", "--state=failed").out, "NAME") == ["broken"]
    assert column(command("list", "--sort-by=state").out, "STATE") == sorted(
        ["Failed", "Running", "Pending"]
    )
    assert [job["metadata"]["name"] for job in command("list", "-o", "json").json["items"]] == [
        "broken",
        "running",
        "waiting",
    ]
    assert command("list", "-o", "name").out.splitlines()[0] == (
        f"{names.PLURAL[:-1]}.{names.GROUP}/broken"
    )
    # The same words name a job: those of kubectl, too.
    for word in (f"{names.PLURAL[:-1]}.{names.GROUP}/broken", f"{names.PLURAL}/broken"):
        assert column(command("get", word, "itrain/waiting").out, "NAME") == ["broken", "waiting"]
    other = command.run("describe", "pod/broken")
    assert (other.code, "pod/broken is no InceptionTraining" in other.err) == (2, True)
    none = command("list", "--state=Suspended")
    assert (none.out, none.err) == ("", f"No jobs found in the namespace {NAMESPACE}.\n")
    assert column(command("get", "waiting", "broken").out, "NAME") == ["waiting", "broken"]
    assert command("get", "running", "-o", "json").json["status"]["attempt"] == 1


def test_what_goes_on_is_on_top_and_what_has_ended_only_on_demand(
    api: JobApi, command: Commands
) -> None:
    three_jobs(api)
    head, _, table = command("top").out.partition("\n")
    assert head == "2 jobs, 1 running, 800.0 img/s together"
    assert column(table, "NAME") == ["running", "waiting"]
    head, _, table = command("top", "--all", "--once").out.partition("\n")
    assert column(table, "NAME") == ["running", "broken", "waiting"]


def test_what_goes_on_stays_shown_while_the_api_server_is_away(
    api: JobApi, kubeconfig: Path
) -> None:
    three_jobs(api)
    with Cluster(str(kubeconfig)) as cluster:
        pictures = waiting.pictures(cluster, False, False)
        first = next(pictures)
        path = f"/namespaces/{NAMESPACE}/{names.PLURAL}"
        api.refusals[path] = (500, "etcd is away")
        reason, _, still = next(pictures).partition("\n\n")
        assert "etcd is away" in reason
        assert still == first
        del api.refusals[path]
        assert next(pictures) == first
        api.refusals[path] = (403, "no longer allowed")
        with pytest.raises(ClientError, match="no longer allowed"):
            next(pictures)


def test_a_list_whose_moment_is_forgotten_is_asked_for_anew() -> None:
    asked: list[str | None] = []

    def send(request: Request) -> Json:
        token = dict(request.query).get("continue")
        asked.append(token)
        if token == "old":
            raise AnswerError(410, "The provided continue parameter is too old")
        if "limit" in dict(request.query):
            return {"items": [{"of": "the first page"}], "metadata": {"continue": "old"}}
        return {"items": [{"n": 1}, {"n": 2}], "metadata": {}}

    question = Questions("team", "test").everything("/api/v1/events", [("labelSelector", "a=b")])
    assert answered(question, send) == [{"n": 1}, {"n": 2}]
    assert asked == [None, "old", None]


def test_a_page_says_why_a_job_has_failed_to_who_may_see_no_pods(
    api: JobApi, command: Commands
) -> None:
    three_jobs(api)
    api.add_pods("broken", ["Failed"])
    page = command("describe", "broken").out
    assert "broken-0-1" in page
    assert "no images in /data" in page
    assert "\x1b" not in page
    api.refusals["/pods"] = (403, "may not list pods")
    assert "you may not see the pods" in command("describe", "broken").out
    api.refusals["/pods"] = (500, "etcd is away")
    refused = command.run("describe", "broken")
    assert (refused.code, refused.out) == (69, "")
    assert "etcd is away" in refused.err


def event(name: str, uid: str, message: str, kind: str = "Pod") -> dict[str, Any]:
    """A warning."""
    return {
        "type": "Warning",
        "reason": "Why",
        "message": message,
        "lastTimestamp": f"{T0}1Z",
        "involvedObject": {"kind": kind, "name": name, "uid": uid},
    }


def test_a_page_shows_the_events_of_the_job_and_the_warnings_of_its_pods(
    api: JobApi, command: Commands
) -> None:
    three_jobs(api)
    api.refusals.clear()
    api.events = [
        event("running", "uid-running", "of the job", names.KIND),
        event("running-0-1", "gone", "of its pod"),
        event("running-0-0-1", "other", "of another job's"),
        {
            **event("running-0-1", "gone", "Readiness probe failed: HTTP probe failed"),
            "reason": "Unhealthy",
        },
        {**event("running-0-1", "before", "of a job before"), "lastTimestamp": "2025-12-31"},
    ]
    api.put("running", state="Running")
    command("list")
    api.jobs["running"]["metadata"]["creationTimestamp"] = f"{T0}0Z"
    page = command("describe", "running").out
    own, _, of_pods = page.partition("\nWarnings of pods\n")
    assert "of the job" in own
    assert "of its pod" not in own
    assert "running-0-1" in of_pods
    assert "of its pod" in of_pods
    assert "of another" not in page
    assert "Readiness" not in page
    assert "before" not in page


@pytest.mark.parametrize("words", [("describe",), ("get",), ("logs",), ("report",)], ids=str)
def test_a_job_that_is_not_there_leads_to_the_nearest(
    words: tuple[str, ...], api: JobApi, command: Commands
) -> None:
    three_jobs(api)
    missing = command.run(*words, "runing")
    assert (missing.code, missing.out) == (3, "")
    assert "did you mean running?" in missing.err


@pytest.mark.parametrize("words", [("list",), ("describe", "x"), ("report", "x")], ids=str)
def test_an_api_server_that_does_not_know_the_user_is_told_alike_by_all(
    words: tuple[str, ...], api: JobApi, kubeconfig: Path, command: Commands
) -> None:
    kubeconfig.write_text(kubeconfig.read_text().replace("let-me-in", "stranger"))
    refused = command.run(*words)
    assert (refused.code, refused.out) == (77, "")
    assert "does not know you" in refused.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("describe", "running"), "kubectl inception watch running{}"),
        (("describe", "broken"), "kubectl inception logs broken{}"),
        (("describe", "waiting"), "kubectl inception doctor{}"),
        (("describe", "other"), "`kubectl inception list{}` shows"),
        (("logs", "waiting"), "`kubectl inception describe waiting{}` says why"),
        (("cancel", "waiting"), "`kubectl inception delete waiting{}` removes it"),
        (("suspend", "broken"), "`kubectl inception get broken -o yaml{}`"),
        (("checkpoints", "promote", "running"), "`kubectl inception describe running{}` says"),
    ],
    ids=str,
)
def test_a_command_that_is_named_leads_to_the_same_place(
    words: tuple[str, ...], said: str, api: JobApi, kubeconfig: Path, command: Commands
) -> None:
    three_jobs(api)
    shown = command.run(*words, "-n", NAMESPACE, "--context=c")
    assert said.format(f" --kubeconfig {kubeconfig} --context c -n {NAMESPACE}") in (
        shown.out + shown.err
    )


def test_logs_are_those_of_all_pods_as_far_as_they_can_be_had(
    api: JobApi, command: Commands
) -> None:
    three_jobs(api)
    api.add_pods("running", ["Running", "Running"])
    api.logs["running-0-1"] = [f"{T0}1Z one", f"{T0}2Z \x1b[31mtwo"]
    shown = command("logs", "running")
    assert shown.out == "[running-0-1] one\n[running-0-1] two\n"
    assert "[running-1-1] no log: " in shown.err
    assert command("logs", "running", "--no-prefix", "--timestamps").out == (
        f"{T0}1Z one\n{T0}2Z two\n"
    )
    api.logs.clear()
    nothing = command.run("logs", "running")
    assert (nothing.code, "no pod of running has a log" in nothing.err) == (1, True)
    without = command.run("logs", "waiting")
    assert (without.code, "waiting has no pods" in without.err) == (1, True)
    both = command.run("logs", "running", "--follow", "--previous")
    assert (both.code, "do not go together" in both.err) == (2, True)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        ({"state": "Succeeded", "conditions": [SUCCEEDED]}, 0, "digits: Succeeded"),
        (
            {"state": "Failed", "conditions": [FAILED], "rootCause": ROOT_CAUSE},
            65,
            "digits: Failed",
        ),
        ({"state": "Failed", "conditions": [FAILED]}, 1, "digits: Failed"),
    ],
    ids=["well", "with a root cause", "without"],
)
def test_waiting_and_watching_end_as_the_job_ends(
    status: dict[str, Any], code: int, said: str, api: JobApi, command: Commands
) -> None:
    api.put("digits", **status)
    for word in ("wait", "watch"):
        ended = command.run(word, "digits")
        assert (ended.code, said in ended.err) == (code, True), ended
        assert "\x1b" not in ended.err


def test_waiting_ends_with_the_time_or_with_what_is_waited_for(
    api: JobApi, command: Commands
) -> None:
    three_jobs(api)
    late = command.run("wait", "waiting", "--timeout=0s")
    assert late.code == 124
    assert command("wait", "running", "--for=running").err == ""
    # It will never be: how it has ended is said, and its code.
    never = command.run("wait", "broken", "--for=running")
    assert (never.code, "broken: Failed" in never.err) == (65, True)


def test_what_steers_a_job_changes_its_spec_and_says_so(api: JobApi, command: Commands) -> None:
    three_jobs(api)
    assert command("suspend", "running", "waiting").out == (
        "running saves its state and is suspended\nwaiting saves its state and is suspended\n"
    )
    assert api.jobs["waiting"]["spec"]["runPolicy"]["suspend"] is True
    command("resume", "waiting")
    assert api.jobs["waiting"]["spec"]["runPolicy"]["suspend"] is False
    assert command("delete", "waiting").out == "waiting is deleted\n"
    assert "waiting" not in api.jobs
    missing = command.run("delete", "waiting")
    assert missing.code == 3
    assert command("delete", "waiting", "--ignore-not-found").out == ""
    # What cannot be done to one job is done to the others.
    for words, done in ((("suspend",), "running saves"), (("delete",), "running is deleted")):
        some = command.run(*words, "waiting", "broken-one", "running")
        assert (some.code, done in some.out, some.err.count("error: ")) == (3, True, 2)


def suspended(api: JobApi, name: str) -> None:
    """The operator's answer: at once, while the pods still save."""
    api.put(name, state="Suspended", observedGeneration=1, conditions=[SUSPENDED])


@pytest.mark.parametrize(
    "words",
    [("suspend", "running", "--wait"), ("wait", "running", "--for=suspended")],
    ids=" ".join,
)
def test_a_job_counts_as_suspended_once_its_pods_are_gone(
    words: tuple[str, ...], api: JobApi, command: Commands
) -> None:
    three_jobs(api)
    api.add_pods("running", ["Running"])
    suspended(api, "running")
    late = command.run(*words, "--timeout=0s")
    assert (late.code, "its pods still save" in late.err) == (124, True)
    api.pods.clear()
    command(*words)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        ({"state": "Succeeded", "conditions": [SUCCEEDED]}, 1, "it ended before it was suspended"),
        # Its spec is wrong as well, which the state tells instead.
        ({"state": "Rejected", "conditions": [REJECTED, SUSPENDED]}, 0, ""),
        # What the status says is about the spec before.
        ({"observedGeneration": 0, "conditions": [SUSPENDED]}, 124, "the time is over"),
    ],
    ids=["over", "rejected", "not yet seen"],
)
def test_who_waits_for_a_suspension_learns_what_became_of_it(
    status: dict[str, Any], code: int, said: str, api: JobApi, command: Commands
) -> None:
    three_jobs(api)
    api.on_change = lambda name: api.put(name, **{"observedGeneration": 1, **status})
    waited = command.run("suspend", "running", "--wait", "--timeout=0s")
    assert (waited.code, said in waited.err) == (code, True), waited


def test_a_job_that_is_resumed_or_ends_meanwhile_does_not_restart(
    api: JobApi, command: Commands
) -> None:
    three_jobs(api)

    def resume(name: str) -> None:
        api.jobs[name]["spec"]["runPolicy"]["suspend"] = False

    api.on_change = resume
    resumed = command.run("restart", "running")
    assert (resumed.code, "running was resumed meanwhile" in resumed.err) == (1, True)
    api.on_change = lambda name: api.put(name, conditions=[SUCCEEDED])
    ended = command.run("restart", "running")
    assert (ended.code, "it ended before it was suspended" in ended.err) == (1, True)


def test_a_job_that_does_not_stop_is_left_as_it_is_said(api: JobApi, command: Commands) -> None:
    three_jobs(api)
    # Nobody suspends it here: no operator runs.
    late = command.run("restart", "running", "--timeout=0s")
    assert late.code == 1
    assert "running was asked to stop and has not yet" in late.err
    assert "kubectl inception resume running" in late.err
    assert api.jobs["running"]["spec"]["runPolicy"]["suspend"] is True
    again = command.run("restart", "running")
    assert (again.code, "running is suspended" in again.err) == (1, True)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["describe", ""], ["broken", "running", "waiting"]),
        (["describe", "r"], ["running"]),
        (["get", "running", "w"], ["waiting"]),
        (["logs", "--tail", "3", "b"], ["broken"]),
        (["checkpoints", "r"], ["running"]),
        (["checkpoints", "promote", "r"], ["running"]),
        (["describe", "-n", "elsewhere", "r"], []),
    ],
    ids=" ".join,
)
def test_names_of_jobs_are_completed(
    words: list[str],
    completed: list[str],
    api: JobApi,
    kubeconfig: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    three_jobs(api)
    api.refusals["/namespaces/elsewhere/inceptiontrainings"] = (403, "may not")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    assert cli.complete(words) == 0
    *found, last = capsys.readouterr().out.splitlines()
    assert (sorted(found), last) == (completed, ":4")


def test_where_jobs_cannot_be_asked_for_nothing_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert cli.complete(["describe", ""]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == (":4\n", "")
