"""Which pickled weight files may be read: torch before 2.10 can be made to run what is in one.

``weights_only=True`` promises that nothing but tensors and plain values is built. In torch before
2.6 a crafted file got around it, and before 2.10 one could corrupt the memory of the reader:

- CVE-2025-32434 (nvd.nist.gov, April 2025): torch up to 2.5.1, mended in 2.6.0.
- CVE-2026-24747 (nvd.nist.gov, 2026-01-27): torch before 2.10.0.

Vendors' images have such releases for years. Their jobs read checkpoints of their own, as they must
to go on after a restart; files of others are refused unless the configuration allows it.
"""

from __future__ import annotations

import re
from pathlib import Path

from inception_trainer.checkpoint.folder import leads_out
from inception_trainer.config.training import TrainingConfig
from inception_trainer.errors import ConfigError, DataError
from inception_trainer.stores import is_url, place

FAULTS = (("CVE-2025-32434", (2, 6)), ("CVE-2026-24747", (2, 10)))
"""Known holes in ``weights_only=True``, each with the release of torch that closed it."""
REMEDY = (
    "use a .safetensors file, which cannot hold code (trainings write final.safetensors), or torch "
    "2.10 or newer; if you trust whoever made this one, set model.foreignPickle to Allow (command "
    "average: --allow-pickle)"
)


def faults_of(torch_version: str) -> list[str]:
    """The known holes of a release, such as ``2.4.0+cpu``; of one that cannot be read all."""
    match = re.match(r"(\d+)\.(\d+)(?:\.\d+)?(a|b|rc|\.?dev)?", torch_version)
    if match is None:
        return [name for name, _ in FAULTS]
    release = (int(match[1]), int(match[2]))
    # A preview of 2.10, as vendors ship it, may have been cut before the hole was closed.
    is_preview = match[3] is not None
    return [
        name
        for name, closed_in in FAULTS
        if release < closed_in or (is_preview and release == closed_in)
    ]


def check_pickle(path: Path, torch_version: str) -> None:
    """Raise ConfigError for a pickle of others that this torch cannot read safely."""
    faults = faults_of(torch_version)
    if faults:
        raise ConfigError(
            f"model.weights: {path} is a pickle of somebody else, and torch {torch_version} may "
            f"run code that is hidden in it ({', '.join(faults)}); {REMEDY}"
        )


def may_unpickle(config: TrainingConfig) -> bool:
    """Whether the job's weights are its own, or its author vouches for them."""
    return config.model.foreign_pickle == "Allow" or is_own(config)


def is_own(config: TrainingConfig) -> bool:
    """Whether the weights come from the job's own directory: it, or an attempt before, wrote them.

    Whoever else may write there has the job's checkpoints in hand, too.
    """
    weights = config.model.weights
    if weights is None:
        return True
    root = config.checkpoint.path
    if root is None or is_url(weights) != is_url(root):
        return False
    if is_url(root):
        # "::" chains file systems of fsspec, the last of which may be anybody's.
        inside = weights.startswith(f"{root.rstrip('/')}/")
        return inside and ".." not in weights.split("/") and "::" not in weights
    return not leads_out(Path(str(place(weights))), Path(str(place(root))))


def check_within(path: Path, folder: Path) -> None:
    """Raise DataError for a file of the job's directory that is a link to somewhere else."""
    if leads_out(path, folder):
        raise DataError(
            f"{path} leads out of {folder}; replace the link by the file, or name the file as "
            "model.weights"
        )
