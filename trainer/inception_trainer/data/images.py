"""Images to classify in mode Infer: a file, a folder of any depth, or the validation split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from inception_trainer.config.normalization import IMAGENET, Normalization
from inception_trainer.config.training import DataConfig, TrainingConfig
from inception_trainer.errors import InputMissing
from inception_trainer.log import logger
from inception_trainer.storage import read_data
from inception_trainer.stores import AnyPath, Remote, check_answers

from .base import Dataset, Splits
from .build import open_splits
from .decode import say_decoder
from .encoded import EncodedImages
from .files import FileList
from .folder_listing import describe_folder
from .ignored import IMAGE_SUFFIXES, Ignored, is_hidden
from .walk import images_below, list_folder

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


def image_files(path: AnyPath) -> list[str]:
    """The file, or all images below the folder in the order of their names; InputMissing when there
    are none. What is left out is logged.
    """
    files, ignored = read_data(lambda: _find_images(path), f"inference.path: {path}")
    for line in ignored.lines():
        logger.info("%s", line)
    return files


def _find_images(path: AnyPath) -> tuple[list[str], Ignored]:
    check_answers(str(path))
    ignored = Ignored()
    if path.is_file():
        return [str(path)], ignored
    files: list[str] = []
    if isinstance(path, Remote):
        files += _images_in_store(path, ignored)
    elif path.is_dir():
        content = list_folder(str(path))
        for images in images_below(str(path), content, ignored, str(path)):
            files += (f"{images.folder}/{name}" for name in images.names)
    if not files:
        raise InputMissing(
            f"inference.path: no images ({' '.join(IMAGE_SUFFIXES)}) at {path}; "
            f"found: {describe_folder(path, depth=1)}"
        )
    # Folder by folder and not by letters alone, so that a folder stands where its name belongs:
    # by a text, since lists of the parts of ten million names would take gigabytes.
    return sorted(files, key=lambda file: file.replace("/", "\0")), ignored


def _images_in_store(path: Remote, ignored: Ignored) -> Iterator[str]:
    # A store lists all its objects with one call, whatever the depth.
    for file in path.files():
        below = str(file).removeprefix(f"{path}/")
        folder, _, name = below.rpartition("/")
        if any(is_hidden(part) for part in folder.split("/")):
            ignored.hide(below)
        elif ignored.images((name,), folder or "."):
            yield str(file)


def files_to_classify(files: Sequence[AnyPath | str], root: AnyPath, config: DataConfig) -> Images:
    """Images by their path below ``root``."""
    folder = root if root.is_dir() else root.parent
    samples = FileList(str(folder))
    for file in files:
        samples.add(str(file), NO_LABEL)
    # Seed 0: nothing is drawn, because nothing is augmented.
    dataset = EncodedImages(samples.build(), config, 0)
    say_decoder()
    return Images(
        dataset, lambda index: dataset.name(index).removeprefix(f"{folder}/"), labelled=False
    )


def validation_images(config: TrainingConfig) -> Images:
    """The validation split, whose labels are known."""
    splits = open_splits(config)
    val = splits.val
    return Images(val, val.name, labelled=True, normalization=splits.normalization, splits=splits)
