"""The limits of the status are those of the CRD, and what is beyond them is cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from inception_operator.contract.limits import LIMITS, clip

CRD = Path(__file__).resolve().parents[2] / "manifests" / "crd.yaml"
RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


def limits(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, int | tuple[int, int]]]:
    if schema["type"] == "string" and "maxLength" in schema:
        yield path, schema["maxLength"]
    if schema["type"] == "integer":
        least, most = RANGES[schema["format"]]
        yield path, (schema.get("minimum", least), schema.get("maximum", most))
    if schema["type"] == "array":
        yield path, schema["maxItems"]
        yield from limits(path, schema["items"])
    for key, below in schema.get("properties", {}).items():
        yield from limits(f"{path}.{key}" if path else key, below)


def test_the_table_is_that_of_the_crd() -> None:
    (version,) = yaml.safe_load(CRD.read_text(encoding="utf-8"))["spec"]["versions"]
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert dict(limits("", status)) == LIMITS


def test_what_is_beyond_a_limit_is_cut() -> None:
    status = {
        "attempt": 2**40,
        "conditions": [{"type": "A", "message": "x" * 40_000, "status": "True"}] * 20,
        "rootCause": {
            "reason": "r" * 2000,
            "exitCode": -(2**40),
            "message": "a\ud800b",
            "rank": -1,
        },
        "trainerStatus": {"progressPercentage": 200, "step": 2**70},
        "startTime": "2026-01-01T00:00:00Z",
    }
    cut = clip(status)
    assert cut["attempt"] == 2**31 - 1
    assert len(cut["conditions"]) == 16
    assert cut["conditions"][0]["message"] == "x" * 32768
    assert cut["rootCause"] == {
        "reason": "r" * 128,
        "exitCode": -(2**31),
        "message": "a?b",
        "rank": 0,
    }
    assert cut["trainerStatus"] == {"progressPercentage": 100, "step": 2**63 - 1}
    assert cut["startTime"] == status["startTime"]
    assert clip(cut) == cut
