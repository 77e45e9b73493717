"""What is to be trained, and its way to the cluster."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Unpack

import yaml

from inception_operator.client import recipes
from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import USAGE, ClientError
from inception_operator.client.place import SDK_MANAGER
from inception_operator.contract import names
from inception_operator.contract.types import Json

from .async_cluster import AsyncCluster
from .async_job import AsyncJob
from .fields import Spec
from .fitting import fitted
from .job import Job

_SUFFIX_BYTES: Final = 3
_OTHER: Final = "training"
"""The name of a job for which neither a name nor a recipe is given."""


class Training:
    """A job that is not yet on a cluster: a recipe, and the fields of the spec.

    The fields are those of the API, by their names there: ``numNodes=2``,
    ``accelerator={"profile": "nvidia", "devicesPerNode": 8}``. What is left out is the recipe's or
    the operator's. Decimal numbers may be numbers of Python.
    """

    def __init__(
        self,
        name: str | None = None,
        /,
        *,
        recipe: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        namespace: str | None = None,
        **spec: Unpack[Spec],
    ) -> None:
        fields = fitted(dict(spec))
        if recipe is not None:
            fields["training"] = _with_recipe(recipe, fields)
        if not fields.get("training") and not _program(fields):
            raise ClientError(
                "nothing says what to train",
                'Give recipe="…" (`kubectl inception recipes` lists them), training={"data": …}, '
                "or a command of your own in template.",
                USAGE,
            )
        self.name = name or _made_name(recipe)
        self.namespace = namespace
        """Where it is started unless another one is named then."""
        self._labels = dict(labels or {})
        self._annotations = dict(annotations or {})
        self._spec = fields

    @classmethod
    def from_file(cls, path: str | Path) -> Training:
        """The InceptionTraining in a file of YAML or JSON."""
        try:
            found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ClientError(f"{path} cannot be read: {error}", code=USAGE) from error
        if not isinstance(found, dict) or found.get("kind") != names.KIND:
            raise ClientError(f"{path} holds no {names.KIND}", code=USAGE)
        metadata: Any = found.get("metadata") or {}
        spec: Any = found.get("spec") or {}
        if not isinstance(metadata, dict) or not isinstance(spec, dict):
            raise ClientError(f"{path}: metadata and spec must have keys of their own", code=USAGE)
        own: Any = {key: metadata.get(key) for key in ("labels", "annotations", "namespace")}
        return cls(metadata.get("name"), **own, **spec)

    @property
    def resource(self) -> Json:
        """What is sent to the API server."""
        metadata = {
            "name": self.name,
            "namespace": self.namespace,
            "labels": self._labels,
            "annotations": self._annotations,
        }
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {key: value for key, value in metadata.items() if value},
            "spec": copy.deepcopy(self._spec),
        }

    @property
    def _sent(self) -> Json:
        resource = self.resource
        # Its namespace is that of the request.
        resource["metadata"].pop("namespace", None)
        return resource

    def __str__(self) -> str:
        """The same in YAML, for ``kubectl apply``."""
        text: str = yaml.safe_dump(self.resource, sort_keys=False, width=100)
        return text

    def __repr__(self) -> str:
        return f"Training({self.name!r}, **{self._spec!r})"

    def submit(
        self,
        *,
        namespace: str | None = None,
        kubeconfig: str | None = None,
        context: str | None = None,
    ) -> Job:
        """Start it. By default on the cluster and in the namespace that kubectl works with; in a
        pod without a kubeconfig, in the pod's own.
        """
        cluster = Cluster(kubeconfig, context, namespace or self.namespace, SDK_MANAGER)
        cluster.ask(cluster.questions.create(self._sent))
        return Job.on(cluster, self.name)

    async def submit_async(
        self,
        *,
        namespace: str | None = None,
        kubeconfig: str | None = None,
        context: str | None = None,
    ) -> AsyncJob:
        """The same for an event loop."""
        cluster = AsyncCluster(kubeconfig, context, namespace or self.namespace, SDK_MANAGER)
        try:
            await cluster.ask(cluster.questions.create(self._sent))
        except BaseException:
            await cluster.close()
            raise
        return AsyncJob.on(cluster, self.name)

    def check(
        self,
        *,
        namespace: str | None = None,
        kubeconfig: str | None = None,
        context: str | None = None,
    ) -> Json:
        """The resource as the API server would take it, which starts nothing; raises what it
        refuses.
        """
        with Cluster(kubeconfig, context, namespace or self.namespace, SDK_MANAGER) as cluster:
            return cluster.ask(cluster.questions.create(self._sent, dry=True))


def _with_recipe(recipe: str, fields: Json) -> Json:
    training = fields.get("training") or {}
    if "recipe" in training:
        raise ClientError("recipe and training.recipe are both given", "Give one of them.", USAGE)
    # Another image has recipes of its own, which only it knows.
    if "image" not in fields:
        otherwise = f'training={{"recipe": "{recipe}"}}'
        recipes.asked_for(recipe, "recipe", otherwise, USAGE)
    return {"recipe": recipe, **training}


def _program(fields: Json) -> Any:
    template = fields.get("template") or {}
    containers = (template.get("spec") or {}).get("containers") or [{}]
    return containers[0].get("command")


def _made_name(recipe: str | None) -> str:
    """A name that no other job has, and that the API takes."""
    suffix = secrets.token_hex(_SUFFIX_BYTES)
    head = (recipe or _OTHER).replace(".", "-").replace("_", "-")
    return f"{head[: names.MAX_JOB_NAME_LENGTH - len(suffix) - 1].rstrip('-')}-{suffix}"
