"""Files with the names of classes, as people have them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inception_trainer.data.class_names import class_names
from inception_trainer.errors import DataError

NAMES = ("ash", "birch, white", "cedar")


@pytest.mark.parametrize(
    "content",
    [
        list(NAMES),
        {str(number): name for number, name in enumerate(NAMES)},
        # Not in order, as a dictionary need not be.
        {"2": "cedar", "0": "ash", "1": "birch, white"},
        {name: number for number, name in enumerate(NAMES)},
        # imagenet_class_index.json of Keras and torchvision.
        {str(number): [f"n0000000{number}", name] for number, name in enumerate(NAMES)},
        # config.json of Hugging Face, whose label2id says the same once more.
        {
            "architectures": ["ResNet"],
            "id2label": {str(number): name for number, name in enumerate(NAMES)},
            "label2id": {name: number for number, name in enumerate(NAMES)},
        },
    ],
    ids=["list", "numbers", "shuffled", "names", "two names", "hugging face"],
)
def test_names_in_json(tmp_path, content: Any) -> None:
    path = tmp_path / "names.json"
    path.write_text(json.dumps(content))
    assert class_names(str(path), (), len(NAMES)) == NAMES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "is no JSON"),
        ("{" * 5000, "is no JSON"),
        ('{"a":' * 5000, "nested too deep"),
        ("{}", "each of the numbers from 0 on one name"),
        ('{"model": "resnet"}', "each of the numbers from 0 on one name"),
        ('{"id2label": "none"}', "each of the numbers from 0 on one name"),
        ('{"1": "a", "2": "b", "3": "c"}', "each of the numbers from 0 on one name"),
        ('{"a": 0, "b": 0, "c": 1}', "names 2 classes, the network knows 3"),
        ('{"%s": "a"}' % ("9" * 5000), "each of the numbers from 0 on one name"),
    ],
)
def test_json_without_names(tmp_path, text: str, words: str) -> None:
    path = tmp_path / "names.json"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        class_names(str(path), (), len(NAMES))
