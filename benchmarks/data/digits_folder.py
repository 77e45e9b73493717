"""Writes an image folder made from scikit-learn's handwritten digits: PNG files below
train/<class>/ and val/<class>/, each digit turned, scaled and shifted a little.

    python digits_folder.py /checkpoint/digits --images 4000 --side 32

It needs NumPy, Pillow and scikit-learn. The same numbers give the same files; a folder that is
there already is left alone. A fifth of the digits appears in val/ only.
"""

import argparse
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

BRIGHTEST = 16
"""Value of a white pixel in scikit-learn's digits."""


def altered(digit: np.ndarray, side: int, generator: np.random.Generator) -> Image.Image:
    """One 8x8 digit as a grey image of another size, at random a little different."""
    image = Image.fromarray((digit * (255 / BRIGHTEST)).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    angle = np.radians(generator.uniform(-10, 10))
    scale = generator.uniform(0.9, 1.1)
    shift = generator.uniform(-side / 16, side / 16, 2)
    # Pillow asks where each pixel comes from: about the centre, then shifted.
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
    centre = np.array([side / 2, side / 2])
    origin = centre - turn @ (centre + shift)
    rows = np.column_stack([turn, origin])
    return image.transform(
        (side, side), Image.Transform.AFFINE, tuple(rows.flatten()), Image.Resampling.BILINEAR
    )


def write(folder: Path, images: int, side: int, seed: int) -> None:
    """Write ``images`` files below a folder, four fifths of them for training."""
    digits = load_digits()
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(digits.target))
    held_out = len(order) // 5
    splits = {"val": order[:held_out], "train": order[held_out:]}
    counts = {"val": images // 5, "train": images - images // 5}
    for split, numbers in splits.items():
        for count in range(counts[split]):
            number = numbers[count % len(numbers)]
            path = folder / split / str(digits.target[number]) / f"{count:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            altered(digits.images[number], side, generator).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--side", type=int, default=32, help="pixels")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.folder.exists():
        print(f"{options.folder} is there already")
        return
    # Renamed at the end, so that nobody trains on a folder that is not complete.
    draft = options.folder.with_name(f".{options.folder.name}.{os.getpid()}")
    try:
        write(draft, options.images, options.side, options.seed)
        draft.rename(options.folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    print(f"{options.images} images of {options.side} px in {options.folder}")


if __name__ == "__main__":
    main()
