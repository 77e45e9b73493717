"""When ranks count as hanging, and which of them is blamed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_trainer.launcher.hang_detector import (
    FEW,
    MARGIN,
    PAUSE_FLOORS,
    START_FLOORS,
    STEP_FLOOR_SECONDS,
    GivenDeadline,
    HangDetector,
    HangEvidence,
    Heartbeat,
    LearnedDeadline,
    RankHealth,
    choose_blamed,
    choose_deadline,
    parse_heartbeat,
    parse_progress,
)

BEFORE, AFTER = Heartbeat("a", 1, 1), Heartbeat("b", 2, 2)
SLOW = Heartbeat("s", 1, 1, patient=True)


def watch(*looks: tuple[float, dict[int, Heartbeat | None]], bundled: bool = True) -> HangDetector:
    """Look every second in between, as the launcher does more or less."""
    detector = HangDetector(GivenDeadline(10), bundled=bundled)
    now, seen = 0.0, dict[int, Heartbeat | None]()
    for moment, heartbeats in looks:
        while now + 1 < moment:
            now += 1
            detector.observe(seen, now)
        now, seen = moment, heartbeats
        detector.observe(seen, now)
    return detector


CASES = [
    pytest.param([(0, {0: BEFORE}), (9.9, {0: BEFORE})], False, id="not yet"),
    pytest.param([(0, {0: BEFORE}), (10, {0: BEFORE})], True, id="silent for the deadline"),
    pytest.param([(0, {0: BEFORE}), (9, {0: AFTER}), (18, {0: AFTER})], False, id="a sign of life"),
    pytest.param([(0, {0: BEFORE}), (9, {0: AFTER}), (19, {0: AFTER})], True, id="silent after it"),
    pytest.param(
        [(0, {0: BEFORE, 1: BEFORE}), (9, {0: AFTER, 1: BEFORE}), (11, {0: AFTER, 1: BEFORE})],
        True,
        id="one",
    ),
    pytest.param(
        [(0, {0: BEFORE, 1: BEFORE}), (9, {0: AFTER}), (15, {0: AFTER})],
        False,
        id="one that has ended",
    ),
    pytest.param([(0, {0: SLOW}), (99, {0: SLOW})], False, id="a pause that was announced"),
    pytest.param([(0, {0: SLOW}), (100, {0: SLOW})], True, id="even a pause has an end"),
    pytest.param([(0, {0: None}), (99, {0: None})], False, id="the start may take longer"),
    pytest.param([(0, {0: None}), (100, {0: None})], True, id="even the start has an end"),
    pytest.param([(0, {0: None}), (90, {0: BEFORE}), (99, {0: BEFORE})], False, id="just begun"),
    pytest.param([(0, {}), (1000, {0: BEFORE})], False, id="born late"),
]


@pytest.mark.parametrize(("looks", "hangs"), CASES)
def test_hangs(looks: list[tuple[float, dict[int, Heartbeat | None]]], hangs: bool) -> None:
    assert watch(*looks).hangs() is hangs


def test_other_programs_are_watched_from_their_first_sign_of_life() -> None:
    assert not watch((0, {0: None, 1: BEFORE}), (9, {0: None, 1: AFTER}), bundled=False).hangs()
    silent = {0: None, 1: BEFORE}
    assert watch((0, silent), (10, silent), bundled=False).hangs()
    assert not watch((0, {0: None}), (5000, {0: None}), bundled=False).hangs()


def test_time_in_which_the_launcher_stood_still_too_does_not_count() -> None:
    detector = HangDetector(GivenDeadline(10), bundled=True)
    detector.observe({0: BEFORE}, 0)
    detector.observe({0: BEFORE}, 3600)
    assert not detector.hangs()
    assert detector.silence(0) < 10


def test_ranks_that_are_to_go_are_suspect_earlier() -> None:
    detector = watch((0, {0: BEFORE}), (6, {0: BEFORE}))
    assert detector.may_hang()
    assert not detector.hangs()
    assert watch((0, {0: SLOW}), (6, {0: SLOW})).may_hang()
    assert not watch((0, {0: BEFORE}), (4, {0: BEFORE})).may_hang()
    assert not watch((0, {0: None}), (6, {0: None}), bundled=False).may_hang()


def test_a_stopped_rank_is_not_slow() -> None:
    detector = HangDetector(GivenDeadline(10), bundled=True)
    for now in range(10):
        detector.observe({0: SLOW}, now, stopped={0})
        assert not detector.hangs()
    detector.observe({0: SLOW}, 10)
    assert not detector.hangs(), "it goes on"
    detector.observe({0: SLOW}, 11, stopped={0})
    assert detector.hangs()


@pytest.mark.parametrize(
    ("text", "step", "count", "patient"),
    [
        ("7 40 step\n", 7, 40, False),
        ("7 40 long   \n", 7, 40, True),
        ("12", 12, 12, False),
        ("", None, 0, False),
        ("tick", None, 0, False),
        ("-3 x", None, 0, False),
        ("9" * 5000, None, 0, False),
    ],
)
def test_heartbeat_file(text: str, step: int | None, count: int, patient: bool) -> None:
    heartbeat = parse_heartbeat(text, "1")
    assert (heartbeat.step, heartbeat.count, heartbeat.patient) == (step, count, patient)
    assert parse_heartbeat(text, "2").mark != heartbeat.mark, "a touched file is a sign of life"


def test_a_file_that_is_just_being_written_leaves_known_how_far_a_rank_has_come() -> None:
    written, emptied = parse_heartbeat("7 40 step", "1"), parse_heartbeat("", "2")
    detector = watch((0, {0: written}), (9, {0: emptied}))
    known = detector.ranks[0].heartbeat
    assert known is not None
    assert (known.step, known.count, known.paced) == (7, 40, True)
    assert detector.silence(0) == 0, "it is a sign of life"
    assert not watch((0, {0: written}), (9, {0: emptied}), (18, {0: emptied})).hangs()
    assert watch((0, {0: written}), (9, {0: emptied}), (19, {0: emptied})).hangs()


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ('{"step": 7, "metrics": {}}', 7),
        ('{"step": "x"}', None),
        ("{to", None),
        ("[]", None),
        ("[" * 60_000, None),
    ],
)
def test_progress_file(text: str, step: int | None) -> None:
    assert parse_progress(text, "1").step == step


WORKING = Heartbeat("w", 5, 9, paced=True)
PAUSING = Heartbeat("p", 5, 9, patient=True, paced=True)
UNPACED = Heartbeat("u", 5, 9)
STARTING = Heartbeat("0", 0, 0, patient=True, paced=True)
STEP, PAUSE, START = (
    STEP_FLOOR_SECONDS,
    STEP_FLOOR_SECONDS * PAUSE_FLOORS,
    STEP_FLOOR_SECONDS * START_FLOORS,
)


def learned(*silences: tuple[Heartbeat | None, float]) -> LearnedDeadline:
    deadline = LearnedDeadline()
    for heartbeat, silence in silences:
        deadline.learn(RankHealth(heartbeat, 0.0), silence)
    return deadline


@pytest.mark.parametrize(
    ("silences", "heartbeat", "seconds"),
    [
        pytest.param([], WORKING, STEP, id="nothing is known yet"),
        pytest.param([], PAUSING, PAUSE, id="a pause"),
        pytest.param([], STARTING, START, id="before the first step"),
        pytest.param([], None, START, id="before any sign of life"),
        pytest.param([], UNPACED, math.inf, id="a program that has told of itself once"),
        pytest.param([(UNPACED, 0.2)], UNPACED, START, id="a program that announces no pauses"),
        pytest.param([(WORKING, 0.2)] * 50, WORKING, STEP, id="fast steps"),
        pytest.param([(WORKING, 0.2)] * 50 + [(WORKING, 20.0)], WORKING, 200, id="a slow step"),
        pytest.param([(WORKING, 0.2)] * 50 + [(PAUSING, 20.0)], WORKING, STEP, id="after a pause"),
        pytest.param([(PAUSING, 90.0)], PAUSING, 900, id="slow pauses"),
        pytest.param([(STARTING, 500.0), (None, 500.0)], PAUSING, PAUSE, id="a slow start"),
        pytest.param([(PAUSING, 100.0)], WORKING, 1000, id="slow steps, of which few are known"),
        pytest.param([(UNPACED, 2400.0)], UNPACED, 24000, id="a program that tells of epochs"),
        pytest.param([(WORKING, 100.0)] * FEW, WORKING, 1000, id="slow steps"),
    ],
)
def test_a_deadline_is_learned(
    silences: list[tuple[Heartbeat | None, float]], heartbeat: Heartbeat | None, seconds: float
) -> None:
    assert learned(*silences).seconds(RankHealth(heartbeat, 0.0)) == seconds


@given(
    st.lists(st.tuples(st.sampled_from([WORKING, PAUSING, UNPACED]), st.floats(0.2, 900))),
    st.sampled_from([WORKING, PAUSING, UNPACED, STARTING, None]),
)
def test_a_learned_deadline_leaves_room_for_what_has_been_seen(
    silences: list[tuple[Heartbeat, float]], heartbeat: Heartbeat | None
) -> None:
    deadline = learned(*silences)
    limit = deadline.seconds(RankHealth(heartbeat, 0.0))
    assert limit >= STEP_FLOOR_SECONDS
    assert all(limit >= MARGIN * silence for seen, silence in silences if seen is heartbeat)
    stopped = deadline.seconds(RankHealth(heartbeat, 0.0, stopped=True))
    assert stopped == deadline.of_step, "what is stopped is not slow"
    assert deadline.of_step <= limit or heartbeat in (PAUSING, STARTING, None)


@pytest.mark.parametrize("step_seconds", [0.5, 40.0, 110.0, 500.0])
def test_steps_that_are_always_as_slow_never_hang(step_seconds: float) -> None:
    detector = HangDetector(LearnedDeadline(), bundled=True)
    # As the bundled trainer does it: before the second step everything is announced as long.
    step, count, now, since = 0, 0, 0.0, 0.0
    while step < 20:
        now += 0.2
        if now - since >= step_seconds:
            since, step, count = now, step + 1, count + 1
        heartbeat = Heartbeat(f"{count}", step, count, patient=step < 2, paced=True)
        detector.observe({0: heartbeat}, now)
        assert not detector.hangs(), f"after step {step}"


@pytest.mark.parametrize("of_job", [0, 60, None])
def test_the_deadline_of_the_job_comes_first(of_job: float | None) -> None:
    deadline = choose_deadline(of_job, floor=5)
    if of_job == 0:
        assert deadline is None, "switched off"
        return
    assert deadline is not None
    assert deadline.of_step == (of_job or 5)
    assert isinstance(deadline, GivenDeadline) is (of_job is not None)


def rank(local: int, count: int = 5, *, stopped: bool = False, waits: bool = False) -> HangEvidence:
    return HangEvidence(local, stopped, count, waits)


@pytest.mark.parametrize(
    ("ranks", "chosen"),
    [
        pytest.param([rank(0), rank(1, stopped=True), rank(2, 1)], 1, id="stopped"),
        pytest.param([rank(0), rank(1, waits=True), rank(2, 4, waits=True)], 2, id="behind"),
        pytest.param([rank(0, waits=True), rank(1), rank(2, waits=True)], 1, id="does not wait"),
        pytest.param([rank(1, waits=True), rank(0, waits=True)], 0, id="all wait"),
    ],
)
def test_which_rank_is_blamed(ranks: list[HangEvidence], chosen: int) -> None:
    assert choose_blamed(ranks).local_rank == chosen
