"""Which shards a split consists of: braces, a pattern, a folder, or what is called after the split."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from inception_trainer.config.training import DataConfig
from inception_trainer.errors import ConfigError, InputMissing
from inception_trainer.stores import AnyPath

from .layout import found_tree

SUFFIX = ".tar"
MOST = 1_000_000
"""Names that braces may stand for."""
_INNERMOST = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def find_shards(root: AnyPath, config: DataConfig) -> tuple[list[str], list[str]]:
    """The shards of both splits in their order; InputMissing with what was looked for, ConfigError
    for one in both.
    """
    if not root.is_dir():
        raise InputMissing(
            f"data.path: no folder {root}; expected the folder that holds the shards"
        )
    train = _find(root, "trainShards", config.train_shards, "train")
    val = _find(root, "valShards", config.val_shards, "val")
    both = sorted({*train} & {*val})
    if both:
        raise ConfigError(
            f"data.valShards: {both[0]} would be used to train and to validate; "
            "set data.trainShards and data.valShards so that they have no shard in common"
        )
    return train, val


def _find(root: AnyPath, key: str, pattern: str | None, split: str) -> list[str]:
    if pattern is None:
        shards = _folder(root / split) or sorted(
            str(path) for path in root.glob(f"*{split}*{SUFFIX}")
        )
        wanted = f"{split}/*{SUFFIX} or *{split}*{SUFFIX}, because data.{key} is not set"
    else:
        shards = list(
            dict.fromkeys(
                shard for name in expanded(pattern, key) for shard in _named(root, name, key)
            )
        )
        wanted = f"{pattern} (data.{key})"
    if not shards:
        raise InputMissing(
            f"data.path: no shards in {root}; looked for {wanted}; found: {found_tree(root)}"
        )
    return shards


def _named(root: AnyPath, name: str, key: str) -> list[str]:
    path = root / name
    if any(letter in name for letter in "*?["):
        return sorted(str(found) for found in root.glob(name))
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise InputMissing(f"data.{key}: no shard {path}; found: {found_tree(root)}")
    return [str(path)]


def _folder(folder: AnyPath) -> list[str]:
    return sorted(str(path) for path in folder.glob(f"*{SUFFIX}"))


def expanded(pattern: str, key: str) -> list[str]:
    """``a-{00..02}.tar`` and ``{b,c}.tar`` to the names they stand for, as shells have it."""
    if pattern.startswith("/"):
        raise ConfigError(
            f"data.{key}: {pattern} is absolute; name the shards as they are called below data.path"
        )
    names = list(dict.fromkeys(islice(_expanded(pattern, key), MOST + 1)))
    if len(names) > MOST:
        raise ConfigError(
            f"data.{key}: {pattern} stands for more than {MOST} names; name fewer shards"
        )
    return names


def _expanded(pattern: str, key: str) -> Iterator[str]:
    found = _INNERMOST.search(pattern)
    if found is None:
        if "{" in pattern or "}" in pattern:
            raise ConfigError(f"data.{key}: {pattern!r} has a brace without its counterpart")
        yield pattern
        return
    for option in _options(found[1], key):
        yield from _expanded(pattern[: found.start()] + option + pattern[found.end() :], key)


def _options(inside: str, key: str) -> Iterator[str]:
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        if "," not in inside:
            raise ConfigError(
                f"data.{key}: {{{inside}}} is neither a range such as {{000..099}} nor a list as {{a,b}}"
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
