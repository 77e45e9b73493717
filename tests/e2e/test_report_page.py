"""The report of a job as a browser shows it: on wide and narrow screens, light and dark."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from browser import Tab, browser
from inception_operator.decide import goodput
from inception_operator.report import files
from inception_operator.report.content import Report
from inception_operator.report.page import render
from inception_operator.report.svg import STATE_COLOURS

pytestmark = pytest.mark.nightly

RECORDED = Path(__file__).resolve().parents[1] / "support" / "recorded_run"
SECTIONS = [
    "Figures",
    "States over time",
    "Where the time went",
    "Curves",
    "Restarts",
    "Conditions",
    "Configuration",
]
LONG = "the node ran out of memory: container trainer was over its request of 12Gi. " * 3
STATUS: dict[str, Any] = {
    "state": "Succeeded",
    "attempt": 2,
    "restarts": 1,
    "accelerator": "nvidia.com/gpu x8",
    "model": "inception_v3",
    "trainerStatus": {"accuracyTop1": "0.9722", "loss": "0.1000", "progressPercentage": 100},
    "goodput": {
        "ratio": "0.7500",
        "seconds": {cause: 60 * 2**place for place, cause in enumerate(goodput.CAUSES)},
    },
    "conditions": [
        {
            "type": kind,
            "status": "True",
            "reason": "CannotReplaceStraggler",
            "message": LONG,
            "lastTransitionTime": "2026-01-01T00:10:00Z",
        }
        for kind in ("Accepted", "PodsReady", "Succeeded")
    ],
    "rootCause": {
        "attempt": 1,
        "pod": "digits-1-1",
        "node": "ip-10-0-132-17.eu-central-1.compute.internal",
        "rank": 1,
        "reason": "OOMKilled",
        "message": LONG,
        "time": "2026-01-01T00:05:00Z",
    },
}
# What of a page must be seen, and whether it is.
MEASURE = """
[...document.querySelectorAll('h1, h2, h3, .badge, .key, .key i, table, tr, th, td, svg, pre')]
  .filter((each) => each.textContent.trim() || each.matches('svg, i'))
  .filter((each) => !each.closest('.head') || innerWidth > 640)
  .map((each) => {
    const box = each.getBoundingClientRect();
    return {
      what: `${each.tagName} ${each.textContent.slice(0, 40)}`,
      width: box.width, height: box.height, left: box.left, right: box.right,
    };
  })
"""
DRAWN = """
[...document.querySelectorAll('svg')].map((each) => ({
  what: each.getAttribute('aria-label') || '',
  shapes: each.querySelectorAll('polyline, path, rect, line, circle').length,
}))
"""
# Texts of pictures that stick out of them, or stand on one another.
CROWDED = """
[...document.querySelectorAll('svg')].flatMap((picture) => {
  const frame = picture.getBoundingClientRect();
  const texts = [...picture.querySelectorAll('text')].filter(
    (each) => each.getBoundingClientRect().width > 0);
  const boxes = texts.map((each) => each.getBoundingClientRect());
  const cut = texts.filter((_, i) => boxes[i].left < frame.left - 1
    || boxes[i].right > frame.right + 1 || boxes[i].top < frame.top - 1
    || boxes[i].bottom > frame.bottom + 1);
  const covered = texts.filter((_, i) => boxes.some((other, j) => j < i
    && other.left < boxes[i].right - 1 && boxes[i].left < other.right - 1
    && other.top < boxes[i].bottom - 2 && boxes[i].top < other.bottom - 2));
  return [...cut.map((each) => `cut: ${each.textContent}`),
    ...covered.map((each) => `covered: ${each.textContent}`)];
})
"""
# Heights of the lines of a picture's texts; those that are left out on a narrow screen have none.
SMALLEST_TEXT = """
Math.min(...[...document.querySelectorAll('svg text, .axis span')]
  .map((each) => each.getBoundingClientRect().height).filter((height) => height > 0))
