"""Devices by Dynamic Resource Allocation: reading ``spec.accelerator.claims``, and what is made of
it.

A claim names a ResourceClaimTemplate of the user's, or a device class and a count. Of the latter
the operator makes a template itself, which belongs to the job; Kubernetes makes a ResourceClaim of
its own from it for every pod.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from inception_operator.contract.types import Json
from inception_operator.pod import identity

from .fields import SpecError, integer

if TYPE_CHECKING:
    from .job import Job

API_VERSION: Final = "resource.k8s.io/v1"
PATH: Final = "spec.accelerator.claims"
MAX_CLAIMS: Final = 8
MAX_DEVICES: Final = 64
MAX_SUMMARY: Final = 384
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Claim:
    """What each pod claims: from a template of the user's, or ``count`` devices of a class."""

    name: str
    template: str | None = None
    device_class: str | None = None
    count: int = 1

    @property
    def summary(self) -> str:
        """For people."""
        return (
            f"{self.device_class} x{self.count}"
            if self.device_class
            else f"claims from {self.template}"
        )


def parse_claims(source: Any) -> tuple[Claim, ...]:
    """The claims of a job, none when the field is absent."""
    entries = source or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SpecError(PATH, "must be a list of objects")
    if len(entries) > MAX_CLAIMS:
        raise SpecError(PATH, f"has {len(entries)} claims; {MAX_CLAIMS} are allowed")
    claims = tuple(_parse(index, entry) for index, entry in enumerate(entries))
    if len({claim.name for claim in claims}) < len(claims):
        raise SpecError(PATH, "two claims have the same name; rename one of them")
    return claims


def _parse(index: int, entry: Json) -> Claim:
    path, name = f"{PATH}[{index}]", entry.get("name")
    template, device_class = (
        entry.get("resourceClaimTemplateName") or None,
        entry.get("deviceClassName") or None,
    )
    if not isinstance(name, str) or not _LABEL.fullmatch(name):
        raise SpecError(f"{path}.name", "must be at most 63 lower-case letters, digits and hyphens")
    if bool(template) == bool(device_class):
        raise SpecError(path, "needs exactly one of resourceClaimTemplateName and deviceClassName")
    count = integer(entry, path, "count", 1, MAX_DEVICES)
    if template and count is not None:
        raise SpecError(
            f"{path}.count", "belongs to deviceClassName; the ResourceClaimTemplate has its own"
        )
    return Claim(name, template, device_class, count or 1)


def count(claims: Sequence[Claim]) -> int | None:
    """How many devices a pod gets to train on, None when only somebody who knows the templates can
    tell.

    With several claims nobody can: one of them may be for a network card.
    """
    return claims[0].count if len(claims) == 1 and claims[0].device_class else None


def check(job: Job, requested: Sequence[str]) -> None:
    """Refuse claims that contradict the rest of the spec; ``requested`` are device resources of the
    template.
    """
    wanted = job.accelerator
    if wanted.resource_name is not None or wanted.devices_per_node is not None:
        raise SpecError(
            PATH, "cannot be set beside resourceName and devicesPerNode; remove one or the other"
        )
    if requested:
        raise SpecError(
            PATH, f"the template requests {requested[0]} too; remove the request or the claims"
        )
    if job.num_proc_per_node is None and count(wanted.claims) is None:
        raise SpecError(
            "spec.numProcPerNode",
            "auto needs exactly one claim with a deviceClassName in spec.accelerator.claims; set the number of ranks",
        )
    taken = {
        entry.get("name") for entry in (job.template.get("spec") or {}).get("resourceClaims") or ()
    }
    for claim in wanted.claims:
        if claim.name in taken:
            raise SpecError(
                "spec.template.spec.resourceClaims",
                f"{claim.name} is in spec.accelerator.claims too; rename one",
            )


def summary(claims: Sequence[Claim]) -> str:
    """The column for people."""
    return ", ".join(claim.summary for claim in claims)[:MAX_SUMMARY]


def attach(spec: Json, container: Json, job: Job) -> None:
    """Add the claims to a pod and to its trainer container, beside those that the template has."""
    claims = job.accelerator.claims
    if not claims:
        return
    ours = [
        {
            "name": claim.name,
            "resourceClaimTemplateName": claim.template or template_name(job, claim),
        }
        for claim in claims
    ]
    spec["resourceClaims"] = [*ours, *(spec.get("resourceClaims") or ())]
    resources = container.setdefault("resources", {})
    resources["claims"] = [
        *({"name": claim.name} for claim in claims),
        *(resources.get("claims") or ()),
    ]


def template_name(job: Job, claim: Claim) -> str:
    """The name says what is in it: a template cannot be changed, and one of an earlier job is about
    to go.
    """
    content = json.dumps([job.uid, claim.name, claim.device_class, claim.count])
    return f"{job.name}-{claim.name}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def templates(job: Job) -> tuple[Json, ...]:
    """The ResourceClaimTemplates that must be there before a pod of the job is made."""
    return tuple(_template(job, claim) for claim in job.accelerator.claims if claim.device_class)


def _template(job: Job, claim: Claim) -> Json:
    labels = identity.job_labels(job.name, job.uid)
    exactly = {
        "deviceClassName": claim.device_class,
        "allocationMode": "ExactCount",
        "count": claim.count,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "ResourceClaimTemplate",
        "metadata": {
            "name": template_name(job, claim),
            "namespace": job.namespace,
            "labels": labels,
            "ownerReferences": [identity.owner(job.name, job.uid)],
        },
        "spec": {
            "metadata": {"labels": labels},
            "spec": {"devices": {"requests": [{"name": claim.name, "exactly": exactly}]}},
        },
    }
