"""Object stores beside folders: ``s3://``, ``gs://`` and whatever else fsspec knows.

fsspec is imported when the first URL is used. Connections belong to the process that makes them, so
each call asks for its own; fsspec keeps them.
"""

from __future__ import annotations

import atexit
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .errors import ConfigError, StoreFailed, TrainerError

PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
}
FILE = "file://"


def is_url(text: str) -> bool:
    """Whether a path lies in a store; ``file://`` is this machine."""
    return "://" in text and not text.startswith(FILE)


def place(text: str) -> AnyPath:
    """A path of the configuration."""
    return Remote(text) if is_url(text) else Path(text.removeprefix(FILE))


@contextmanager
def calling(url: str) -> Iterator[None]:
    """Turn what stores raise into our errors; FileNotFoundError stays."""
    try:
        yield
    except (FileNotFoundError, TrainerError):
        raise
    except Exception as error:
        # Every store has exceptions of its own, most of them no OSError.
        what = f"{url}: {type(error).__name__}: {error}"
        if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
            raise ConfigError(
                f"{what}; give the container credentials, for example by envFrom of a Secret"
            ) from error
        raise StoreFailed(what) from error


def filesystem(url: str) -> tuple[Any, str]:
    """Fsspec's file system of a URL, and the path in it; ConfigError for an unknown one or a
    missing package.
    """
    protocol = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        # Listings are not kept: another process may have written.
        found: tuple[Any, str] = url_to_fs(url, use_listings_cache=False)
        return found
    except ImportError as error:
        package = (
            "fsspec"
            if error.name == "fsspec"
            else PACKAGES.get(protocol, f"fsspec's package for {protocol}://")
        )
        raise ConfigError(
            f"{url}: needs the package {package}; add it to the image (docs/trainer.md)"
        ) from None
    except ValueError as error:
        raise ConfigError(
            f"{url}: {error}; use a path, or a URL such as s3://bucket/folder"
        ) from None


class Remote:
    """A path in a store, with what the trainer needs of ``pathlib.Path``."""

    def __init__(self, url: str, kind: str | None = None) -> None:
        self._url, self._kind = url.rstrip("/"), kind

    def __str__(self) -> str:
        return self._url

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self._url}/{name}") if name else self

    @property
    def name(self) -> str:
        """The last part."""
        return self._url.rpartition("/")[2]

    @property
    def parent(self) -> Remote:
        """The folder of it."""
        return Remote(self._url.rpartition("/")[0])

    def is_dir(self) -> bool:
        """Whether something lies below it."""
        return self._type() == "directory"

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return self._type() == "file"

    def _type(self) -> str | None:
        if self._kind is None:
            fs, path = filesystem(self._url)
            try:
                with calling(self._url):
                    self._kind = str(fs.info(path)["type"])
            except FileNotFoundError:
                return None
        return self._kind

    def iterdir(self) -> Iterator[Remote]:
        """What lies right below."""
        fs, path = filesystem(self._url)
        with calling(self._url):
            found = fs.ls(path, detail=True)
        for entry in found:
            name = str(entry["name"]).rstrip("/").rpartition("/")[2]
            # Some stores list the folder itself.
            if name and str(entry["name"]).rstrip("/") != path.rstrip("/"):
                yield Remote(f"{self._url}/{name}", str(entry["type"]))

    def glob(self, pattern: str) -> list[Remote]:
        """What matches a pattern below."""
        fs, path = filesystem(self._url)
        with calling(self._url):
            names = fs.glob(f"{path}/{pattern}")
        return [self._below(path, name) for name in names]

    def size(self) -> int:
        """Bytes."""
        fs, path = filesystem(self._url)
        with calling(self._url):
            return int(fs.info(path)["size"])

    def version(self) -> str:
        """Another text once the object has changed."""
        fs, path = filesystem(self._url)
        with calling(self._url):
            return str(fs.ukey(path))

    def read_range(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset``, fewer at the end."""
        fs, path = filesystem(self._url)
        with calling(self._url):
            return bytes(fs.cat_file(path, start=offset, end=offset + count))

    def read_bytes(self) -> bytes:
        """All of it."""
        fs, path = filesystem(self._url)
        with calling(self._url):
            return bytes(fs.cat_file(path))

    def read_text(self, encoding: str = "utf-8") -> str:
        """All of it as text."""
        return self.read_bytes().decode(encoding)

    def files(self) -> list[Remote]:
        """Every object below, however deep, in the order of their names."""
        fs, path = filesystem(self._url)
        with calling(self._url):
            found = fs.find(path)
        return [self._below(path, name, "file") for name in sorted(found)]

    def _below(self, path: str, name: str, kind: str | None = None) -> Remote:
        """What fsspec calls ``name``, where this is ``path``."""
        return Remote(f"{self._url}{name[len(path.rstrip('/')) :]}", kind)

    def names(self) -> list[str]:
        """What lies right below, an empty list where nothing does."""
        try:
            return sorted(entry.name for entry in self.iterdir())
        except FileNotFoundError:
            return []

    def write_bytes(self, data: bytes) -> None:
        """An object that is there whole or not at all."""
        fs, path = filesystem(self._url)
        with calling(self._url):
            fs.pipe_file(path, data)

    def write(self, fill: Callable[[BinaryIO], None]) -> None:
        """The same from a stream; when ``fill`` raises, part of it may be there."""
        fs, path = filesystem(self._url)
        with calling(self._url), fs.open(path, "wb") as file:
            fill(file)

    def copy(self, target: Remote) -> None:
        """Copied by the store itself where it can."""
        fs, path = filesystem(self._url)
        with calling(self._url):
            fs.cp_file(path, filesystem(str(target))[1])

    def remove(self) -> None:
        """Delete the object, if it is there."""
        fs, path = filesystem(self._url)
        with suppress(FileNotFoundError), calling(self._url):
            fs.rm_file(path)

    def open(self, _mode: str = "rb") -> io.BytesIO:
        """All of it to read from."""
        return io.BytesIO(self.read_bytes())


AnyPath = Path | Remote


def temporary_folder() -> Path:
    """A new folder for copies of what lies in a store, there as long as this process lives."""
    folder = Path(tempfile.mkdtemp(prefix="inception-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
