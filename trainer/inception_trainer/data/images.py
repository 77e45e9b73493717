"""Images to classify in mode Infer: a file, a folder of any depth, or the validation split."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePath

from inception_trainer.config.normalization import IMAGENET, Normalization
from inception_trainer.config.training import DataConfig, TrainingConfig
from inception_trainer.errors import InputMissing
from inception_trainer.storage import patiently
from inception_trainer.stores import AnyPath, Remote, check_answers

from .base import Dataset, Splits
from .build import open_splits
from .decode import say_decoder
from .encoded import EncodedImages, Files
from .folder_listing import describe_folder
from .imagefolder import SUFFIXES

NO_LABEL = -1
"""Label of an image whose class nobody knows; other than UNREADABLE, it has pixels."""


@dataclass(frozen=True)
class Images:
    """What is classified, and what each image is called."""

    dataset: Dataset
    name: Callable[[int], str]
    labelled: bool
    """Whether the true classes are known."""
    normalization: Normalization = IMAGENET
    splits: Splits | None = None


def image_files(path: AnyPath) -> list[AnyPath]:
    """The file, or all images below the folder in the order of their names; InputMissing when there
    are none.
    """
    return patiently(lambda: _find_images(path), f"inference.path: {path}")


def _find_images(path: AnyPath) -> list[AnyPath]:
    check_answers(str(path))
    if path.is_file():
        return [path]
    # A store lists all its objects with one call, whatever the depth; they come sorted.
    entries: Iterable[AnyPath]
    entries = path.files() if isinstance(path, Remote) else sorted(path.rglob("*"))
    images = (file for file in entries if PurePath(file.name).suffix.lower() in SUFFIXES)
    files = [file for file in images if file.is_file()]
    if not files:
        raise InputMissing(
            f"inference.path: no images ({' '.join(SUFFIXES)}) at {path}; "
            f"found: {describe_folder(path, depth=1)}"
        )
    return files


def files_to_classify(files: list[AnyPath], root: AnyPath, config: DataConfig) -> Images:
    """Images by their path below ``root``."""
    folder = root if root.is_dir() else root.parent
    samples = Files([(str(file), NO_LABEL) for file in files])
    # Seed 0: nothing is drawn, because nothing is augmented.
    dataset = EncodedImages(samples, config, 0)
    say_decoder()
    return Images(
        dataset, lambda index: str(files[index]).removeprefix(f"{folder}/"), labelled=False
    )


def validation_images(config: TrainingConfig) -> Images:
    """The validation split, whose labels are known."""
    splits = open_splits(config)
    val = splits.val
    # Data sets in memory have no files that could be named.
    name = val.name if isinstance(val, EncodedImages) else "val/{}".format
    return Images(val, name, labelled=True, normalization=splits.normalization, splits=splits)
