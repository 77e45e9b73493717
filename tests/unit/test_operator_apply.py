"""Carrying out plans: the order, what counts as success, and what a failure stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest

from inception_operator.contract import names
from inception_operator.contract.assignment import from_json, to_json
from inception_operator.contract.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    JobGoneError,
    NotFoundError,
    RejectedError,
    StaleViewError,
    UnavailableError,
)
from inception_operator.contract.types import Assignment, Event, Json, Plan, PodView
from inception_operator.pod import view as podview
from inception_operator.runtime.apply import Applier
from inception_operator.runtime.client import CLAIM_TEMPLATES, JOBS, PODS, Kind
from inception_operator.runtime.courier import Courier
from inception_operator.runtime.job_cache import JobCache
from inception_operator.runtime.workqueue import Key
from operator_objects import job, pod

WORK = Assignment(
    attempt=2, nnodes=2, node_rank=0, nproc_per_node=1, master_addr="10.0.0.1", master_port=29502
)


class FakeClient:
    """Writes down requests; ``faults`` maps verb and name to an error."""

    def __init__(self, **faults: ApiError) -> None:
        self.log: list[str] = []
        self.bodies: list[Json] = []
        self.faults = faults
        self.found = pod("job-0-2", version=9)
        self.answer: Json = {"kind": "Status", "status": "Success"}
        self.deleted: Json | None = None

    async def _do(self, verb: str, name: str, body: Any, answer: Json) -> Json:
        self.log.append(f"{verb} {name}")
        self.bodies.append(body)
        await asyncio.sleep(0)
        if verb in self.faults:
            raise self.faults[verb]
        return answer

    async def apply_status(self, resource: Kind, body: Json) -> Json:
        return await self._do(
            "status", body["metadata"]["name"], body, job(version=5, **body["status"])
        )

    async def create(self, resource: Kind, namespace: str, body: Json) -> Json:
        verb = "prepare" if resource == CLAIM_TEMPLATES else "create"
        return await self._do(verb, body["metadata"]["name"], body, pod("job-0-2", version=8))

    async def merge(
        self, resource: Kind, namespace: str, name: str, body: Json, *, strategic: bool = False
    ) -> Json:
        assert resource == PODS
        return await self._do("repair" if strategic else "assign", name, body, pod(name, version=7))

    async def delete(self, resource: Kind, namespace: str, name: str, **options: Any) -> Json:
        if resource == JOBS:
            return await self._do("delete", name, options, self.answer)
        return await self._do("delete", name, options, self.deleted or pod(name, version=6))

    async def get(self, resource: Kind, namespace: str, name: str) -> Json:
        return await self._do("get", name, None, self.found)


class Cache:
    def __init__(self) -> None:
        self.merged: list[str] = []
        self.removed: list[str] = []

    def merge(self, raw: Json) -> None:
        self.merged.append(raw["metadata"]["name"])

    def remove(self, key: Key, name: str, uid: str) -> None:
        self.removed.append(name)


class Scene:
    def __init__(self, **faults: ApiError) -> None:
        self.client, self.cache, self.jobs = FakeClient(**faults), Cache(), JobCache()
        self.written: list[str] = []
        self.sent: list[tuple[str, str]] = []
        self.jobs.update(job())
        self.applier = Applier(
            self.client,  # type: ignore[arg-type]
            self.jobs,
            self.cache,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            Courier(lambda ip, _key, text: self.sent.append((ip, text))),
            "this operator",
        )

    def status_written(self, _resource: Json, status: Json) -> None:
        self.written.append(status["state"])

    def post(self, _job: Json, event: Event) -> None:
        self.client.log.append(f"event {event.reason}")

    async def apply(self, **plan: Any) -> str | None:
        views = [
            view
            for raw in (pod("job-0-1"), pod("job-1-1"))
            if (view := podview.view(raw)) is not None
        ]
        return await self.applier.apply(job(), views, Plan(**plan))


STATUS = {"state": "Running"}
EVERYTHING: dict[str, Any] = {
    "status": STATUS,
    "delete": {"job-1-1": 0},
    "create": ({"metadata": {"name": "job-0-2"}, "spec": {"containers": []}},),
    "assign": {"job-0-1": WORK},
    "events": (Event("Normal", "AttemptStarted", "text"),),
}


async def test_the_status_goes_first_and_events_last() -> None:
    scene = Scene()
    assert await scene.apply(**EVERYTHING) is None
    log = scene.client.log
    assert log[0] == "status job"
    assert log[-1] == "event AttemptStarted"
    assert sorted(log[1:3]) == ["assign job-0-1", "delete job-1-1"]
    assert log[3] == "create job-0-2"
    assert scene.written == ["Running"]
    assert sorted(scene.cache.merged) == ["job-0-1", "job-0-2", "job-1-1"]


async def test_bodies_carry_their_preconditions() -> None:
    scene = Scene()
    await scene.apply(**EVERYTHING)
    by_verb = {
        line.split()[0]: body
        for line, body in zip(scene.client.log[:-1], scene.client.bodies, strict=True)
    }
    assert by_verb["status"]["metadata"] == {
        "name": "job",
        "namespace": "ns",
        "uid": "job-uid",
        "resourceVersion": "1",
    }
    assert by_verb["delete"] == {"uid": "job-1-1-uid", "grace": 0}
    assert by_verb["assign"]["metadata"]["uid"] == "job-0-1-uid"
    order = json.loads(by_verb["assign"]["metadata"]["annotations"][names.ANNOTATION_ASSIGNMENT])
    assert order["attempt"] == 2


async def test_the_answer_to_the_status_write_is_the_new_view() -> None:
    scene = Scene()
    await scene.apply(status=STATUS)
    known = scene.jobs.get(("ns", "job"))
    assert known is not None
    assert known["status"] == STATUS
    assert known["metadata"]["resourceVersion"] == "5"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (ConflictError(409, "changed"), StaleViewError),
        (NotFoundError(404, "gone"), JobGoneError),
        (UnavailableError(500, "down"), UnavailableError),
    ],
    ids=["conflict", "gone", "down"],
)
async def test_nothing_happens_after_a_failed_status_write(
    fault: ApiError, expected: type[Exception]
) -> None:
    scene = Scene(status=fault)
    with pytest.raises(expected):
        await scene.apply(**EVERYTHING)
    assert scene.client.log == ["status job"]
    assert scene.written == []


async def test_a_refused_pod_is_reported_in_the_server_s_words() -> None:
    scene = Scene(create=RejectedError(403, "exceeded quota: pods"))
    assert await scene.apply(create=EVERYTHING["create"]) == "exceeded quota: pods"


async def test_pods_say_which_operator_made_them() -> None:
    scene = Scene()
    await scene.apply(create=EVERYTHING["create"])
    (made,) = scene.client.bodies
    assert made["metadata"]["annotations"][names.ANNOTATION_CREATED_BY] == "this operator"


async def test_a_leader_of_whom_the_api_server_has_not_heard_yet_tries_again() -> None:
    scene = Scene(create=RejectedError(422, f"'a' {names.NOT_THE_HOLDER}, 'b' does"))
    with pytest.raises(ConflictError):
        await scene.apply(create=EVERYTHING["create"])


async def test_a_pod_that_exists_already_is_ours() -> None:
    scene = Scene(create=AlreadyExistsError(409, "exists"))
    assert await scene.apply(create=EVERYTHING["create"]) is None
    assert scene.client.log == ["create job-0-2", "get job-0-2"]
    assert scene.cache.merged == ["job-0-2"]


async def test_a_pod_of_an_earlier_job_is_waited_for() -> None:
    scene = Scene(create=AlreadyExistsError(409, "exists"))
    scene.client.found = pod("job-0-2", owner="an-earlier-job")
    with pytest.raises(ConflictError, match="about to go"):
        await scene.apply(create=EVERYTHING["create"])


async def test_a_pod_of_somebody_else_under_our_name_is_named() -> None:
    scene = Scene(create=AlreadyExistsError(409, "exists"))
    scene.client.found["metadata"]["ownerReferences"] = []
    text = await scene.apply(create=EVERYTHING["create"])
    assert text is not None
    assert text.startswith(
        "pod ns/job-0-2 has a name that this job needs and belongs to nobody; delete it"
    )
    assert scene.cache.merged == []


async def test_what_was_taken_away_is_put_back_with_a_precondition() -> None:
    scene = Scene()
    await scene.apply(repair={"job-0-1": {"labels": {"a": "b"}}, "unknown": {"labels": {}}})
    assert scene.client.log == ["repair job-0-1"]
    assert scene.client.bodies == [{"metadata": {"uid": "job-0-1-uid", "labels": {"a": "b"}}}]
    assert scene.cache.merged == ["job-0-1"]


@pytest.mark.parametrize(
    ("verb", "fault"),
    [
        ("assign", NotFoundError(404, "gone")),
        ("assign", RejectedError(422, "metadata.uid: field is immutable")),
        ("delete", NotFoundError(404, "gone")),
        ("delete", ConflictError(409, "another uid")),
    ],
)
async def test_a_pod_that_is_gone_is_forgotten(verb: str, fault: ApiError) -> None:
    scene = Scene(**{verb: fault})
    await scene.apply(**{verb: EVERYTHING[verb]})
    assert len(scene.cache.removed) == 1


async def test_a_pod_that_somebody_else_deleted_at_the_same_time_is_forgotten() -> None:
    scene = Scene()
    scene.client.deleted = pod("job-1-1")
    del scene.client.deleted["metadata"]["resourceVersion"]
    await scene.apply(delete=EVERYTHING["delete"])
    assert (scene.cache.merged, scene.cache.removed) == ([], ["job-1-1"])


def told(assignment: Assignment) -> PodView:
    """A pod that answers, and what it was told last."""
    seen = podview.view(pod("job-0-1", ip="10.0.0.9"))
    assert seen is not None
    return replace(seen, assignment=assignment, reachable=True)


BEFORE = replace(WORK, attempt=1)


async def test_an_assignment_is_delivered_once_the_api_server_has_it() -> None:
    scene = Scene()
    await scene.applier.apply(job(), [told(BEFORE)], Plan(assign={"job-0-1": WORK}))
    stored = scene.client.bodies[0]["metadata"]["annotations"][names.ANNOTATION_ASSIGNMENT]
    assert scene.sent == [("10.0.0.9", stored)]
    assert from_json(stored) == WORK


@pytest.mark.parametrize(
    ("fault", "assignment"),
    [
        (NotFoundError(404, "gone"), WORK),
        (RejectedError(422, "metadata.uid: field is immutable"), WORK),
        (None, replace(WORK, reminder=1)),
    ],
    ids=["gone", "another of its name", "a reminder"],
)
async def test_nothing_is_delivered_that_is_not_stored_or_only_reminds_the_kubelet(
    fault: ApiError | None, assignment: Assignment
) -> None:
    scene = Scene() if fault is None else Scene(assign=fault)
    await scene.applier.apply(job(), [told(BEFORE)], Plan(assign={"job-0-1": assignment}))
    assert scene.sent == []


async def test_an_assignment_that_the_api_server_did_not_take_is_not_delivered() -> None:
    scene = Scene(assign=UnavailableError(500, "down"))
    with pytest.raises(UnavailableError):
        await scene.applier.apply(job(), [told(BEFORE)], Plan(assign={"job-0-1": WORK}))
    assert scene.sent == []


async def test_a_pod_that_is_born_with_its_assignment_can_be_brought_the_next_one() -> None:
    scene = Scene()
    annotations = {"of": "the user", names.ANNOTATION_ASSIGNMENT: to_json(WORK)}
    await scene.apply(create=({"metadata": {"name": "job-0-2", "annotations": annotations}},))
    stored = scene.client.bodies[0]["metadata"]["annotations"]
    text = stored[names.ANNOTATION_ASSIGNMENT]
    assert from_json(text) == WORK
    assert len(json.loads(text)["nextKey"]) == 64
    assert stored["of"] == "the user"


async def test_an_assignment_that_is_refused_for_another_reason_is_an_error() -> None:
    scene = Scene(assign=RejectedError(403, "forbidden"))
    scene.client.found = pod("job-0-1")
    with pytest.raises(RejectedError, match="forbidden"):
        await scene.apply(assign=EVERYTHING["assign"])
    assert scene.cache.removed == []


@pytest.mark.parametrize("verb", ["assign", "repair", "delete"])
async def test_a_refused_change_stops_nothing_else_and_is_told_once(verb: str) -> None:
    scene = Scene(**{verb: RejectedError(403, "denied by a webhook")})
    scene.client.found = pod(f"job-{int(verb == 'delete')}-1")
    plan = EVERYTHING | {"repair": {"job-0-1": {"labels": {}}}}
    for events in (["AttemptStarted", "PodChangeRejected"], ["AttemptStarted"]):
        scene.client.log.clear()
        with pytest.raises(RejectedError, match="denied by a webhook"):
            await scene.apply(**plan)
        done = {"status job", "assign job-0-1", "repair job-0-1", "delete job-1-1"}
        assert {*done, "create job-0-2"} <= {*scene.client.log}
        assert scene.client.log[-len(events) :] == [f"event {reason}" for reason in events]


async def test_a_pod_that_is_refused_beside_a_change_is_reported_all_the_same() -> None:
    scene = Scene(
        delete=RejectedError(403, "denied"), create=RejectedError(403, "exceeded quota: pods")
    )
    assert await scene.apply(**EVERYTHING) == "exceeded quota: pods"
    assert scene.client.log[-1] == "event PodChangeRejected"


async def test_who_is_not_the_holder_tells_nobody_of_a_refusal() -> None:
    scene = Scene(delete=RejectedError(422, f"'a' {names.NOT_THE_HOLDER}, 'b' does"))
    with pytest.raises(RejectedError):
        await scene.apply(**EVERYTHING)
    assert not any(line.startswith(("create", "event")) for line in scene.client.log)


async def test_all_requests_end_before_the_first_failure_is_raised() -> None:
    scene = Scene(assign=UnavailableError(500, "down"))
    with pytest.raises(UnavailableError):
        await scene.apply(assign={"job-0-1": WORK, "job-1-1": WORK}, delete={"job-0-1": None})
    assert len(scene.client.log) == 3


async def test_the_job_itself_is_deleted_only_as_it_was_seen() -> None:
    scene = Scene()
    await scene.apply(delete={"job-1-1": None}, delete_job=True)
    assert scene.client.log == ["delete job-1-1", "delete job"]
    assert scene.client.bodies[-1] == {
        "uid": "job-uid",
        "version": "1",
        "propagation": "Background",
    }
    assert scene.jobs.get(("ns", "job")) is None


async def test_a_deleted_job_that_a_finalizer_holds_is_known_to_be_going() -> None:
    scene = Scene()
    scene.client.answer = job(version=7)
    scene.client.answer["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    await scene.apply(delete_job=True)
    known = scene.jobs.get(("ns", "job"))
    assert known is not None
    assert "deletionTimestamp" in known["metadata"]


async def test_a_job_that_has_changed_is_not_deleted() -> None:
    scene = Scene(delete=ConflictError(409, "changed"))
    with pytest.raises(StaleViewError):
        await scene.apply(delete_job=True)
    assert scene.jobs.get(("ns", "job")) is not None


GONE = NotFoundError(404, "gone")


@pytest.mark.parametrize(
    ("verb", "plan"), [("status", {"status": STATUS}), ("delete", {"delete_job": True})]
)
async def test_only_the_job_that_was_not_found_is_dropped(verb: str, plan: dict[str, Any]) -> None:
    scene = Scene(**{verb: GONE})
    with pytest.raises(JobGoneError):
        await scene.apply(**plan)
    assert scene.jobs.get(("ns", "job")) is None
    # As when the watch tells of the successor while the request is under way.
    scene.jobs.update(job(version=9, uid="successor"))
    with pytest.raises(JobGoneError):
        await scene.apply(**plan)
    assert scene.jobs.get(("ns", "job")) is not None


@pytest.mark.parametrize(
    ("faults", "plan", "error"),
    [
        ({"create": AlreadyExistsError(409, "exists"), "get": GONE}, "create", ConflictError),
        ({"create": GONE}, "create", NotFoundError),
        ({"assign": RejectedError(422, "immutable"), "get": GONE}, "assign", None),
        ({"assign": GONE}, "assign", None),
        ({"delete": GONE}, "delete", None),
    ],
)
async def test_a_pod_that_is_not_found_says_nothing_about_its_job(
    faults: dict[str, ApiError], plan: str, error: type[Exception] | None
) -> None:
    scene = Scene(**faults)
    with pytest.raises(error) if error else contextlib.nullcontext():
        await scene.apply(**{plan: EVERYTHING[plan]})
    assert scene.jobs.get(("ns", "job")) is not None


async def test_a_job_that_is_not_found_when_read_again_leaves_its_successor_alone() -> None:
    scene = Scene(get=GONE)
    reading = asyncio.create_task(scene.applier.reread(("ns", "job")))
    await asyncio.sleep(0)
    scene.jobs.update(job(version=9, uid="successor"))
    await reading
    known = scene.jobs.get(("ns", "job"))
    assert known is not None
    await scene.applier.reread(("ns", "job"))
    assert scene.jobs.get(("ns", "job")) is None
    assert scene.jobs.update(known), "the watch has the last word"


CLAIMING: dict[str, Any] = {
    "claim_templates": ({"metadata": {"name": "job-gpus-1"}, "spec": {"containers": []}},),
    "create": ({"metadata": {"name": "job-0-2"}, "spec": {"containers": []}},),
}


async def test_templates_of_claims_are_there_before_the_pods_that_use_them() -> None:
    scene = Scene()
    assert await scene.apply(**CLAIMING) is None
    assert scene.client.log == ["prepare job-gpus-1", "create job-0-2"]
    assert scene.cache.merged == ["job-0-2"]


async def test_a_template_that_is_there_already_is_the_same() -> None:
    scene = Scene(prepare=AlreadyExistsError(409, "exists"))
    assert await scene.apply(**CLAIMING) is None
    assert scene.client.log[-1] == "create job-0-2"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RejectedError(403, "may not create resourceclaimtemplates"),
            "may not create resourceclaimtemplates",
        ),
        (
            NotFoundError(404, "no such thing"),
            "no such thing; spec.accelerator.claims needs resource.k8s.io/v1",
        ),
    ],
    ids=["refused", "old cluster"],
)
async def test_no_pod_is_made_without_its_template(error: ApiError, words: str) -> None:
    scene = Scene(prepare=error)
    said = await scene.apply(**CLAIMING)
    assert said is not None
    assert said.startswith(words)
    assert scene.client.log == ["prepare job-gpus-1"]
