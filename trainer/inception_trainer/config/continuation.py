"""What of a configuration may change while a training goes on, and what must stay.

A checkpoint fits the network, the classes and the kind of optimizer that it was made with, and the
order of samples, which is computed from the seed, the batch and the data. All else is the user's to
change: it is said in the log, a line for each key. Pure functions over flat keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inception_trainer.stores import file_name

from .catalog import ALIASES
from .sources import flat
from .training import TrainingConfig

Plain = Mapping[str, Any]
"""Keys such as ``data.path`` and their values; keys below FOUND are what was found in the data."""

FOUND = "data.found."
SAMPLES, CLASSES = f"{FOUND}samples", f"{FOUND}classes"
TRAINING_DATA, VALIDATION_DATA = f"{FOUND}training", f"{FOUND}validation"
"""Fingerprints of names, labels and sizes: the same wherever the data are mounted."""

FIXED = {
    "model.name": "the weights fit one network only",
    CLASSES: "the classifier has so many outputs",
    "optimizer.name": "its state fits one kind of optimizer only",
    "seed": "the order of the samples follows from it",
    "batch.global": "the order of the samples follows from it",
    "data.kind": "the data must be the same",
    "data.normalization": "the weights fit one kind of inputs only",
    SAMPLES: "the data must be the same",
    TRAINING_DATA: "the data must be the same: names, classes or sizes differ",
}
"""What must stay, and why."""
MAY_CHANGE = "the place of the data, epochs, rates and schedule, evaluation, workers and the like"
PLACES = ("data.path", "data.trainShards", "data.valShards")
NAMED_BY_FILE = "model.weights"
SECTIONS = (
    "model",
    "data",
    "batch",
    "epochs",
    "maxSteps",
    "optimizer",
    "schedule",
    "loss",
    "augmentation",
    "weightAverage",
    "seed",
    "evaluation",
    "precision",
    "execution",
)
"""The keys that have a part in what a training is; others are about where and how it runs."""
FINGERPRINTED = (
    "model",
    "optimizer",
    "schedule",
    "loss",
    "augmentation",
    "weightAverage",
    "epochs",
    "seed",
)
"""What decides the result of a training: all that checkpoints of version 0.1 know."""
UNTOLD = ("model.foreignPickle", "data.numClasses", VALIDATION_DATA)
"""Keys that are no news: the first decides nothing, the others are told by what was found."""


@dataclass(frozen=True)
class Change:
    """A key with the values that it had and has; None where it is not there."""

    key: str
    before: Any
    now: Any
    remark: str = ""

    def __str__(self) -> str:
        text = f"{self.key}: {_shown(self.before)} before, {_shown(self.now)} now"
        return f"{text}; {self.remark}" if self.remark else text


@dataclass(frozen=True)
class Comparison:
    """How the configuration of a checkpoint and that of now differ."""

    conflicts: tuple[Change, ...]
    """What must have stayed."""
    changes: tuple[Change, ...]
    """What is the user's to change."""

    def refusal(self, root: object) -> str:
        """The error for conflicts, with the remedies."""
        told = "; ".join(
            f"{change.key}: {change.before!r} in the checkpoint, {change.now!r} now"
            + (f" ({change.remark})" if change.remark else "")
            for change in self.conflicts
        )
        return (
            f"checkpoint.path: {root} holds a checkpoint of another configuration ({told}); undo "
            f"the change, or use another folder to begin anew; {MAY_CHANGE} may change"
        )


def fingerprint(config: TrainingConfig) -> dict[str, Any]:
    """What decides the result of a training: a checkpoint continues only under the same values."""
    plain = config.as_dict()
    counted = {name: plain.get(name) for name in FINGERPRINTED}
    counted["model"] = {
        name: value for name, value in plain["model"].items() if name != "foreignPickle"
    }
    # How samples are read changes none of them; nor does how a step's samples are divided.
    counted["data"] = {
        name: value
        for name, value in plain["data"].items()
        if name not in ("workers", "maxCorrupt", "maxPixels", "cache")
    }
    counted["batch"] = {"global": config.batch.global_}
    if config.epochs is None:
        counted["maxSteps"] = config.max_steps
    return flat(counted)


def current(config: TrainingConfig, found: Plain) -> dict[str, Any]:
    """What a checkpoint is compared with: the configuration, and what was found in the data."""
    return {**_told(config.as_dict()), **found}


def saved(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a checkpoint, or of a memory copy; early ones have the fingerprint alone."""
    values: Mapping[str, Any] = checkpoint["fingerprint"]
    config = checkpoint.get("config")
    if not isinstance(config, Mapping):
        return dict(values)
    return {**_told(config), **{k: value for k, value in values.items() if k.startswith(FOUND)}}


def compare(before: Plain, now: Plain) -> Comparison:
    """Divide what differs into what must not and what may; lists what :func:`saved` and
    :func:`current` tell.
    """
    if "precision" not in before:
        # Of a version that told its fingerprint alone: there is no more to compare.
        now = {key: value for key, value in now.items() if key in before or key in FIXED}
    before, now = _of_network(before), _of_network(now)
    conflicts: list[Change] = []
    changes: list[Change] = []
    for key in sorted(before.keys() | now.keys()):
        if key not in UNTOLD and not _same(key, before, now):
            change = Change(key, before.get(key), now.get(key), _remark(key, before, now))
            (conflicts if _is_fixed(change) else changes).append(change)
    if _differs_where_known(VALIDATION_DATA, before, now):
        changes.append(Change("data", "one validation set", "another one"))
    return Comparison(tuple(conflicts), tuple(changes))


def _told(config: Mapping[str, Any]) -> dict[str, Any]:
    return flat({name: config[name] for name in SECTIONS if config.get(name) is not None})


def _of_network(values: Plain) -> dict[str, Any]:
    """With the network by its own name, and as many classes as it has, which ``data.numClasses``
    may make more.
    """
    name = values.get("model.name")
    most = max(values.get(CLASSES) or 0, values.get("data.numClasses") or 0)
    return {**values, "model.name": ALIASES.get(str(name), name), CLASSES: most}


def _same(key: str, before: Plain, now: Plain) -> bool:
    one, other = before.get(key), now.get(key)
    if one == other:
        return True
    if key == TRAINING_DATA:
        return not _differs_where_known(key, before, now)
    # A key of a newer version says what the older one did while it has its default.
    return key not in before and other == DEFAULTS.get(key)


def _differs_where_known(key: str, before: Plain, now: Plain) -> bool:
    return key in before and key in now and before[key] != now[key]


def _is_fixed(change: Change) -> bool:
    if change.key == "loss.auxiliaryWeight":
        # With a weight of 0 the network lacks the head.
        return bool(change.before) != bool(change.now)
    if change.key == NAMED_BY_FILE:
        return _file_name(change.before) != _file_name(change.now)
    return change.key in FIXED


def _remark(key: str, before: Plain, now: Plain) -> str:
    if key == "loss.auxiliaryWeight":
        both = before.get(key) and now.get(key)
        return "" if both else "0 means a network without the auxiliary head"
    if key == NAMED_BY_FILE:
        same = _file_name(before.get(key)) == _file_name(now.get(key))
        return "they only begin a training" if same else "a training begins with its weights once"
    if key in PLACES:
        if TRAINING_DATA in before and TRAINING_DATA in now:
            return "the data are the same by names, classes and sizes"
        return "the checkpoint does not know names: only the number of samples was compared"
    return FIXED.get(key, "")


def _file_name(path: object) -> str:
    return file_name(str(path or ""))


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)


DEFAULTS = _told(TrainingConfig().as_dict())
"""What a key says that nobody has written."""
