"""kubectl as a function. The demo uses the tool its readers use."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any


class DemoError(Exception):
    """Something a reader can act on; the message says what and how."""


@dataclass(frozen=True)
class Kube:
    """One cluster and the tool to talk to it."""

    kubeconfig: Path
    kubectl: str = "kubectl"

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return its standard output; DemoError carries its complaint."""
        argv = [self.kubectl, *arguments]
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, env=self.environment, check=False
        )
        if done.returncode:
            raise DemoError(
                f"{Path(argv[0]).name} {' '.join(arguments[:6])}: {done.stderr.strip()}"
            )
        return done.stdout

    def read(self, *arguments: str) -> Any:
        """The JSON of one kubectl call, or None when the object does not exist."""
        try:
            return json.loads(self.run(*arguments, "-o", "json"))
        except DemoError as error:
            if "NotFound" in str(error) or "not found" in str(error):
                return None
            raise

    def stream(self, *arguments: str) -> Iterator[bytes]:
        """The standard output of a long kubectl call in blocks."""
        argv = [self.kubectl, *arguments]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, env=self.environment) as process:
            yield from iter(partial(process.stdout.read, 1 << 20), b"") if process.stdout else ()
        if process.returncode:
            raise DemoError(f"kubectl {' '.join(arguments[:6])} ended with {process.returncode}")

    @property
    def environment(self) -> dict[str, str]:
        """The environment for kubectl: ours with this cluster's kubeconfig."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
