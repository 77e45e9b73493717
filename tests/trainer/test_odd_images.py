"""Image files of every kind that people bring: what the network sees of them, the same on all ways.

The files and what becomes of them are tests/support/odd_image_table.py, which the page
docs/image-files.md repeats.
"""

from __future__ import annotations

import io
import os
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from inception_trainer.config.continuation import fingerprint
from inception_trainer.config.training import from_mapping
from inception_trainer.data import files as data_files
from inception_trainer.data import open_splits
from inception_trainer.data.base import UNREADABLE, UnreadableImage
from inception_trainer.data.counter_rng import SampleUniforms
from inception_trainer.data.crops import FLIP, random_resized_crop
from inception_trainer.data.decode import ImageDecoder
from inception_trainer.data.encoded import EncodedImages
from inception_trainer.data.files import FileList
from inception_trainer.data.images import files_to_classify
from inception_trainer.data.pillow import FORMATS, PLUGINS, READ
from inception_trainer.errors import DataError
from object_store import new_place, upload
from odd_image_table import cases, table
from odd_images import COLOURS, HEIGHT, WIDTH, OddImage, Quarters, colours, noise, oriented, saved
from shard_files import write_tar

PAGE = Path(__file__).parents[2] / "docs" / "image-files.md"
SIDE = 32
CASES = cases()


def config(path: Path | str = "/nowhere", kind: str = "ImageFolder", **keys: Any) -> Any:
    data = {"imageSize": SIDE, "workers": 0, "evaluationCropRatio": 1, **keys}
    return from_mapping({"data": {"kind": kind, "path": str(path), **data}})


def decoder(**keys: Any) -> ImageDecoder:
    return ImageDecoder(config(**keys).data)


def seen_quarters(image: torch.Tensor) -> Quarters:
    """The colours in the middle of each quarter."""
    near, far = SIDE // 4, SIDE * 3 // 4
    places = ((near, near), (near, far), (far, near), (far, far))
    return tuple(tuple(image[:, y, x].tolist()) for y, x in places)  # type: ignore[misc]


def check(case: OddImage, image: torch.Tensor) -> None:
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, SIDE, SIDE))
    assert case.quarters is not None
    difference = np.abs(np.array(seen_quarters(image)) - np.array(case.quarters)).max()
    assert difference <= case.tolerance, seen_quarters(image)


def test_there_are_many_kinds_of_files_and_each_has_a_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_what_becomes_of_a_file(case: OddImage) -> None:
    decode = decoder()
    for draw in (None, SampleUniforms(0, 0, 0)):
        if case.quarters is None:
            with pytest.raises(UnreadableImage) as caught:
                decode(case.data, draw)
            assert case.reason in str(caught.value)
            assert len(str(caught.value)) < 400
        elif draw is None:
            check(case, decode(case.data, None))
        else:
            assert decode(case.data, draw).shape == (3, SIDE, SIDE)


def test_the_page_tells_what_the_table_of_the_tests_holds() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert table() in page, f"the page lacks this table:\n{table()}"
    for name in FORMATS.values():
        assert name in page


def test_every_format_of_the_page_is_read_here() -> None:
    assert tuple(FORMATS) == READ
    assert len(PLUGINS) == len(FORMATS) + 1, "JPEG has one more for several pictures"


@pytest.mark.parametrize("number", range(1, 9))
def test_the_orientation_of_exif_is_applied_on_demand_alone(number: int) -> None:
    """Every way in which a camera can be held, against Pillow's own way to turn."""
    upright = colours()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[number]) if number in undo else upright
    for kind, options in (
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
    ):
        data = saved(stored, kind, exif=oriented(number), **options)
        applied = decoder(exifOrientation="Apply")(data, None)
        ignored = decoder()(data, None)
        tolerance = 8 if kind == "JPEG" else 0
        check(OddImage("", data, "", COLOURS, tolerance=tolerance), applied)
        assert torch.equal(ignored, applied) == (number == 1)


def test_a_wide_picture_that_is_stored_upright_is_cropped_where_it_is_seen() -> None:
    """The crop belongs to the picture as it is seen, not as it is stored."""
    stored = noise().transpose(Image.Transpose.ROTATE_90)
    data = saved(stored, "PNG", exif=oriented(6))
    upright = saved(noise(), "PNG")
    for index in range(20):
        draw = SampleUniforms(index, 0, 0)
        seen = decoder(exifOrientation="Apply")(data, draw)
        assert torch.equal(seen, decoder()(upright, draw))


@pytest.mark.parametrize("orientation", ["Ignore", "Apply"])
def test_damaged_exif_makes_no_damaged_image(orientation: str) -> None:
    case = next(case for case in CASES if case.name == "JPEG with damaged EXIF")
    check(case, decoder(exifOrientation=orientation)(case.data, None))


