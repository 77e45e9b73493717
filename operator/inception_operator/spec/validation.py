"""What all models of input share: strict types, names in camel case, errors people can act on.

pydantic checks the shape and the limits of what users and administrators write; the job
(`job.Job`) and the row of the accelerator table (`accelerators.profile.Profile`) are such models.
Its own messages speak of Python types, so they are told again here in the words of the field: a
path such as ``spec.claims[0].count`` and one sentence with the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

_REMEDY: Final = "remedy"
_REFUSAL: Final = "refusal"
# The name that pydantic gives to the place of a wrong key (not its value) in a mapping.
_KEY: Final = "[key]"


class Model(BaseModel):
    """A frozen piece of input; its fields are in snake case here and in camel case there.

    Strict: "3" is no number and neither is true, as in the schema of the CRD. Keys that no field
    has are ignored, because a newer CRD may know more than this operator.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )


@dataclass(frozen=True)
class Remedy:
    """Replaces whatever pydantic says about a value; ``{input}`` in the text stands for the value.

    It belongs into `typing.Annotated`, behind the limits that it explains.
    """

    text: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Wrap the schema of the annotated type, so that any of its errors becomes this one."""
        # In pydantic's core rather than in a validator here: a job is parsed in each decision, and
        # this costs nothing unless there is an error.
        return core_schema.custom_error_schema(
            handler(source), custom_error_type=_REMEDY, custom_error_message=self.text
        )


@dataclass(frozen=True)
class Within:
    """The limits of a whole number, both of them part of its message."""

    least: int
    most: int

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Refuse anything but a number from ``least`` to ``most``."""
        return core_schema.custom_error_schema(
            core_schema.int_schema(ge=self.least, le=self.most, strict=True),
            custom_error_type=_REMEDY,
            custom_error_message=f"{{input!r}} is not a number from {self.least} to {self.most}",
        )


@dataclass(frozen=True)
class OneOf:
    """The words that a value may be; ``{choices}`` in the message stands for them."""

    choices: Sequence[str]
    text: str = "{input!r} is none of {choices}"

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Refuse anything but one of the words."""
        return core_schema.custom_error_schema(
            core_schema.literal_schema(list(self.choices)),
            custom_error_type=_REMEDY,
            custom_error_message=self.text.replace("{choices}", ", ".join(self.choices)),
        )


def refusal(problem: str, at: str = "") -> PydanticCustomError:
    """What a validator raises: the sentence, and where below its own place the problem is."""
    return PydanticCustomError(_REFUSAL, "{problem}", {"problem": problem, "at": at})


AS_TUPLE: Final = Field(strict=False)
"""A list that is kept as a tuple. JSON has no tuples, so the strict rule would refuse each."""


def _choices(error: ErrorDetails) -> str:
    """Pydantic lists the values of a Literal as ``'A', 'B' or 'C'``."""
    return str(error["ctx"]["expected"]).replace(" or ", ", ").replace("'", "")


Sentence = Callable[[ErrorDetails], str]
_SENTENCES: Final[Mapping[str, Sentence]] = {
    _REMEDY: lambda error: error["msg"].format(input=error["input"]),
    "missing": lambda error: "missing",
    "extra_forbidden": lambda error: "unknown key",
    "model_type": lambda error: "must be an object",
    "dict_type": lambda error: "must be an object",
    "list_type": lambda error: "must be a list",
    "tuple_type": lambda error: "must be a list",
    "frozen_set_type": lambda error: "must be a list",
    "string_type": lambda error: "must be a string",
    "int_type": lambda error: "must be a whole number",
    "bool_type": lambda error: "must be true or false",
    "literal_error": lambda error: f"{error['input']!r} is none of {_choices(error)}",
    "greater_than_equal": lambda error: f"must be at least {error['ctx']['ge']}",
    "less_than_equal": lambda error: f"must be at most {error['ctx']['le']}",
    "too_short": lambda error: f"must have at least {error['ctx']['min_length']} entries",
    "too_long": lambda error: f"must have at most {error['ctx']['max_length']} entries",
    "string_too_short": lambda e: f"must have at least {e['ctx']['min_length']} characters",
    "string_too_long": lambda e: f"must have at most {e['ctx']['max_length']} characters",
    "string_pattern_mismatch": lambda error: (
        f"{error['input']!r} does not match {error['ctx']['pattern']}"
    ),
}


def first_problem(
    error: ValidationError, words: Mapping[str, Sentence] = _SENTENCES
) -> tuple[str, str]:
    """Path and sentence of the first error, in the order in which the fields are declared.

    One at a time, as the API server's own validation is read: later ones often follow from it.
    ``words`` may say some kinds of errors otherwise.
    """
    # All are asked for, because pydantic makes them in one go; a job has a handful of fields.
    first = error.errors(include_url=False)[0]
    sentence = words.get(first["type"]) or _SENTENCES.get(first["type"])
    below = str(first["ctx"]["at"]) if first["type"] == _REFUSAL else ""
    path = ".".join(part for part in (_path(first["loc"]), below) if part)
    return path, sentence(first) if sentence else first["msg"]


def _path(places: Iterable[int | str]) -> str:
    """``("claims", 0, "count")`` as ``claims[0].count``."""
    text = ""
    for place in places:
        if place != _KEY:
            text += f"[{place}]" if isinstance(place, int) else f".{place}"
    return text.removeprefix(".")
