"""Promotes a checkpoint: a whole copy of it, with its weights for other programs, that nothing
prunes, and a pointer to the one that serves.

Layout (docs/architecture/names.md), below ``checkpoint.path`` or another place::

    promoted/current.json                     {"name", "step", "weights", "sha256"}: what serves
    promoted/step-000000120/checkpoint.pt     + .sha256
    promoted/step-000000120/model.safetensors + .sha256: the weights alone, with their metadata
    promoted/step-000000120/promoted.json     what it is and where it comes from

No attempt writes there, so nobody has to be fenced, and what is there is never written again. A
training that goes on meanwhile is not disturbed: its files are linked or read, never changed.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from inception_trainer.errors import ConfigError, DataError, InputMissing, TrainerError
from inception_trainer.launcher import json_text
from inception_trainer.launcher.linux import left_in_cgroup
from inception_trainer.storage import describe
from inception_trainer.stores import Remote, place

from . import checksums
from .base import DAMAGE_ERRORS, FORMAT, Checkpoint, cannot_use
from .fence import link_or_copy, sync_file, sync_folder
from .folder import CHECKPOINT_NAME, STEP_NAME, leads_out
from .object_store import PLAIN_NAME, TRIES, CurrentAttempt, StoredObject, current_attempt

FOLDER = "promoted"
CURRENT = "current.json"
ABOUT = "promoted.json"
CHECKPOINT, WEIGHTS = "checkpoint.pt", "model.safetensors"
FAVOURITES = ("best.pt", "final.pt")
"""What is promoted when nothing is named; after them the newest."""
_STEP = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Request:
    """What is to be promoted, as what, and where to; None leaves the choice to the defaults."""

    root: str
    checkpoint: str | None = None
    """The number of a step, or the name of a file such as ``best.pt``."""
    name: str | None = None
    target: str | None = None


@dataclass(frozen=True)
class Source:
    """A checkpoint that was found: its name, and its bytes as a file whose checksum is right."""

    file: str
    path: Path
    sha256: str


def promote(request: Request) -> dict[str, Any]:
    """Promote a checkpoint and make it the current one; returns what it is and where.

    A second time does nothing but make it the current one again. Raises InputMissing where there is
    none, DataError for one that is damaged, ConfigError for a name that is taken.
    """
    for text in (request.name, request.checkpoint):
        if text is not None and PLAIN_NAME.fullmatch(text) is None:
            raise ConfigError(f"{text[:200]!r} is no name: letters, digits, dots and dashes")
    root = place(request.root)
    target = place(request.target) if request.target else root / FOLDER
    try:
        with _workshop(target) as folder:
            source = _fetch(root, request.checkpoint, folder)
            about = _furnish(folder, source, request)
            return _publish(folder, target, about)
    except OSError as error:
        where = error.filename or target
        raise cannot_use_for_promotion(where, error) from error


def cannot_use_for_promotion(where: object, error: OSError) -> TrainerError:
    """The error for a place that cannot be written just now or at all."""
    known = cannot_use(where, error)
    return type(known)(f"{where} cannot be used: {describe(error)}")


@contextmanager
def _workshop(target: Path | Remote) -> Iterator[Path]:
    """A folder in which the copy is made: where a rename can give it its name, or a temporary one
    for a store.
    """
    if isinstance(target, Remote):
        folder = Path(tempfile.mkdtemp(prefix="inception-promote-"))
    else:
        target.mkdir(parents=True, exist_ok=True)
        # Hidden, and a name that no other run has.
        folder = target / f".{secrets.token_hex(8)}.tmp"
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Where it comes from.


def _fetch(root: Path | Remote, wanted: str | None, folder: Path) -> Source:
    if isinstance(root, Remote):
        return _fetch_object(root, wanted, folder)
    for _ in range(TRIES):
        path = _choose_file(root, wanted)
        if leads_out(path, root):
            raise DataError(f"{path} is a link that leads out of {root}")
        copy = folder / CHECKPOINT
        try:
            link_or_copy(path, copy)
        except FileNotFoundError:
            # Pruned, or replaced by a better one, while it was looked up.
            continue
        # After the copy: a file that was replaced in between has the checksum of another one.
        expected = checksums.recorded(path)
        actual = checksums.file_sha256(copy)
        if actual in expected:
            return Source(path.name, copy, actual)
        copy.unlink()
        if not expected and path.exists():
            raise DataError(
                f"{path} has no checksum beside it, so nobody knows whether it is whole"
            )
    raise DataError(f"{path} is damaged: it has another SHA-256 than {path.name}.sha256 says")


def _choose_file(root: Path, wanted: str | None) -> Path:
    folder = root / "checkpoints"
    if wanted is None:
        newest = _newest(root)
        steps = sorted((path.name for path in folder.glob("step-*.pt")), reverse=True)
        candidates = [*FAVOURITES, *([newest] if newest else []), *steps]
        for name in candidates:
            if (folder / name).is_file():
                return folder / name
        raise InputMissing(f"there is no checkpoint in {folder}")
    if _STEP.fullmatch(wanted):
        for path in sorted(folder.glob("step-*.pt")):
            match = STEP_NAME.fullmatch(path.name)
            if match and int(match[1]) == int(wanted):
                return path
        raise InputMissing(
            f"there is no checkpoint of step {wanted} in {folder}; the newest few are kept, "
            "beside best.pt, final.pt and those of checkpoint.keepEveryEpochs"
        )
    path = folder / wanted
    if path.suffix != ".pt" or not path.is_file():
        raise InputMissing(f"there is no checkpoint {path}")
    return path


def _newest(root: Path) -> str | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        file = str(json_text.decode((root / "latest.json").read_bytes())["file"])
        if CHECKPOINT_NAME.fullmatch(file):
            return file.partition("/")[2]
    return None


def _fetch_object(root: Remote, wanted: str | None, folder: Path) -> Source:
    for _ in range(TRIES):
        current = current_attempt(root / "attempts")
        if current is None or not current.record.kept:
            raise InputMissing(f"there is no checkpoint in {root}")
        label, stored = _choose_object(current, wanted)
        try:
            data = (current.folder / stored.file).read_bytes()
        except FileNotFoundError:
            # A newer attempt has taken it over.
            continue
        if hashlib.sha256(data).hexdigest() != stored.sha256:
            raise DataError(f"{current.folder / stored.file} is damaged: it has another SHA-256")
        copy = folder / CHECKPOINT
        copy.write_bytes(data)
        return Source(label, copy, stored.sha256)
    raise DataError(f"{root}: the objects that its newest record names come and go")


def _choose_object(current: CurrentAttempt, wanted: str | None) -> tuple[str, StoredObject]:
    record = current.record
    named = {"best.pt": record.best, "final.pt": record.final}
    named |= {f"epoch-{int(epoch):06d}.pt": each for epoch, each in record.epochs.items()}
    by_name = {name: each for name, each in named.items() if each is not None}
    if wanted is None:
        newest = record.kept[-1]
        return next(iter(by_name.items()), (newest.file, newest))
    if wanted in by_name:
        return wanted, by_name[wanted]
    for stored in record.objects().values():
        is_step = _STEP.fullmatch(wanted) and stored.step == int(wanted)
        # final.safetensors is of the same step and no checkpoint.
        if stored.file.endswith(".pt") and (is_step or stored.file == wanted):
            return stored.file, stored
    raise InputMissing(
        f"there is no checkpoint {wanted} in {current.folder}; there are "
        f"{', '.join(sorted([*by_name, *(str(each.step) for each in record.kept)]))}"
    )


# What is made of it.


def _furnish(folder: Path, source: Source, request: Request) -> dict[str, Any]:
    """Put weights, checksums and what is known of it beside the checkpoint."""
    from .safetensors_file import encode_weights

    checkpoint = _load(source)
    weights = encode_weights(checkpoint)
    if weights is None:
        raise ConfigError(
            "the Python package safetensors is not in this image: add it (docs/images.md), or "
            "promote with an image that has it"
        )
    step = int(checkpoint.get("progress", {}).get("step", 0))
    files = {CHECKPOINT: source.sha256, WEIGHTS: hashlib.sha256(weights).hexdigest()}
    about = {
        "name": request.name or f"step-{step:09d}",
        "step": step,
        "model": checkpoint.get("config", {}).get("model", {}).get("name"),
        "source": f"{request.root.rstrip('/')}: {source.file}",
        "files": files,
        "trainer": str(checkpoint.get("version", "")),
        "promoted": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _write(folder / WEIGHTS, weights)
    for name, sha256 in files.items():
        _write(checksums.beside(folder / name), checksums.entry(sha256, name))
    _write(folder / ABOUT, _encoded(about))
    return about


def _load(source: Source) -> Checkpoint:
    """The checkpoint, whose tensors stay in the file until they are read."""
    size = source.path.stat().st_size
    left = left_in_cgroup()
    # The weights are there twice while they are written, and take half of a checkpoint at most.
    if left is not None and left < size:
        raise ConfigError(
            f"the memory limit of this container leaves {left >> 20} MiB, and to write the weights "
            f"of {source.file} may take {size >> 20} MiB: not done, so that the training is not "
            "killed; promote it when the training has ended"
        )
    try:
        checkpoint: Checkpoint = torch.load(
            source.path, map_location="cpu", weights_only=True, mmap=True
        )
    except DAMAGE_ERRORS as error:
        raise DataError(f"{source.file} cannot be read: {error}") from error
    if checkpoint.get("format") != FORMAT:
        raise DataError(f"{source.file} is no checkpoint of this trainer's format {FORMAT}")
    return checkpoint


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        sync_file(file)


def _encoded(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode()


# Where it goes to.


def _publish(folder: Path, target: Path | Remote, about: dict[str, Any]) -> dict[str, Any]:
    """Give the copy its name, and make it the current one."""
    final = target / str(about["name"])
    there = _about(final)
    if there is None:
        if isinstance(final, Remote):
            _upload(folder, final)
        else:
            _rename(folder, Path(final))
    elif there.get("files", {}).get(CHECKPOINT) != about["files"][CHECKPOINT]:
        raise ConfigError(f"{final} is another checkpoint already; choose another --name")
    else:
        about = there
    pointer = _encoded(
        {
            "name": about["name"],
            "step": about["step"],
            "weights": f"{about['name']}/{WEIGHTS}",
            "sha256": about["files"][WEIGHTS],
        }
    )
    if isinstance(target, Remote):
        (target / CURRENT).write_bytes(pointer)
    else:
        draft = folder.with_suffix(".json")
        _write(draft, pointer)
        draft.replace(target / CURRENT)
        sync_folder(target)
    return {**about, "place": str(final), "isNew": there is None}


def _about(final: Path | Remote) -> dict[str, Any] | None:
    """What is promoted under this name already; None for nothing."""
    try:
        content = json_text.decode((final / ABOUT).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(
            f"{final / ABOUT} cannot be read: {error}; choose another --name"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        raise DataError(f"{final / ABOUT} says nothing of a checkpoint; choose another --name")
    return content


def _rename(folder: Path, final: Path) -> None:
    sync_folder(folder)
    try:
        folder.rename(final)
    except OSError as error:
        if not final.exists():
            raise
        raise ConfigError(f"{final} is there already; choose another --name") from error


def _upload(folder: Path, final: Remote) -> None:
    """Every file; the one by which readers know that all are there comes last."""
    paths = sorted(folder.iterdir(), key=lambda path: (path.name == ABOUT, path.name))
    for path in paths:
        with path.open("rb") as file:
            # In parts: a checkpoint need not fit into memory.
            (final / path.name).write(partial(shutil.copyfileobj, file))
