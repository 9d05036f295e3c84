"""Stored specs open whatever has become stricter since, and whatever a newer version has added."""

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quatrain.errors import Corrupt
from quatrain.jobspec import parse_spec, resolved_document
from quatrain.jobspec.stored_spec import open_spec

DOCUMENT = resolved_document(
    parse_spec(
        {
            "name": "kept",
            "model": {"uri": "sha256:aa"},
            "sft": {"data": "sha256:bb"},
            "reward": {"functions": [{"path": "m:f"}, {"path": "m:g", "weight": 0.5}]},
            "ppo": {"prompts": {"uri": "sha256:cc", "columns": {"prompt": "question"}}, "steps": 3},
        }
    )
)


def changed(path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    *sections, name = path.split(".")
    target: Any = document
    for section in sections:
        target = target[section]
    target[name] = value
    return document


def test_a_stored_spec_is_the_spec_that_was_stored() -> None:
    assert open_spec(DOCUMENT) == parse_spec(DOCUMENT)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ppo.prompts_per_step", 0),
        ("ppo.generation.temperature", -1.0),
        ("ppo.advantage.estimator", "of_old"),
        ("name", "With Capitals"),
        ("ppo.kl.horizon", float("inf")),
    ],
)
def test_what_is_out_of_todays_bounds_stays_readable(path: str, value: Any) -> None:
    spec: Any = open_spec(changed(path, value))
    for name in path.split("."):
        spec = getattr(spec, name)

    assert spec == value


def test_unknown_keys_are_passed_over_and_absent_ones_have_defaults() -> None:
    document = changed("ppo.of_the_future", {"deep": [1]})
    del document["limits"]
    del document["ppo"]["optimizer"]["betas"]

    spec = open_spec(document)

    assert (spec.limits.retries, spec.ppo.optimizer.betas) == (5, (0.9, 0.999))
    assert [function.weight for function in spec.reward.functions] == [1.0, 0.5]
    assert (spec.ppo.prompts.columns, spec.sft is not None) == ({"prompt": "question"}, True)


@pytest.mark.parametrize(
    ("path", "value"),
    [("ppo.steps", "many"), ("ppo", "all"), ("ppo.kl", []), ("model", None), ("reward.functions", [1]), ("seed", {})],
)
def test_what_is_no_spec_is_corrupt(path: str, value: Any) -> None:
    with pytest.raises(Corrupt, match=r"the stored spec"):
        open_spec(changed(path, value))


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
KEYS = st.sampled_from([*DOCUMENT, *DOCUMENT["ppo"]])


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_whatever_stands_there_is_a_spec_or_corrupt(value: Any) -> None:
    for path in ("ppo", "reward.functions", "ppo.steps", "metadata"):
        with contextlib.suppress(Corrupt):
            open_spec(changed(path, value))
