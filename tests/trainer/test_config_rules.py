"""Rules over several keys: the trainer's check and the API server's expression say the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cel
from inception_trainer.config import catalog
from inception_trainer.config.data import DATA_KINDS
from inception_trainer.config.declare import Rule
from inception_trainer.config.schema import parse
from inception_trainer.config.training import MODES, from_mapping, merge
from inception_trainer.errors import ConfigError
from rule_examples import API_EXAMPLES, EXAMPLES, RULES, SECTIONS, Example, Training, part_of

# Modes that write files need a place, which the operator gives in the cluster.
PLACE = {"output": {"path": "/o"}}


def complaint(name: str, training: Training) -> str | None:
    """What the trainer's half of a rule says about a training."""
    section, rule = RULES[name]
    part = part_of(section, training)
    assert rule.check is not None
    return rule.check(parse(SECTIONS[section], {} if part is None else part, section))


def passes(name: str, training: Training) -> bool:
    """Whether the API server's half of a rule takes a training."""
    section, rule = RULES[name]
    part = part_of(section, training)
    assert rule.api is not None
    # The API server looks only at sections that are there.
    return part is None or cel.holds(rule.api.rule, part)


def test_every_rule_has_an_example() -> None:
    assert {example.rule for example in EXAMPLES} == set(RULES)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_the_trainer_refuses_what_breaks_a_rule_and_takes_the_nearest(example: Example) -> None:
    broken, mended = merge(PLACE, example.broken), merge(PLACE, example.mended)
    from_mapping(mended)
    if RULES[example.rule][1].check is None:
        from_mapping(broken)
        return
    with pytest.raises(ConfigError) as refused:
        from_mapping(broken)
    assert str(refused.value) == complaint(example.rule, broken)


@pytest.mark.parametrize("example", API_EXAMPLES, ids=str)
def test_the_expression_refuses_what_breaks_its_rule_and_takes_the_nearest(
    example: Example,
) -> None:
    assert not passes(example.rule, example.broken)
    expressions = {example.rule for example in API_EXAMPLES}
    assert [name for name in expressions if not passes(name, example.mended)] == []
    assert [name for name in expressions if not passes(name, example.broken)] == [example.rule]


def keys(optional: dict[str, Any], **required: Any) -> st.SearchStrategy[Training]:
    return st.fixed_dictionaries(
        {name: st.sampled_from(values) for name, values in required.items()},
        optional={name: st.sampled_from(values) for name, values in optional.items()},
    )


# Network and kind are named where their section is, because a recipe may bring them otherwise: then
# the API server passes what the trainer refuses.
TRAININGS = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(MODES),
        "execution": st.sampled_from(["Eager", "Compiled"]),
        "model": keys(
            {
                "classifier": ["Load", "New"],
                "weights": ["/w"],
                "dropout": ["0", "0.5"],
                "batchNorm": ["PerRank", "Synchronized", "Frozen"],
                "freeze": [["conv1"]],
            },
            name=catalog.names(),
        ),
        "data": keys(
            {
                "path": ["/d"],
                "trainShards": ["a.tar"],
                "valShards": ["b.tar"],
                "labelKey": ["label"],
                "heldOutShare": ["0.1"],
                "interpolation": ["Bilinear", "Bicubic"],
            },
            kind=DATA_KINDS,
        ),
        "optimizer": keys(
            {
                "name": ["SGD", "RMSProp", "AdamW", "LARS", "LAMB"],
                "trustCoefficient": ["0.01"],
                "nesterov": [True, False],
                "squareDecay": ["0.9"],
                "epsilon": ["1.0"],
            }
        ),
        "schedule": keys(
            {
                "name": ["Cosine", "Linear", "Polynomial", "Step", "Exponential", "Constant"],
                "milestones": [[1]],
                "stepEpochs": [1],
                "finalLearningRate": ["0", "0.1"],
            }
        ),
        "loss": keys({"auxiliaryWeight": ["0", "0.0", "0.4"]}),
        "evaluation": keys({"everyEpochs": [1], "everySteps": [1]}),
        "inference": keys({"path": ["/i"], "format": ["CSV", "None"], "batchSizes": [[1]]}),
        "profiler": keys({"steps": [1], "afterSteps": [0]}),
    },
)


def both_halves(rule: Rule[Any]) -> bool:
    return rule.api is not None and rule.check is not None


@given(TRAININGS)
def test_trainer_and_expressions_agree_on_trainings_without_a_recipe(training: Training) -> None:
    for name, (_, rule) in RULES.items():
        if both_halves(rule):
            assert passes(name, training) == (complaint(name, training) is None), name


@pytest.mark.parametrize("training", [{"data": "Digits"}, {"loss": {}}])
def test_expressions_use_no_field_before_they_ask_for_it(training: Training) -> None:
    with pytest.raises(cel.CelError):
        cel.holds("self.data.kind == self.loss.weight", training)


def test_an_expression_beyond_the_subset_is_refused() -> None:
    with pytest.raises(cel.CelError):
        cel.holds("self.a > 1", {"a": 2})