"""
# Cells of tables in more than one line, but for messages.
BROKEN_WORDS = """
[...document.querySelectorAll('.rows td:not(:last-child)')].map((cell) => {
  const words = document.createRange();
  words.selectNodeContents(cell);
  return [cell.textContent, words.getClientRects().length];
}).filter(([text, lines]) => lines > 1).map(([text]) => text)
"""


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """The page of the recorded run, with all that a job can have."""
    found = files.read(RECORDED, datetime(2026, 1, 1, tzinfo=UTC))
    begin, end = found.spans[0].begin, found.spans[-1].end
    step = (end - begin) / len(STATE_COLOURS)
    states = tuple(
        replace(
            found.spans[0], name=name, begin=begin + place * step, end=begin + place * step + step
        )
        for place, name in enumerate(STATE_COLOURS)
    )
    restarts = tuple(replace(each, message=LONG) for each in found.restarts)
    full = replace(found, status=STATUS, spans=states, restarts=restarts, notes=("raport.json",))
    page = tmp_path / "report.html"
    page.write_text(render(full), encoding="utf-8")
    return page


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    folder = tmp_path / "browser"
    folder.mkdir()
    async with browser(folder) as made:
        yield made


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
async def test_all_of_a_report_is_seen(tab: Tab, report: Path, width: int, dark: bool) -> None:
    await tab.open(report.as_uri(), width, dark=dark)
    if folder := os.environ.get("INCEPTION_TEST_PICTURES"):
        name = f"report-{width}-{'dark' if dark else 'light'}.png"
        (Path(folder) / name).write_bytes(await tab.screenshot())
    assert tab.complaints == []
    assert tab.requests == [report.as_uri()], "it loads nothing"
    titles = "[...document.querySelectorAll('h2')].map((each) => each.textContent)"
    assert await tab.evaluate(titles) == SECTIONS
    seen = await tab.evaluate(MEASURE)
    assert [each["what"] for each in seen if not (each["width"] > 0 and each["height"] > 0)] == []
    assert [each["what"] for each in seen if each["left"] < 0 or each["right"] > width] == []
    assert await tab.evaluate("document.documentElement.scrollWidth") == width
    drawn = await tab.evaluate(DRAWN)
    assert len(drawn) == 6
    assert all(picture["shapes"] for picture in drawn), drawn
    assert await tab.evaluate(CROWDED) == []
    assert await tab.evaluate(SMALLEST_TEXT) >= 9
    assert await tab.evaluate(BROKEN_WORDS) == []
    # Where a table has no room for columns, each cell says what it is.
    named = await tab.evaluate(
        "getComputedStyle(document.querySelector('.rows td'), '::before').content"
    )
    assert named == ('"when"' if width == 400 else "none")
    assert await tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    text = await tab.evaluate("getComputedStyle(document.body).color")
    assert text == ("rgb(255, 255, 255)" if dark else "rgb(0, 0, 0)")


async def test_a_word_without_end_makes_no_page_wider(tab: Tab, tmp_path: Path) -> None:
    word = "x" * 500
    keys = ("type", "status", "reason", "lastTransitionTime", "message")
    status = {"state": word, "model": word, "conditions": [dict.fromkeys(keys, word)]}
    page = tmp_path / "report.html"
    made = datetime(2026, 1, 1, tzinfo=UTC)
    page.write_text(render(Report(word, made, notes=(word,), status=status, configuration=word)))
    for width in (1280, 400):
        await tab.open(page.as_uri(), width)
        assert await tab.evaluate("document.documentElement.scrollWidth") == width


async def test_an_error_of_a_page_would_be_noticed(tab: Tab, tmp_path: Path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text(
        "<!doctype html><meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
        "<body style='color: red'><img src='picture.png'><h2></h2>"
    )
    await tab.open(page.as_uri(), 400)
    assert any("inline style" in each for each in tab.complaints)
    assert any("picture.png" in each for each in tab.complaints)
    assert await tab.evaluate("document.querySelector('h2').getBoundingClientRect().height") == 0
    with pytest.raises(AssertionError, match="nowhere"):
        await tab.evaluate("nowhere")
