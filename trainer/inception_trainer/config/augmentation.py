"""The section ``augmentation``: random changes of training images beside those of their kind."""

from __future__ import annotations

from dataclasses import dataclass, field

from .declare import Api, key


@dataclass(frozen=True)
class ColorJitterConfig:
    """ColorJitter changes the colours of every training image. Each of its values x stands for a
    factor that is drawn evenly from 1 - x to 1 + x for each image and epoch.
    """

    brightness: float = key(0.0, at_least=0, at_most=1)
    """Brightness is how far the factor of all pixels may be from 1, a quoted decimal up to 1. The
    default is "0".
    """

    contrast: float = key(0.0, at_least=0, at_most=1)
    """Contrast is how far the factor of the distance to the mean grey of the image may be from 1, a
    quoted decimal up to 1. The default is "0".
    """

    saturation: float = key(0.0, at_least=0, at_most=1)
    """Saturation is how far the factor of the distance of each pixel to its grey may be from 1, a
    quoted decimal up to 1. The default is "0".
    """


@dataclass(frozen=True)
class RandAugmentConfig:
    """RandAugment applies two random changes to every training image, each in half of the cases,
    out of fifteen such as rotation, shear, equalization and solarization.
    """

    magnitude: int | None = key(None, at_least=1, at_most=10)
    """Magnitude is how strong the changes are, from 1 to 10. Without it there are none."""

    deviation: float = key(0.5, at_least=0, at_most=10)
    """Deviation is the standard deviation of the magnitude, which is drawn for each change and cut
    to 0 to 10, a quoted decimal below 10. The default is "0.5".
    """


@dataclass(frozen=True)
class AugmentationConfig:
    """Augmentation is what is done to training images, besides what their kind always has done."""

    mixup: float | None = key(None, above=0, at_most=1)
    """Mixup blends every image, and its loss, with another one of its micro-batch. The value is the
    parameter of the Beta distribution that the share is drawn from at every step, a quoted decimal
    above 0 and up to 1, for example "0.2". Without it nothing is blended.
    """

    cut_mix: float | None = key(None, above=0, at_most=1)
    """CutMix replaces a random rectangle of every image by that of another one of its micro-batch,
    and mixes their losses by area. The value is the parameter of the Beta distribution that the
    area is drawn from at every step, a quoted decimal above 0 and up to 1, for example "1". Beside
    mixup each of the two takes half of the steps.
    """

    mix_off_epochs: int | None = key(None, at_least=1, api=Api(maximum=100_000))
    """MixOffEpochs is how many of the last epochs are trained without mixup and cutMix."""

    color_jitter: ColorJitterConfig = field(default_factory=ColorJitterConfig)
    rand_augment: RandAugmentConfig = field(default_factory=RandAugmentConfig)

    trivial_augment: bool | None = key(None)
    """TrivialAugment applies one random change of fourteen, of a random magnitude, to every
    training image. The default is false.
    """

    auto_augment: str | None = key(None, choices=("ImageNet", "Cifar10"), api=Api(max_length=16))
    """AutoAugment changes every training image by one of 25 pairs of changes, which are those that
    were found best for ImageNet or for Cifar10. Without it nothing is changed.
    """

    rotation: int | None = key(None, at_least=0, at_most=180)
    """Rotation is by how many degrees at most, either way, images of the kinds Cifar10 and Cifar100
    are turned at random. The default is 15; 0 turns none. Images of other kinds are not turned by
    it.
    """

    random_erasing: float | None = key(None, above=0, at_most=1)
    """RandomErasing is the share of training images in which noise replaces a random rectangle of 2
    to 33 % of the area, a quoted decimal above 0 and up to 1. Without it nothing is erased.
    """
