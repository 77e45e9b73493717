"""The version of what operator and launchers say to one another, and whether two of them fit.

It is no release: it is raised only when one end would misread the other, such as by another meaning
of a key that there is, or by a new key that must not be passed over. New keys alone do not raise
it: both ends ignore the ones that they do not know. Releases before it was said speak version 1.
docs/architecture/wire.md has the rules; the launcher's end is ``launcher/contract.py``.
"""

from __future__ import annotations

from typing import Final

CONTRACT: Final = 1
"""What the operator writes into assignments."""
SPOKEN: Final = frozenset((CONTRACT,))
"""What it understands of launchers. To raise the version and keep the one before in here lets jobs
that run through an upgrade of the operator go on in their pods.
"""
UNSAID: Final = 1
MOST: Final = 9_999


def misfit(version: int) -> str:
    """What to say of a launcher that speaks another version; empty when the two fit."""
    if version in SPOKEN:
        return ""
    return (
        f"the launcher speaks version {version} of the contract and this operator version "
        f"{CONTRACT}: use a trainer image of the operator's release (spec.image), or update the "
        "operator first"
    )
