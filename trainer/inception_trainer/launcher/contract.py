"""The version of what operator and launcher say to one another, and what to say where two differ.

The rules are in docs/architecture/wire.md; the operator's end is ``contract/version.py``. Of an
assignment in another version only ``attempt``, ``end`` and ``contract`` mean what they mean here:
they do so in every version, as does the report.
"""

CONTRACT = 1
"""What the launcher writes into reports."""
SPOKEN = frozenset((CONTRACT,))
"""What it understands of assignments."""
UNSAID = 1
"""What operators speak that do not say it: the releases before they did."""


def refusal(version: int) -> str:
    """Say why an assignment in this version cannot be carried out."""
    return (
        f"the launcher of this image speaks version {CONTRACT} of the contract and the operator "
        f"version {version}: use a trainer image of the operator's release (spec.image), or one of "
        "the operator that fits this image"
    )
