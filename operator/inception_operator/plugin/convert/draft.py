"""An InceptionTraining in the making: the kinds fill it, ``resource`` makes the document of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from inception_operator.contract.names import (
    API_VERSION,
    CONTAINER,
    KIND,
    LABEL_QUEUE,
    MAX_JOB_NAME_LENGTH,
)
from inception_operator.contract.types import Json

from .ledger import Field

_NAME: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_MOST_COMMAND: Final = 64


@dataclass
class Draft:
    """The parts of one training; empty ones are left out of the document.

    ``ranks`` None means auto; ``pod`` is the PodSpec without the container that trains.
    """

    metadata: Json
    nodes: int = 1
    ranks: int | None = None
    image: str | None = None
    accelerator: Json = field(default_factory=dict)
    elastic: Json = field(default_factory=dict)
    pod_metadata: Json = field(default_factory=dict)
    pod: Json = field(default_factory=dict)
    trainer: Json = field(default_factory=dict)
    sidecars: list[Json] = field(default_factory=list)
    run_policy: Json = field(default_factory=dict)
    scheduling: Json = field(default_factory=dict)
    failure_policy: Json = field(default_factory=dict)
    success_policy: str | None = None

    def annotate_pods(self, key: str, value: str) -> None:
        """Give the pods an annotation."""
        self.pod_metadata.setdefault("annotations", {})[key] = value

    def set_command(self, words: list[str]) -> None:
        """Make these words the program, within the limits of the two lists."""
        split = len(words) if len(words) <= _MOST_COMMAND else 1
        self.trainer["command"] = words[:split]
        self.trainer.pop("args", None)
        if words[split:]:
            self.trainer["args"] = words[split:]

    def resource(self) -> Json:
        """The document."""
        pod = {**self.pod, "containers": [{"name": CONTAINER, **self.trainer}, *self.sidecars]}
        run_policy = self.run_policy | _filled(schedulingPolicy=self.scheduling)
        spec = _filled(
            image=self.image,
            numNodes=self.nodes,
            numProcPerNode=self.ranks,
            accelerator=self.accelerator,
            elasticPolicy=self.elastic,
            runPolicy=run_policy,
            failurePolicy=self.failure_policy,
            successPolicy=self.success_policy,
            template=_filled(metadata=self.pod_metadata, spec=pod),
        )
        return {"apiVersion": API_VERSION, "kind": KIND, "metadata": self.metadata, "spec": spec}


def _filled(**parts: Any) -> Json:
    return {key: value for key, value in parts.items() if value is not None and value != {}}


def begin(document: Field) -> Draft:
    """A draft with the metadata of a document; kind, version and status are settled."""
    for key in ("apiVersion", "kind"):
        document[key].settle()
    document["status"].drop("it is that of the old object")
    metadata = document["metadata"]
    made: Json = {}
    for child in metadata.children():
        if child.key in ("name", "generateName"):
            made[child.key] = _name(child)
        elif child.key == "namespace":
            made["namespace"] = child.text()
        elif child.key in ("labels", "annotations"):
            made[child.key] = _words(child)
        else:
            child.drop("it belongs to the old object")
    if "name" not in made and "generateName" not in made:
        raise metadata["name"].refusal("there is no name", "give the document one")
    return Draft({key: value for key, value in made.items() if value})


def _name(given: Field) -> str:
    name = given.text() or ""
    generated = given.key == "generateName"
    # The API server adds five characters of its own to the beginning of a name.
    most = MAX_JOB_NAME_LENGTH - 5 if generated else MAX_JOB_NAME_LENGTH
    fitting = re.sub(r"[^a-z0-9-]", "-", name.lower())[:most]
    if not fitting[:1].isalpha():
        fitting = f"t-{fitting}"[:most]
    fitting = fitting if generated else fitting.rstrip("-")
    if fitting != name:
        given.change(
            f"the training is called {fitting}: a name is a DNS label of at most {most} "
            "characters that begins with a letter",
            "choose another name",
        )
    return fitting


def _words(given: Field) -> Json:
    """Labels or annotations, without what kubectl keeps about the old object."""
    kept: Json = {}
    for child in given.children():
        if child.key == _APPLIED:
            child.drop("kubectl wrote it for the old object")
            continue
        kept[child.key] = child.text() or ""
        if child.key == LABEL_QUEUE:
            child.change(
                "carried over, but nobody suspends a training for its queue unless Kueue has been "
                "told of this kind",
                "set spec.runPolicy.suspend: true where a controller of yours admits it",
            )
    return kept
