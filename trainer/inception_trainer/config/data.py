"""The sections ``data`` and ``batch``: where the samples come from, and how many a step takes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from . import normalization
from .declare import FORBIDDEN, PLACE, REQUIRED, Api, Cel, camel, cel_list, key, listed, rule

CIFAR = ("Cifar10", "Cifar100")
DATA_KINDS = ("Digits", "Synthetic", "ImageFolder", "ImageList", "WebDataset", *CIFAR)
IN_MEMORY = ("Digits", "Synthetic", *CIFAR)
"""Kinds whose samples lie in memory as arrays: no files are read and decoded while training."""
IMAGE_FILES = ("ImageFolder", "ImageList", "WebDataset")
"""Kinds of image files, which are decoded, cropped and scaled."""
NEEDS_PATH = {
    "ImageFolder": "holds train/ and val/, here or in the variable IMAGENET_TRAIN_DATASET",
    "ImageList": "holds train.txt and val.txt",
    "WebDataset": "holds the shards",
    "Cifar10": "holds the batches of CIFAR-10",
    "Cifar100": "holds the files of CIFAR-100",
}
DIVISIBLE = (*IMAGE_FILES, *CIFAR)
"""Kinds of which a share of the training images can be held out."""
MADE_AT_SIZE = "Synthetic"
"""The kind of data whose images are never scaled."""

# Absolute paths are refused: shards are named below ``path``, which may be a URL.
_SHARDS = Api(pattern=r"^[^/].*$", min_length=1, max_length=1024)


@dataclass(frozen=True)
class CacheConfig:
    """Cache keeps the files of kind ImageFolder and ImageList, and the samples of kind WebDataset,
    near as soon as they were read once: for data in object stores and on slow volumes. The ranks of
    a pod share it, and the attempts that follow in the pod find it filled; files must not change
    meanwhile. Nothing is thrown out: what is left when it is full is read again in each epoch.
    """

    memory_mebibytes: int | None = key(None, at_least=1, at_most=16_777_216)
    """MemoryMebibytes is the most memory in MiB that the ranks of a pod keep files in together. It
    counts towards the memory limit of the pod, which must leave 256 MiB beside it, and is part of
    the memory that is requested where the template says nothing. Without it nothing is kept in
    memory.
    """

    disk_mebibytes: int | None = key(None, at_least=1, at_most=16_777_216)
    """DiskMebibytes is the most space in MiB that the ranks of a pod keep files in together, in the
    folder for temporary files (TMPDIR) of the container; what does not fit into memory goes there.
    The volume at /tmp may be larger by as much, unless the template brings its own. Without it
    nothing is kept on a disk.
    """

    fill: str = key("OnRead", choices=("OnRead", "Shards"), api=Api(max_length=16))
    """Fill is when a sample comes into the cache. OnRead, the default, keeps it when it is read
    first; Shards, of kind WebDataset alone, also fetches whole shards ahead, one after the other in
    pieces of 16 MiB and four at a time, until all are there or the cache is full. A slow store then
    answers one request for hundreds of samples.
    """


@dataclass(frozen=True)
class DataConfig:
    """Data is where the samples come from. The kind is required unless a recipe names it."""

    # No default: an empty kind is refused, except where no data is read.
    kind: str = key("", choices=DATA_KINDS)
    """Kind of the data. Digits is the small set of handwritten digits that the image carries,
    Synthetic is generated, ImageFolder reads one directory per class below path, ImageList reads
    train.txt and val.txt with a file and a class number per line, WebDataset reads tar shards,
    Cifar10 and Cifar100 read CIFAR-10 and CIFAR-100 (fine labels) in their python or binary layout.
    """

    path: str | None = key(None, api=PLACE)
    """Path is the absolute directory inside the container that holds the data of kind ImageFolder
    (train/ and val/), ImageList (train.txt and val.txt), WebDataset (the shards), Cifar10 or
    Cifar100, which the template must mount; or its URL in an object store, such as
    s3://bucket/imagenet, for which the template must give the container credentials and the image
    the store's package.
    """

    train_shards: str | None = key(None, api=_SHARDS)
    """TrainShards names the shards of kind WebDataset that are trained on, below path: a file, a
    directory, a pattern with * and ?, or braces such as train-{000000..000099}.tar. The default is
    the directory train, or else all files of path with train in their name.
    """

    val_shards: str | None = key(None, api=_SHARDS)
    """ValShards names the shards of kind WebDataset that are evaluated, like trainShards. The
    default is the directory val, or else all files of path with val in their name.
    """

    label_key: str | None = key(None, api=Api(min_length=1, max_length=253))
    """LabelKey is the key, in the json member of each sample of kind WebDataset, that holds the
    number of its class. Without it the number is read from the cls member.
    """

    held_out_share: float | None = key(None, above=0, below=1)
    """HeldOutShare is the share of the training images of each class that is held out and
    evaluated, for data without validation images of its own, a quoted decimal above 0 and below 1
    such as "0.1". Those of the data, if there are any, are then not read. Which images are held out
    depends on their names alone, so it is the same in every attempt and in mode Evaluate. Without
    it the data must have validation images.
    """

    # 0 stands for the default of the network, until with_defaults() or the weights say it.
    image_size: int = key(0, at_least=8, at_most=2048)
    """ImageSize is the side of the square input in pixels. The default is that of the network's
    published weights, 224, 299 or 32 pixels, and for digits and CIFAR the smallest that it takes
    from 32 on.
    """

    num_classes: int | None = key(None, at_least=2, api=Api(maximum=1_000_000))
    """NumClasses is the number of classes. Without it the data says it; synthetic data has 1000."""

    # The maximum would fit int32, but a narrower format would be a change of the API.
    samples: int = key(1024, at_least=1, api=Api(maximum=10**9, format="int64"))
    """Samples is the number of generated samples of kind Synthetic. The default is 1024."""

    # 400 MB in a loader process.
    max_pixels: int = key(100_000_000, at_least=1, api=Api(maximum=10**10))
    """MaxPixels is how many pixels, width times height, an image file may have; a larger one counts
    as one that cannot be read. While it is decoded it takes four bytes or more for each of them.
    The default is 100000000.
    """

    max_corrupt: int | None = key(None, at_least=0, api=Api(maximum=10**9))
    """MaxCorrupt is how many images that cannot be read a rank skips before the job fails. Each is
    named in the log with the reason. The default is one in a hundred, and ten of a small set.
    """

    workers: int | None = key(None, at_least=0, at_most=64)
    """Workers is the number of loader processes of each rank. The default goes by the CPUs that the
    rank may use: one fewer, from 1 to 16, beside an accelerator; 2, or 1 of a single CPU, where the
    CPU computes; 0 for digits, synthetic data and CIFAR. Where the loader is the limit, the log
    says so and how many workers would do.
    """

    cache: CacheConfig = field(default_factory=CacheConfig)

    normalization: str = key("Auto", choices=normalization.CHOICES, api=Api(max_length=16))
    """Normalization is how pixels become inputs of the network. Auto, the default, is that of the
    weights the training starts from, else that of the data; Data is always that of the data; the
    others are named sets of mean, deviation, range and order of colours.
    """

    # 224 of 256 pixels is how torchvision evaluates what it publishes.
    evaluation_crop_ratio: float = key(0.875, above=0, at_most=1)
    """EvaluationCropRatio is the side of the square in the centre that evaluation sees of an image
    of kind ImageFolder, ImageList or WebDataset, as a share of the image's short side, a quoted
    decimal above 0 and up to 1. The default is "0.875", 224 of 256 pixels.
    """

    interpolation: str = key(
        "Bilinear", choices=("Bilinear", "Bicubic", "Nearest"), api=Api(max_length=16)
    )
    """Interpolation is how images are scaled to imageSize, in training, evaluation and mode Infer.
    Bilinear, the default, and Bicubic average the pixels of image files that shrink; Nearest takes
    the nearest pixel. Synthetic images are never scaled.
    """

    exif_orientation: str = key("Ignore", choices=("Ignore", "Apply"), api=Api(max_length=16))
    """ExifOrientation is what is done with the note of a camera on how an image file must be turned
    to stand upright. Ignore, the default, takes the pixels as they are stored, as torchvision does;
    Apply turns them, in training, evaluation and mode Infer.
    """

    @rule(
        Cel(
            f"!(self.?kind.orValue('') in {cel_list(NEEDS_PATH)}) || has(self.path)",
            message=(
                f"spec.training.data.path is required with the kinds {listed(NEEDS_PATH)}: the "
                "directory that holds the data"
            ),
            field="path",
            reason=REQUIRED,
        )
    )
    def files_need_a_path(self) -> str | None:
        """Only what is generated, and the digits that the image carries, need no place."""
        if self.kind not in NEEDS_PATH or self.path is not None:
            return None
        content = NEEDS_PATH[self.kind]
        return f"data.path: missing; data.kind {self.kind} needs the folder that {content}"

    @rule(
        Cel(
            "self.?kind.orValue('WebDataset') == 'WebDataset' || "
            "!(has(self.trainShards) || has(self.valShards) || has(self.labelKey))",
            message=(
                "spec.training.data.trainShards, valShards and labelKey belong to kind WebDataset; "
                "set kind to it or leave them out"
            ),
            field="kind",
            reason=FORBIDDEN,
        )
    )
    def shards_belong_to_webdataset(self) -> str | None:
        """No other kind has shards, or samples with a json member."""
        if self.kind in ("", "WebDataset"):
            return None
        for name in ("train_shards", "val_shards", "label_key"):
            if getattr(self, name) is not None:
                return f"data.{camel(name)}: only data.kind WebDataset has it; leave it out"
        return None

    @rule(
        Cel(
            "self.?cache.?fill.orValue('') != 'Shards' || "
            "self.?kind.orValue('WebDataset') == 'WebDataset'",
            message=(
                "spec.training.data.cache.fill Shards belongs to kind WebDataset; leave fill out"
            ),
            field="kind",
            reason=FORBIDDEN,
        )
    )
    def only_shards_are_fetched_whole(self) -> str | None:
        """Files have no neighbours that one request could bring."""
        if self.cache.fill != "Shards" or self.kind in ("", "WebDataset"):
            return None
        return "data.cache.fill: only data.kind WebDataset has shards; leave it out"

    @rule(
        Cel(
            "self.?cache.?fill.orValue('') != 'Shards' || "
            "has(self.cache.memoryMebibytes) || has(self.cache.diskMebibytes)",
            message=(
                "spec.training.data.cache.fill needs a size, memoryMebibytes or diskMebibytes; "
                "set one or leave fill out"
            ),
            field="cache",
            reason=REQUIRED,
        )
    )
    def filling_needs_room(self) -> str | None:
        """What is fetched ahead has to be put somewhere."""
        cache = self.cache
        if cache.fill != "Shards" or cache.memory_mebibytes or cache.disk_mebibytes:
            return None
        return (
            "data.cache.fill: Shards needs data.cache.memoryMebibytes or diskMebibytes; "
            "set one or leave fill out"
        )

    # The API says this by minLength.
    @rule()
    def shards_have_a_name(self) -> str | None:
        """An empty name would mean the folder itself, which is what leaving it out means."""
        for name in ("train_shards", "val_shards", "label_key"):
            if getattr(self, name) == "":
                return f"data.{camel(name)}: empty; leave it out"
        return None

    @rule(
        Cel(
            "!has(self.heldOutShare) || "
            f"self.?kind.orValue('ImageFolder') in {cel_list(DIVISIBLE)}",
            message=(
                "spec.training.data.heldOutShare needs kind "
                f"{listed(DIVISIBLE, 'or')}; leave it out"
            ),
            field="heldOutShare",
            reason=FORBIDDEN,
        )
    )
    def only_files_are_held_out(self) -> str | None:
        """Digits and synthetic data have a validation part anyway."""
        if self.held_out_share is None or self.kind in ("", *DIVISIBLE):
            return None
        return (
            f"data.heldOutShare: data.kind {self.kind} has validation images of its own; "
            "leave it out"
        )

    @rule(
        Cel(
            "!has(self.heldOutShare) || !has(self.valShards)",
            message=(
                "spec.training.data.heldOutShare and valShards both say what is evaluated; leave "
                "one out"
            ),
            field="valShards",
            reason=FORBIDDEN,
        )
    )
    def one_key_says_what_is_evaluated(self) -> str | None:
        """Either there are shards to validate on or there are none."""
        if self.held_out_share is None or self.val_shards is None:
            return None
        return "data.valShards: does not go with data.heldOutShare; leave one out"

    @rule(
        Cel(
            "self.?kind.orValue('') != 'Synthetic' || "
            "self.?interpolation.orValue('Bilinear') == 'Bilinear'",
            message=(
                "spec.training.data.interpolation does not go with kind Synthetic, whose images "
                "are made at their size; leave it out"
            ),
            field="interpolation",
            reason=FORBIDDEN,
        )
    )
    def synthetic_images_are_not_scaled(self) -> str | None:
        """Bilinear is allowed because it is the default: nobody can see whether it was written."""
        if self.kind != MADE_AT_SIZE or self.interpolation == "Bilinear":
            return None
        return (
            f"data.interpolation: images of data.kind {self.kind} are made at their size; "
            "leave it out"
        )

    def with_defaults(self, image_size: int) -> DataConfig:
        """``image_size`` (pixels) where none is given, and no loader processes where they have
        nothing to do; how many there are else depends on the machine.
        """
        workers = self.workers
        if workers is None and self.kind in IN_MEMORY:
            workers = 0
        return replace(self, image_size=self.image_size or image_size, workers=workers)


@dataclass(frozen=True)
class BatchConfig:
    """Batch is how many samples each optimizer step and each device takes."""

    # The underscore goes in the name of the key: `global` is a word of Python.
    global_: int = key(64, at_least=1, api=Api(maximum=1_000_000))
    """Global is the number of samples of one optimizer step over all ranks. The default is 64."""

    per_device: int | None = key(None, at_least=1, api=Api(maximum=65_536))
    """PerDevice is the number of samples a rank computes at once. Gradients are accumulated over
    global / (perDevice x ranks) such micro-batches, which must be a whole number. Without it each
    rank computes its share at once.
    """
