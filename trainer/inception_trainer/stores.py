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
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

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
WEB = ("http://", "https://")
REFUSED = (401, 403, 407)
"""What web servers and proxies answer to who has no right or no credentials."""
MAY_PASS = (408, 425, 429)
"""The only refusals of a web server after which asking again helps."""
LONGEST_SILENCE = 60.0
"""Seconds in which a web server must send something."""
_EXPIRED = re.compile(
    r"Expired ?Token|TokenRefreshRequired|\b(token|credentials?)\b.{0,60}\bexpired|"
    r"\bRequest has expired",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"RequestTimeTooSkewed|request time and the (current|server)", re.IGNORECASE)


def is_url(text: str) -> bool:
    """Whether a path of the configuration lies in a store; ``file://`` is this machine."""
    return "://" in text and not text.startswith(FILE)


def place(text: str) -> AnyPath:
    """A path of the configuration as an object: a local path, or one in a store for a URL."""
    return Remote(text) if is_url(text) else Path(text.removeprefix(FILE))


def file_name(text: str) -> str:
    """The name of the file that a path or URL leads to, as it is on a disk."""
    path = without_query(text).rstrip("/")
    name = path.rpartition("/")[2]
    return unquote(name).rpartition("/")[2] if text.startswith(WEB) else name


def without_query(url: str) -> str:
    """A URL without what web servers want behind the path (``?download=true``), which may hold
    slashes; in other stores ``?`` and ``#`` are characters like others.
    """
    return re.split(r"[?#]", url, maxsplit=1)[0] if url.startswith(WEB) else url


def check_answers(text: str) -> None:
    """Raise the OSError of a local path that cannot even be looked at, unless it is just not there.

    ``is_dir`` and ``is_file`` answer False for it, in some versions of Python.
    """
    if not is_url(text):
        with suppress(FileNotFoundError, NotADirectoryError, ValueError):
            Path(text.removeprefix(FILE)).stat()


@contextmanager
def translated_errors(url: str) -> Iterator[None]:
    """Raise what fsspec raises as ConfigError (no credentials, no right) or StoreFailed (may pass).

    FileNotFoundError and errors of the trainer pass through.
    """
    try:
        yield
    except (FileNotFoundError, TrainerError):
        raise
    except Exception as error:
        # Every store has exceptions of its own, most of them no OSError.
        raise _translated(url, error) from error


def _translated(url: str, error: Exception) -> TrainerError:
    # Its address may hold a signature, which is nobody's business in a log.
    said = re.sub(r"\?[^\s'\")]*", "?...", str(error)) if url.startswith(WEB) else str(error)
    message = f"{without_query(url)}: {type(error).__name__}: {said}"
    # The client of S3 tells the reason in the error behind its own.
    reason = f"{error} {error.__cause__ or error.__context__ or ''}"
    if _EXPIRED.search(reason):
        _forget_credentials(url)
        return StoreFailed(
            f"{message}; the credentials have expired: renew them (files with them and roles are "
            "read again, variables by new pods only)"
        )
    if _CLOCK.search(reason):
        return StoreFailed(f"{message}; set the clock of this node")
    if _is_refusal(error):
        return ConfigError(
            f"{message}; give the container credentials that may do this, for example by envFrom "
            "of a Secret"
        )
    status = getattr(error, "status", 0)
    if url.startswith(WEB) and 400 <= status < 500 and status not in MAY_PASS:
        return ConfigError(message)
    return StoreFailed(message)


def _is_refusal(error: Exception) -> bool:
    # botocore's NoCredentialsError is no PermissionError, and is not importable everywhere; the
    # client of Google's store has no more than a word for it.
    return (
        isinstance(error, PermissionError)
        or "Credentials" in type(error).__name__
        or getattr(error, "status", 0) in REFUSED
        or str(error).startswith("Forbidden: ")
    )


def _forget_credentials(url: str) -> None:
    """Have the next access begin anew with what files and services of credentials then say."""
    type(filesystem(url)[0]).clear_instance_cache()


def filesystem(url: str) -> tuple[Any, str]:
    """Fsspec's file system for a URL, and the path within it.

    Raises ConfigError for an unknown protocol or a missing package.
    """
    protocol = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        # Listings are not kept: another process may have written.
        resolved: tuple[Any, str] = url_to_fs(
            url, use_listings_cache=False, **(_web_options() if url.startswith(WEB) else {})
        )
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


def _web_options() -> dict[str, Any]:
    from aiohttp import ClientTimeout

    # By themselves aiohttp minds no HTTPS_PROXY, and ends every download after five minutes.
    timeout = ClientTimeout(total=None, sock_connect=LONGEST_SILENCE, sock_read=LONGEST_SILENCE)
    return {"client_kwargs": {"trust_env": True, "timeout": timeout}}


class Remote:
    """A path in a store, with what the trainer needs of ``pathlib.Path``.

    Every method raises FileNotFoundError, ConfigError or StoreFailed. Only the URL is kept, and
    each call asks fsspec for the file system: connections belong to the process that made them
    ("This class is not fork-safe"), and loader workers and the fork server get these objects from
    their parent. fsspec keeps one instance for each process, so asking is a look-up.
    """

    def __init__(self, url: str, kind: str | None = None) -> None:
        # Not of what comes behind the path of a web server: a signature may end so.
        self._url = url if without_query(url) != url else url.rstrip("/")
        # "file" or "directory" where a listing has said it already: saves a request for each entry.
        self._kind = kind

    def __str__(self) -> str:
        return self._url

    def __truediv__(self, name: str) -> Remote:
        if not name:
            return self
        path = without_query(self._url)
        return Remote(f"{path.rstrip('/')}/{name}{self._url[len(path) :]}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return file_name(self._url)

    @property
    def parent(self) -> Remote:
        """The folder that the path lies in."""
        path = without_query(self._url)
        return Remote(path.rstrip("/").rpartition("/")[0] + self._url[len(path) :])

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
