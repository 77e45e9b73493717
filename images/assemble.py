"""Assemble the operator's file system: an interpreter, the libraries it loads, its packages.

Runs in the build stage of the Dockerfile, as root, with the standard library alone. What it leaves
out has no part in running the operator: shell, package managers, compilers, tests, and the models
and typed calls that the Kubernetes client is mostly made of. The result depends on the base image,
the packages and the epoch alone, so that two builds are the same bit by bit.
"""

from __future__ import annotations

import argparse
import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import contents

HOME: Final = Path("opt/inception")
USER: Final = 10001

# Relative to the packages. Of the generated code only the lists of names stay: `__init__.py` loads
# a model when somebody asks for it, and the operator reads and writes plain objects.
GENERATED: Final = tuple(
    f"kubernetes/{half}/{part}" for half in ("client", "aio/client") for part in ("api", "models")
)
UNUSED_IN_PACKAGES: Final = (
    "tests",
    "test",
    "testing",
    "test_*.py",
    "__pycache__",
    "*.pyi",
    "*.pyx",
    "*.pxd",
    "*.c",
    "*.h",
    # Who installed what, and commands whose first line names the interpreter of the build stage.
    "RECORD",
    "REQUESTED",
    "direct_url.json",
    "bin",
)
UNUSED_IN_LIBRARY: Final = (
    "__pycache__",
    "config-*",
    "dist-packages",
    "distutils",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtle.py",
    "turtledemo",
    "venv",
)
# They want libraries that nothing else wants: terminals, windows, data bases.
UNUSED_EXTENSIONS: Final = (
    "_ctypes_test*",
    "_curses*",
    "_dbm*",
    "_gdbm*",
    "_sqlite3*",
    "_test*",
    "_tkinter*",
    "_xx*",
    "nis*",
    "ossaudiodev*",
    "readline*",
    "xx*",
)
# Files of the base image that the interpreter or its libraries read.
CONFIGURATION: Final = (
    "etc/ld.so.conf",
    "etc/ld.so.conf.d",
    "etc/ssl/certs/ca-certificates.crt",
    "etc/ssl/openssl.cnf",
    "usr/lib/os-release",
)


class Root:
    """The folder that becomes the image."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        # Where /lib leads to /usr/lib in the base, it does so here, so that both names work.
        for name in ("bin", "lib", "lib64", "sbin"):
            if (source := Path("/", name)).is_symlink():
                (folder / name).symlink_to(source.readlink())
                (folder / source.readlink()).mkdir(parents=True, exist_ok=True)

    def place(self, path: Path) -> Path:
        """Where a file of the base image lies in the result, its folder made."""
        place = self.folder / path.parent.resolve().relative_to("/") / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def copy(self, path: Path) -> None:
        """Copy a file, or a link and what it leads to."""
        place = self.place(path)
        if path.is_symlink():
            if not place.is_symlink():
                place.symlink_to(path.readlink())
            self.copy(path.parent / path.readlink())
        elif path.is_dir():
            shutil.copytree(path, place, dirs_exist_ok=True)
        elif not place.exists():
            shutil.copyfile(path, place)
            place.chmod(path.stat().st_mode & 0o777)

    def write(self, path: str, text: str) -> None:
        """Write a small file."""
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")

    def files(self) -> Iterator[Path]:
        """Every regular file, in the same order each time."""
        return (p for p in sorted(self.folder.rglob("*")) if p.is_file() and not p.is_symlink())


def main() -> None:
    """Assemble, and describe what was assembled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, required=True, help="what pip installed")
    parser.add_argument("--application", type=Path, required=True, help="inception_operator")
    parser.add_argument("--version", required=True)
    parser.add_argument("--epoch", type=int, required=True, help="time of all files")
    parser.add_argument("root", type=Path)
    options = parser.parse_args()
    root = Root(options.root)
    add_interpreter(root)
    add_packages(root, options.packages, options.application)
    add_libraries(root)
    add_configuration(root)
    packages = root.folder / HOME / "packages"
    debian = contents.debian_packages(Path("/"), owned_paths(root))
    add_notices(root, debian)
    root.write(
        contents.PLACE.format("operator"),
        contents.document("operator", options.version, [packages], debian),
    )
    compile_all(root)
    make_uniform(root, options.epoch)


