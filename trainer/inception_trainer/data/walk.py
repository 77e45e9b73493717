"""Lists the images below a folder, on a disk or in a store, in an order that is always the same."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from inception_trainer.stores import Remote, is_url

from .ignored import Ignored, has_image_suffix

THREADS = 16
"""Folders of a store listed side by side."""


class Content(NamedTuple):
    """Names of the files and of the folders right below a folder, in no order."""

    files: list[str]
    folders: list[str]


def list_folder(path: str) -> Content:
    """What lies right below; raises FileNotFoundError where there is no such folder."""
    if is_url(path):
        return _list_remote(path)
    files: list[str] = []
    folders: list[str] = []
    # Names only: a Path object per image would cost more than the listing.
    with os.scandir(path) as entries:
        for entry in entries:
            (folders if _is_folder(entry) else files).append(entry.name)
    return Content(files, folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir(follow_symlinks=False):
        return True
    # The target of a link must be asked for, which for a million links to images is dear. They have
    # the names of images.
    return entry.is_symlink() and not has_image_suffix(entry.name) and entry.is_dir()


def _list_remote(path: str) -> Content:
    files: list[str] = []
    folders: list[str] = []
    for entry in Remote(path).iterdir():
        (folders if entry.is_dir() else files).append(entry.name)
    return Content(files, folders)


def list_folders(paths: list[str]) -> Iterable[Content]:
    """What lies right below each folder."""
    if paths and is_url(paths[0]):
        # Each listing is a request, and ImageNet has 1,000 classes: side by side.
        with ThreadPoolExecutor(THREADS, "listing") as pool:
            return list(pool.map(list_folder, paths))
    return map(list_folder, paths)


class Images(NamedTuple):
    """The images right in one folder, by name."""

    folder: str
    names: list[str]


def images_below(top: str, content: Content, ignored: Ignored, root: str) -> Iterator[Images]:
    """All images below ``top``, of which ``content`` is listed already, however deep, as
    torchvision's ImageFolder takes them: folder by folder in the order of their paths.

    What is ignored is told by its path below ``root``.
    """
    yield Images(top, ignored.images(content.files, _below(root, top)))
    # Few data sets have folders in their classes, so this order costs nothing: all of them are
    # known before the first is read.
    found: dict[str, list[str]] = {}
    waiting = [(top, content.folders)]
    while waiting:
        folder, names = waiting.pop()
        for name in ignored.visible(names, _below(root, folder)):
            path = f"{folder}/{name}"
            if _leads_back(path, folder):
                ignored.note(f"ignored {_below(root, path)}, a link to a folder above it")
                continue
            inner = list_folder(path)
            found[path] = inner.files
            waiting.append((path, inner.folders))
    for path in sorted(found):
        yield Images(path, ignored.images(found[path], _below(root, path)))


def _leads_back(path: str, folder: str) -> bool:
    """Whether a folder is a link to one that it lies in, which would never end."""
    if is_url(path) or not os.path.islink(path):  # noqa: PTH114 - paths are texts here
        return False
    return f"{os.path.realpath(folder)}/".startswith(f"{os.path.realpath(path)}/")


def _below(root: str, path: str) -> str:
    return path.removeprefix(root.rstrip("/")).lstrip("/") or "."
