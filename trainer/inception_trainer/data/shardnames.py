"""Finds the shards of a split: by braces, a pattern, a folder, or names that hold the split's.

``data.trainShards`` and ``data.valShards`` are written as WebDataset's users write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from inception_trainer.config.training import DataConfig
from inception_trainer.errors import ConfigError, InputMissing
from inception_trainer.stores import AnyPath

from .folder_listing import describe_folder
from .held_out import REMEDY
from .ignored import Ignored, is_hidden

SUFFIX = ".tar"
MOST = 1_000_000
"""Names that braces may stand for."""
_INNERMOST = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def find_shards(root: AnyPath, config: DataConfig, ignored: Ignored) -> tuple[list[str], list[str]]:
    """The shards of both splits in their order; none to validate on where a share is held out.

    Raises InputMissing with what was looked for, ConfigError for a shard in both.
    """
    if not root.is_dir():
        raise InputMissing(
            f"data.path: no folder {root}; expected the folder that holds the shards"
        )
    train = _find(root, "trainShards", config.train_shards, "train", ignored)
    if config.held_out_share is not None:
        return train, []
    val = _find(root, "valShards", config.val_shards, "val", ignored)
    both = sorted({*train} & {*val})
    if both:
        raise ConfigError(
            f"data.valShards: {both[0]} would be used to train and to validate; "
            "set data.trainShards and data.valShards so that they have no shard in common"
        )
    return train, val


def _find(root: AnyPath, key: str, pattern: str | None, split: str, ignored: Ignored) -> list[str]:
    if pattern is None:
        shards = _matching(root / split, f"*{SUFFIX}", ignored)
        shards = shards or _matching(root, f"*{split}*{SUFFIX}", ignored)
        looked_for = f"{split}/*{SUFFIX} or *{split}*{SUFFIX}, because data.{key} is not set"
    else:
        named = [_named(root, name, key, ignored) for name in expand_braces(pattern, key)]
        # A shard that two names stand for counts once; the order stays that of the names.
        shards = list(dict.fromkeys(shard for some in named for shard in some))
        looked_for = f"{pattern} (data.{key})"
    if not shards:
        raise InputMissing(
            f"data.path: no shards in {root}; looked for {looked_for}; "
            f"found: {describe_folder(root)}" + (REMEDY if split == "val" else "")
        )
    return shards


def _named(root: AnyPath, name: str, key: str, ignored: Ignored) -> list[str]:
    path = root / name
    if any(letter in name for letter in "*?["):
        return _matching(root, name, ignored)
    if path.is_dir():
        return _matching(path, f"*{SUFFIX}", ignored)
    if not path.is_file():
        raise InputMissing(f"data.{key}: no shard {path}; found: {describe_folder(root)}")
    return [str(path)]


def _matching(folder: AnyPath, pattern: str, ignored: Ignored) -> list[str]:
    found: list[str] = []
    for path in folder.glob(pattern):
        if is_hidden(path.name):
            ignored.hide(path.name)
        else:
            found.append(str(path))
    return sorted(found)


def expand_braces(pattern: str, key: str) -> list[str]:
    """``a-{00..02}.tar`` and ``{b,c}.tar`` to the names they stand for, as shells have it."""
    if pattern.startswith("/"):
        raise ConfigError(
            f"data.{key}: {pattern} is absolute; name the shards as they are called below data.path"
        )
    # Cut off before they are listed: {0..9999999999} must not fill the memory first.
    names = list(dict.fromkeys(islice(_expand(pattern, key), MOST + 1)))
    if len(names) > MOST:
        raise ConfigError(
            f"data.{key}: {pattern} stands for more than {MOST} names; name fewer shards"
        )
    return names


def _expand(pattern: str, key: str) -> Iterator[str]:
    # From the innermost pair of braces outwards, so that they may be nested.
    braces = _INNERMOST.search(pattern)
    if braces is None:
        if "{" in pattern or "}" in pattern:
            raise ConfigError(f"data.{key}: {pattern!r} has a brace without its counterpart")
        yield pattern
        return
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    for option in _options(braces[1], key):
        yield from _expand(before + option + after, key)


def _options(inside: str, key: str) -> Iterator[str]:
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        if "," not in inside:
            raise ConfigError(
                f"data.{key}: {{{inside}}} is neither a range such as {{000..099}} "
                "nor a list as {a,b}"
            )
        yield from inside.split(",")
        return
    first, last = int(numbers[1]), int(numbers[2])
    # As in shells, a leading zero at either end means that all are as long.
    padded = any(len(end) > 1 and end.startswith("0") for end in numbers.groups())
    width = max(map(len, numbers.groups())) if padded else 0
    step = 1 if first <= last else -1
    for number in range(first, last + step, step):
        yield f"{number:0{width}d}"
