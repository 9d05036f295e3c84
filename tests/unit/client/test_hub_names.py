"""What the client says of names that are no paths."""

import pytest

from quatrain.client.submission import read_draft
from quatrain.errors import InvalidData


def test_a_name_of_the_hub_gets_the_hint() -> None:
    spec = {
        "name": "x",
        "model": {"uri": "org/model"},
        "reward": {"functions": [{"path": "builtins:len"}]},
        "ppo": {"prompts": "org/prompts", "steps": 1},
    }
    with pytest.raises(InvalidData) as caught:
        read_draft(spec, [])
    said = {each.field: each.description for each in caught.value.violations}
    assert said["model.uri"].endswith("write hf://org/model")
    assert said["ppo.prompts"].endswith("write hf://datasets/org/prompts")
