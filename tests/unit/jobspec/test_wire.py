"""The pydantic spec and the proto spec are the same spec."""

from typing import Any

import pytest
from pydantic import BaseModel
from tests.unit.jobspec.test_parsing import FUNCTIONS, MINIMAL

from quatrain.errors import InvalidSpec
from quatrain.jobspec import JobSpec, apply_overrides, load_yaml, parse_spec, spec_from_proto, spec_to_proto
from quatrain.jobspec.parsing import section_of
from quatrain.v1 import spec_pb2

# The proto needs a flag of its own for what YAML writes as `value: null`.
PROTO_ONLY = {"quatrain.v1.ClipSpec": {"value_off"}}


def compare(section: type[BaseModel], message: Any, seen: set[str]) -> None:
    seen.add(message.full_name)
    assert set(section.model_fields) | PROTO_ONLY.get(message.full_name, set()) == {f.name for f in message.fields}
    for field in message.fields:
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            inner = section_of(section.model_fields[field.name].annotation)
            assert inner is not None, f"{message.full_name}.{field.name}"
            assert inner.__name__ == field.message_type.name
            compare(inner, field.message_type, seen)


def test_field_names_agree_in_every_section() -> None:
    seen: set[str] = set()

    compare(JobSpec, spec_pb2.JobSpec.DESCRIPTOR, seen)

    assert seen == {f"quatrain.v1.{name}" for name in spec_pb2.DESCRIPTOR.message_types_by_name}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["ppo.clip.value=null"],
        ["ppo.eval_gold={functions: [{path: 'a.b:f', weight: 0.5, name: g}]}", "metadata={team: x}"],
        ["reference.model=m", "limits.wall_time=60", "checkpoint.keep_best=eval/gold_mean", "model.dtype=bfloat16"],
        ["ppo.kl.controller=adaptive", "ppo.kl.target=6", "sft.data.columns={prompt: q}", "resources={gpu: '1'}"],
    ],
)
def test_a_spec_survives_the_wire(overrides: list[str]) -> None:
    spec = parse_spec(apply_overrides(load_yaml(MINIMAL), overrides))

    message = spec_pb2.JobSpec.FromString(spec_to_proto(spec).SerializeToString())

    assert parse_spec(spec_from_proto(message)) == spec


def test_arguments_of_a_function_keep_their_types_on_the_wire() -> None:
    args = {"low": 20, "share": 0.5, "word": "7", "on": True, "schema": {"type": ["object", None]}, "big": 2**60}
    function = {"path": "quatrain.rewards:length_band", "args": args, "clip": 2.0}
    spec = parse_spec({**FUNCTIONS, "reward": {"functions": [function]}})

    message = spec_to_proto(spec)

    assert parse_spec(spec_from_proto(message)) == spec
    assert parse_spec(spec_from_proto(message)).reward.functions[0].args == args
    message.reward.functions[0].args["word"] = "bare"
    with pytest.raises(
        InvalidSpec, match=r"args\.word of a reward function: 'bare' is not JSON; write a text with quotes"
    ):
        spec_from_proto(message)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"prompts": 1}, "what every function is called with"),
        ({"class": 1}, "no name of a parameter"),
        ({"x": float("nan")}, "NaN is not a finite number"),
        ({"x": "y" * 70_000}, "more than 65536"),
    ],
)
def test_arguments_that_cannot_be_passed_are_refused(args: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSpec, match=said):
        parse_spec({**FUNCTIONS, "reward": {"functions": [{"path": "a.b:f", "args": args}]}})


def test_functions_survive_the_wire() -> None:
    spec = parse_spec(FUNCTIONS)

    assert parse_spec(spec_from_proto(spec_to_proto(spec))) == spec
    assert not spec_to_proto(spec).reward.HasField("min_accuracy")


def test_absent_proto_fields_take_the_defaults() -> None:
    message = spec_pb2.JobSpec(name="f", model=spec_pb2.ModelSpec(uri="m"))
    message.reward.service = "host:1"
    message.ppo.prompts.uri = "p"
    message.ppo.steps = 1
    message.ppo.entropy_coef = 0.0

    document: dict[str, Any] = spec_from_proto(message)

    assert document["ppo"] == {"prompts": {"uri": "p"}, "steps": 1, "entropy_coef": 0.0}
    assert parse_spec(document).ppo.generation.max_new_tokens == 128
