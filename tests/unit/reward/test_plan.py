import json
from typing import Any

import pytest

from quatrain.errors import InvalidInput
from quatrain.refs import ModelRef
from quatrain.reward.plan import FunctionSource, ModelSource, ServiceSource, read_plan


def test_a_whole_section_is_read_with_models_before_functions_before_the_service() -> None:
    section = {
        "functions": [{"path": "rewards.py:short", "code_digest": "c" * 64, "weight": 0.5, "name": "brevity"}],
        "models": [{"uri": "sha256:x", "digest": "d", "offset": 0.25, "name": "taste"}],
        "service": "localhost:1",
        "offset": 1,
        "scale": 2,
        "clip": 3,
        "timeout_s": 4,
    }

    plan = read_plan(json.dumps(section))

    assert plan.sources == (
        ModelSource(ModelRef("sha256:x", "d"), 1.0, "taste", offset=0.25),
        FunctionSource("rewards.py:short", 0.5, "brevity", "c" * 64),
        ServiceSource("localhost:1", 1.0, "service"),
    )
    assert (plan.offset, plan.scale, plan.clip, plan.time_limit) == (1.0, 2.0, 3.0, 4.0)


def test_what_is_left_out_has_defaults() -> None:
    plan = read_plan('{"functions": [{"path": "package.module:score"}], "models": null, "service": null}')

    assert plan.sources == (FunctionSource("package.module:score", 1.0, "score", None),)
    assert (plan.offset, plan.scale, plan.clip, plan.time_limit) == (0.0, 1.0, None, 60.0)


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ({}, "models"),
        ({"models": {}}, "models"),
        ({"models": [{}]}, "models[0].uri"),
        ({"models": [{"uri": "store:x", "offset": "a"}]}, "models[0].offset"),
        ({"functions": [{"path": "score"}]}, "functions[0].path"),
        ({"functions": [{"path": "file.py:score"}]}, "functions[0].code_digest"),
        ({"functions": [{"path": "m:f", "weight": True}]}, "functions[0].weight"),
        ({"service": "a:1", "clip": 0}, "clip"),
        ({"service": "a:1", "timeout_s": -1}, "timeout_s"),
        ({"service": 5}, "service"),
    ],
)
def test_a_wrong_field_is_named(section: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_plan(json.dumps(section))

    assert field in [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_section_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="reward_json"):
        read_plan(text)
