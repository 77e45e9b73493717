"""Rules over several keys of spec.training on the real API server, which evaluates their CEL."""

from __future__ import annotations

import pytest

from crd_api import Spec, rejection
from localcluster.cluster import Cluster
from rule_examples import API_EXAMPLES, RULES, Example, Training

MESSAGES = {name: rule.api.message for name, (_, rule) in RULES.items() if rule.api is not None}
# Refused in any case, by a rule of spec: so the answer holds the words of all broken rules.
TOO_FEW_NODES = {"numNodes": 2, "elasticPolicy": {"minNodes": 3}}


def broken_rules(api: Cluster, training: Training) -> list[str]:
    # Modes that write files need a place, which is another rule of spec.
    spec: Spec = {"training": training, "checkpoint": {"path": "/c"}, **TOO_FEW_NODES}
    answer = rejection(api, spec)
    assert "spec.elasticPolicy.minNodes must not exceed spec.numNodes" in answer
    return [name for name, words in MESSAGES.items() if words in answer]


@pytest.mark.parametrize("example", API_EXAMPLES, ids=str)
def test_what_breaks_a_rule_is_refused_in_its_words_and_the_nearest_is_not(
    training_api: Cluster, example: Example
) -> None:
    assert broken_rules(training_api, example.broken) == [example.rule]
    assert broken_rules(training_api, example.mended) == []
