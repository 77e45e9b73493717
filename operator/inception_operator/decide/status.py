"""The status under construction: every transition of a job is one method here, and `Draft.plan`
says what to write.

A draft is made from what the API server holds and compared with it at the end, so a pass that
decides nothing writes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from inception_operator.contract import conditions, progress
from inception_operator.contract.assignment import MAX_ATTEMPT
from inception_operator.contract.conditions import FALSE, TRUE
from inception_operator.contract.limits import clip
from inception_operator.contract.names import ConditionType, Reason
from inception_operator.contract.times import format_time, parse_time
from inception_operator.contract.types import (
    NORMAL,
    WARNING,
    Event,
    Json,
    Plan,
    PodView,
    Progress,
    Straggler,
)

from . import avoided_nodes, backoff, budget, clocks, departure, goodput, stragglers, unsaved
from .budget import Counters
from .departure import Departure
from .failure import Failure
from .own_status import own_part
from .restart_policy import Restart

MAX_TEXT: Final = 2048


class Draft:
    """The status of one job in one pass."""

    def __init__(self, resource: Json, now: datetime, figures: Progress | None = None) -> None:
        self._stored = own_part(resource)
        self._old = clocks.none_ahead(self._stored, now)
        # The old one is the operator's cached copy of the resource: it must not change.
        self._new: Json = copy.deepcopy(self._old)
        self._conditions: list[Json] = self._new["conditions"]
        self._generation = int(resource["metadata"].get("generation") or 0)
        self._time = now
        self._now = format_time(now)
        self._figures = figures
        self._events: list[Event] = []
        self._departure: Departure | None = None
        self._failure: Failure | None = None
        self._queued = goodput.is_queued(resource)
        self.tells_steps = True
        self.ranks = stragglers.UNKNOWN

    @property
    def attempt(self) -> int:
        """Number of the latest attempt."""
        number = int(self._new.get("attempt") or 0)
        # Pods could not be told of one beyond: it counts as removed.
        return number if 0 <= number < MAX_ATTEMPT else 0

    @property
    def counters(self) -> Counters:
        """Restarts and failures in a row so far."""
        return Counters.of(self._new)

    @property
    def nodes(self) -> Json:
        """What is written about the nodes of the latest attempt."""
        nodes: Json = self._new.get("nodes") or {}
        return nodes

    @property
    def avoided(self) -> tuple[str, ...]:
        """Nodes that new pods should not be on."""
        slow = departure.slow_nodes(self._new, self._time)
        return tuple(dict.fromkeys((*avoided_nodes.nodes(self._new, self._time), *slow)))

    def avoid(self, pods: Iterable[PodView]) -> None:
        """Stay away from the nodes of those of these pods that have a broken device."""
        self._new |= avoided_nodes.add(self._new, pods, self._time)

    @property
    def started(self) -> bool:
        """Pods have been wanted before."""
        return "startTime" in self._new

    @property
    def terminal(self) -> bool:
        """The job has ended for good."""
        return conditions.terminal(self._conditions)

    @property
    def completed(self) -> datetime | None:
        """When the job ended for good."""
        return parse_time(self._new.get("completionTime"))

    @property
    def start_time(self) -> datetime | None:
        """Since when pods are wanted: from the beginning or from the latest resume on."""
        return parse_time(self._new.get("startTime"))

    @property
    def waiting_since(self) -> datetime | None:
        """Since when not all pods are ready; None while they are or none is wanted.

        Time in suspension is left out, and so is the pause before this attempt: pods are not wanted
        yet.
        """
        ready = conditions.find(self._conditions, ConditionType.PODS_READY)
        if ready is None or ready["status"] == TRUE:
            return None
        start = self.start_time
        if start is None or self.is_true(ConditionType.SUSPENDED):
            return None
        unready = parse_time(ready.get("lastTransitionTime")) or start
        streak = self.counters.streak
        pause = timedelta(seconds=streak.seconds(self.attempt - 1))
        return max(start, unready) + pause

    @property
    def root_cause(self) -> Json | None:
        """Why the last attempt that failed did so."""
        cause: Json | None = self._new.get("rootCause")
        return cause

    @property
    def issued(self) -> datetime | None:
        """Since when the attempt's assignments may have gone out; None while it gathers."""
        ready = conditions.find(self._conditions, ConditionType.PODS_READY)
        if ready is None or ready["status"] != TRUE:
            return None
        since = parse_time(ready.get("lastTransitionTime"))
        return since or parse_time(self._now)

    def is_true(self, kind: str) -> bool:
        """Whether a condition is True."""
        return conditions.is_true(self._conditions, kind)

    def reason(self, kind: str) -> str:
        """The reason of a condition."""
        return conditions.reason(self._conditions, kind)

    def message(self, kind: str, reason: str) -> str | None:
        """The message of a condition while it has this reason."""
        return conditions.message(self._conditions, kind, reason)

    def restore(self, seen: int, first_pod: datetime | None = None) -> None:
        """Fill in what is missing: all of it until the first write, or what somebody has changed by
        hand.

        ``seen`` is the latest attempt that any pod has heard of: launchers and checkpoints ignore
        older ones. ``first_pod`` is when the first pod was made: since then pods are wanted.
        """
        written, said = self.attempt, self._stored.get("attempt", 0)
        ready = conditions.find(self._conditions, ConditionType.PODS_READY)
        # Whether the attempt had been issued is lost with this condition; issuing it anew would
        # split its ranks.
        unsure = written > 0 and ready is None
        begin = self._now
        if first_pod is not None and not seen and not self._conditions:
            begin = self._new["startTime"] = format_time(first_pod)
        for kind, status, reason, message in conditions.INITIAL:
            if conditions.find(self._conditions, kind) is None:
                conditions.put(self._conditions, kind, status, reason, message, begin)
        self._new.setdefault("restartsCountTowardsMax", 0)
        self._new.setdefault("restarts", self.counters.counted)
        if written == 0 or written < seen:
            self._new["attempt"] = seen + 1
        if seen > written:
            self._restored(
                f"the status said attempt {said}, its pods know of later ones; "
                f"it goes on with attempt {self.attempt}"
            )
        elif unsure:
            self._new["attempt"] = written + 1
            self._restored(
                f"status.conditions were removed; the job goes on with attempt {self.attempt}"
            )

    def lose_members(self) -> None:
        """Nobody knows any more who trains in the attempt: the next one begins with whoever is
        there.
        """
        self._new["attempt"] = self.attempt + 1
        self._restored(
            f"status.nodes.members was removed; the job goes on with attempt {self.attempt}"
        )

    def _restored(self, text: str) -> None:
        self._unready(Reason.STATUS_RESTORED, text)
        self._stop_running(Reason.STATUS_RESTORED, text)
        self._warn(Reason.STATUS_RESTORED, text)

    def accept(self, but: str | None = None) -> None:
        """The spec can be carried out, but for what the operator has no rights to."""
        refused = conditions.is_false(self._conditions, ConditionType.ACCEPTED)
        before = self.reason(ConditionType.ACCEPTED)
        text = "the spec can be carried out"
        if but:
            text += f", but {but}"
        self._put(ConditionType.ACCEPTED, TRUE, Reason.ACCEPTED, text)
        if refused:
            text = "the spec has been corrected and can be carried out"
            if before == Reason.INTERNAL_ERROR:
                text = "the operator takes care of the job again"
            elif before == Reason.POD_POLICY_VIOLATION:
                text = "the job's pods keep to the operator's pod policy now"
            self._announce(Reason.ACCEPTED, text)

    def reject(self, message: str, reason: str = Reason.INVALID_SPEC) -> None:
        """The spec cannot be carried out; another one may."""
        message = message[:MAX_TEXT]
        if self._put(ConditionType.ACCEPTED, FALSE, reason, message):
            self._warn(reason, message)

    def start(self) -> None:
        """Pods are wanted: for the first time, or again after a suspension."""
        if self.is_true(ConditionType.SUSPENDED):
            self._resume()
        self._new.setdefault("startTime", self._now)

    def suspend(self) -> None:
        """No pods until the user says so."""
        self._forget("nextAttemptTime", departure.KEY)
        text = "the job is suspended"
        self._unready(Reason.SUSPENDED, text)
        self._stop_running(Reason.SUSPENDED, text)
        self._put(ConditionType.RESTARTING, FALSE, Reason.SUSPENDED, text)
        if self._put(ConditionType.SUSPENDED, TRUE, Reason.SUSPENDED, text):
            self._announce(Reason.SUSPENDED, "suspended; the pods save a checkpoint and end")
        if "nodes" not in self._new:
            return
        nodes = self._new["nodes"]
        for key in ("ready", "spareReady"):
            if key in nodes:
                nodes[key] = 0
        nodes["summary"] = f"0/{nodes['desired']}"

    def _resume(self) -> None:
        """Go on with a new attempt; none is used up if the job had not started. Deadlines count
        from here on.
        """
        if self.started:
            self._new["attempt"] = self.attempt + 1
            self._new["startTime"] = self._now
        # What makes the loss no number may have been mended meanwhile.
        self._forget(*backoff.KEYS, budget.NON_FINITE)
        self._put(ConditionType.SUSPENDED, FALSE, Reason.RESUMED, "the job has been resumed")
        self._announce(Reason.RESUMED, f"resumed with attempt {self.attempt}")

    def wait(self, reason: str, message: str) -> None:
        """Some pods are not ready yet, for a reason that people may have to act on."""
        message = message[:MAX_TEXT]
        said_before = self.message(ConditionType.PODS_READY, reason) is not None
        self._unready(reason, message)
        # Counts and names within one reason change often; only a new reason is worth an event.
        # Of the pod policy the event on Accepted has told.
        quiet = reason in (Reason.WAITING_FOR_PODS, Reason.POD_POLICY_VIOLATION)
        if not said_before and not quiet:
            self._warn(reason, message)

    def issue(self, size: int, nodes: Json) -> None:
        """All pods are there that it takes: from here on the attempt's assignments go out.

        ``size`` is its number of nodes, ``nodes`` what ``status.nodes`` is to say of them.
        """
        avoided = avoided_nodes.drop_expired(self._new, self._time)
        self._forget(avoided_nodes.KEY, departure.KEY)
        self._new |= avoided
        self._new["nodes"] = self.nodes | nodes
        self.describe_pods(Reason.ALL_PODS_READY, f"{size} of {size} pods ready")
        # Of the first attempt Running tells, and until then there is nothing to be done.
        if self.attempt > 1:
            text = f"attempt {self.attempt} started on {size} nodes"
            self._announce(Reason.ATTEMPT_STARTED, text)

    def describe_pods(self, reason: str, message: str, but: str | None = None) -> None:
        """What is to be said about the pods of an attempt that has been issued; ``but`` is what is
        wrong with some of them, which is also worth an event.
        """
        if self._departure is not None:
            reason = self._departure.reason
            message = f"{message}; {self._departure.text}"
            if self.reason(ConditionType.PODS_READY) != reason:
                self._events.append(self._departure.event(MAX_TEXT))
        before = self.message(ConditionType.PODS_READY, reason) or ""
        text = message if but is None else f"{message}; {but}"
        self._put(ConditionType.PODS_READY, TRUE, reason, text[:MAX_TEXT])
        if but is not None and but[:MAX_TEXT] not in before:
            self._warn(Reason.LAUNCHER_UNREACHABLE, but)

    def resize(self, size: int) -> None:
        """End a healthy attempt for one with another number of nodes; that is no restart."""
        ended = f"attempt {self.attempt} ended to go on with {size} nodes"
        self._departure = None
        self._end_attempt(Reason.RESIZED, ended)
        self._announce(Reason.RESIZED, ended)

    def depart(self, reason: str, text: str) -> None:
        """What `describe_pods` is to say besides: members are on nodes that are about to go."""
        self._departure = Departure(reason, text)

    def stop_departing(self) -> None:
        """No member has to leave its node any more."""
        self._forget(departure.KEY)

    @property
    def next_move(self) -> datetime | None:
        """No replacement is made before this time; None when one may be made at once."""
        return departure.next_move(self._new, self._time)

    def postpone_move(self, pause: timedelta) -> None:
        """A replacement was given up: the next one is made after a pause."""
        self._new |= departure.postponed(self._time, pause)

    @property
    def straggler(self) -> Straggler | None:
        """The rank that all others wait for; None when none is, or no rank runs."""
        if not self.is_true(ConditionType.RUNNING):
            return None
        return stragglers.present(self._old, self.ranks)

    @property
    def next_straggler(self) -> datetime | None:
        """No straggler is replaced before this time; None when one may be."""
        return departure.next_straggler(self._new, self._time)

    def replace_straggler(self, straggler: Straggler) -> None:
        """A straggler leaves its node with the end of this attempt."""
        self._new |= departure.replaced(self._new, straggler, self._time)

    def move(self, text: str) -> None:
        """End a healthy attempt for one on other nodes; that is no restart."""
        ended = f"attempt {self.attempt} ended: {text}"[:MAX_TEXT]
        self._departure = None
        self._forget(departure.KEY)
        self._end_attempt(Reason.MOVED, ended)
        self._put(ConditionType.RESTARTING, TRUE, Reason.MOVED, ended)
        self._announce(Reason.MOVED, ended)

    def run(self, but: str | None = None) -> None:
        """The ranks of the attempt are running; ``but`` says what may go unnoticed."""
        text = f"attempt {self.attempt} is running"
        self._put(ConditionType.RESTARTING, FALSE, Reason.ATTEMPT_RUNNING, text)
        before = self.message(ConditionType.RUNNING, Reason.ATTEMPT_RUNNING) or ""
        said = unsaved.describe(text, before, self._new.get("checkpointPath", ""), self._figures)
        full = said.text if but is None else f"{said.text}; {but}"
        if self._put(ConditionType.RUNNING, TRUE, Reason.ATTEMPT_RUNNING, full):
            self._events.append(said.event)

    def restart(self, cause: Failure, restart: Restart) -> None:
        """End the attempt, and count the next one as its restart says.

        Written before anything acts on it.
        """
        ended = f"attempt {cause.attempt} ended"
        self._new["rootCause"] = cause.to_json(self._time)
        self._failure = cause
        self._end_attempt(Reason.ATTEMPT_ENDED, ended)
        self._forget(*backoff.KEYS, budget.PROGRESS)
        self._new |= restart.to_status()
        text = restart.message[:MAX_TEXT]
        self._put(ConditionType.RESTARTING, TRUE, restart.reason, text)
        self._warn(restart.reason, text)

    def count(self, counters: Counters) -> None:
        """Put down what the job has achieved, other than at a failure."""
        self._forget(budget.PROGRESS)
        self._new |= counters.to_status()

    def back_off(self) -> float:
        """Seconds until the next attempt may begin, and PodsReady says so; 0 when nothing waits."""
        seconds = backoff.remaining(self._new, self._time)
        if seconds:
            text = self.counters.streak.explain(self.attempt)
            self._unready(Reason.BACK_OFF, text)
        else:
            self._forget("nextAttemptTime")
        return seconds

    def succeed(self, final: Progress | None, text: str) -> None:
        """The ranks that count have ended with 0."""
        self._merge(final or self._figures, at_once=True)
        figures = self._new.get("trainerStatus") or {"lastUpdatedTime": self._now}
        # A program that tells nothing of itself is done all the same.
        self._new["trainerStatus"] = figures | {
            "progressPercentage": 100,
            "estimatedRemainingSeconds": 0,
        }
        completed = f"attempt {self.attempt} completed"
        self._end(Reason.COMPLETED, completed)
        self._put(ConditionType.SUCCEEDED, TRUE, Reason.COMPLETED, text)
        self._announce(Reason.COMPLETED, text)

    def fail(self, reason: str, message: str, cause: Failure | None = None) -> None:
        """The job can never succeed, or not within its limit."""
        message = message[:MAX_TEXT]
        if cause is not None:
            self._new["rootCause"] = cause.to_json(self._time)
            self._failure = cause
        ended = f"attempt {self.attempt} ended"
        self._end(Reason.ATTEMPT_ENDED, ended)
        self._put(ConditionType.SUCCEEDED, FALSE, reason, message)
        self._put(ConditionType.FAILED, TRUE, reason, message)
        self._warn(reason, message)

    def keep_checkpoints_at(self, path: str | None) -> None:
        """Where the job's checkpoints lie, from before its first pod on for all its life."""
        if path is None:
            self._forget("checkpointPath")
        else:
            self._new["checkpointPath"] = path

    def describe(self, *, nodes: Json, selector: str, accelerator: str, model: str) -> None:
        """The columns for people, and what the scale sub-resource reads."""
        summary = f"{nodes['ready']}/{nodes['desired']}"
        self._new["nodes"] = nodes | {"summary": summary}
        self._new["selector"] = selector
        self._new["accelerator"] = accelerator
        if model:
            self._new["model"] = model
        else:
            self._forget("model")

    def plan(self) -> Plan:
        """The complete status, or none when it is as it should be, and the events about it."""
        self._new["state"] = conditions.state_word(self._conditions)
        self._new["observedGeneration"] = self._generation
        for condition in self._conditions:
            condition["observedGeneration"] = self._generation
        self._new, said = stragglers.carried_on(self._old, self._new, self.ranks)
        self._events += said
        if self.is_true(ConditionType.RUNNING):
            # Figures alone are written now and then; with a write that is due anyway, at once.
            self._merge(self._figures, at_once=self._new != self._old)
        written = clip(self._new)
        status = None
        if written != self._stored:
            look = goodput.Look(
                self._time, self._queued, self.tells_steps, self._figures, self._failure
            )
            status = goodput.carried_on(self._old, written, look)
        return Plan(status=status, events=tuple(self._events))

    def _end(self, reason: str, message: str) -> None:
        self._new["completionTime"] = self._now
        self._forget("nextAttemptTime", departure.KEY)
        if self.is_true(ConditionType.SUSPENDED):
            self._put(ConditionType.SUSPENDED, FALSE, reason, message)
        self._unready(reason, message)
        self._put(ConditionType.RESTARTING, FALSE, reason, message)
        if reason == Reason.COMPLETED:
            self._put(ConditionType.RUNNING, FALSE, reason, message)
        else:
            self._stop_running(reason, message)

    def _end_attempt(self, reason: str, message: str) -> None:
        """The next attempt's pods are gathered from here on."""
        self._new["attempt"] = self.attempt + 1
        self._unready(reason, message)
        self._stop_running(reason, message)

    def _stop_running(self, reason: str, message: str) -> None:
        if self.is_true(ConditionType.RUNNING):
            self._merge(self._figures, at_once=True)
        self._put(ConditionType.RUNNING, FALSE, reason, message)
        if "trainerStatus" in self._new:
            self._new["trainerStatus"] = progress.without_speed(self._new["trainerStatus"])

    def _merge(self, figures: Progress | None, *, at_once: bool) -> None:
        if figures is None:
            return
        merged = progress.merged(self._new.get("trainerStatus"), figures, at_once=at_once)
        if merged is not None:
            self._new["trainerStatus"] = merged

    def _put(self, kind: str, status: str, reason: str, message: str) -> bool:
        return conditions.put(self._conditions, kind, status, reason, message, self._now)

    def _forget(self, *keys: str) -> None:
        for key in keys:
            self._new.pop(key, None)

    def _unready(self, reason: str, message: str) -> None:
        self._put(ConditionType.PODS_READY, FALSE, reason, message)

    def _announce(self, reason: str, message: str) -> None:
        self._events.append(Event(NORMAL, reason, message))

    def _warn(self, reason: str, message: str) -> None:
        self._events.append(Event(WARNING, reason, message))
