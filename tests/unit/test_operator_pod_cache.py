"""The pods of a list of namespaces: every question goes to the reflector of its namespace."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inception_operator.contract.errors import UnavailableError
from inception_operator.runtime.client import Client
from inception_operator.runtime.pod_cache import PodCache
from inception_operator.runtime.workqueue import Key
from operator_objects import pod, strict_containment


class Lists(Client):
    """Answers the lists of all namespaces but those that are refused; watches stay silent."""

    def __init__(self, *pods: dict[str, Any], refused: tuple[str, ...] = ()) -> None:
        self.pods, self.refused = pods, refused
        self.watched: list[str | None] = []

    async def list_page(self, *_: Any, namespace: str | None = None, **__: Any) -> dict[str, Any]:
        if namespace in self.refused:
            raise UnavailableError(503, "down")
        found = [raw for raw in self.pods if namespace in (None, raw["metadata"]["namespace"])]
        return {"metadata": {"resourceVersion": "10"}, "items": found}

    async def watch(
        self, _resource: Any, _query: Any, _idle: float, namespace: str | None = None
    ) -> Any:
        self.watched.append(namespace)
        await asyncio.sleep(10_000)
        yield {}


def in_namespace(namespace: str, **options: Any) -> dict[str, Any]:
    raw = pod(**options)
    raw["metadata"]["namespace"] = namespace
    return raw


class Run:
    """A store at work."""

    def __init__(self, source: Lists, *namespaces: str) -> None:
        self.notices: list[Key] = []
        self.store = PodCache(source, self.notices.append, strict_containment(), namespaces)

    async def __aenter__(self) -> PodCache:
        self._task = asyncio.create_task(self.store.run())
        await asyncio.sleep(0.05)
        return self.store

    async def __aexit__(self, *_: object) -> None:
        assert not self._task.done()
        self._task.cancel()
        await asyncio.wait((self._task,))


def names(store: PodCache, namespace: str) -> list[str]:
    return [raw["metadata"]["name"] for raw in store.pods((namespace, "job"))]


@pytest.mark.parametrize(
    ("namespaces", "watched"), [((), [None]), (("a", "b"), ["a", "b"])], ids=["all", "list"]
)
async def test_every_scope_is_listed_and_watched(
    namespaces: tuple[str, ...], watched: list[str | None]
) -> None:
    source = Lists(in_namespace("a"), in_namespace("b", name="job-1-1"))
    async with Run(source, *namespaces) as store:
        await store.wait_synced()
        assert (names(store, "a"), names(store, "b")) == (["job-0-1"], ["job-1-1"])
        assert source.watched == watched
        assert store.unsynced is None


async def test_answers_to_our_writes_go_where_they_belong() -> None:
    async with Run(Lists(), "a", "b") as store:
        store.merge(in_namespace("b", version=20))
        store.merge({"kind": "Status", "metadata": {}})
        assert (names(store, "a"), names(store, "b")) == ([], ["job-0-1"])
        store.remove(("b", "job"), "job-0-1", "job-0-1-uid")
        assert names(store, "b") == []


async def test_a_namespace_that_cannot_be_listed_is_named() -> None:
    async with Run(Lists(refused=("b",)), "a", "b") as store:
        assert store.unsynced == "namespace b"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(store.wait_synced(), 0.05)
    assert Run(Lists()).store.unsynced == "all namespaces"


async def test_the_quietest_watch_is_the_age() -> None:
    async with Run(Lists(), "a", "b") as store:
        for namespace, age in (("a", 0.0), ("b", 7.0)):
            reflector = store._reflectors[namespace]
            reflector._last_sign = 0.0
            reflector._clock = lambda age=age: age  # type: ignore[misc]
        assert store.age == 7.0
