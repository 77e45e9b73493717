"""``spec.accelerator.claims``: devices by Dynamic Resource Allocation instead of device plug-ins.

A claim names a ResourceClaimTemplate of the user's, or a device class and a count. What pods and
ResourceClaimTemplates are made of it is in `pod.resource_claims`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .validation import Model, Remedy, Within, refusal

PATH: Final = "spec.accelerator.claims"
MAX_CLAIMS: Final = 8
MAX_DEVICES: Final = 64
# The limit of status.accelerator in the CRD.
MAX_SUMMARY: Final = 384


class Claim(Model):
    """What each pod claims: from a template of the user's, or ``count`` devices of a class."""

    name: Annotated[
        str,
        Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        Remedy("must be at most 63 lower-case letters, digits and hyphens"),
    ] = Field(default="", validate_default=True)
    template: str | None = Field(default=None, validation_alias="resourceClaimTemplateName")
    device_class: str | None = Field(default=None, validation_alias="deviceClassName")
    count: Annotated[int, Within(1, MAX_DEVICES)] = 1

    @field_validator("count", mode="after")
    @classmethod
    def _belongs_to_a_class(cls, count: int, info: ValidationInfo) -> int:
        # A default is not validated, so this count was written by the user.
        fields = info.data
        if fields.get("template") and not fields.get("device_class"):
            raise refusal("belongs to deviceClassName; the ResourceClaimTemplate has its own")
        return count

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if bool(self.template) == bool(self.device_class):
            raise refusal("needs exactly one of resourceClaimTemplateName and deviceClassName")
        return self

    @property
    def summary(self) -> str:
        """The claim in a column of ``kubectl get``."""
        if self.device_class:
            return f"{self.device_class} x{self.count}"
        return f"claims from {self.template}"


def check_shape(source: Any) -> Any:
    """Refuse what is no list of claims before any of them is looked at."""
    # Not left to pydantic: one message for both, without the index of an entry that is no object.
    if not isinstance(source, list):
        raise refusal("must be a list of objects")
    if not all(isinstance(entry, dict) for entry in source):
        raise refusal("must be a list of objects")
    if len(source) > MAX_CLAIMS:
        raise refusal(f"has {len(source)} claims; {MAX_CLAIMS} are allowed")
    return source


def check_names(claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
    """Refuse two claims of one name: pods refer to claims by it."""
    names = {claim.name for claim in claims}
    if len(names) < len(claims):
        raise refusal("two claims have the same name; rename one of them")
    return claims


def count_devices(claims: Sequence[Claim]) -> int | None:
    """How many devices a pod gets to train on, None when the claims alone do not tell.

    A template's count is not known here, and of several claims one may be for a network card.
    """
    if len(claims) != 1 or claims[0].device_class is None:
        return None
    return claims[0].count


def summarize(claims: Sequence[Claim]) -> str:
    """All claims in a column of ``kubectl get``."""
    return ", ".join(claim.summary for claim in claims)[:MAX_SUMMARY]
