"""Assignments that are brought to the launchers: what proves them, and to whom they go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inception_operator.contract import assignment as assignments
from inception_operator.contract.types import Assignment, PodView
from inception_operator.pod import view as podview
from inception_operator.runtime.courier import Courier
from inception_trainer.launcher import assignment as launcher
from inception_trainer.launcher import settings
from operator_objects import pod

STANDBY = assignments.standby(3, graceful=True)
RUN = assignments.work(3, 1, nodes=2, nproc=1, master="10.0.0.7", graceful=True)
NEXT = assignments.work(4, 1, nodes=2, nproc=1, master="10.0.0.7", graceful=False)


class Post:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []
        self.courier = Courier(self.send)

    def send(self, ip: str, key: str, text: str) -> None:
        self.sent.append((ip, key, text))

    def deliver(self, told: Assignment | None, assignment: Assignment) -> str:
        """Bring a pod that has been told something what comes next; returns the key."""
        self.courier.deliver("ns", viewed(told), self.courier.write("ns", "job-0-1", assignment))
        return self.sent[-1][1]


def viewed(told: Assignment | None, reachable: bool | None = True) -> PodView:
    seen = podview.view(pod("job-0-1"))
    assert seen is not None
    return replace(seen, assignment=told, ip="10.0.0.9", reachable=reachable)


def read(text: str) -> launcher.Assignment:
    found = launcher.parse(text)
    assert found is not None
    return found


@pytest.mark.parametrize(("told", "following"), [(STANDBY, RUN), (RUN, NEXT)])
def test_the_launcher_takes_the_next_one_with_the_key_that_the_one_before_named(
    told: Assignment, following: Assignment
) -> None:
    post = Post()
    accepted = read(post.courier.write("ns", "job-0-1", told))
    key = post.deliver(told, following)
    assert accepted.opens(key)
    ip, _, text = post.sent[-1]
    assert ip == "10.0.0.9"
    assert assignments.from_json(text) == following
    # Used once: the next one has another key.
    assert not read(text).opens(key)
    assert key not in text


@pytest.mark.parametrize(
    "other",
    [
        Courier(lambda *_: None).write("ns", "job-0-1", RUN),
        Courier(lambda *_: None).write("ns", "job-0-1", STANDBY),
        assignments.to_json(RUN),
    ],
    ids=["another operator's", "another kind", "an operator that delivers nothing"],
)
def test_no_other_key_is_taken(other: str) -> None:
    key = Post().deliver(RUN, NEXT)
    assert not read(other).opens(key)
    assert not read(other).opens("")


def test_another_pod_has_another_key() -> None:
    post = Post()
    key = post.deliver(RUN, NEXT)
    for namespace, name in (("ns", "job-1-1"), ("other", "job-0-1")):
        assert not read(post.courier.write(namespace, name, RUN)).opens(key)


@pytest.mark.parametrize("reachable", [None, False], ids=["never asked", "silent"])
def test_nothing_is_sent_to_pods_that_would_not_take_it(reachable: bool | None) -> None:
    post = Post()
    post.courier.deliver("ns", viewed(RUN, reachable), "{}")
    assert post.sent == []


def test_a_pod_is_made_with_the_digest_of_the_key_of_its_first_assignment() -> None:
    post = Post()
    body = pod("job-0-1")
    trainer = {"name": "trainer", "env": [{"name": "A", "value": "1"}]}
    body["spec"] = {"containers": [{"name": "side"}, trainer], "hostNetwork": True}
    made = post.courier.invite("ns", body)["spec"]
    assert made["hostNetwork"]
    assert made["containers"][0] == {"name": "side"}
    other, variable = made["containers"][1]["env"]
    assert other == {"name": "A", "value": "1"}
    assert variable["name"] == "INCEPTION_NEXT_KEY"
    found = settings.read([], {variable["name"]: variable["value"]})
    key = post.deliver(None, RUN)
    assert launcher.Assignment(0, next_key=found.next_key).opens(key)
    assert not read(post.courier.write("ns", "job-0-1", RUN)).opens(key)
    assert trainer["env"] == [{"name": "A", "value": "1"}], "what was given stays as it is"


def test_the_text_for_people_who_deliver_nothing_stays_as_it_was() -> None:
    assert "nextKey" not in assignments.to_json(RUN)
