"""Weights & Biases: the curves of a job as an offline run, which ``wandb sync`` uploads.

Each attempt leaves a folder of its own with the same ID, and wandb puts them together when it
uploads them. What a killed attempt has not brought to its folder, the next one repeats.
"""

from __future__ import annotations

import json
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inception_trainer.config import settings
from inception_trainer.config.tracking import WandbConfig
from inception_trainer.log import logger
from inception_trainer.reporting.records import RunInfo

from .tracking import Outcome, Point, Stored, needed

# Nothing is told to the makers of wandb of whoever trains.
ENVIRONMENT = {"WANDB_ERROR_REPORTING": "false"}
FOLDERS = ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")
"""Where wandb writes besides; its defaults are in the home folder, which is read-only in pods."""
# Nothing of the machine, the source or the console: what is uploaded is what the training measured.
QUIET = {
    "console": "off",
    "silent": True,
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "x_disable_stats": True,
    "x_disable_meta": True,
}
HEADER_BYTES = 7
BLOCK_BYTES = 32_768
PART = struct.Struct("<IHB")
"""Before each part of a record: its checksum, length and place."""
WHOLE, FIRST, LAST = 1, 2, 4
"""Places of the parts that begin or end a record; those between have another."""


class Wandb:
    """A run of Weights & Biases."""

    name = "Wandb"
    remedy = "Look at the volume of the output directory"

    def __init__(self, config: WandbConfig, output: Path) -> None:
        self._config = config
        self._folder = output
        self._run: Any = None

    def open(self, info: RunInfo, run: str) -> Stored:
        """Begin a folder of this attempt."""
        settings.prefer(ENVIRONMENT | dict.fromkeys(FOLDERS, f"{tempfile.gettempdir()}/wandb"))
        package = needed("wandb", "wandb")
        protos = needed("wandb.proto.wandb_internal_pb2", "wandb")
        if self._run is not None:
            # It failed before; what has reached its folder is read below.
            self._run.finish(exit_code=1)
            self._run = None
        stored = _stored(self._folder / "wandb", run, protos)
        self._run = package.init(
            project=self._config.project,
            id=run,
            name=info.job or info.model,
            dir=str(self._folder),
            mode="offline",
            config=info.config,
            settings=package.Settings(**QUIET),
        )
        return stored

    def write(self, points: list[Point]) -> None:
        """Rows of the history."""
        for point in points:
            self._run.log(point.values, step=point.step)

    def finish(self, outcome: Outcome) -> None:
        """A run that is to go on is one that was preempted."""
        if outcome is Outcome.STOPPED:
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if outcome is Outcome.FINISHED else 1)


def _stored(folder: Path, run: str, protos: Any) -> Stored:
    """The last steps of the curves in the folders of this run."""
    stored: Stored = {}
    for path in folder.glob(f"offline-run-*-{run}/run-{run}.wandb"):
        content = path.read_bytes()
        rows, whole = history(content, protos)
        if whole < len(content):
            logger.info(
                "%s: its last %d of %d bytes are no whole record and are not read, as of an "
                "attempt that was killed; points that were in them are written again",
                path,
                len(content) - whole,
                len(content),
            )
        for row in rows:
            step = int(row["_step"])
            for tag in row:
                stored[tag] = max(step, stored.get(tag, -1))
    return stored


def history(content: bytes, protos: Any) -> tuple[list[dict[str, Any]], int]:
    """The rows of a ``.wandb`` file whose end may be missing or damaged, and how many bytes there
    are before that end.

    It is a log as LevelDB writes them: blocks of 32 KiB, in which records are cut where a block
    ends; after a header of seven bytes, which counts as part of the first block.
    """
    rows: list[dict[str, Any]] = []
    end = min(HEADER_BYTES, len(content))
    for end, data in records(content):  # noqa: B007 - that of the last record is the answer
        record = protos.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            rows.append(
                {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
            )
    return rows, end


def records(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The records of such a file, each of them a message of wandb's, with the place behind it.

    The first one that is not as it was written is the end: a node that dies may leave zeros, or
    parts of what was written last, in a file that has its full length.
    """
    at = HEADER_BYTES
    # Of the record that has begun: empty, not None, where just the head of a part had room.
    data: bytes | None = None
    while at + PART.size <= len(content):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < PART.size:
            # Too little for the head of a part: zeros fill the block.
            at += left
            continue
        checksum, length, place = PART.unpack_from(content, at)
        at += PART.size
        part = content[at : at + length]
        at += length
        if len(part) < length or zlib.crc32(part, zlib.crc32(bytes((place,)))) != checksum:
            return
        if (place in (WHOLE, FIRST)) != (data is None):
            return
        data = (data or b"") + part
        if place in (WHOLE, LAST):
            yield at, data
            data = None
