"""``explain KEY``: what the configuration may say, as ``kubectl explain`` shows it of resources."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterator

from inception_trainer.errors import UsageError, closest

from .describe import SECTION, Described, described
from .training import TrainingConfig

WIDTH = 100


def explain(path: str = "") -> str:
    """A key, or a section with all of its keys; without a path all there are.

    Raises UsageError for a path that does not exist.
    """
    everything = _everything()
    # What users copy from a manifest.
    path = path.removeprefix("spec.training").strip(".")
    chosen = [entry for entry in everything if _is_within(entry.path, path)]
    if not chosen:
        known = [entry.path for entry in everything if entry.path]
        # The mistake is mostly in the last part: optimizer.momentun, or momentum alone.
        by_last = {name.rpartition(".")[2]: name for name in reversed(known)}
        full = by_last.get(path)
        nearest = f" (did you mean {full}?)" if full else closest(path, known)
        raise UsageError(
            f"explain: there is no key {path}{nearest}; "
            "`inception-trainer explain` lists all of them"
        )
    return "\n".join("\n".join(_lines(entry)) for entry in chosen)


@functools.cache
def _everything() -> tuple[Described, ...]:
    return tuple(described(TrainingConfig))


def _is_within(path: str, section: str) -> bool:
    return not section or path == section or path.startswith(f"{section}.")


def _lines(entry: Described) -> Iterator[str]:
    if entry.type == SECTION:
        yield ""
        yield f"{entry.path or 'the configuration'}  <{SECTION}>"
    else:
        yield f"{entry.path}  <{entry.type}>  {'; '.join(entry.facts)}"
    yield from textwrap.wrap(
        entry.text,
        WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
