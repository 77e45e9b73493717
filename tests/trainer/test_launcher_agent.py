"""What the agent tells torch elastic, in old and new versions, and the fork server's list of
imports.
"""

import json
import os
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from torch import distributed
from torch.distributed.elastic.rendezvous import static_tcp_rendezvous

from inception_trainer.launcher import agent, forkserver, plain_store, rank, wire
from inception_trainer.launcher.assignment import Assignment
from inception_trainer.launcher.outcome import Outcome

REQUEST = wire.Request(Assignment(3, 1, 2, 4, "10.0.0.1", 29503), "/tmp/a", ("x:y",), "team/digits")


@dataclass
class OldLaunchConfig:
    """As in torch 2.1: no log specifications, no NUMA options."""

    min_nodes: int
    max_nodes: int
    nproc_per_node: int
    run_id: str = ""
    role: str = ""
    rdzv_endpoint: str = ""
    rdzv_backend: str = ""
    rdzv_configs: dict[str, Any] = field(default_factory=dict)
    max_restarts: int = 3
    monitor_interval: float = 30
    start_method: str = "spawn"
    log_dir: str | None = None
    local_addr: str | None = None


def test_config_of_an_old_torch() -> None:
    config = agent._config(OldLaunchConfig, REQUEST)
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node, config.max_restarts) == (
        2,
        2,
        4,
        0,
    )
    assert (config.rdzv_backend, config.rdzv_endpoint) == ("static", "10.0.0.1:29503")
    assert config.rdzv_configs["rank"] == 1
    assert config.run_id == "team-digits-3"
    assert config.log_dir == "/tmp/a/elastic"


def test_config_of_this_torch_asks_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("torch.distributed.launcher.api")
    torch = pytest.importorskip("torch")
    if hasattr(torch, "accelerator"):
        monkeypatch.setattr(
            torch.accelerator, "is_available", lambda: pytest.fail("opened a device context")
        )
    config = agent._config(api.LaunchConfig, REQUEST)
    assert config.start_method == "fork"
    assert getattr(config, "numa_options", None) is None


@pytest.mark.parametrize(
    ("error", "choice"),
    [
        pytest.param(None, None, id="with libuv"),
        pytest.param(TypeError("use_libuv"), None, id="before libuv"),
        pytest.param(RuntimeError("Libuv implementation missing"), "0", id="2.1"),
        pytest.param(
            RuntimeError("use_libuv was requested but PyTorch was built without it"), "0", id="2.6"
        ),
    ],
)
def test_a_torch_without_libuv_gets_the_plain_store(
    error: Exception | None, choice: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bool] = []

    def store(*_: Any, use_libuv: bool, **__: Any) -> None:
        taken.append(use_libuv)
        if use_libuv and error is not None:
            raise error

    # `distributed.rendezvous` is a function of the same name.
    places = (distributed, sys.modules["torch.distributed.rendezvous"], static_tcp_rendezvous)
    for place in places:
        monkeypatch.setattr(place, "TCPStore", store)
    monkeypatch.setenv("USE_LIBUV", "unset")
    monkeypatch.delenv("USE_LIBUV")
    plain_store.avoid_missing_libuv(foreign=False)
    assert os.environ.get("USE_LIBUV") == choice
    if choice:
        for place in places[1:]:
            place.TCPStore("127.0.0.1", 0)
        assert taken == [True, False, False]


def test_another_trouble_with_the_store_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def store(*_: Any, **__: Any) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(distributed, "TCPStore", store)
    with pytest.raises(RuntimeError, match="no network"):
        plain_store.avoid_missing_libuv(foreign=False)


def test_environment_of_the_attempt() -> None:
    assert agent.environment(REQUEST) == {
        "INCEPTION_ATTEMPT": "3",
        "INCEPTION_STOP_FILE": "/tmp/a/stop",
        "INCEPTION_PROGRESS_FILE": "/tmp/a/progress.json",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ConnectionRefusedError("no master"), True),
        (RuntimeError("The client socket has failed to connect to any network address"), True),
        (
            RuntimeError(
                "the server socket has failed to bind: EADDRINUSE, address already in use"
            ),
            False,
        ),
        (ValueError("a bug"), False),
    ],
    ids=["refused", "unreachable", "port taken", "bug"],
)
def test_no_rendezvous(error: Exception, lost: bool) -> None:
    (failure,) = agent._no_ranks(REQUEST, error).failures
    assert (failure.peer_lost, failure.rank, failure.exit_code) == (lost, None, 1)


