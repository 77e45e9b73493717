"""Which cluster is meant, and which namespace of it: a kubeconfig, or the pod this runs in."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

from .errors import UNAVAILABLE, ClientError
from .questions import Questions
from .text import clean_line, command

FIELD_MANAGER: Final = "kubectl-inception"
SDK_MANAGER: Final = "inception-sdk"
_OWN_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_DEFAULT: Final = "~/.kube/config"
_IN_A_POD: Final = "KUBERNETES_SERVICE_HOST"
T = TypeVar("T")


@dataclass
class Place:
    """The cluster of a kubeconfig's context, and a namespace of it.

    A pod without a kubeconfig, such as a notebook on the cluster, is meant to be at home: it takes
    its service account.
    """

    kubeconfig: str | None = None
    context: str | None = None
    chosen_namespace: str | None = None
    manager: str = FIELD_MANAGER
    """Owner of the fields that are written."""

    @cached_property
    def namespace(self) -> str:
        """The namespace: the chosen one, that of the context or of the pod, or default."""
        if self.chosen_namespace:
            return self.chosen_namespace
        if self.is_at_home:
            return self.loaded(lambda: _OWN_NAMESPACE.read_text(encoding="utf-8").strip())
        return self.loaded(self._of_context)

    def _of_context(self) -> str:
        # Not by list_kube_config_contexts, which wants a current one even if another is named.
        from kubernetes.config.config_exception import ConfigException
        from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, KubeConfigMerger

        found: Any = KubeConfigMerger(  # type: ignore[no-untyped-call]
            self.file or KUBE_CONFIG_DEFAULT_LOCATION
        ).config
        if found is None:
            raise ConfigException("it is empty")
        name = self.context or found["current-context"]
        context = found["contexts"].get_with_name(name)["context"]
        return str(context.safe_get("namespace") or "default")

    @cached_property
    def questions(self) -> Questions:
        """What can be asked about the namespace."""
        return Questions(self.namespace, self.manager, self.options)

    @property
    def options(self) -> str:
        """The options that lead a command to the same place; empty where none are needed."""
        given = {
            "--kubeconfig": self.kubeconfig,
            "--context": self.context,
            "-n": self.chosen_namespace,
        }
        return "".join(f" {name} {shlex.quote(value)}" for name, value in given.items() if value)

    def command(self, words: str) -> str:
        """A command of this program about the same place, as a remedy names it."""
        return command(words, self.options)

    @property
    def file(self) -> str | None:
        """The kubeconfig; None for the one in the home directory."""
        # Asked now: the client keeps what the environment said when it was imported.
        return self.kubeconfig or os.environ.get("KUBECONFIG") or None

    @property
    def is_at_home(self) -> bool:
        """Whether this runs in a pod, and nobody has named another cluster."""
        if self.file or self.context:
            return False
        return _IN_A_POD in os.environ and not Path(_DEFAULT).expanduser().exists()

    def loaded(self, load: Callable[[], T]) -> T:
        """What the official client loads from a kubeconfig."""
        try:
            return load()
        except unloadable() as error:
            raise self.unusable(error) from error

    def unusable(self, error: BaseException) -> ClientError:
        """The error for credentials that cannot be loaded."""
        return ClientError(
            f"no usable kubeconfig ({self.file or _DEFAULT}): {clean_line(error)}",
            "Set KUBECONFIG or --kubeconfig to a file that kubectl works with, and --context "
            "to one of `kubectl config get-contexts`.",
            UNAVAILABLE,
        )


def unloadable() -> tuple[type[Exception], ...]:
    """What the official client raises for credentials that cannot be loaded."""
    import yaml
    from kubernetes.config.config_exception import ConfigException

    return ConfigException, yaml.YAMLError, OSError, ValueError, KeyError, TypeError
