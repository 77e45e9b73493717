"""Paths in object stores (``s3://``, ``gs://`` and whatever else fsspec knows), beside local paths.

:func:`place` turns a path of the configuration into a ``pathlib.Path`` or a :class:`Remote`, which
has the part of ``Path`` that data, checkpoints and figures need. Why it is not universal-pathlib:
docs/decisions/0023-universal-pathlib.md.

fsspec is imported when the first URL is used, because most jobs have none and the import costs a
third of a second in every rank.
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
"""The Python package that fsspec needs for a protocol, for the remedy in an error message."""
FILE = "file://"


def is_url(text: str) -> bool:
    """Whether a path of the configuration lies in a store; ``file://`` is this machine."""
    return "://" in text and not text.startswith(FILE)


def place(text: str) -> AnyPath:
    """A path of the configuration as an object: a local path, or one in a store for a URL."""
    return Remote(text) if is_url(text) else Path(text.removeprefix(FILE))


def check_answers(text: str) -> None:
    """Raise the OSError of a local path that cannot even be looked at, unless it is just not there.

    ``is_dir`` and ``is_file`` answer False for it, in some versions of Python.
    """
    if not is_url(text):
        with suppress(FileNotFoundError, NotADirectoryError, ValueError):
            Path(text.removeprefix(FILE)).stat()


@contextmanager
def translated_errors(url: str) -> Iterator[None]:
    """Raise what fsspec raises as ConfigError (no credentials) or StoreFailed (may pass).

    FileNotFoundError and errors of the trainer pass through.
    """
    try:
        yield
    except (FileNotFoundError, TrainerError):
        raise
    except Exception as error:
        # Every store has exceptions of its own, most of them no OSError.
        message = f"{url}: {type(error).__name__}: {error}"
        # botocore's NoCredentialsError is no PermissionError, and is not importable everywhere.
        if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
            raise ConfigError(
                f"{message}; give the container credentials, for example by envFrom of a Secret"
            ) from error
        raise StoreFailed(message) from error


def filesystem(url: str) -> tuple[Any, str]:
    """Fsspec's file system for a URL, and the path within it.

    Raises ConfigError for an unknown protocol or a missing package.
    """
    protocol = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        # Listings are not kept: another process may have written.
        resolved: tuple[Any, str] = url_to_fs(url, use_listings_cache=False)
        return resolved
    except ImportError as error:
        if error.name == "fsspec":
            package = "fsspec"
        else:
            package = PACKAGES.get(protocol, f"fsspec's package for {protocol}://")
        raise ConfigError(
            f"{url}: needs the package {package}; add it to the image (docs/trainer/data.md)"
        ) from None
    except ValueError as error:
        raise ConfigError(
            f"{url}: {error}; use a path, or a URL such as s3://bucket/folder"
        ) from None


