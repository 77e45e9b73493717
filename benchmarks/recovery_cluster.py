"""A reference job on the local cluster, under observation: watches of the API server, and the steps
of its ranks.
"""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import Any, Self

from typing_extensions import override

from benchmarks.recovery_events import JobEvents
from benchmarks.recovery_jobs import ReferenceJobs
from benchmarks.recovery_kinds import KINDS, Target
from benchmarks.recovery_pods import HeartbeatSteps, NotThereError
from benchmarks.recovery_records import Recovery, StepRecord
from benchmarks.recovery_tools import FileSteps, Watch
from benchmarks.recovery_trials import DidNotComeError, Say, Training, Trial

SUCCESS_SECONDS = 3600.0
Seen = tuple[Callable[[dict[str, Any], float], None], dict[str, Any], float]


class ClusterTraining(Training):
    """One job; a context manager that ends the observation, not the job."""

    def __init__(self, reference: ReferenceJobs, name: str, *, spare: bool, say: Say) -> None:
        super().__init__(reference.pods, reference.steps, say)
        self.name = name
        self._reference = reference
        self._jobs = reference.jobs
        self._spare = spare
        self.events = JobEvents(name)
        self._seen: queue.SimpleQueue[Seen] = queue.SimpleQueue()
        self._heartbeats = HeartbeatSteps()
        self._files: FileSteps | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        namespace = ("-n", self._jobs.namespace)
        for kind, see in (
            ("inceptiontrainings", self.events.see_job),
            ("pods", self.events.see_pod),
        ):
            watch = Watch(self._jobs.cluster, (kind, *namespace), self._noting(see))
            watch.start()
            self._stack.callback(watch.stop)
        self._stack.enter_context(self._heartbeats)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _noting(
        self, see: Callable[[dict[str, Any], float], None]
    ) -> Callable[[dict[str, Any], float], None]:
        """What a watch calls, in its own thread: events wait for the next look."""

        def note(event: dict[str, Any], moment: float) -> None:
            if see == self.events.see_pod:
                # At once: the first steps of a new pod must not be missed.
                self._heartbeats.see_pod(event, moment)
            self._seen.put((see, event, moment))

        return note

    @override
    def drain(self) -> Iterable[StepRecord]:
        if not self._reference.own:
            return self._heartbeats.drain()
        if self._files is None:
            steps = self._reference.folder(self.name) / "steps"
            self._files = FileSteps(steps) if steps.is_dir() else None
        return self._files.drain() if self._files else ()

    @override
    def look(self) -> None:
        with suppress(queue.Empty):
            while True:
                see, event, moment = self._seen.get_nowait()
                see(event, moment)
        if self.events.condition("Failed"):
            raise DidNotComeError(f"{self.name} has failed\n{self.story()}")

    @override
    def is_ready(self) -> bool:
        newest = self.events.attempts.get(self.events.attempt)
        if newest is None or newest.assigned is None:
            return False
        spares = (self.events.status.get("nodes") or {}).get("spareReady", 0)
        if self._spare and spares != 1:
            return False
        if not all(self.events.ready.get(pod) for pod in newest.members):
            return False
        with suppress(NotThereError):
            for pod in newest.members:
                self._heartbeats.worker(pod).rank()
            return True
        return False

    @override
    def disturb(self, kind: str, rank: int, patience: float) -> Trial:
        attempt = self.events.attempt
        members = self.events.attempts[attempt].members
        pod = next(pod for pod, node_rank in members.items() if node_rank == rank)
        worker = self._heartbeats.worker(pod)
        process = worker.rank()
        steps_attempt = self.book.attempt
        target = Target(self._jobs, self.name, worker, lambda: self._is_decided(attempt + 1))
        moment = KINDS[kind].strike(target)
        recovery = self.recovery(steps_attempt, patience)
        trial = self._trial(kind, rank, attempt, moment, recovery)
        if recovery is None:
            self._rescue(process, patience)
        return trial

    def _is_decided(self, attempt: int) -> bool:
        self.update()
        return self.events.attempt >= attempt

    def _trial(
        self, kind: str, rank: int, attempt: int, moment: float, recovery: Recovery | None
    ) -> Trial:
        following = self.events.attempts.get(attempt + 1)

        def after(time: float | None) -> float | None:
            return None if time is None else round(time - moment, 3)

        def after_last(seen: dict[str, float]) -> float | None:
            members = following.members if following else ()
            times = [seen.get(pod) for pod in members]
            return after(max(time for time in times if time)) if all(times) and times else None

        return Trial(
            kind,
            rank,
            detected=after(self.events.detected(moment, attempt + 1)),
            decided=after(following.decided if following else None),
            assigned=after(following.assigned if following else None),
            read=after_last(self._heartbeats.read.get(attempt + 1, {})),
            begun=after_last(self._heartbeats.begun.get(attempt + 1, {})),
            first_step=after(recovery.first_step if recovery else None),
            first_new_step=after(recovery.first_new_step if recovery else None),
            repeated_steps=recovery.repeated if recovery else None,
            skipped_steps=recovery.skipped if recovery else None,
            # Also those that ended before their first step.
            attempts=self.events.attempt - attempt if recovery else None,
        )

    def _rescue(self, process: int, patience: float) -> None:
        """Let a job go on that did not come back by itself: the rank may only be stopped."""
        self.say(f"{self.name}: no new step within {patience:.0f} s; its rank is let go on")
        before = self.book.furthest()
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)
        self.wait("any step", lambda: self.book.furthest() > before or None, patience)

    def wait_succeeded(self) -> None:
        """Until the job is over; its steps go on being noted."""
        self.wait("success", lambda: self.events.condition("Succeeded") or None, SUCCESS_SECONDS)

    @override
    def story(self) -> str:
        return self._jobs.story(self.name, self.events.status)
