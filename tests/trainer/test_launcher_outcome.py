"""Which failure is the root cause, and how it is said in the contract's words."""

import pytest

from inception_trainer.launcher.exitcodes import Reason, is_peer_loss, signal_name
from inception_trainer.launcher.outcome import (
    MESSAGE_CHARACTERS,
    Failure,
    Outcome,
    Result,
    judge,
    root_cause,
    with_tail,
)

GLOO = "RuntimeError: [.../gloo/transport/tcp/pair.cc:561] "


@pytest.mark.parametrize(
    ("code", "reason", "contract"),
    [
        (1, Reason.ERROR, 1),
        (7, Reason.ERROR, 7),
        (64, Reason.USAGE_ERROR, 64),
        (65, Reason.DATA_ERROR, 65),
        (66, Reason.INPUT_MISSING, 66),
        (78, Reason.CONFIG_ERROR, 78),
        (70, Reason.HANG, 70),
        (75, Reason.STOPPED, 75),
        (126, Reason.CANNOT_RUN, 126),
        (127, Reason.CANNOT_RUN, 127),
        (-9, Reason.SIGNAL, 137),
        (-11, Reason.SIGNAL, 139),
        (137, Reason.SIGNAL, 137),
        (255, Reason.ERROR, 255),
    ],
)
def test_exit_code_table(code: int, reason: Reason, contract: int) -> None:
    verdict = judge(Outcome(1, Result.FAILED, (Failure(code, 5.0, rank=2),)), now=9.0)
    assert (verdict.reason, verdict.exit_code, verdict.rank, verdict.time) == (
        reason,
        contract,
        2,
        5.0,
    )


@pytest.mark.parametrize(
    ("code", "message"), [(-9, "SIGKILL"), (-6, "SIGABRT"), (7, "exit code 7"), (139, "SIGSEGV")]
)
def test_a_death_without_words_is_named(code: int, message: str) -> None:
    assert judge(Outcome(1, Result.FAILED, (Failure(code, 0.0),)), 0.0).message == message


def test_unknown_signal_has_a_name() -> None:
    assert signal_name(99) == "signal 99"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("RuntimeError", GLOO + "Connection closed by peer [10.0.0.1]:5039"),
        ("RuntimeError", GLOO + "Read error [10.0.0.1]:5039: Connection reset by peer"),
        ("RuntimeError", GLOO + "Broken pipe"),
        ("RuntimeError", GLOO + "Timed out waiting 1800000ms for recv operation to complete"),
        ("RuntimeError", GLOO + "Application timeout caused pair closure"),
        (
            "DistBackendError",
            "NCCL error in: x.cpp:1, remote process exited or there was a network error",
        ),
        (
            "DistBackendError",
            "NCCL error: unhandled system error (run with NCCL_DEBUG=INFO), ncclSystemError",
        ),
        ("DistBackendError", "[2] is setting up NCCL communicator: failed to recv, got 0 bytes"),
        (
            "DistNetworkError",
            "The client socket has failed to connect to any network address of (a, 1)",
        ),
        ("DistStoreError", "wait timeout after 300000ms, keys: /0"),
        ("RuntimeError", "Connection refused"),
        (
            "RuntimeError",
            "HcclAllreduce, error code is 6\nEI0006: Getting socket times out. Reason: Remote Rank "
            "did not send the data in time.",
        ),
    ],
)
def test_consequences(error: str, message: str) -> None:
    assert is_peer_loss(error, message)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("ValueError", "Connection closed by peer"),
        ("ConnectionResetError", "[Errno 104] Connection reset by peer"),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied"),
        ("DistBackendError", "NCCL error: unhandled cuda error, ncclUnhandledCudaError"),
        (
            "DistBackendError",
            "ncclSystemError: Error while creating shared memory segment /dev/shm/nccl-x",
        ),
        (
            "DistNetworkError",
            "The server socket has failed to listen: EADDRINUSE, address already in use",
        ),
        ("", ""),
    ],
)
def test_causes(error: str, message: str) -> None:
    assert not is_peer_loss(error, message)


