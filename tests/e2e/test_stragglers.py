"""A rank that is stopped three quarters of the time holds up all others, and is named."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from node_jobs import Jobs, condition, condition_message

pytestmark = [pytest.mark.timeout(1500), pytest.mark.nightly]

# Runs inside a worker pod, until it is told to let go.
STOP_AND_GO = """
import glob, os, signal, time
newest = max(glob.glob('/tmp/**/pid-0', recursive=True), key=os.path.getmtime)
pid = int(open(newest).read())
end = time.monotonic() + 600
while time.monotonic() < end and not os.path.exists('/tmp/let-go'):
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.3)
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.1)
"""
LET_GO = "open('/tmp/let-go', 'w').close()"
STATUS = """
import urllib.request
print(urllib.request.urlopen('http://127.0.0.1:8080/status').read().decode())
"""


def times(jobs: Jobs, pod: str) -> dict[str, float]:
    """What the launcher of a pod says of its only rank."""
    (ranks,) = json.loads(jobs.python(pod, STATUS))["ranks"]
    return dict(ranks)


def mean(before: dict[str, float], after: dict[str, float], key: str) -> float:
    """Seconds of a step between two looks."""
    return (after[key] - before[key]) / (after["steps"] - before["steps"])


def events(jobs: Jobs, reason: str) -> list[dict[str, Any]]:
    items = json.loads(jobs.kubectl("get", "events", "-o", "json"))["items"]
    return [event for event in items if event["reason"] == reason]


@contextmanager
def stopped_three_quarters_of_the_time(jobs: Jobs, pod: str) -> Iterator[None]:
    """The only rank of a pod, for ten minutes at most."""
    stopping = threading.Thread(target=jobs.python, args=(pod, STOP_AND_GO))
    stopping.start()
    try:
        yield
    finally:
        jobs.python(pod, LET_GO)
        stopping.join()


def test_a_rank_that_is_stopped_three_quarters_of_the_time_is_named(jobs: Jobs) -> None:
    name = "slow-rank"
    training = {"recipe": "bninception-digits", "epochs": 500, "logEverySteps": 5}
    jobs.apply(name, claim=False, training=training)
    jobs.wait(name, "trains", lambda s: s.get("trainerStatus", {}).get("step", 0) > 2)
    slow, waiting = jobs.pod(name, 1), jobs.pod(name, 0)
    with stopped_three_quarters_of_the_time(jobs, slow):
        before = {pod: times(jobs, pod) for pod in (slow, waiting)}
        status = jobs.wait(name, "named", lambda s: s.get("straggler", {}).get("rank") == 1)
        after = {pod: times(jobs, pod) for pod in (slow, waiting)}
        steps, own = (
            {pod: mean(before[pod], after[pod], key) for pod in before}
            for key in ("stepSeconds", "ownSeconds")
        )
        print(f"{status['straggler']}, steps {steps}, own {own}")
        assert own[slow] / own[waiting] > 1.5
        # Alike but for stops between meeting the other rank and the end of the step.
        assert own[slow] / own[waiting] > 1.5 * steps[slow] / steps[waiting]

    named = status["straggler"]
    assert (named["pod"], named["node"]) == (slow, jobs.node), jobs.story(name, status)
    assert float(named["ratio"]) >= 1.5
    (found,) = events(jobs, "StragglerFound")
    assert f"rank 1 (pod {slow} on node {jobs.node})" in found["message"]
    status = jobs.wait(name, "kept up", lambda s: "straggler" not in s)
    assert (status["attempt"], condition(status, "Running")) == (1, "True")
    assert events(jobs, "StragglerGone")


def test_where_there_is_no_other_node_a_straggler_stays_and_the_job_says_why(jobs: Jobs) -> None:
    name = "slow-and-alone"
    training = {"recipe": "bninception-digits", "epochs": 2000, "logEverySteps": 5}
    jobs.apply(name, training=training, failurePolicy={"stragglerPolicy": "Replace"})
    jobs.wait(name, "trains", lambda s: s.get("trainerStatus", {}).get("step", 0) > 2)
    slow = jobs.pod(name, 1)
    with stopped_three_quarters_of_the_time(jobs, slow):
        status = jobs.wait(
            name,
            "said why",
            lambda s: "nodes are available" in condition_message(s, "PodsReady"),
            seconds=480,
        )
        assert f"node {jobs.node} (rank 1 holds up all others)" in condition_message(
            status, "PodsReady"
        )
        assert (condition(status, "PodsReady"), condition(status, "Running")) == ("True", "True")
        assert status["straggler"]["pod"] == slow, "it was not touched"
        (_, waiting) = (pod for pod in jobs.pods(name) if pod["metadata"]["name"] != f"{name}-0-1")
        assert (waiting["metadata"]["name"], waiting["status"]["phase"]) == (
            f"{name}-1-2",
            "Pending",
        )
    status = jobs.wait(name, "kept up", lambda s: "straggler" not in s)
    assert (status["attempt"], status["restarts"]) == (1, 0)
    assert condition(status, "Running") == "True"
    pods = [pod for pod in jobs.pods(name) if "deletionTimestamp" not in pod["metadata"]]
    assert [pod["metadata"]["name"] for pod in pods] == [f"{name}-0-1", slow]