def add_interpreter(root: Root) -> None:
    """The interpreter under the names `python` and `python3`, with the standard library."""
    program = Path(sys.executable).resolve()
    root.copy(program)
    names = root.folder / HOME / "bin"
    names.mkdir(parents=True)
    for name in ("python", "python3"):
        (names / name).symlink_to(program)
    for kind in ("stdlib", "platstdlib"):
        library = Path(sysconfig.get_path(kind))
        shutil.copytree(
            library,
            root.place(library),
            ignore=ignore(UNUSED_IN_LIBRARY, {"lib-dynload": UNUSED_EXTENSIONS}),
            ignore_dangling_symlinks=True,
            dirs_exist_ok=True,
        )


def ignore(
    everywhere: tuple[str, ...], inside: dict[str, tuple[str, ...]]
) -> Callable[[str, list[str]], set[str]]:
    """What copytree leaves out: names that match, in every folder or in those of one name."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        patterns = (*everywhere, *inside.get(Path(folder).name, ()))
        return {name for name in names if any(fnmatch(name, pattern) for pattern in patterns)}

    return left_out


def add_packages(root: Root, packages: Path, application: Path) -> None:
    """The packages without what is unused of them, and the operator."""
    place = root.folder / HOME / "packages"
    shutil.copytree(packages, place, ignore=ignore(UNUSED_IN_PACKAGES, {}))
    for folder in GENERATED:
        for module in (place / folder).iterdir():
            if module.name != "__init__.py":
                module.unlink()
    shutil.copytree(
        application, root.folder / HOME / application.name, ignore=ignore(("__pycache__",), {})
    )


def add_libraries(root: Root) -> None:
    """The shared libraries of all programs and extension modules, and a cache to find them by."""
    for path in list(root.files()):
        with path.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        for library in needed_libraries(path):
            # What a package brings along lies in the result already.
            if not library.is_relative_to(root.folder):
                root.copy(library)


def needed_libraries(path: Path) -> list[Path]:
    """The libraries that the dynamic linker would load for a file."""
    listing = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    if "not found" in listing:
        raise SystemExit(f"{path}: a library is missing in the base image\n{listing}")
    words = (word for line in listing.splitlines() for word in line.split())
    return [Path(word) for word in words if word.startswith("/")]


def add_configuration(root: Root) -> None:
    """Users, name resolution, certificates, the linker's cache and a folder for what is passing."""
    for name in CONFIGURATION:
        root.copy(Path("/", name))
    for name in ("cert.pem", "certs", "openssl.cnf"):
        link = Path("/usr/lib/ssl", name)
        if link.is_symlink():
            root.place(link).symlink_to(link.readlink())
    root.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    root.write(
        "etc/passwd",
        "root:x:0:0:root:/nonexistent:/nonexistent\n"
        f"inception:x:{USER}:{USER}:inception:/tmp:/nonexistent\n",
    )
    root.write("etc/group", f"root:x:0:\ninception:x:{USER}:\n")
    # Where a runtime mounts something, also one that cannot make the folder itself.
    for name in ("dev", "proc", "run", "sys", "tmp"):
        (root.folder / name).mkdir()
    (root.folder / "etc/os-release").symlink_to("../usr/lib/os-release")
    subprocess.run(["ldconfig", "-X", "-r", root.folder], check=True)
    shutil.rmtree(root.folder / "var", ignore_errors=True)


def owned_paths(root: Root) -> set[str]:
    """The files that came from the base image, by their names there."""
    home = root.folder / HOME
    found = {
        f"/{path.relative_to(root.folder)}"
        for path in root.files()
        if not path.is_relative_to(home)
    }
    # The bundle of certificates belongs to no package; the program that made it does.
    return found | {"/usr/sbin/update-ca-certificates"}


def add_notices(root: Root, debian: Iterable[contents.DebianPackage]) -> None:
    """Licences, and for each Debian package the record in which scanners look for its version."""
    for package in debian:
        root.write(f"var/lib/dpkg/status.d/{package.name}", package.record)
        if package.copyright.exists():
            root.copy(package.copyright)


def compile_all(root: Root) -> None:
    """Byte code of everything, which does not depend on the time of its source."""
    done = compileall.compile_dir(
        root.folder,
        quiet=1,
        maxlevels=50,
        stripdir=str(root.folder),
        prependdir="/",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not done:
        raise SystemExit("not everything compiles")


def make_uniform(root: Root, epoch: int) -> None:
    """Rights and times that do not depend on the machine; nothing but /tmp can be written."""
    for path in [*root.folder.rglob("*"), root.folder]:
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & 0o111
            path.chmod(0o755 if runs else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    (root.folder / "tmp").chmod(0o1777)


if __name__ == "__main__":
    main()