class Remote:
    """A path in a store, with what the trainer needs of ``pathlib.Path``.

    Every method raises FileNotFoundError, ConfigError or StoreFailed. Only the URL is kept, and
    each call asks fsspec for the file system: connections belong to the process that made them
    ("This class is not fork-safe"), and loader workers and the fork server get these objects from
    their parent. fsspec keeps one instance for each process, so asking is a look-up.
    """

    def __init__(self, url: str, kind: str | None = None) -> None:
        self._url = url.rstrip("/")
        # "file" or "directory" where a listing has said it already: saves a request for each entry.
        self._kind = kind

    def __str__(self) -> str:
        return self._url

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self._url}/{name}") if name else self

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._url.rpartition("/")[2]

    @property
    def parent(self) -> Remote:
        """The folder that the path lies in."""
        return Remote(self._url.rpartition("/")[0])

    def is_dir(self) -> bool:
        """Whether objects lie below the path; stores have no folders of their own."""
        return self._type() == "directory"

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        return self._type() == "file"

    def _type(self) -> str | None:
        if self._kind is None:
            fs, path = filesystem(self._url)
            try:
                with translated_errors(self._url):
                    # Not fs.isdir: it answers False when the store fails or refuses, and a job
                    # would end as "no folder" (not tried again) instead of StoreFailed.
                    self._kind = str(fs.info(path)["type"])
            except FileNotFoundError:
                return None
        return self._kind

    def iterdir(self) -> Iterator[Remote]:
        """What lies right below; FileNotFoundError where nothing does."""
        fs, path = filesystem(self._url)
        with translated_errors(self._url):
            entries = fs.ls(path, detail=True)
        for entry in entries:
            entry_path = str(entry["name"]).rstrip("/")
            name = entry_path.rpartition("/")[2]
            # Some stores list the folder itself.
            if name and entry_path != path.rstrip("/"):
                yield Remote(f"{self._url}/{name}", str(entry["type"]))

    def glob(self, pattern: str) -> list[Remote]:
        """What matches a pattern below."""
        fs, path = filesystem(self._url)
        with translated_errors(self._url):
            names = fs.glob(f"{path}/{pattern}")
        return [self._below(path, name) for name in names]

    def size(self) -> int:
        """Size of the object in bytes."""
        fs, path = filesystem(self._url)
        with translated_errors(self._url):
            return int(fs.info(path)["size"])

    def version(self) -> str:
        """A text that changes whenever the object does, for example from its ETag."""
        fs, path = filesystem(self._url)
        with translated_errors(self._url):
            return str(fs.ukey(path))

    def read_range(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset``, fewer at the end of the object."""
        fs, path = filesystem(self._url)
        with translated_errors(self._url):
            return bytes(fs.cat_file(path, start=offset, end=offset + count))

    def read_bytes(self) -> bytes:
        """The whole content of the object."""
        fs, path = filesystem(self._url)
        with translated_errors(self._url):
            return bytes(fs.cat_file(path))

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole content of the object as text."""
        return self.read_bytes().decode(encoding)

    def files(self) -> list[Remote]:
        """Every object below, however deep, in the order of their names."""
        fs, path = filesystem(self._url)
        with translated_errors(self._url):
            names = fs.find(path)
        return [self._below(path, name, "file") for name in sorted(names)]

    def _below(self, path: str, name: str, kind: str | None = None) -> Remote:
        """What fsspec calls ``name``, where this is ``path``."""
        return Remote(f"{self._url}{name[len(path.rstrip('/')) :]}", kind)

    def names(self) -> list[str]:
        """Names of what lies right below, sorted; an empty list where nothing does."""
        try:
            return sorted(entry.name for entry in self.iterdir())
        except FileNotFoundError:
            return []

    def write_bytes(self, data: bytes) -> None:
        """Put an object, which is there whole or not at all."""
        fs, path = filesystem(self._url)
        with translated_errors(self._url):
            fs.pipe_file(path, data)

    def write(self, fill: Callable[[BinaryIO], None]) -> None:
        """Put an object from a stream, in parts, without holding it in memory.

        When ``fill`` raises, a part of the object may be there: fsspec closes the file, which
        completes the upload.
        """
        fs, path = filesystem(self._url)
        with translated_errors(self._url), fs.open(path, "wb") as file:
            fill(file)

    def copy(self, target: Remote) -> None:
        """Copy the object, within the store where it can: no byte passes through this pod."""
        fs, path = filesystem(self._url)
        target_path = filesystem(str(target))[1]
        with translated_errors(self._url):
            fs.cp_file(path, target_path)

    def remove(self) -> None:
        """Delete the object, if it is there."""
        fs, path = filesystem(self._url)
        with suppress(FileNotFoundError), translated_errors(self._url):
            fs.rm_file(path)

    def open(self, _mode: str = "rb") -> io.BytesIO:
        """The whole content of the object as a stream, read at once."""
        return io.BytesIO(self.read_bytes())


AnyPath = Path | Remote


def temporary_folder() -> Path:
    """A new folder for copies of what lies in a store, removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="inception-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
