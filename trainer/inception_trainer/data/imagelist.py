"""The data kind ImageList: ``train.txt`` and ``val.txt`` with a line ``<file> <class index>`` per
image, relative to ``data.path``.

Files may also lie below ``train/`` and ``val/``, as the lists of Caffe have it. ``classes.txt``,
one name per line, is optional.
"""

from __future__ import annotations

from inception_trainer.config.training import DataConfig
from inception_trainer.errors import DataError, InputMissing
from inception_trainer.stores import AnyPath, place

from .base import Splits
from .class_names import numbered_names
from .encoded import Files, both_splits
from .folder_listing import describe_folder
from .imagefolder import Sample

EXPECTED = "train.txt and val.txt with lines `<file> <class index>`, and the files they name"


def open_image_list(config: DataConfig, seed: int) -> Splits:
    """Both splits.

    Raises InputMissing for missing lists, DataError naming the line that is wrong.
    """
    root = place(config.path or "")
    train = _samples(root, "train")
    val = _samples(root, "val")
    classes = 1 + max(label for _, label in (*train, *val))
    names = listed_names(root, classes)
    return both_splits(Files(train), Files(val), names, config, seed)


def _samples(root: AnyPath, split: str) -> list[Sample]:
    listing = root / f"{split}.txt"
    if not listing.is_file():
        raise InputMissing(
            f"data.path: no file {listing}; expected {EXPECTED}; found {describe_folder(root)}"
        )
    # Split from the right: names of files may hold spaces.
    lines = [line.rsplit(maxsplit=1) for line in listing.read_text(encoding="utf-8").splitlines()]
    for number, parts in enumerate(lines, 1):
        if parts and (len(parts) != 2 or not parts[1].isdigit()):
            raise DataError(
                f"data.path: {listing} line {number}: {' '.join(parts)!r} is not "
                "`<file> <class index>`"
            )
    named = [(name, int(label)) for name, label in filter(None, lines)]
    if not named:
        raise DataError(f"data.path: {listing} names no images; expected {EXPECTED}")
    folder = _folder(root, split, named[0][0])
    return [(f"{folder}/{name}", label) for name, label in named]


def _folder(root: AnyPath, split: str, first: str) -> AnyPath:
    # Only the first file is looked for: one look-up per image would be a million on NFS.
    for folder in (root, root / split):
        if (folder / first).is_file():
            return folder
    raise InputMissing(
        f"data.path: {split}.txt names {first}, which is neither in {root} nor in {root / split}"
    )


def listed_names(root: AnyPath, classes: int) -> tuple[str, ...]:
    """The names in ``classes.txt``; numbers without it, DataError for too few."""
    path = root / "classes.txt"
    if not path.is_file():
        return numbered_names(0, classes)
    lines = path.read_text(encoding="utf-8").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) < classes:
        raise DataError(f"data.path: {path} names {len(names)} classes, the data has {classes}")
    return names
