import json
from typing import Any

import pytest

from quatrain.errors import InvalidInput
from quatrain.jobspec.reward_section import FunctionSource, ModelSource, RewardSection, ServiceSource


def test_a_whole_section_is_read_with_models_before_functions_before_the_service() -> None:
    section = {
        "functions": [{"path": "rewards.py:short", "code_digest": "c" * 64, "weight": 0.5, "name": "brevity"}],
        "models": [{"uri": "sha256:x", "digest": "d", "offset": 0.25, "name": "taste"}],
        "service": "localhost:1",
        "offset": 1,
        "scale": 2,
        "clip": 3,
        "timeout": 4,
    }

    read = RewardSection.from_text(json.dumps(section))

    assert read.sources == (
        ModelSource(uri="sha256:x", digest="d", weight=1.0, name="taste", offset=0.25),
        FunctionSource(path="rewards.py:short", weight=0.5, name="brevity", code_digest="c" * 64),
        ServiceSource(target="localhost:1", weight=1.0, name="service"),
    )
    assert (read.offset, read.scale, read.clip, read.timeout) == (1.0, 2.0, 3.0, 4.0)


def test_what_is_left_out_has_defaults() -> None:
    read = RewardSection.from_text('{"functions": [{"path": "package.module:score"}], "models": null, "service": null}')

    assert read.sources == (FunctionSource(path="package.module:score", weight=1.0, name="score", code_digest=""),)
    assert (read.offset, read.scale, read.clip, read.timeout) == (0.0, 1.0, None, 60.0)


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
        ({"service": "a:1", "timeout": -1}, "timeout"),
        ({"service": 5}, "service"),
    ],
)
def test_a_wrong_field_is_named(section: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        RewardSection.from_text(json.dumps(section))

    assert field in [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_section_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="reward_json"):
        RewardSection.from_text(text)


def test_a_section_survives_its_text() -> None:
    section = RewardSection(
        models=(ModelSource(uri="sha256:x", digest="d", offset=0.5, dtype="float32"),),
        functions=(FunctionSource(path="m:f", weight=-1.0),),
        offset=1.5,
        clip=2.0,
        timeout=5.0,
    )

    assert RewardSection.from_text(section.to_text()) == section


def test_a_stored_section_of_an_older_release_has_its_timeout() -> None:
    assert RewardSection.from_json({"service": "a:1", "timeout_s": 7.0}).timeout == 7.0
