"""kubectl as a function. The demo uses the tool its readers use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from demo.images import ROOT

PLUGIN: Final = "inception_operator.plugin.entry"
"""``kubectl inception``, without installing it."""
REPORT: Final = "inception_operator.report"


class DemoError(Exception):
    """Something a reader can act on; the message says what and how."""


@dataclass(frozen=True)
class Kube:
    """One cluster and the tool to talk to it."""

    kubeconfig: Path
    kubectl: str = "kubectl"

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return its standard output; DemoError carries its complaint."""
        return self._run([self.kubectl, *arguments], arguments, self.environment, stdin)

    def module(self, name: str, *arguments: str) -> str:
        """Run a program of this checkout against the cluster, likewise."""
        paths = os.pathsep.join(str(ROOT / folder) for folder in ("operator", "trainer"))
        argv = [sys.executable, "-m", name, *arguments]
        return self._run(argv, (name, *arguments), {**self.environment, "PYTHONPATH": paths})

    def _run(
        self,
        argv: Sequence[str],
        said: Sequence[str],
        environment: Mapping[str, str],
        stdin: str | None = None,
    ) -> str:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, env=environment, check=False
        )
        if done.returncode:
            raise DemoError(f"{Path(argv[0]).name} {' '.join(said[:6])}: {done.stderr.strip()}")
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
