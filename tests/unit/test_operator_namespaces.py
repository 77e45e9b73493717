"""An operator for a list of namespaces, in some of which it has lost its rights."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest
from kubernetes.aio.client.configuration import Configuration

from inception_operator.contract.errors import OperatorError, SettingsError, UnavailableError
from inception_operator.runtime.app import App
from inception_operator.runtime.client import Client, Kind
from inception_operator.runtime.settings import Settings


class Rights:
    """The answers of the API server: what may not be done, by namespace, in one try after the
    other.
    """

    def __init__(self, *tries: dict[str, str]) -> None:
        self.tries = list(tries)
        self.asked: list[tuple[str, str]] = []

    async def allowed(self, verb: str, kind: Kind, namespace: str = "") -> bool:
        self.asked.append((verb, kind.plural))
        refused = self.tries[0].get(namespace)
        if refused == "?":
            raise UnavailableError(503, "down")
        return refused != f"{verb} {kind.plural}"

    async def sleep(self, _: float) -> None:
        del self.tries[0]


@pytest.fixture
def rights(monkeypatch: pytest.MonkeyPatch) -> Rights:
    rights = Rights({})
    monkeypatch.setattr(Client, "allowed", rights.allowed)
    monkeypatch.setattr(asyncio, "sleep", rights.sleep)
    return rights


def make_app(*namespaces: str) -> App:
    settings = Settings(trainer_image="image", namespaces=namespaces)
    return App(settings, Configuration(host="https://api.example:6443"))


def watched(app: App) -> Collection[str | None]:
    assert app._resync._namespaces == app._namespaces
    return list(app._pods._reflectors)


LOST = [f"{verb} {kind}" for kind in ("inceptiontrainings", "pods") for verb in ("list", "watch")]


@pytest.mark.parametrize("lost", LOST)
async def test_a_namespace_without_rights_is_left_out(
    rights: Rights, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    rights.tries = [{"b": lost}] * 3
    app = make_app("a", "b", "c")
    await app._check_namespaces()
    assert watched(app) == ["a", "c"]
    assert app._pods.pods(("b", "job")) == ()
    assert f"the operator may not {lost} in namespace b; give the operator its Role" in caplog.text
    await app.close()


async def test_rights_that_come_late_are_enough(rights: Rights) -> None:
    rights.tries = [{"a": "list pods", "b": "list pods"}, {"b": "watch pods"}, {}]
    app = make_app("a", "b")
    await app._check_namespaces()
    assert watched(app) == ["a", "b"]
    await app.close()


async def test_what_is_not_known_is_not_left_out(rights: Rights) -> None:
    rights.tries = [{"a": "?"}]
    app = make_app("a", "b")
    await app._check_namespaces()
    assert watched(app) == ["a", "b"]
    await app.close()


async def test_without_any_rights_the_operator_ends(rights: Rights) -> None:
    rights.tries = [{"a": "list pods", "b": "list pods"}] * 3
    app = make_app("a", "b")
    with pytest.raises(SettingsError, match="give the operator its Role in a or take it off"):
        await app._check_namespaces()
    await app.close()


async def test_an_operator_of_the_whole_cluster_asks_nothing(rights: Rights) -> None:
    app = make_app()
    await app._check_namespaces()
    assert rights.asked == []
    await app.close()


async def test_the_process_ends_once_the_rights_are_back(
    rights: Rights, caplog: pytest.LogCaptureFixture
) -> None:
    lost = {"b": "list pods"}
    rights.tries = [lost, lost, lost, {"b": "?"}, lost, {}]
    app = make_app("a", "b")
    await app._check_namespaces()
    with pytest.raises(OperatorError, match="the rights in namespace b are back"):
        await app._wait_for_rights()
    assert "the jobs of namespace b are left alone: down" in caplog.text
    assert rights.tries == [{}]
    await app.close()
