"""Converts spec documents to and from the proto. The resolved document is stored with a job and shown to people."""

from typing import Any

from google.protobuf.message import Message

from quatrain.digests import canonical_json, parse_json
from quatrain.errors import FieldViolation, InvalidSpec
from quatrain.jobspec.sections import PAIR_FIELDS, JobSpec
from quatrain.json_values import JsonObject, JsonValue, as_object
from quatrain.v1 import spec_pb2


def resolved_document(spec: JobSpec) -> dict[str, Any]:
    """Return the spec with every default written out, as plain JSON values; parsing it again gives an equal spec."""
    document = spec.model_dump(mode="json")
    gold = document["ppo"]["eval_gold"]
    for reward in [document["reward"]] + ([gold] if gold else []):
        if reward["data"] is None:
            for name in PAIR_FIELDS:
                del reward[name]
    return document


def spec_to_proto(spec: JobSpec) -> spec_pb2.JobSpec:
    """Return the resolved spec as a message: every default set, null as absence (`clip.value: null` as `value_off`)."""
    message = spec_pb2.JobSpec()
    _fill(message, resolved_document(spec))
    return message


def spec_from_proto(message: spec_pb2.JobSpec) -> JsonObject:
    """Return the document that a message carries: only the fields that are present. `parse_spec` validates it.

    Raises InvalidSpec for an argument of a reward function that is not JSON.
    """
    return _document(message)


def _fill(message: Message, document: JsonObject) -> None:
    if isinstance(message, spec_pb2.ClipSpec) and document["value"] is None:
        message.value_off = True
    for name, value in document.items():
        if value is None:
            continue
        field = message.DESCRIPTOR.fields_by_name[name]
        target = getattr(message, name)
        if _is_args(field):
            target.update({key: canonical_json(each).decode() for key, each in as_object(value).items()})
        elif _is_map(field):
            target.update(value)
        elif isinstance(value, list):
            if field.message_type is None:
                target.extend(value)
            else:
                for item in value:
                    _fill(target.add(), as_object(item))
        elif field.message_type is not None:
            target.SetInParent()
            _fill(target, as_object(value))
        else:
            setattr(message, name, value)


def _document(message: Message) -> JsonObject:
    document: JsonObject = {}
    for field, value in message.ListFields():
        if _is_args(field):
            document[field.name] = {key: _read_argument(key, text) for key, text in value.items()}
        elif field.message_type is None or _is_map(field):
            document[field.name] = _plain(field, value)
        elif field.is_repeated:
            document[field.name] = [_document(item) for item in value]
        else:
            document[field.name] = _document(value)
    if isinstance(message, spec_pb2.ClipSpec) and document.pop("value_off", False):
        document["value"] = None
    return document


def _is_args(field: Any) -> bool:
    """Return whether the field has the arguments of a reward function, whose values are JSON texts in the message."""
    return bool(field.full_name == "quatrain.v1.RewardFunctionSpec.args")


def _read_argument(name: str, text: str) -> JsonValue:
    try:
        value: JsonValue = parse_json(text)
    except ValueError as error:
        said = f"{text[:60]!r} is not JSON; write a text with quotes: {canonical_json(text[:60]).decode()}"
        violation = FieldViolation(f"reward.functions.args.{name}", said)
        raise InvalidSpec(f"args.{name} of a reward function: {said}", [violation]) from error
    return value


def _plain(field: Any, value: Any) -> JsonValue:
    if _is_map(field):
        return dict(value)
    return list(value) if field.is_repeated else value


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
