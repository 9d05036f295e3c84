"""Hostile values, bytes and messages, all drawn from one seeded generator, so that a seed names a case forever."""

import random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

TEXTS = (
    *("", " ", "\0", "a\0b", "\x7f", "../../etc/passwd", "/etc/passwd", "..", ".", "a/../../b", "..\\..\\b", "C:\\x"),
    *("\u202etxt.exe", "\ufeff", "\U0010ffff", "e\u0301" * 50, "x" * 3000, "/" * 300, "a/" * 400, "%00%2e%2e%2f"),
    *("9" * 6000, "-1", "1e999", "NaN", "0x10", "null", "{}", '{"a":' * 2000, "[" * 5000, "{{ 7*7 }}", "{0.__class__}"),
    *(
        "sha256:" + "0" * 64,
        "sha256:" + "Z" * 64,
        "sha256:../../jobs",
        "store:../x",
        "store:jobs",
        "models://",
        "s3://",
    ),
    *("models://x@" + "9" * 5000, "models://../x@-1", "s3://open/../key", "s3://quatrain/x", "file:///etc/passwd"),
    *("data:" + "0" * 64, "data:../../jobs/job-1/spec.json", "hf://x", "http://169.254.169.254/", "sha256:", "data:"),
    *(
        "os:system",
        "a.py:b",
        "../../x.py:f",
        ":",
        "localhost:99999999999",
        "$(reboot)",
        "'; DROP TABLE jobs; --",
        "\r\nX: y",
    ),
)
INTEGERS = (0, 1, -1, 2, 7, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 2**62, 10**12)
FLOATS = (0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 5e-324)
UNKNOWN_FIELDS = b"\xaa\xd5\x0d\x05hello" + b"\xf8\xff\xff\xff\x0f\x01"
"""Two fields of numbers that no message has."""


def hostile_bytes(random_: random.Random, sound: bytes) -> bytes:
    """The sound bytes cut, with flipped bits, doubled, with pieces exchanged, or others altogether."""
    kind = random_.randrange(7)
    data = bytearray(sound)
    if kind == 0:
        return bytes(data[: random_.randrange(len(data) + 1)])
    if kind in (1, 2) and data:
        for _ in range(random_.choice((1, 1, 3, 20))):
            data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
        return bytes(data)
    if kind == 3:
        return random_.randbytes(random_.randrange(200))
    if kind == 4 and data:
        start = random_.randrange(len(data))
        data[start : start + random_.randrange(16)] = random_.choice(TEXTS).encode(errors="surrogatepass")
        return bytes(data)
    if kind == 5 and data:
        start, end = sorted(random_.randrange(len(data)) for _ in range(2))
        return bytes(data[:end] + data[start:])
    return bytes(data) + random_.randbytes(8)


def hostile_json(random_: random.Random, value: Any, places: int = 1) -> Any:
    """A copy of a JSON value with hostile values at some places."""
    copy = value
    for _ in range(places):
        copy = _replace(random_, copy)
    return copy


def _replace(random_: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random_.random() < 0.85:
        name = random_.choice(sorted(value))
        if random_.random() < 0.1:
            return {key: item for key, item in value.items() if key != name}
        return {**value, name: _replace(random_, value[name])}
    if isinstance(value, list) and value and random_.random() < 0.85:
        place = random_.randrange(len(value))
        return [*value[:place], _replace(random_, value[place]), *value[place + 1 :]]
    return any_value(random_)


def any_value(random_: random.Random) -> Any:
    """Any JSON value, and numbers that JSON does not have."""
    odd: list[Any] = [None, True, [], {}, [[]], {"": None}, ["\ud800"], {"\ud800": "\udfff"}, [None] * 300, 10**400]
    odd += [_nested(40), _nested(2000)]
    return random_.choice([random_.choice(TEXTS), random_.choice(INTEGERS), random_.choice(FLOATS), *odd])


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def hostile_message(random_: random.Random, kind: Descriptor, known: dict[str, Any], depth: int = 0) -> Message:
    """A message of this kind with hostile fields; a field that `known` names mostly has its sound value."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        sound = random_.random() < 0.8
        if field.name in known and sound and not field.is_repeated:
            _set(message, field, known[field.name])
        elif random_.random() < 0.5:
            continue
        elif field.is_repeated:
            _fill_repeated(random_, message, field, known, depth)
        elif field.message_type is not None:
            if depth < 4:
                _merge(getattr(message, field.name), hostile_message(random_, field.message_type, known, depth + 1))
        else:
            _set(message, field, scalar(random_, field))
    return message


def _set(message: Message, field: FieldDescriptor, value: Any) -> None:
    if isinstance(value, Message):
        _merge(getattr(message, field.name), value)
    else:
        setattr(message, field.name, value)


def _merge(target: Message, source: Message) -> None:
    target.SetInParent()
    target.MergeFrom(source)


def _fill_repeated(
    random_: random.Random, message: Message, field: FieldDescriptor, known: dict[str, Any], depth: int
) -> None:
    count = random_.choice((0, 1, 2, 5, 300 if depth == 0 else 3))
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        if value.message_type is None:
            for _ in range(count):
                getattr(message, field.name)[scalar(random_, key)] = scalar(random_, value)
        return
    values = getattr(message, field.name)
    for _ in range(count):
        if entry is None:
            values.append(scalar(random_, field))
        elif depth < 4:
            _merge(values.add(), hostile_message(random_, entry, known, depth + 1))


def scalar(random_: random.Random, field: FieldDescriptor) -> Any:
    """A hostile value that the field's type can hold."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        text = random_.choice(TEXTS)
        return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        value = random_.choice(FLOATS)
        return value if kind == FieldDescriptor.CPPTYPE_DOUBLE else max(-3e38, min(3e38, value))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return random_.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return random_.choice((0, 1, 2, 99, -1, 2**31 - 1))
    return _fitting(random_.choice(INTEGERS), kind)


def _fitting(value: int, kind: int) -> int:
    low, high = {
        FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
        FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
        FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    }.get(kind, (-(2**63), 2**63 - 1))
    return max(low, min(high, value))
