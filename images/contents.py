"""Say what is in an image: a software bill of materials in CycloneDX 1.6.

Runs in the build stages of the Dockerfile with the standard library alone, on any Python that a
base image may have. Equal contents give equal text: no time, no random number.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Final

PLACE: Final = "usr/share/sbom/inception-{}.cdx.json"

Json = dict[str, Any]


@dataclass(frozen=True)
class DebianPackage:
    """An installed package; `record` is its paragraph of the package manager's list."""

    name: str
    version: str
    architecture: str
    record: str
    copyright: Path


def main() -> None:
    """Print the bill of the trainer's image: packages that its Python finds, and Debian's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", required=True)
    parser.add_argument("image")
    options = parser.parse_args()
    print(document(options.image, options.version, None, debian_packages(Path("/"))), end="")


def document(
    image: str, version: str, folders: Iterable[Path] | None, debian: Iterable[DebianPackage]
) -> str:
    """The bill as text; `folders` hold Python packages, None for where this Python finds its."""
    found = distributions(path=[str(f) for f in folders]) if folders else distributions()
    named = [distribution for distribution in found if distribution.metadata.get_all("Name")]
    # The first of a name hides the others, as it does for imports.
    python = {python_component(d)["purl"].partition("@")[0]: d for d in reversed(named)}
    interpreter = component("generic", "python", platform.python_version(), ["PSF-2.0"])
    components = [
        interpreter,
        *(python_component(distribution) for distribution in python.values()),
        *(debian_component(package) for package in debian),
    ]
    components.sort(key=lambda each: str(each["purl"]))
    name = f"inception-{image}"
    subject = {
        "type": "container",
        "bom-ref": name,
        "name": name,
        "version": version,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    body = json.dumps([subject, components], sort_keys=True)
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, body)}",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
        "dependencies": [{"ref": name, "dependsOn": [c["bom-ref"] for c in components]}],
    }
    return json.dumps(bill, indent=1, sort_keys=True) + "\n"


def python_component(distribution: Distribution) -> Json:
    """A Python package under its normalized name."""
    name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
    licences = distribution.metadata.get_all("License-Expression") or []
    return component("pypi", name, distribution.version, licences)


def debian_component(package: DebianPackage) -> Json:
    """A Debian package."""
    qualifier = f"?arch={package.architecture}"
    return component("deb/debian", package.name, package.version, [], qualifier)


def component(kind: str, name: str, version: str, licences: list[str], qualifier: str = "") -> Json:
    """One component, known by its package URL."""
    # A plus sign and a tilde stand in versions of Debian; the URL wants the first one encoded.
    purl = f"pkg:{kind}/{name}@{version.replace('+', '%2B').replace(':', '%3A')}{qualifier}"
    found: Json = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
    }
    if licences:
        found["licenses"] = [{"expression": expression} for expression in licences]
    return found


def debian_packages(base: Path, paths: set[str] | None = None) -> list[DebianPackage]:
    """The installed packages of a Debian base image, or those that own some of `paths`."""
    status = base / "var/lib/dpkg/status"
    if not status.exists():
        return []
    packages = []
    for record in status.read_text(encoding="utf-8").strip().split("\n\n"):
        fields = dict(re.findall(r"^([A-Z][\w-]*): (.*)$", record, flags=re.MULTILINE))
        if not fields["Status"].endswith(" installed"):
            continue
        name, architecture = fields["Package"], fields["Architecture"]
        if paths is None or paths & set(owned(base, name, architecture)):
            packages.append(
                DebianPackage(
                    name,
                    fields["Version"],
                    architecture,
                    record + "\n",
                    base / "usr/share/doc" / name / "copyright",
                )
            )
    return packages


def owned(base: Path, package: str, architecture: str) -> Iterator[str]:
    """The paths of a package's files with all links followed: /lib may lead to /usr/lib."""
    for name in (f"{package}.list", f"{package}:{architecture}.list"):
        listing = base / "var/lib/dpkg/info" / name
        if listing.exists():
            for line in listing.read_text(encoding="utf-8").splitlines():
                yield str(Path(line).parent.resolve() / Path(line).name)


if __name__ == "__main__":
    main()
