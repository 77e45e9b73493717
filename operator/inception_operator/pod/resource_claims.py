"""What pods and the namespace get from ``spec.accelerator.claims`` (Dynamic Resource Allocation).

Of a claim by device class the operator makes a ResourceClaimTemplate, which belongs to the job.
From it, or from the user's own, Kubernetes makes a ResourceClaim for every pod.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from inception_operator.contract.types import Json
from inception_operator.spec.claims import Claim
from inception_operator.spec.job import Job

from . import identity

API_VERSION: Final = "resource.k8s.io/v1"


def attach_claims(spec: Json, container: Json, job: Job) -> None:
    """Add the claims to a pod and to its trainer container, beside those that the template has."""
    claims = job.accelerator.claims
    if not claims:
        return
    pod_claims = [
        {
            "name": claim.name,
            "resourceClaimTemplateName": claim.template or template_name(job, claim),
        }
        for claim in claims
    ]
    spec["resourceClaims"] = [*pod_claims, *(spec.get("resourceClaims") or ())]
    # A pod may hold claims that no container uses; only what is named here too becomes visible.
    resources = container.setdefault("resources", {})
    resources["claims"] = [
        *({"name": claim.name} for claim in claims),
        *(resources.get("claims") or ()),
    ]


def template_name(job: Job, claim: Claim) -> str:
    """The name of the template made for a claim, with a digest of what is in it.

    A ResourceClaimTemplate cannot be changed, so another content needs another name; and one of an
    earlier job of this name may still be there until the garbage collector takes it.
    """
    content = json.dumps([job.uid, claim.name, claim.device_class, claim.count])
    return f"{job.name}-{claim.name}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def build_templates(job: Job) -> tuple[Json, ...]:
    """The ResourceClaimTemplates that must be there before a pod of the job is made."""
    claims = job.accelerator.claims
    return tuple(_build_template(job, claim) for claim in claims if claim.device_class)


def _build_template(job: Job, claim: Claim) -> Json:
    labels = identity.job_labels(job.name, job.uid)
    # The name of the request turns up in the claim's status, where people look for their own.
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
