"""Reads the options of other tools: a YAML file, or a shell script or command line with arguments.

Returns names with dots (`actor_rollout_ref.actor.optim.lr`) and values as YAML reads them; `--some-name` and
`--some_name` are the same.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from quatrain.errors import InvalidSpec
from quatrain.jobspec.documents import MAX_BYTES, load_value, load_yaml

Options = dict[str, object]

_ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
_OVERRIDE = re.compile(r"^[+~]{0,2}([A-Za-z_][\w-]*(?:[./][\w-]+)+)=(.*)$", re.DOTALL)
_OPTION = re.compile(r"^--([A-Za-z][\w.-]*)(?:=(.*))?$", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))")
_PROGRAM = re.compile(r"(^|/)[\w.-]+\.py$|^(openrlhf|verl|trl)(\.|$)|^(ppo|grpo)$")


def read_options(file: Path) -> Options:
    """Return the options in a file by name. Raises InvalidSpec when it can be read as neither form, or names none."""
    if file.suffix.lower() in (".yaml", ".yml", ".json"):
        return dict(_flattened(load_yaml(file)))
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InvalidSpec(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InvalidSpec(f"{file}: byte {error.start} is not UTF-8, so this is no script.") from None
    if len(text) > MAX_BYTES:
        raise InvalidSpec(f"{file}: options may have {MAX_BYTES} bytes, this has {len(text)}.")
    options = shell_options(text, str(file))
    if not options:
        raise InvalidSpec(
            f"{file}: no options were found. Give the tool's YAML file (named .yaml), or a script whose command has "
            "--name value or name.part=value."
        )
    return options


def shell_options(text: str, name: str = "options") -> Options:
    """Return the options of the command in a shell script. Raises InvalidSpec for quotes that do not close."""
    try:
        tokens = shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise InvalidSpec(f"{name}: this is no shell script: {error}.") from None
    variables: dict[str, str] = {}
    words = []
    for token in tokens:
        word = _filled(token, variables)
        if _ASSIGNMENT.match(token):
            name_set, _, content = word.partition("=")
            variables[name_set] = content
        words.append(word)
    # What starts the tool (ray, deepspeed, accelerate) has options of its own before the tool's name.
    start = max((at for at, word in enumerate(words) if _PROGRAM.search(word)), default=-1) + 1
    return dict(_options(words[start:]))


def _filled(word: str, variables: Mapping[str, str]) -> str:
    """Return the word with the variables that the script itself sets; others stay as they are."""
    return _VARIABLE.sub(lambda found: variables.get(found[1] or found[3], found[2] or found[0]), word)


def _options(words: list[str]) -> Iterator[tuple[str, object]]:
    at = 0
    while at < len(words):
        override, option = _OVERRIDE.match(words[at]), _OPTION.match(words[at])
        at += 1
        if override is not None:
            yield override[1].replace("/", "."), _value(override[2])
        elif option is not None:
            values = [option[2]] if option[2] is not None else []
            while option[2] is None and at < len(words) and not _begins(words[at]):
                values.append(words[at])
                at += 1
            read = [_value(value) for value in values]
            yield option[1].replace("-", "_"), True if not read else read[0] if len(read) == 1 else read


def _begins(word: str) -> bool:
    return word.startswith("--") or _OVERRIDE.match(word) is not None or word in (";", "&&", "|", "||", "2>&1", ">")


def _value(text: str) -> object:
    """Return a value as YAML reads it; the text itself where it is no YAML, as a name with a colon is not."""
    if text in ("True", "False"):
        return text == "True"
    if text in ("None", "null", ""):
        return None
    try:
        return load_value(text)
    except InvalidSpec:
        return text


def _flattened(document: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in document.items():
        if isinstance(value, dict) and value:
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