def test_the_limit_of_pixels_is_what_the_configuration_says() -> None:
    data = saved(colours(), "PNG")
    assert decoder(maxPixels=WIDTH * HEIGHT)(data, None).shape == (3, SIDE, SIDE)
    with pytest.raises(UnreadableImage, match=r"64 x 48 pixels.*3071 \(data\.maxPixels\).*raise"):
        decoder(maxPixels=WIDTH * HEIGHT - 1)(data, None)


def test_only_what_changes_pixels_belongs_to_a_checkpoint() -> None:
    plain = fingerprint(config())
    assert fingerprint(config(maxPixels=5)) == plain
    assert fingerprint(config(exifOrientation="Apply")) != plain


# Pixels of torchvision, which datasets and published weights were made with.


def photograph(width: int, height: int) -> Image.Image:
    """Smooth waves with some noise, like photographs."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 25), np.cos(y / 20), np.sin((x + y) / 40)]
    noisy = np.random.default_rng(1).normal(0, 8, (height, width, 3))
    return Image.fromarray((128 + 90 * np.stack(waves, 2) + noisy).clip(0, 255).astype(np.uint8))


INTERPOLATIONS = {"Bilinear": "BILINEAR", "Bicubic": "BICUBIC", "Nearest": "NEAREST"}


def check_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Only roundings differ, of which scaling makes two: along the lines and down the columns."""
    difference = (ours.int() - theirs.int()).abs().float()
    assert difference.max() <= 2
    assert difference.mean() < 0.5


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_training_pixels_are_those_of_torchvisions_pipeline(interpolation: str) -> None:
    """RandomResizedCrop on the picture that ImageFolder opens, and on it as a tensor."""
    decode = decoder(interpolation=interpolation)
    mode = functional.InterpolationMode[INTERPOLATIONS[interpolation]]
    # torch's own nearest rounds down, Pillow's takes centres.
    exact = functional.InterpolationMode.NEAREST_EXACT if interpolation == "Nearest" else mode
    for number, (kind, picture) in enumerate(
        [("JPEG", photograph(50, 37)), ("PNG", photograph(100, 40)), ("JPEG", photograph(30, 60))]
    ):
        data = saved(picture, kind)
        opened = Image.open(io.BytesIO(data)).convert("RGB")
        for index in range(20):
            draw = SampleUniforms(index, number, 0)
            left, top, width, height = random_resized_crop(*picture.size, draw)
            box = top, left, height, width, [SIDE, SIDE]
            picture_s = functional.pil_to_tensor(functional.resized_crop(opened, *box, mode))
            tensor_s = functional.resized_crop(functional.pil_to_tensor(opened), *box, exact)
            for theirs in (picture_s, tensor_s):
                expected = theirs.flip(-1) if draw(FLIP) < 0.5 else theirs
                check_close(decode(data, draw), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_evaluation_pixels_are_torchvisions_of_the_same_region(kind: str) -> None:
    data = saved(photograph(400, 300), kind)
    theirs = v2.Compose([v2.CenterCrop(262), v2.Resize((SIDE * 4, SIDE * 4)), v2.PILToTensor()])(
        Image.open(io.BytesIO(data)).convert("RGB")
    )
    ours = decoder(imageSize=SIDE * 4, evaluationCropRatio=0.875)(data, None)
    check_close(ours, theirs)


def test_a_large_jpeg_may_be_decoded_smaller_which_cannot_be_seen() -> None:
    """On average less than one level of 255, and never to fewer than two pixels for one."""
    picture = photograph(800, 600)
    packed, plain = saved(picture, "JPEG", quality=95), saved(picture, "PNG")
    decode = decoder()
    sizes = set()
    for draw in (None, SampleUniforms(0, 0, 0), SampleUniforms(1, 0, 0)):
        with Image.open(io.BytesIO(packed)) as opened:
            decode._region(opened, draw)
            sizes.add(opened.size)
        difference = (decode(packed, draw).float() - decode(plain, draw).float()).abs()
        assert difference.mean() < 1
        assert difference.max() < 16
    assert sizes <= {(800, 600), (400, 300), (200, 150), (100, 75)}
    assert min(sizes) < picture.size
    assert min(map(min, sizes)) >= 2 * SIDE


def test_pixels_do_not_depend_on_what_else_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [decoder()(case.data, None) for case in CASES if case.quarters]
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.setitem(sys.modules, name, None)
    alone = [decoder()(case.data, None) for case in CASES if case.quarters]
    assert all(map(torch.equal, expected, alone))


# All ways that images come in.


READABLE = [case for case in CASES if case.quarters][::3]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The readable files as the images of one class, in folders, lists and shards."""
    root = tmp_path_factory.mktemp("ways")
    for split in ("train", "val"):
        names = []
        for number, case in enumerate(READABLE):
            path = root / "folder" / split / "a" / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(case.data)
            names.append(f"folder/{split}/a/{path.name} 0")
        (root / f"{split}.txt").write_text("\n".join(names))
        entries = [
            entry
            for number, case in enumerate(READABLE)
            for entry in ((f"{number:03d}.png", case.data), (f"{number:03d}.cls", b"0"))
        ]
        write_tar(root / "shards" / f"{split}-0.tar", entries)
    return root


def split_images(kind: str, path: Path | str, epoch: int | None, workers: int = 0) -> torch.Tensor:
    splits = open_splits(config(path, kind, workers=workers))
    split = splits.val if epoch is None else splits.train
    with split.stream([np.arange(len(split))], epoch) as stream:
        images = next(stream).images
    splits.close()
    return images


@pytest.mark.timeout(120)
@pytest.mark.parametrize("epoch", [None, 2])
def test_files_lists_shards_and_stores_give_the_same_pixels(
    folders: Path, epoch: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = split_images("ImageFolder", folders / "folder", epoch)
    url = new_place("memory", tmp_path, monkeypatch)
    upload(folders / "folder", url)
    ways = [
        split_images("ImageFolder", folders / "folder", epoch, workers=2),
        split_images("ImageList", folders, epoch),
        split_images("WebDataset", folders / "shards", epoch),
        split_images("ImageFolder", url, epoch),
    ]
    assert all(torch.equal(expected, images) for images in ways)


def test_mode_infer_sees_what_evaluation_sees(folders: Path) -> None:
    expected = split_images("ImageFolder", folders / "folder", None)
    root = folders / "folder" / "val"
    images = files_to_classify(sorted(root.rglob("*.png")), root, config().data)
    assert torch.equal(images.dataset.batch(np.arange(len(expected)), None).images, expected)


# Files that cannot be read are named, with the reason.


@pytest.fixture
def one_bad(tmp_path: Path) -> Path:
    """Where the tests put a second image beside a good one."""
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "good.png").write_bytes(saved(colours(), "PNG"))
    return tmp_path / "train" / "a" / "other.png"


def make_socket(path: Path) -> None:
    # The path of a socket is short: it is made where the process is.
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
    Path("s").rename(path)


def make_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


HUGE = next(case.data for case in CASES if case.name.startswith("PNG that claims"))
ODD_PLACES = {
    "a folder": (Path.mkdir, "EISDIR (Is a directory)"),
    "a named pipe": (os.mkfifo, "it is no file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "it is no file"),
    "a socket": (make_socket, "ENXIO"),
    "a link to itself": (lambda path: path.symlink_to(path), "ELOOP"),
    "a file of a tebibyte": (make_sparse, "1099511627776 bytes"),
    "a huge picture": (lambda path: path.write_bytes(HUGE), "data.maxPixels"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("make", "reason"), ODD_PLACES.values(), ids=ODD_PLACES)
def test_what_is_no_image_is_skipped_by_name_and_reason(
    one_bad: Path,
    make: Any,
    reason: str,
    workers: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    make(one_bad)
    files = FileList()
    files.add(str(one_bad.with_name("good.png")), 3)
    files.add(str(one_bad), 4)
    images = EncodedImages(files.build(), config(workers=workers).data, 0)
    with images.stream([np.arange(2)], 0) as stream:
        batch = next(stream)
    images.close()
    assert batch.labels.tolist() == [3, UNREADABLE]
    warning = f"{one_bad} cannot be read and is skipped: "
    told = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith(warning)
    assert reason in told[0]


def test_a_member_of_a_shard_may_be_too_large_as_well(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = max(len(case.data) for case in READABLE)
    monkeypatch.setattr(data_files, "LARGEST_FILE", size - 1)
    val = open_splits(config(folders / "shards", "WebDataset")).val
    labels = val.batch(np.arange(len(READABLE)), None).labels.tolist()
    large = [len(case.data) == size for case in READABLE]
    assert labels == [UNREADABLE if too_large else 0 for too_large in large]


def test_too_many_are_told_with_their_reasons(one_bad: Path) -> None:
    one_bad.write_bytes(HUGE)
    train = open_splits(config(one_bad.parents[2], maxCorrupt=0)).train
    with pytest.raises(DataError, match=r"other\.png: .*60000.*data\.maxPixels"):
        train.batch(np.arange(2), 0)


def test_the_log_says_what_decodes(one_bad: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "inception_trainer")
    open_splits(config(one_bad.parents[2]))
    assert "image files are decoded by Pillow" in caplog.text
