"""The data kind ImageFolder, as ImageNet is unpacked: ``train/<class>/*`` and
``val/<class>/*`` (or ``validation_preprocess/``, or ``val.txt``).

The class index is the position in the sorted folder names of ``train/``. Images may lie in folders
inside that of their class.
"""

from __future__ import annotations

import numpy as np

from inception_trainer.config.training import DataConfig
from inception_trainer.errors import DataError, InputMissing
from inception_trainer.stores import AnyPath, place

from .base import Samples, Splits
from .encoded import both_splits
from .files import FileList, Files
from .folder_listing import describe_folder
from .held_out import REMEDY, hold_out
from .ignored import IMAGE_SUFFIXES, Ignored, has_image_suffix
from .lists import ListedPaths, read_list
from .walk import images_below, list_folder, list_folders

VALIDATION_FOLDERS = ("val", "validation_preprocess")
EXPECTED = "train/<class>/<image> and val/<class>/<image>"
MOST_NAMED = 5
"""Classes that one message names."""


def open_image_folder(config: DataConfig, seed: int) -> Splits:
    """Both splits below ``data.path``.

    Raises InputMissing with what was expected and what is there.
    """
    root = place(config.path or "")
    if not root.is_dir():
        raise InputMissing(f"data.path: no folder {root}; expected {EXPECTED}")
    ignored = Ignored()
    folder = _folder(root, ("train",))
    classes = _classes(folder, Ignored())
    if not classes:
        raise InputMissing(
            f"data.path: {folder} holds no class folders; expected {EXPECTED}; "
            f"found: {describe_folder(root)}"
        )
    train: Samples = _scan(root, folder, classes, ignored)
    _refuse_empty_classes(folder, train, classes)
    val: Samples
    if config.held_out_share is None:
        val = _validation(root, classes, ignored)
    else:
        train, val = hold_out(train, config.held_out_share)
    return both_splits(train, val, tuple(classes), config, seed, ignored.lines())


def _folder(root: AnyPath, names: tuple[str, ...]) -> AnyPath:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise InputMissing(
        f"data.path: {root} holds no folder {' or '.join(names)}; expected {EXPECTED}; "
        f"found: {describe_folder(root)}" + (REMEDY if names == VALIDATION_FOLDERS else "")
    )


def _classes(folder: AnyPath, ignored: Ignored) -> list[str]:
    return sorted(ignored.visible(list_folder(str(folder)).folders, folder.name))


def _scan(root: AnyPath, folder: AnyPath, classes: list[str], ignored: Ignored) -> Files:
    numbers = {name: number for number, name in enumerate(classes)}
    top = list_folder(str(folder))
    present = sorted(ignored.visible(top.folders, folder.name))
    for name in present:
        if name not in numbers:
            raise DataError(f"data.path: {folder}/{name} is a class that train/ does not have")
    for name in ignored.visible(sorted(top.files), folder.name):
        if has_image_suffix(name):
            ignored.outside(f"{folder.name}/{name}")
    # Each may have been meant for a class.
    ignored.dangling(top.dangling, folder.name)
    files = FileList(str(root))
    paths = [f"{folder}/{name}" for name in present]
    for name, path, content in zip(present, paths, list_folders(paths), strict=True):
        for images in images_below(path, content, ignored, str(root)):
            files.add_folder(f"{images.folder}/", images.names, numbers[name])
    if not len(files):
        raise InputMissing(
            f"data.path: no images below {folder}; expected "
            f"{folder}/<class>/*{'|*'.join(IMAGE_SUFFIXES)}"
        )
    return files.build()


def _refuse_empty_classes(folder: AnyPath, train: Samples, classes: list[str]) -> None:
    """As torchvision does: the network would have an output that is never right."""
    counts = np.bincount(train.classes, minlength=len(classes))
    empty = [classes[number] for number in np.flatnonzero(counts == 0).tolist()]
    if empty:
        some = ", ".join(empty[:MOST_NAMED]) + (", ..." if len(empty) > MOST_NAMED else "")
        raise DataError(
            f"data.path: no images in {len(empty)} of the {len(classes)} class folders of "
            f"{folder}: {some}; found in the first: {describe_folder(folder / empty[0], depth=1)}; "
            f"images end in {' '.join(IMAGE_SUFFIXES)}; remove the folders that are no classes"
        )


def _validation(root: AnyPath, classes: list[str], ignored: Ignored) -> Files:
    folder = _folder(root, VALIDATION_FOLDERS)
    # ImageNet's own archive of the validation images has no class folders.
    listing = root / "val.txt"
    if _classes(folder, Ignored()) or not listing.is_file():
        return _scan(root, folder, classes, ignored)
    files = FileList(str(root), listing.name)
    path_of = ListedPaths(listing, (folder,))
    for entry in read_list(listing, ignored, len(classes)):
        files.add(path_of(entry.name.removeprefix(f"{folder.name}/")), entry.label)
    if not len(files):
        raise DataError(f"data.path: {listing} names no images")
    return files.build()