def test_the_earliest_cause_wins_over_earlier_consequences() -> None:
    lost = Failure(1, 1.0, rank=0, peer_lost=True)
    killed, raised = Failure(-9, 3.0, rank=1), Failure(7, 2.0, rank=2)
    assert root_cause([lost, killed, raised]) is raised
    assert root_cause([lost]) is lost


def test_peer_lost_keeps_the_ranks_code() -> None:
    verdict = judge(
        Outcome(1, Result.FAILED, (Failure(1, 1.0, 3, "RuntimeError", "x", peer_lost=True),)), 9.0
    )
    assert (verdict.reason, verdict.exit_code, verdict.rank) == (Reason.PEER_LOST, 1, 3)


@pytest.mark.parametrize(
    ("failure", "reason", "code"),
    [
        pytest.param(Failure(-9, 1.0), Reason.OOM_KILLED, 137, id="the rank itself"),
        pytest.param(
            Failure(1, 1.0, message="DataLoader worker is killed"),
            Reason.OOM_KILLED,
            137,
            id="its loader",
        ),
        pytest.param(Failure(1, 1.0, peer_lost=True), Reason.OOM_KILLED, 137, id="a local peer"),
        pytest.param(Failure(66, 1.0), Reason.INPUT_MISSING, 66, id="a code of its own stays"),
    ],
)
def test_out_of_memory(failure: Failure, reason: Reason, code: int) -> None:
    verdict = judge(Outcome(1, Result.FAILED, (failure,), oom_killed=True), 9.0)
    assert (verdict.reason, verdict.exit_code) == (reason, code)


def test_no_word_at_all() -> None:
    verdict = judge(Outcome(1, Result.FAILED), now=9.0)
    assert (verdict.reason, verdict.exit_code, verdict.time) == (Reason.ERROR, 1, 9.0)


def test_outcome_travels() -> None:
    outcome = Outcome(
        3, Result.FAILED, (Failure(-9, 1.5, 2, "E", "m", peer_lost=True),), oom_killed=True
    )
    assert Outcome.from_dict(outcome.to_dict()) == outcome


@pytest.mark.parametrize(
    ("head", "tail", "message"),
    [
        pytest.param("exit code 7", "", "exit code 7", id="nothing said"),
        pytest.param("exit code 7", "one\ntwo", "exit code 7\none\ntwo", id="the last lines"),
        pytest.param(
            "ValueError: x",
            "Traceback\n  in f\nValueError: x",
            "ValueError: x\nTraceback\n  in f",
            id="not twice",
        ),
        pytest.param(
            "no data", "loading\nInputMissing: no data", "no data\nloading", id="nor with its name"
        ),
        pytest.param("no data", "InputMissing: no data", "no data", id="nothing but the head"),
        pytest.param("x", "x\nmore", "x\nx\nmore", id="said before"),
    ],
)
def test_last_lines_stand_below_the_head(head: str, tail: str, message: str) -> None:
    assert with_tail(head, tail) == message


def test_last_lines_are_cut_from_their_beginning() -> None:
    message = with_tail("head", "a" * 5000 + "end")
    assert len(message) == MESSAGE_CHARACTERS
    assert message.startswith("head\n")
    assert message.endswith("end")
    assert with_tail("h" * 3000, "tail") == "h" * 3000


@pytest.mark.parametrize("oom_killed", [False, True])
def test_verdict_has_the_last_lines(oom_killed: bool) -> None:
    failure = Failure(-9, 1.0, rank=0, tail="loading batch 7")
    verdict = judge(Outcome(1, Result.FAILED, (failure,), oom_killed=oom_killed), 9.0)
    assert verdict.message.splitlines()[1:] == ["loading batch 7"]


def test_hang_stays_a_hang_when_memory_ran_out_too() -> None:
    verdict = judge(Outcome(1, Result.FAILED, (Failure(70, 1.0),), oom_killed=True), 9.0)
    assert verdict.reason is Reason.HANG
