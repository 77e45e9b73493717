"""HTTP requests to pods: the launcher is asked for its report and brought its assignment, the
trainer is asked for its metrics.

No decision waits for a pod that does not answer: after `PATIENCE` the worker of the work queue goes
on to other jobs, and the job comes back when the question has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import aiohttp

from inception_operator.contract import names
from inception_operator.contract.report import from_json
from inception_operator.contract.types import PodView, Report

from .workqueue import Key

# Time-outs and pauses are seconds.
STATUS_SECONDS = 0.7
METRICS_SECONDS = 1.0
MAX_STATUS_BYTES = 64 * 1024
MAX_METRICS_BYTES = 1024 * 1024
PATIENCE = 0.03
FIRST_PAUSE = 2.0
MAX_PAUSE = 30.0
REFUSED_PAUSE = 1.0
NOBODY: Mapping[str, float] = MappingProxyType({})
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class _Answer:
    """What one pod has said, and how well it can be reached.

    ``since`` is when it stopped answering, ``ready`` whether it was ready when it was asked, which
    was when the request ``began``. After a time-out it is left alone until ``again``, or until it
    becomes ready or notifies; ``pause`` is how long. Both times are of the clock of `Probe`.
    """

    report: Report | None
    reachable: bool
    began: float
    since: datetime | None = None
    again: float = 0.0
    pause: float = 0.0
    ready: bool = True


@dataclass(frozen=True)
class _Round:
    """Requests to several pods of one job that are under way, the UIDs of these pods, and when the
    requests began.
    """

    requests: asyncio.Future[list[None]]
    uids: frozenset[str]
    began: float


class Probe:
    """Asks pods, and keeps the latest answer of each by job and UID."""

    def __init__(
        self,
        notify: Callable[[Key], None],
        *,
        clock: Callable[[], float],
        launcher_port: int = names.LAUNCHER_PORT,
        metrics_port: int = names.METRICS_PORT,
    ) -> None:
        self._notify = notify
        self._clock = clock
        self._launcher_port = launcher_port
        self._metrics_port = metrics_port
        # No kept connections: a pod that dies with one open would be noticed only by a time-out.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=200, force_close=True), trust_env=False
        )
        self._answers: dict[Key, dict[str, _Answer]] = {}
        self._rounds: dict[Key, _Round] = {}
        self._deliveries: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Give up all requests and close the connections."""
        pending: list[asyncio.Future[Any]] = [
            *(round_.requests for round_ in self._rounds.values()),
            *self._deliveries,
        ]
        for requests in pending:
            requests.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await self._session.close()

    async def refresh(
        self, key: Key, pods: Collection[PodView], notified: Mapping[str, float] = NOBODY
    ) -> bool:
        """Ask all these pods of one job at once; True if `answer` now tells what they say.

        ``notified`` tells by UID when pods have said that they have news: no answer to a question
        from before that is taken for it.

        Healthy pods answer within milliseconds. Where one does not, the result is False, the
        requests go on in the background and ``notify`` is called when they end: a worker that
        waited for time-outs would hold up other jobs.
        """
        asked: set[str] = set()
        while True:
            # A round may be left from an earlier pass; the pods of this one may be others.
            round_ = self._rounds.get(key) or self._begin_round(key, pods, asked, notified)
            if round_ is None:
                return True
            await asyncio.wait((round_.requests,), timeout=PATIENCE)
            if not round_.requests.done():
                round_.requests.add_done_callback(lambda _: self._notify(key))
                return False
            del self._rounds[key]
            round_.requests.result()
            began = round_.began
            asked |= {uid for uid in round_.uids if notified.get(uid, began) <= began}

    def _begin_round(
        self,
        key: Key,
        pods: Collection[PodView],
        asked: Collection[str],
        notified: Mapping[str, float],
    ) -> _Round | None:
        """Ask those pods that are due and not in ``asked``; None if there are none."""
        answers = self._answers.get(key, {})
        due = [
            pod
            for pod in pods
            if pod.ip
            and pod.uid not in asked
            and self._due(pod, answers.get(pod.uid), notified.get(pod.uid))
        ]
        if not due:
            return None
        requests = asyncio.gather(*(self._ask(key, pod, pod.uid in notified) for pod in due))
        round_ = _Round(requests, frozenset(pod.uid for pod in due), self._clock())
        self._rounds[key] = round_
        return round_

    def answer(self, key: Key, uid: str) -> tuple[Report | None, bool | None, datetime | None]:
        """The latest report of a pod, whether it could be reached, and since when not.

        All are None for a pod that was never asked.
        """
        answer = self._answers.get(key, {}).get(uid)
        if answer is None:
            return None, None, None
        return answer.report, answer.reachable, answer.since

    def is_silent(self, key: Key, uid: str) -> bool:
        """Whether a pod has let the latest question to it run into a time-out."""
        answer = self._answers.get(key, {}).get(uid)
        return answer is not None and answer.pause > 0

    def retain(self, key: Key, uids: Collection[str]) -> None:
        """Forget all pods of a job but these."""
        answers = self._answers.get(key, {})
        for uid in set(answers) - set(uids):
            del answers[uid]
        if answers:
            return
        self._answers.pop(key, None)
        round_ = self._rounds.get(key)
        # One that is under way has yet to be read, and cancelling it would lose an answer.
        if round_ is not None and round_.requests.done():
            del self._rounds[key]

    def deliver(self, ip: str, key: str, text: str) -> None:
        """Send a launcher its assignment, and go on: its report tells whether it has taken it."""
        task = asyncio.get_running_loop().create_task(self._deliver(ip, key, text))
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, ip: str, key: str, text: str) -> None:
        url = f"http://{_host(ip)}:{self._launcher_port}/assignment"
        # One that does not take it gets it from its kubelet.
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
            async with self._session.post(
                url,
                data=text.encode(),
                headers={names.KEY_HEADER: key, "Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=STATUS_SECONDS),
                allow_redirects=False,
            ):
                pass

    async def metrics(self, ip: str) -> str | None:
        """The metrics page of local rank 0, or None if there is none in time."""
        try:
            return await self._get(
                f"http://{_host(ip)}:{self._metrics_port}/metrics",
                METRICS_SECONDS,
                MAX_METRICS_BYTES,
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None

    async def report(self, ip: str, uid: str) -> Report | None:
        """What the launcher of a pod says now, or None if nothing comes in time.

        `answer` does not change: the scraper asks outside of any decision.
        """
        try:
            return from_json(await self._get_status(ip, uid))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None

    def _due(self, pod: PodView, answer: _Answer | None, notified: float | None) -> bool:
        if answer is None or answer.again <= self._clock():
            return True
        if notified is not None and answer.began < notified:
            return True
        return pod.ready and not answer.ready

    async def _ask(self, key: Key, pod: PodView, has_news: bool) -> None:
        began = self._clock()
        last = self._answers.get(key, {}).get(pod.uid) or _Answer(None, True, began)
        since = last.since or datetime.now(UTC)
        try:
            text = await self._get_status(pod.ip or "", pod.uid)
            answer = _Answer(from_json(text) or last.report, True, began)
        except TimeoutError:
            # Nobody is there. Asking again in every pass would slow all decisions on this job.
            pause = min(MAX_PAUSE, last.pause * 2 or FIRST_PAUSE)
            again = self._clock() + pause
            answer = _Answer(last.report, False, began, since, again, pause, ready=pod.ready)
            if has_news:
                # On a busy node; nothing else need tell of it while it stays ready.
                asyncio.get_running_loop().call_later(pause, self._notify, key)
        except (aiohttp.ClientError, OSError, ValueError):
            # Refused at once: a container that starts, and will be ready soon, or that has ended. A
            # job has several passes within such a second.
            again = self._clock() + REFUSED_PAUSE
            answer = _Answer(last.report, False, began, since, again, ready=pod.ready)
        # Looked up only now: the job's answers may have been dropped and begun anew while this one
        # was under way.
        self._answers.setdefault(key, {})[pod.uid] = answer

    async def _get_status(self, ip: str, uid: str) -> str:
        url = f"http://{_host(ip)}:{self._launcher_port}/status"
        # Strangers, who do not know the UID, are not told what the ranks wrote to stderr.
        headers = {"Authorization": f"Bearer {uid}"}
        return await self._get(url, STATUS_SECONDS, MAX_STATUS_BYTES, headers)

    async def _get(
        self, url: str, seconds: float, limit: int, headers: Mapping[str, str] = NO_HEADERS
    ) -> str:
        timeout = aiohttp.ClientTimeout(total=seconds)
        # No redirects: a pod must not send the operator to other addresses of the cluster.
        async with self._session.get(
            url, headers=headers, timeout=timeout, allow_redirects=False
        ) as response:
            if response.status != 200:
                raise ValueError(f"{url}: status {response.status}")
            body = bytearray()
            # A pod is user code: what it sends is bounded.
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise ValueError(f"{url}: more than {limit} bytes")
            return body.decode("utf-8", "replace")


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip
