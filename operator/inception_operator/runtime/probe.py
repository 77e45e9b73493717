"""Asks pods: the launcher for its report, the trainer for its metrics. It never holds up a decision
for a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp

from inception_operator.contract import names
from inception_operator.contract.types import PodView, Report

from .workqueue import Key

STATUS_SECONDS = 0.7
METRICS_SECONDS = 1.0
MAX_STATUS_BYTES = 64 * 1024
MAX_METRICS_BYTES = 1024 * 1024
PATIENCE = 0.03
FIRST_PAUSE = 2.0
MAX_PAUSE = 30.0

Parse = Callable[[str], "Report | None"]


@dataclass(frozen=True)
class _Answer:
    """What is known about one pod. ``since``: it does not answer; ``ready``: when it was asked.

    After a time-out it is left alone until ``again``, or until it becomes ready.
    """

    report: Report | None
    reachable: bool
    since: datetime | None = None
    again: float = 0.0
    pause: float = 0.0
    ready: bool = True


@dataclass(frozen=True)
class _Round:
    """Questions to several pods of one training that are under way."""

    asked: asyncio.Future[list[None]]
    uids: frozenset[str]


class Probe:
    """HTTP to the pods, and the latest answer of each."""

    def __init__(
        self,
        parse: Parse,
        notify: Callable[[Key], None],
        *,
        clock: Callable[[], float],
        launcher_port: int = names.LAUNCHER_PORT,
        metrics_port: int = names.METRICS_PORT,
    ) -> None:
        self._parse = parse
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

    async def close(self) -> None:
        """Give up all questions and close the connections."""
        asked = [round_.asked for round_ in self._rounds.values()]
        for future in asked:
            future.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await self._session.close()

    async def refresh(self, key: Key, pods: Collection[PodView]) -> bool:
        """Ask all these pods of one training at once; True if ``answer`` now tells what they say.

        Healthy pods answer within milliseconds. Where one does not, the result is False, asking
        goes on in the background and ``notify`` hears of its end: a worker that waited for
        time-outs would hold up other trainings.
        """
        fresh: set[str] = set()
        while True:
            round_ = self._rounds.get(key)
            if round_ is None:
                answers = self._answers.get(key, {})
                due = [
                    pod
                    for pod in pods
                    if pod.ip and pod.uid not in fresh and self._due(pod, answers.get(pod.uid))
                ]
                if not due:
                    return True
                asked = asyncio.gather(*(self._ask(key, pod) for pod in due))
                round_ = self._rounds[key] = _Round(asked, frozenset(pod.uid for pod in due))
            await asyncio.wait((round_.asked,), timeout=PATIENCE)
            if not round_.asked.done():
                round_.asked.add_done_callback(lambda _: self._notify(key))
                return False
            del self._rounds[key]
            round_.asked.result()
            fresh |= round_.uids

    def answer(self, key: Key, uid: str) -> tuple[Report | None, bool | None, datetime | None]:
        """The latest report of a pod, whether it could be reached, and since when not; all None if
        never asked.
        """
        answer = self._answers.get(key, {}).get(uid)
        return (
            (None, None, None)
            if answer is None
            else (answer.report, answer.reachable, answer.since)
        )

    def retain(self, key: Key, uids: Collection[str]) -> None:
        """Drop what is known about all other pods of this training."""
        answers = self._answers.get(key)
        for uid in [uid for uid in answers or () if uid not in uids]:
            del self._answers[key][uid]
        if not answers:
            self._answers.pop(key, None)
            round_ = self._rounds.get(key)
            if round_ is not None and round_.asked.done():
                del self._rounds[key]

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

    async def report(self, ip: str) -> Report | None:
        """What the launcher of a pod says now, or None if nothing comes in time; `answer` knows
        nothing of it.
        """
        try:
            url = f"http://{_host(ip)}:{self._launcher_port}/status"
            return self._parse(await self._get(url, STATUS_SECONDS, MAX_STATUS_BYTES))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None

    def _due(self, pod: PodView, answer: _Answer | None) -> bool:
        return answer is None or answer.again <= self._clock() or (pod.ready and not answer.ready)

    async def _ask(self, key: Key, pod: PodView) -> None:
        known = self._answers.get(key, {}).get(pod.uid)
        report = known.report if known else None
        since = (known.since if known else None) or datetime.now(UTC)
        try:
            url = f"http://{_host(pod.ip or '')}:{self._launcher_port}/status"
            text = await self._get(url, STATUS_SECONDS, MAX_STATUS_BYTES)
            answer = _Answer(self._parse(text) or report, reachable=True)
        except TimeoutError:
            # Nobody is there. Asking again in every pass would slow all decisions on this training.
            pause = min(MAX_PAUSE, known.pause * 2 if known and known.pause else FIRST_PAUSE)
            answer = _Answer(
                report, False, since, again=self._clock() + pause, pause=pause, ready=pod.ready
            )
        except (aiohttp.ClientError, OSError, ValueError):
            answer = _Answer(report, False, since)
        # Looked up only now: the training's answers may have been dropped and begun anew while this
        # one was under way.
        self._answers.setdefault(key, {})[pod.uid] = answer

    async def _get(self, url: str, seconds: float, limit: int) -> str:
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with self._session.get(url, timeout=timeout, allow_redirects=False) as response:
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
