"""Runs a function with a small file system of its own.

The tmpfs is mounted in namespaces of a forked process, so it takes no rights and leaves nothing
behind.
"""

from __future__ import annotations

import ctypes
import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18


def in_small_tmpfs(folder: Path, size: int, function: Callable[[Path], Any]) -> Any:
    """What ``function`` answers in a process in which ``folder`` has no more than ``size`` bytes.

    The answer travels as JSON.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            # The threads that torch knows of were not forked.
            torch.set_num_threads(1)
            mount_tmpfs(folder, size)
            answer: Any = {"answer": function(folder)}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        try:
            with os.fdopen(writer, "w") as file:
                json.dump(answer, file)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        told = json.load(file)
    os.waitpid(child, 0)
    assert "error" not in told, told["error"]
    return told["answer"]


def mount_tmpfs(folder: Path, size: int) -> None:
    """Mount a file system of so many bytes that only this process and its children see.

    It must have one thread: a user namespace is for such.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    _call(libc.unshare, CLONE_NEWNS | (CLONE_NEWUSER if user else 0))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call(libc.mount, None, b"/", None, MS_REC | MS_PRIVATE, None)
    options = f"size={size}".encode()
    _call(libc.mount, b"tmpfs", str(folder).encode(), b"tmpfs", 0, options)


def _call(function: Any, *arguments: object) -> None:
    if function(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), function.__name__)
