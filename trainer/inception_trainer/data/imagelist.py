"""The data kind ImageList: ``train.txt`` and ``val.txt`` with a line ``<file> <class index>`` per
image, relative to ``data.path`` or absolute.

Files may also lie below ``train/`` and ``val/``, as the lists of Caffe have it. ``classes.txt``,
one name per line, is optional.
"""

from __future__ import annotations

from inception_trainer.config.training import DataConfig
from inception_trainer.errors import DataError, InputMissing
from inception_trainer.stores import AnyPath, place

from .base import Samples, Splits
from .class_names import numbered_names
from .encoded import both_splits
from .files import FileList, Files
from .folder_listing import describe_folder
from .held_out import REMEDY, hold_out
from .ignored import Ignored
from .lists import ListedPaths, read_list, read_names

EXPECTED = "train.txt and val.txt with lines `<file> <class index>`, and the files they name"


def open_image_list(config: DataConfig, seed: int) -> Splits:
    """Both splits.

    Raises InputMissing for missing lists, DataError naming the line that is wrong.
    """
    root = place(config.path or "")
    ignored = Ignored()
    train: Samples = _samples(root, "train", ignored)
    val: Samples
    if config.held_out_share is None:
        val = _samples(root, "val", ignored)
    else:
        train, val = hold_out(train, config.held_out_share)
    classes = 1 + max(int(split.classes.max()) for split in (train, val))
    names = listed_names(root, classes)
    return both_splits(train, val, names, config, seed, ignored.lines())


def _samples(root: AnyPath, split: str, ignored: Ignored) -> Files:
    listing = root / f"{split}.txt"
    if not listing.is_file():
        raise InputMissing(
            f"data.path: no file {listing}; expected {EXPECTED}; found {describe_folder(root)}"
            + (REMEDY if split == "val" else "")
        )
    files = FileList(str(root), listing.name)
    path_of = ListedPaths(listing, (root, root / split))
    for entry in read_list(listing, ignored):
        files.add(path_of(entry.name), entry.label)
    if not len(files):
        raise DataError(f"data.path: {listing} names no images; expected {EXPECTED}")
    return files.build()


def listed_names(root: AnyPath, classes: int) -> tuple[str, ...]:
    """The names in ``classes.txt``; numbers without it, DataError for too few."""
    path = root / "classes.txt"
    if not path.is_file():
        return numbered_names(0, classes)
    names = read_names(path)
    if len(names) < classes:
        raise DataError(f"data.path: {path} names {len(names)} classes, the data has {classes}")
    return names
