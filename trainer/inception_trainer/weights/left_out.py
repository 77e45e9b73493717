"""Reads pickled weights that lie beside objects of others' classes, without running any of them.

Training scripts save their arguments, loggers and schedules along with the weights, as objects of
classes that only they have. ``weights_only=True`` refuses such a file whole. Here an unpickler
reads it that knows how tensors are put together and nothing else: whatever other name the file
holds, be it a class or ``os.system``, stands for a :class:`LeftOut`, which does nothing. No module
is imported, and nothing is looked up or called, because the file says so.

What torch's reader does with the storages of a file is the same either way, so
:mod:`.pickles` decides here, too, which file may be read by which torch.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override


@dataclass(frozen=True)
class Reading:
    """What a file holds without the objects that were left out."""

    content: Any
    left_out: tuple[str, ...] = ()
    """The names that the file has for what they were made of, such as ``argparse.Namespace``."""


class LeftOut:
    """Takes the place of an object. A pickle can make one with any arguments, call it and fill it
    in every way that it has, and nothing happens.
    """

    def __new__(cls, *_arguments: object, **_named: object) -> LeftOut:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *_arguments: object, **_named: object) -> None:
        """Take any arguments."""

    def __call__(self, *_arguments: object, **_named: object) -> LeftOut:
        """Do nothing, with any arguments."""
        return self

    def __setstate__(self, state: object) -> None:
        """Forget the state."""

    def __setitem__(self, name: object, value: object) -> None:
        """Forget an entry."""

    def append(self, value: object) -> None:
        """Forget an entry."""

    def extend(self, values: object) -> None:
        """Forget entries."""

    def add(self, value: object) -> None:
        """Forget an entry."""


class _Tensor:
    """Puts a tensor together. No function, because a pickle could change a function's defaults."""

    __slots__ = ()

    def __call__(self, storage: object, offset: int, size: Any, stride: Any, *_more: object) -> Any:
        if not isinstance(storage, torch.storage.TypedStorage):
            return LeftOut()
        rebuild: Any = torch._utils._rebuild_tensor  # noqa: SLF001
        return rebuild(storage, offset, size, stride)


class _Parameter:
    """A parameter as the plain tensor that it is about; its hooks are code."""

    __slots__ = ()

    def __call__(self, data: object, *_more: object) -> object:
        return data if isinstance(data, Tensor) else LeftOut()


KNOWN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _Tensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor(),
    ("torch._utils", "_rebuild_parameter"): _Parameter(),
}
"""All that a file can name. Types of storages are known to torch's reader, which asks first."""


def read(path: Path) -> Reading:
    """The content of a file; raises whatever its first wrong byte leads to."""
    kinds: dict[str, type[LeftOut]] = {}

    class Unpickler(pickle.Unpickler):
        """Finds what is in KNOWN, and types of numbers."""

        @override
        def find_class(self, module_name: str, global_name: str, /) -> Any:
            known = KNOWN.get((module_name, global_name))
            if known is not None:
                return known
            # Not getattr: torch imports modules of its own on demand.
            value = vars(torch).get(global_name) if module_name == "torch" else None
            if isinstance(value, torch.dtype):
                return value
            kind = f"{module_name}.{global_name}"
            # A class of its own for each name, so that a pickle can subclass and call it.
            return kinds.setdefault(kind, type("LeftOut", (LeftOut,), {}))

    def load(file: Any, **options: Any) -> Any:
        return Unpickler(file, **options).load()

    # torch asks a module for its Unpickler, and for its load where the file is of before torch 1.6.
    module = SimpleNamespace(__name__=__name__, Unpickler=Unpickler, load=load)
    content = torch.load(path, "cpu", pickle_module=module, weights_only=False)
    return Reading(without(content), tuple(sorted(kinds)))


def without(content: Any) -> Any:
    """A mapping without the entries that were left out; anything else as it is."""
    if not isinstance(content, Mapping):
        return content
    return {
        name: value
        for name, value in content.items()
        if not isinstance(name, LeftOut) and not isinstance(value, LeftOut)
    }
