"""The three sources of values: YAML, environment, flags. Each gives dotted keys, values and where they came from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import yaml
from pydantic.fields import FieldInfo

from quatrain.errors import InvalidInput

PREFIX = "QUATRAIN_"


@dataclass(frozen=True)
class ConfigValue:
    """A value and its source: a file, the environment or a flag."""

    value: object
    source: str


@dataclass(frozen=True)
class Flags:
    """The content of the command line."""

    values: dict[str, ConfigValue] = field(default_factory=dict)
    config_path: str | None = None
    print_config: bool = False
    help: bool = False


def is_secret(info: FieldInfo) -> bool:
    """Return whether the field's value must never be shown."""
    extra = info.json_schema_extra
    return isinstance(extra, dict) and extra.get("secret") is True


def from_text(text: str, info: FieldInfo | None) -> str | None:
    """Return the value that a text stands for: `null`, `none` and nothing mean None where the field allows that."""
    optional = info is not None and type(None) in get_args(info.annotation)
    return None if optional and text.strip().lower() in ("", "null", "none") else text


def read_yaml(path: Path) -> dict[str, ConfigValue]:
    """Return the values of a YAML file. Raises InvalidInput that names file, line and what is wrong."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"configuration file {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # The message says only where, because the text there may be a secret.
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise InvalidInput(f"configuration file {path} is not YAML{where}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidInput(f"configuration file {path} must hold sections (server:, storage:, ...), not a bare value")
    return {key: ConfigValue(value, f"file {path}") for key, value in _flatten(document)}


def _flatten(document: Mapping[object, object]) -> Iterator[tuple[str, object]]:
    for section, body in document.items():
        if isinstance(body, dict):
            yield from ((f"{section}.{key}", value) for key, value in body.items())
        elif body is not None:
            yield str(section), body


def read_environment(environ: Mapping[str, str], fields: Mapping[str, FieldInfo]) -> dict[str, ConfigValue]:
    """Return the values of `QUATRAIN_SECTION__KEY`; secrets may also be `..._FILE`, a path to the value."""
    values: dict[str, ConfigValue] = {}
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or "__" not in name[len(PREFIX) :]:
            continue
        key = name[len(PREFIX) :].lower().replace("__", ".", 1)
        secret_key = key.removesuffix("_file")
        if key not in fields and secret_key in fields and is_secret(fields[secret_key]):
            values[secret_key] = ConfigValue(_read_secret(name, text), f"file named by {name}")
        else:
            values.setdefault(key, ConfigValue(from_text(text, fields.get(key)), f"environment {name}"))
    return values


def _read_secret(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise InvalidInput(f"{name} names {path}, which cannot be read: {error.strerror}") from error


def read_flags(argv: Sequence[str], fields: Mapping[str, FieldInfo]) -> Flags:
    """Return the values of `--section.key=value` or `--section.key value`. Raises InvalidInput for anything else."""
    values: dict[str, ConfigValue] = {}
    config_path: str | None = None
    print_config = wants_help = False
    rest = iter(argv)
    for argument in rest:
        if argument == "--print-config":
            print_config = True
        elif argument in ("-h", "--help"):
            wants_help = True
        elif not argument.startswith("--"):
            raise InvalidInput(f"unexpected argument {argument!r}; values are given as --section.key=value")
        else:
            name, equals, text = argument[2:].partition("=")
            value = text if equals else next(rest, None)
            if value is None:
                raise InvalidInput(f"--{name} lacks a value")
            if name == "config":
                config_path = value
            else:
                key = name.replace("-", "_")
                values[key] = ConfigValue(from_text(value, fields.get(key)), f"flag --{name}")
    return Flags(values, config_path, print_config, wants_help)
