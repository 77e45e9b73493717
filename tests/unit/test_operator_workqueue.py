"""The work queue: nothing is lost, nothing is worked on twice at once, failures back off."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from fake_time import now, run
from inception_operator.contract.errors import UnavailableError
from inception_operator.runtime.controller import AGAIN_BASE
from inception_operator.runtime.workqueue import ERROR_BASE, Counts, Key, WorkQueue, work

A, B, C = ("ns", "a"), ("ns", "b"), ("ns", "c")


def test_a_key_waits_only_once() -> None:
    async def main() -> None:
        queue = WorkQueue()
        for key in (A, B, A, A):
            queue.add(key)
        assert queue.depth == 2
        assert [await queue.get(), await queue.get()] == [A, B]
        assert queue.depth == 0

    run(main())


def test_a_key_added_while_it_is_worked_on_comes_again_afterwards() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(A)
        await queue.get()
        queue.add(A)
        queue.add(A)
        assert queue.depth == 0
        queue.done(A)
        assert await queue.get() == A
        queue.done(A)
        assert queue.depth == 0

    run(main())


def test_delayed_keys_come_in_the_order_of_their_dates() -> None:
    async def main() -> list[tuple[Key, float]]:
        queue = WorkQueue()
        queue.add_after(C, 3)
        queue.add_after(A, 2)
        queue.add_after(B, 1)
        return [(await queue.get(), round(now(), 2)) for _ in range(3)]

    assert run(main()) == [(B, 1), (A, 2), (C, 3)]


@pytest.mark.parametrize(
    ("dates", "expected"),
    [((5, 1), 1), ((1, 5), 1), ((5, 0), 0), ((5, -1), 0)],
    ids=["an earlier date wins", "a later date is ignored", "now wins", "the past is now"],
)
def test_the_earliest_date_counts(dates: tuple[float, float], expected: float) -> None:
    async def main() -> None:
        queue = WorkQueue()
        for date in dates:
            queue.add_after(A, date)
        assert await queue.get() == A
        assert now() == pytest.approx(expected, abs=0.01)
        queue.done(A)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 20)

    run(main())


def test_far_dates_of_busy_keys_do_not_pile_up() -> None:
    async def main() -> None:
        queue = WorkQueue()
        for _ in range(10_000):
            queue.add_after(A, 86_400)
            queue.add_after(B, 3_600)
            queue.add(A)
            queue.done(await queue.get())
        assert len(queue._heap) < 1_000
        queue.add_after(A, 86_400)
        assert [await queue.get(), await queue.get()] == [B, A]
        assert now() == pytest.approx(86_400, abs=1)
        queue.close()

    run(main())


def test_a_forgotten_key_does_not_come() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add_after(A, 1)
        queue.forget(A)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 20)
        queue.close()

    run(main())


def test_retries_back_off_up_to_the_limit_and_start_over_after_success() -> None:
    async def main() -> None:
        queue = WorkQueue(max_backoff=1.0, jitter=lambda: 1.0)
        delays = []
        for _ in range(6):
            delays.append(queue.retry(A, 0.1))
            await queue.get()
            queue.done(A)
        assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
        queue.succeeded(A)
        assert queue.retry(A, 0.1) == pytest.approx(0.1)
        queue.close()

    run(main())


def test_a_pass_that_failed_counts_as_retried_and_one_that_looks_again_does_not() -> None:
    async def main() -> None:
        retried: list[bool] = []
        queue = WorkQueue(counts=Counts(retried=lambda: retried.append(True)))
        queue.retry(A, AGAIN_BASE)
        assert not retried
        queue.retry(A, ERROR_BASE)
        queue.retry(A)
        assert len(retried) == 2
        queue.close()

    run(main())


def test_the_oldest_age_covers_waiting_and_active_keys() -> None:
    async def main() -> None:
        waits: list[float] = []
        queue = WorkQueue(counts=Counts(waited=waits.append))
        assert queue.oldest_age == 0
        queue.add(A)
        await asyncio.sleep(2)
        queue.add(B)
        await queue.get()
        await asyncio.sleep(1)
        assert queue.oldest_age == pytest.approx(3)
        queue.done(A)
        assert queue.oldest_age == pytest.approx(1)
        assert waits == pytest.approx([2])

    run(main())


def test_what_is_counted_is_what_client_go_counts() -> None:
    async def main() -> None:
        told: list[str] = []
        worked: list[float] = []
        counts = Counts(
            added=lambda: told.append("added"),
            worked=worked.append,
            delayed=lambda: told.append("delayed"),
        )
        queue = WorkQueue(counts=counts)
        for _ in range(2):
            queue.add(A)
        assert (told, queue.pending, queue.working) == (["added"], 1, [])
        await queue.get()
        await asyncio.sleep(1)
        queue.add(A)
        # A worker has it and it waits for that worker: no other could take it now.
        assert (told, queue.pending, queue.depth) == (["added"] * 2, 1, 0)
        assert queue.working == pytest.approx([1])
        await asyncio.sleep(1)
        queue.done(A)
        assert worked == pytest.approx([2])
        queue.done(await queue.get())
        told.clear()
        queue.add_after(A, 2)
        # A second date counts once more though it changes nothing; none at all is no delay.
        queue.add_after(A, 3)
        queue.add_after(B, 0)
        assert told == ["delayed", "delayed", "added"]
        queue.done(await queue.get())
        assert (await queue.get(), told[-1], queue.pending) == (A, "added", 0)
        queue.close()

    run(main())


def test_an_error_delays_its_key_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[tuple[Key, float]]:
        queue = WorkQueue(jitter=lambda: 1.0)
        seen: list[tuple[Key, float]] = []

        async def handler(key: Key) -> float | None:
            seen.append((key, round(now(), 2)))
            if key == A and len(seen) < 3:
                raise UnavailableError(0, "no answer")
            return None

        worker = asyncio.create_task(work(queue, handler))
        queue.add(A)
        queue.add(B)
        await asyncio.sleep(1)
        worker.cancel()
        return seen

    assert run(main()) == [(A, 0), (B, 0), (A, 0.1)]
    assert "no answer" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_bug_in_the_handler_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        queue = WorkQueue()

        async def handler(_key: Key) -> float | None:
            raise KeyError("oops")

        worker = asyncio.create_task(work(queue, handler))
        queue.add(A)
        await asyncio.sleep(0.01)
        worker.cancel()
        queue.close()

    run(main())
    assert "Traceback" in caplog.text


def test_many_workers_never_share_a_key_and_lose_no_change() -> None:
    async def main() -> None:
        queue = WorkQueue()
        dice = random.Random(7)  # noqa: S311
        keys = [("ns", str(number)) for number in range(10)]
        wanted = dict.fromkeys(keys, 0)
        handled = dict.fromkeys(keys, 0)
        active: set[Key] = set()

        async def handler(key: Key) -> float | None:
            assert key not in active
            active.add(key)
            seen = wanted[key]
            await asyncio.sleep(dice.random() / 10)
            handled[key] = seen
            active.remove(key)
            return None

        workers = [asyncio.create_task(work(queue, handler)) for _ in range(4)]
        for count in itertools.count():
            key = dice.choice(keys)
            wanted[key] += 1
            queue.add(key)
            await asyncio.sleep(dice.random() / 50)
            if count == 1000:
                break
        await asyncio.sleep(5)
        for worker in workers:
            worker.cancel()
        assert handled == wanted
        assert queue.oldest_age == 0

    run(main())
