"""Lists the images below a folder, on a disk or in a store, in an order that is always the same."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from inception_trainer.stores import Remote, is_url

from .ignored import Ignored, has_image_suffix

THREADS = 16
"""Folders of a store listed side by side."""
NOWHERE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG))
"""Errors of links that lead to nothing."""


class Content(NamedTuple):
    """Names of what lies right below a folder, in no order."""

    files: list[str]
    folders: list[str]
    dangling: list[str]
    """Links that lead nowhere, but for those that are called like images."""


def list_folder(path: str) -> Content:
    """What lies right below; raises FileNotFoundError where there is no such folder."""
    if is_url(path):
        return _list_remote(path)
    content = Content([], [], [])
    # Names only: a Path object per image would cost more than the listing.
    with os.scandir(path) as entries:
        for entry in entries:
            _kind(entry, content).append(entry.name)
    return content


def _kind(entry: os.DirEntry[str], content: Content) -> list[str]:
    """Those names of ``content`` that the entry belongs to."""
    if entry.is_dir(follow_symlinks=False):
        return content.folders
    # The target of a link must be asked for, which for a million links to images is dear. They have
    # the names of images, and whoever reads one that leads nowhere says so.
    if has_image_suffix(entry.name) or not entry.is_symlink():
        return content.files
    try:
        return content.folders if stat.S_ISDIR(entry.stat().st_mode) else content.files
    except OSError as error:
        if error.errno not in NOWHERE:
            raise
        return content.dangling


def _list_remote(path: str) -> Content:
    content = Content([], [], [])
    for entry in Remote(path).iterdir():
        (content.folders if entry.is_dir() else content.files).append(entry.name)
    return content


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
    ignored.dangling(content.dangling, _below(root, top))
    yield Images(top, ignored.images(content.files, _below(root, top)))
    # Few data sets have folders in their classes, so this order costs nothing: all of them are
    # known before the first is read.
    found: dict[str, list[str]] = {}
    # With each folder: in which ones the links lie that led to it.
    links: tuple[str, ...] = ()
    if content.folders and _is_link(top):
        links = (os.path.realpath(os.path.dirname(top)),)  # noqa: PTH120 - paths are texts here
    waiting = [(top, content.folders, links)]
    while waiting:
        folder, names, links = waiting.pop()
        for name in ignored.visible(names, _below(root, folder)):
            path = f"{folder}/{name}"
            links_here = links
            if _is_link(path):
                links_here = (*links, os.path.realpath(folder))
                if _leads_back(path, links_here):
                    ignored.note(f"ignored {_below(root, path)}, a link to a folder above it")
                    continue
            inner = list_folder(path)
            ignored.dangling(inner.dangling, _below(root, path))
            found[path] = inner.files
            waiting.append((path, inner.folders, links_here))
    for path in sorted(found):
        yield Images(path, ignored.images(found[path], _below(root, path)))


def _is_link(path: str) -> bool:
    return not is_url(path) and os.path.islink(path)  # noqa: PTH114 - paths are texts here


def _leads_back(path: str, folders: tuple[str, ...]) -> bool:
    """Whether a link leads to one of these folders or above, which would never end: it was come
    from there, if only by way of other links.
    """
    target = f"{os.path.realpath(path)}/"
    return any(f"{folder}/".startswith(target) for folder in folders)


def _below(root: str, path: str) -> str:
    return path.removeprefix(root.rstrip("/")).lstrip("/") or "."