def test_imports_can_be_replaced_except_for_the_needed_ones() -> None:
    assert forkserver.modules("") == (*forkserver.NEEDED, *forkserver.HIDDEN)
    assert forkserver.modules("a, b,")[-2:] == ("a", "b")


@pytest.mark.parametrize(
    ("given", "used"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")], ids=["default", "given"]
)
def test_openmp_is_told_to_sleep_before_anything_is_imported(
    monkeypatch: pytest.MonkeyPatch, given: str | None, used: str
) -> None:
    seen: list[str] = []
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(forkserver, "preload", lambda _: seen.append(os.environ["OMP_WAIT_POLICY"]))
    monkeypatch.setattr(forkserver.gc, "freeze", lambda: None)
    forkserver.warm_up("")
    assert set(seen) == {used}


@pytest.mark.parametrize(
    ("quick", "order"),
    [
        (60.0, [forkserver.NEEDED, "ready", forkserver.modules("a")]),
        (0.0, [forkserver.NEEDED, forkserver.modules("a"), "ready"]),
    ],
    ids=["quick", "slow disk"],
)
def test_a_pod_is_ready_once_torch_is_imported_unless_the_rest_may_take_long(
    monkeypatch: pytest.MonkeyPatch, quick: float, order: list[object]
) -> None:
    done: list[object] = []
    monkeypatch.setattr(forkserver, "QUICK_SECONDS", quick)
    monkeypatch.setattr(forkserver, "preload", done.append)
    monkeypatch.setattr(forkserver.gc, "freeze", lambda: None)
    forkserver.warm_up("a", ready=lambda: done.append("ready"))
    assert done == order


def test_a_missing_module_is_only_mentioned(capfd: pytest.CaptureFixture[str]) -> None:
    forkserver.preload(("json", "no_such_module"))
    assert "not preloaded: no_such_module" in capfd.readouterr().err


def test_packets(tmp_path: Path) -> None:
    ours, theirs = wire.pair()
    with ours, theirs:
        wire.send(ours, "start", request=REQUEST.to_dict())
        message = wire.receive(theirs)
        assert message is not None
        assert wire.Request.from_dict(message["request"]) == REQUEST
        ours.shutdown(socket.SHUT_RDWR)
        assert wire.receive(theirs) is None


class EndedRank:
    """A rank process that has ended with 1."""

    exitcode = 1
    pid = 0


def test_many_ranks_with_long_words_tell_the_cause(tmp_path: Path) -> None:
    size = 128
    request = wire.Request(Assignment(3, 0, 1, size, "10.0.0.1", 29503), str(tmp_path))
    ranks = agent._Ranks(request)
    vars(ranks)["_processes"] = [EndedRank()] * size
    for local in range(size):
        note = {"message": "数" * 2000, "time": abs(local - 70), "peerLost": False}
        rank.note_path(tmp_path, local).write_text(json.dumps(note), encoding="utf-8")
    ours, theirs = wire.pair()
    with ours, theirs:
        wire.send(ours, "outcome", outcome=ranks.outcome().to_dict())
        message = wire.receive(theirs)
    assert message is not None
    (failure,) = Outcome.from_dict(message["outcome"]).failures
    assert (failure.rank, failure.message) == (70, "数" * 2000)


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [("10.0.0.1", "10.0.0.1:29501"), ("fd00::5", "[fd00::5]:29501"), ("job-0", "job-0:29501")],
)
def test_torch_reads_the_address_of_the_master_as_it_was_meant(host: str, endpoint: str) -> None:
    from torch.distributed.elastic.rendezvous.utils import parse_rendezvous_endpoint

    assert agent._endpoint(host, 29501) == endpoint
    assert parse_rendezvous_endpoint(endpoint, 0) == (host, 29501)
