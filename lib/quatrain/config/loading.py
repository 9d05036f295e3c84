"""Merges the sources into one `ProcessConfig` and remembers where each value came from."""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from quatrain.config.printing import render
from quatrain.config.schema import ProcessConfig, Section
from quatrain.config.sources import ConfigValue, is_secret, read_environment, read_flags, read_yaml
from quatrain.errors import FieldViolation, InvalidInput

PREFIX = "QUATRAIN_"


@dataclass(frozen=True)
class LoadedConfig:
    """A configuration and where each of its values came from (`server.port` -> `flag --server.port`)."""

    process: str
    config: ProcessConfig
    sources: Mapping[str, str]

    def render(self) -> str:
        """Return YAML of all values with their sources as comments; secrets are masked."""
        return render(self.config, self.sources)


def known_fields() -> dict[str, FieldInfo]:
    """Return the dotted key of every field, in the order of the model."""
    fields: dict[str, FieldInfo] = {}
    for section, info in ProcessConfig.model_fields.items():
        kind = info.annotation
        assert isinstance(kind, type)
        assert issubclass(kind, Section)
        fields |= {f"{section}.{key}": field for key, field in kind.model_fields.items()}
    return fields


def load_config(process: str, argv: Sequence[str], environ: Mapping[str, str] | None = None) -> LoadedConfig:
    """Return the configuration of one process.

    `argv` excludes the program's name. `--print-config` prints every value with its source and exits with 0, `--help`
    lists all keys. Raises InvalidInput that names every wrong key or value at once.
    """
    env = os.environ if environ is None else environ
    fields = known_fields()
    flags = read_flags(argv, fields)
    if flags.help:
        print(_help(process, fields))
        raise SystemExit(0)
    given: dict[str, ConfigValue] = {}
    path = flags.config_path or env.get(f"{PREFIX}CONFIG")
    if path:
        given |= read_yaml(Path(path))
    given |= read_environment(env, fields)
    given |= flags.values
    config = _validate(process, given, fields)
    sources = {key: given[key].source if key in given else "default" for key in fields}
    loaded = LoadedConfig(process, config, sources)
    if flags.print_config:
        print(loaded.render())
        raise SystemExit(0)
    return loaded


def _validate(process: str, given: Mapping[str, ConfigValue], fields: Mapping[str, FieldInfo]) -> ProcessConfig:
    violations = [
        FieldViolation(key, _unknown(key, fields, item.source)) for key, item in given.items() if key not in fields
    ]
    document: dict[str, dict[str, object]] = {}
    for key, item in given.items():
        if key in fields:
            section, _, name = key.partition(".")
            document.setdefault(section, {})[name] = item.value
    try:
        config = ProcessConfig.model_validate(document)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_context=False):
            key = ".".join(str(part) for part in problem["loc"][:2])
            # Where a rule is about a whole section, the input is the section, secrets included.
            shown = "" if key not in fields or is_secret(fields[key]) else f", not {problem['input']!r}"
            source = given[key].source if key in given else "default"
            violations.append(FieldViolation(key, f"{problem['msg']}{shown} (from {source})"))
        config = None
    if config is None or violations:
        lines = "\n".join(f"  {violation.field}: {violation.description}" for violation in violations)
        raise InvalidInput(
            f"the configuration of {process} is wrong:\n{lines}", violations, reason="INVALID_CONFIGURATION"
        )
    return config


def _unknown(key: str, fields: Mapping[str, FieldInfo], source: str) -> str:
    close = difflib.get_close_matches(key, fields, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]}?" if close else "; --help lists all keys"
    return f"no such key (from {source}){hint}"


def _help(process: str, fields: Mapping[str, FieldInfo]) -> str:
    lines = [
        f"usage: python -m quatrain.{process} [--config FILE] [--print-config] [--SECTION.KEY=VALUE ...]",
        "",
        "Values come from defaults < YAML (--config or QUATRAIN_CONFIG) < QUATRAIN_SECTION__KEY < flags.",
        "",
    ]
    lines += [f"  --{key}\n      {field.description or ''}" for key, field in fields.items()]
    return "\n".join(lines)
