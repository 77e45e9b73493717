"""One user number in images, chart and pods, and bases that are pinned."""

from __future__ import annotations

import re

import yaml

import assemble
from demo.images import ROOT
from demo.run import reader_pod
from inception_operator.pod.build import USER


def test_images_chart_and_pods_have_one_user_number() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == [f"{USER}:{USER}"] * 2
    values = yaml.safe_load((ROOT / "charts/inception-operator/values.yaml").read_text())
    context = values["podSecurityContext"]
    assert {context[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {USER}
    assert reader_pod("-")["spec"]["securityContext"]["runAsUser"] == USER
    assert assemble.USER == USER


def test_the_bases_of_both_images_are_pinned_by_digest() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    bases = re.findall(r"^ARG \w*BASE_IMAGE=(\S+)$", dockerfile, re.MULTILINE)
    assert len(bases) == 2
    for base in bases:
        assert re.fullmatch(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", base), base
