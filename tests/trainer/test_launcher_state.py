"""The launcher's decisions."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_trainer.launcher.assignment import Assignment
from inception_trainer.launcher.outcome import Failure, Outcome, Result
from inception_trainer.launcher.report import Report, State
from inception_trainer.launcher.state import (
    AskStop,
    Assigned,
    Command,
    Emptied,
    Ended,
    Event,
    Exit,
    Kill,
    Machine,
    Now,
    ServerDied,
    ServerReady,
    ServerWarm,
    Start,
    StartServer,
    Terminate,
    Tick,
    step,
)


def run_of(attempt: int, graceful: bool = False) -> Assignment:
    return Assignment(attempt, 0, 2, 1, "10.0.0.1", 29500 + attempt, graceful)


def standby_of(attempt: int, graceful: bool = False) -> Assignment:
    return Assignment(attempt, graceful=graceful)


def failed(attempt: int, code: int = 66, lost: bool = False) -> Ended:
    return Ended(Outcome(attempt, Result.FAILED, (Failure(code, 5.0, 1, "E", "words", lost),)))


def ended(attempt: int, result: Result) -> Ended:
    return Ended(Outcome(attempt, result))


@dataclass
class Play:
    """Plays events against a machine and keeps what it commanded last."""

    machine: Machine = field(
        default_factory=lambda: Machine(Report(host="h"), keep_warm=600, shutdown=110)
    )
    now: float = 0.0
    last: tuple[Command, ...] = ()

    def __call__(self, *events: Event) -> "Play":
        for event in events:
            self.machine, self.last = step(self.machine, event, Now(self.now, 1000 + self.now))
        return self

    @property
    def state(self) -> State:
        return self.machine.report.state

    @property
    def exit_code(self) -> int | None:
        return self.machine.report.exit_code


def running(attempt: int = 1, asked: bool = True) -> Play:
    return Play()(ServerReady(), Tick(asked), Assigned(run_of(attempt)))


def test_from_birth_to_running() -> None:
    play = Play()
    assert play.state is State.STARTING
    assert play(ServerReady()).state is State.IDLE
    assert play.machine.report.attempt == 0
    assert play(Assigned(run_of(1))).last == (Start(run_of(1)),)
    assert (play.state, play.machine.report.attempt) == (State.RUNNING, 1)


def test_an_assignment_from_birth_waits_for_torch() -> None:
    play = Play()(Assigned(run_of(1)))
    assert (play.state, play.last) == (State.STARTING, ())
    assert play(ServerReady()).last == (Start(run_of(1)),)


def test_success_ends_the_launcher_when_nothing_is_left() -> None:
    play = running()(ended(1, Result.SUCCEEDED))
    assert (play.state, play.last) == (State.SUCCEEDED, (Kill(),))
    assert play(Emptied()).last == (Exit(0),)


def test_failure_is_held_warm_for_a_listening_operator() -> None:
    play = running()(failed(1))
    assert (play.state, play.exit_code, play.machine.report.rank) == (State.FAILED, 66, 1)
    assert play.machine.report.time == 5.0
    assert play(Emptied()).last == ()
    play.now = 599
    assert play(Tick(asked=False)).last == ()
    play.now = 601
    assert play(Tick(asked=False)).last == (Exit(66),)


def end_of(attempt: int) -> Assigned:
    return Assigned(Assignment(attempt, end=True))


def test_end_of_the_job_ends_a_held_launcher_with_its_code() -> None:
    play = running()(failed(1), Emptied(), end_of(1))
    assert (play.state, play.last) == (State.FAILED, (Exit(66),))


def test_end_of_the_job_kills_ranks_that_still_run() -> None:
    play = running()(end_of(1))
    assert play.last == (Kill(),)
    assert play(Emptied()).last == (Exit(75),)
    assert play(Assigned(run_of(2))).last == ()


def test_failure_ends_at_once_when_nobody_listens() -> None:
    assert running(asked=False)(failed(1), Emptied()).last == (Exit(66),)


def test_next_attempt_starts_only_after_the_last_process_is_gone() -> None:
    play = running()(failed(1), Assigned(run_of(2)))
    assert play.last == ()
    assert play(Emptied()).last == (Start(run_of(2)),)
    assert (play.state, play.exit_code) == (State.RUNNING, None)


def test_warm_recovery() -> None:
    assert running()(failed(1), Emptied(), Assigned(run_of(2))).last == (Start(run_of(2)),)


def test_superseded_ranks_are_killed_once_they_have_kept_what_they_know() -> None:
    play = running()(Assigned(run_of(2)))
    assert play.last == (Kill(after_copy=True),)
    assert play(Emptied()).last == (Start(run_of(2)),)


def test_superseded_ranks_save_first_when_asked_gracefully() -> None:
    play = running()(Assigned(run_of(2, graceful=True)))
    assert play.last == (AskStop(),)
    assert play(ended(1, Result.STOPPED)).last == (Kill(),)
    assert play(Emptied()).last == (Start(run_of(2, graceful=True)),)


def test_graceful_stop_is_bounded() -> None:
    play = running()(Assigned(run_of(2, graceful=True)))
    play.now = 109
    assert play(Tick(asked=False)).last == ()
    play.now = 110
    assert play(Tick(asked=False)).last == (Kill(),)


def test_a_ruder_assignment_cuts_a_graceful_stop_short() -> None:
    play = running()(Assigned(run_of(2, graceful=True)), Assigned(run_of(3)))
    assert play.last == (Kill(after_copy=True),)


def test_ranks_that_hang_are_killed_once_the_others_have_kept_what_they_know() -> None:
    play = running()(failed(1, code=70))
    assert play.last == (Kill(after_copy=True),)
    assert (play.state, play.exit_code) == (State.FAILED, 70)


def test_standby_keeps_warm_and_acknowledges() -> None:
    play = running()(Assigned(standby_of(2, graceful=True)), ended(1, Result.STOPPED), Emptied())
    assert (play.state, play.machine.report.attempt, play.exit_code) == (State.IDLE, 2, None)
    play.now = 10_000
    assert play(Tick(asked=False)).last == ()
    assert play(Assigned(run_of(2))).last == (Start(run_of(2)),)


def test_a_file_that_is_behind_what_was_delivered_stops_nothing() -> None:
    play = running()(Assigned(standby_of(1)))
    assert (play.last, play.state) == ((), State.RUNNING)


def test_stopping_unasked_waits_like_a_failure() -> None:
    play = running()(ended(1, Result.STOPPED), Emptied())
    assert (play.state, play.exit_code) == (State.STOPPED, 75)
    assert play(Assigned(run_of(2))).last == (Start(run_of(2)),)


def test_success_gives_way_to_a_new_attempt_but_not_to_standby() -> None:
    over = running()(ended(1, Result.SUCCEEDED), Assigned(run_of(2)), Emptied())
    assert over.last == (Start(run_of(2)),)
    assert running()(ended(1, Result.SUCCEEDED), Assigned(standby_of(2)), Emptied()).last == (
        Exit(0),
    )


def test_outcome_of_an_older_attempt_is_ignored() -> None:
    play = running(1)(Assigned(run_of(2)), Emptied(), failed(1))
    assert play.state is State.RUNNING


def test_late_word_of_the_agent_changes_nothing() -> None:
    assert running()(failed(1, 66), failed(1, -9)).exit_code == 66


def test_sigterm_while_running_saves_and_stops() -> None:
    play = running()(Terminate())
    assert play.last == (AskStop(),)
    play(ended(1, Result.STOPPED), Emptied())
    assert play.state is State.STOPPED
    assert play.exit_code == 75


def test_sigterm_is_told_while_the_ranks_still_save() -> None:
    play = running()
    assert not play.machine.report.leaving
    play.now = 7
    report = play(Terminate()).machine.report
    assert (report.state, report.leaving, report.time) == (State.RUNNING, True, 1007)
    assert not report.ready, "it takes no further attempt"
    assert play(ended(1, Result.STOPPED)).machine.report.leaving


def test_sigterm_changes_nothing_about_a_failure_that_has_been_told() -> None:
    play = running()(failed(1), Emptied())
    before = play.machine.report
    play.now = 7
    assert play(Terminate()).machine.report == replace(before, leaving=True)


def test_sigterm_that_costs_peers_is_still_a_stop() -> None:
    assert running()(Terminate(), failed(1, 1, lost=True), Emptied()).last == (Exit(75),)


def test_failure_during_sigterm_is_told() -> None:
    assert running()(Terminate(), failed(1, 65), Emptied()).last == (Exit(65),)


def test_sigterm_is_bounded() -> None:
    play = running()(Terminate())
    play.now = 110
    assert play(Tick(asked=False)).last == (Kill(),)
    assert play(Emptied()).last == (Exit(75),)
    assert play.machine.report.message == "the ranks did not stop in time and were killed"


def test_ranks_that_have_not_begun_are_not_waited_for() -> None:
    play = running()(Terminate())
    play.now += 1
    assert play(Tick(asked=False, begun=False)).last == ()
    play.now += 2
    assert play(Tick(asked=False, begun=True)).last == ()
    assert play(Tick(asked=False, begun=False)).last == (Kill(),)
    assert play(Emptied()).last == (Exit(75),)
    assert play.machine.report.message == "stopped before the ranks had begun"


def test_ranks_that_nobody_asked_to_stop_may_take_their_time_to_begin() -> None:
    play = running()
    play.now += 1000
    assert play(Tick(asked=False, begun=False)).last == ()


def test_second_sigterm_does_not_wait() -> None:
    assert running()(Terminate(), Terminate()).last == (Kill(),)


@pytest.mark.parametrize(
    ("events", "code"),
    [
        pytest.param((), 75, id="starting"),
        pytest.param((ServerReady(),), 75, id="idle"),
        pytest.param((ServerReady(), Assigned(standby_of(1))), 75, id="standby"),
        pytest.param(
            (ServerReady(), Tick(True), Assigned(run_of(1)), failed(1), Emptied()), 66, id="failed"
        ),
    ],
)
def test_sigterm_without_ranks(events: tuple[Event, ...], code: int) -> None:
    assert Play()(*events)(Terminate()).last == (Exit(code),)


def test_sigterm_after_success() -> None:
    assert running()(ended(1, Result.SUCCEEDED), Terminate(), Emptied()).last == (Exit(0),)


def test_no_attempt_starts_after_sigterm() -> None:
    play = running()(Terminate(), Assigned(run_of(2)), ended(1, Result.STOPPED), Emptied())
    assert play.last == (Exit(75),)


def test_death_of_the_fork_server_fails_the_attempt_and_is_mended() -> None:
    play = running()(ServerDied(-9))
    assert play.last == (StartServer(), Kill())
    assert (play.state, play.exit_code) == (State.FAILED, 137)
    assert play.machine.report.message == "the fork server ended: SIGKILL"
    play(Emptied(), Assigned(run_of(2)))
    assert play.state is State.STARTING
    assert play(ServerReady()).last == (Start(run_of(2)),)


def test_death_of_the_fork_server_by_memory() -> None:
    assert running()(ServerDied(-9, oom_killed=True)).machine.report.reason == "OOMKilled"


def test_death_of_an_idle_fork_server() -> None:
    play = Play()(ServerReady(), ServerDied(-9))
    assert (play.state, play.last) == (State.STARTING, (StartServer(),))
    assert play(ServerReady()).state is State.IDLE


def test_without_torch_nothing_can_run() -> None:
    play = Play()(ServerDied(1, broken="ModuleNotFoundError: No module named 'torch'"))
    assert play.last == (Exit(127),)
    assert play.machine.report.reason == "CannotRun"


def test_a_fork_server_that_never_starts_is_given_up() -> None:
    assert Play()(ServerDied(-9), ServerDied(-9)).last == (StartServer(),)
    assert Play()(ServerDied(-9), ServerDied(-9), ServerDied(-9)).last == (Exit(127),)


def test_a_fork_server_that_is_never_warm_is_given_up_too() -> None:
    deaths = [ServerReady(), ServerDied(-9)]
    assert Play()(*deaths, *deaths, *deaths).last == (Exit(127),)
    assert Play()(*deaths, *deaths, ServerReady(), ServerWarm(), ServerDied(-9)).last == (
        StartServer(),
    )


def test_nothing_happens_after_the_end() -> None:
    play = running(asked=False)(failed(1), Emptied())
    assert play(Assigned(run_of(9)), ServerReady(), Tick(True)).last == ()


ATTEMPTS = st.integers(1, 5)
EVENTS = st.lists(
    st.one_of(
        st.just(ServerReady()),
        st.just(ServerWarm()),
        st.builds(ServerDied, st.sampled_from([1, -9])),
        st.builds(Assigned, st.builds(run_of, ATTEMPTS, st.booleans())),
        st.builds(Assigned, st.builds(standby_of, ATTEMPTS, st.booleans())),
        st.builds(failed, ATTEMPTS, st.sampled_from([1, 66, -9]), st.booleans()),
        st.builds(ended, ATTEMPTS, st.sampled_from([Result.SUCCEEDED, Result.STOPPED])),
        st.just(Emptied()),
        st.builds(Tick, st.booleans()),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(EVENTS, st.booleans())
def test_an_older_attempt_never_runs_after_a_newer_one(
    events: list[Event], terminate: bool
) -> None:
    play = Play()(ServerReady(), Tick(asked=True))
    newest = started = 0
    free = True
    for event in [*events, *([Terminate()] if terminate else []), *events]:
        play.now += 1
        play(event)
        if isinstance(event, Emptied):
            free = True
        if isinstance(event, Assigned) and not play.machine.terminating:
            newest = max(newest, event.assignment.attempt)
        for command in play.last:
            if isinstance(command, Start):
                assert free, "two attempts at once"
                assert command.assignment.attempt >= started, "an older attempt after a newer one"
                assert command.assignment.attempt == newest, "not the newest that was asked for"
                started, free = command.assignment.attempt, False
        assert play.machine.report.attempt <= newest


def foreign(attempt: int, end: bool = False) -> Assigned:
    return Assigned(Assignment(attempt, contract=2, end=end))


def test_an_assignment_in_another_version_is_refused_and_the_launcher_waits_for_others() -> None:
    play = Play()(ServerReady(), Tick(asked=True), foreign(1))
    report = play.machine.report
    assert (report.state, report.attempt, report.exit_code) == (State.FAILED, 1, 78)
    assert report.reason == "ContractMismatch"
    assert "version 1 of the contract and the operator version 2" in (report.message or "")
    assert play.last == ()
    assert play(Assigned(run_of(2))).last == (Start(run_of(2)),)


def test_a_refusal_ends_the_ranks_of_the_attempt_before() -> None:
    play = running()(foreign(2))
    assert play.last == (Kill(after_copy=True),)
    assert play(Emptied()).state is State.FAILED
    assert play.machine.report.attempt == 2


def test_a_refusal_nobody_listens_to_ends_the_launcher_with_the_code_of_a_wrong_configuration() -> (
    None
):
    assert Play()(ServerReady(), foreign(1)).last == (Exit(78),)


def test_the_end_of_the_job_is_understood_in_every_version() -> None:
    assert running()(foreign(1, end=True)).last == (Kill(),)
