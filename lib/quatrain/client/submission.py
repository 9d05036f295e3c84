"""Makes a spec ready to send: files that it names by path are found beside it, uploaded, and named by digest."""

import copy
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quatrain.client.resources import Artifact, NamedModel
from quatrain.client.uploads import check_folder
from quatrain.errors import FieldViolation, InvalidData
from quatrain.jobspec import JobSpec, apply_overrides, load_yaml, parse_spec, resolved_document
from quatrain.jobspec.sections import DATA_SETS
from quatrain.json_values import JsonObject, JsonValue, as_object

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
# Names that the server resolves.
REMOTE_SCHEMES = ("sha256:", "models://", "s3://", "hf://", "store:")

Kind = Literal["model", "data", "code"]


@dataclass(frozen=True)
class LocalFile:
    """A path in a spec: the dotted field that names it, and where it is on this machine."""

    field: str
    kind: Kind
    path: Path


@dataclass(frozen=True)
class Draft:
    """A checked spec that may still name local files. `base` is the folder that relative paths start from."""

    document: JsonObject
    base: Path


def read_draft(spec: Path | str | Mapping[str, object], overrides: Sequence[str]) -> Draft:
    """Return the spec of a file (Path), a YAML text (str) or a document, with overrides, and check what can be checked.

    Paths in a file are relative to its folder, others to the working directory. Raises InvalidSpec for a wrong spec,
    InvalidData for files that are not there; each names every wrong field.
    """
    document = load_yaml(spec) if isinstance(spec, Path | str) else spec
    base = spec.absolute().parent if isinstance(spec, Path) else Path.cwd()
    resolved = resolved_document(parse_spec(apply_overrides(document, overrides)))
    draft = Draft(resolved, base)
    violations = [violation for each in local_files(draft) for violation in _missing(each)]
    if violations:
        lines = "; ".join(f"{each.field}: {each.description}" for each in violations)
        raise InvalidData(f"the spec names files that cannot be used: {lines}", violations)
    return draft


def local_files(draft: Draft) -> list[LocalFile]:
    """Return the files and folders of this machine that the spec names."""
    found: list[LocalFile] = []
    for named in _path_fields(draft.document):
        text = named.text
        if named.kind == "code":
            if named.section.get("code_digest") or not (text := _code_file(text)):
                continue
        elif not text or text.startswith(REMOTE_SCHEMES) or ("://" in text and not text.startswith("file://")):
            continue
        path = draft.base / Path(text.removeprefix("file://")).expanduser()
        found.append(LocalFile(named.field, named.kind, path))
    return found


async def send_files(
    draft: Draft,
    upload_file: Callable[[Path], Awaitable[Artifact]],
    upload_model: Callable[[Path], Awaitable[NamedModel]],
) -> JobSpec:
    """Upload what the draft names by path and return the spec that names digests instead."""
    document = copy.deepcopy(draft.document)
    fields = {named.field: named for named in _path_fields(document)}
    sent: dict[tuple[Kind, Path], str] = {}
    for each in local_files(draft):
        key = (each.kind, each.path)
        if key not in sent:
            if each.kind == "model":
                sent[key] = f"sha256:{(await upload_model(each.path)).model.digest}"
            else:
                sent[key] = (await upload_file(each.path)).uri
        _replace(fields[each.field], each, sent[key])
    return parse_spec(document)


@dataclass(frozen=True)
class _PathField:
    """A field of a resolved document that may name something of this machine: its dotted name, section and key."""

    field: str
    kind: Kind
    section: JsonObject
    key: str

    @property
    def text(self) -> str:
        """What the field names; empty where it is not set."""
        value = self.section.get(self.key)
        return value if isinstance(value, str) else ""


def _path_fields(document: JsonObject) -> Iterator[_PathField]:
    for path, key in (("model", "uri"), ("reference", "model")):
        yield _PathField(f"{path}.{key}", "model", as_object(document[path]), key)
    for path in DATA_SETS:
        data = _section(document, path)
        if data is not None:
            yield _PathField(path, "data", data, "uri")
    for path in ("reward", "ppo.eval_gold"):
        reward = _section(document, path)
        if reward is None:
            continue
        yield _PathField(f"{path}.model", "model", reward, "model")
        functions = reward.get("functions")
        for i, function in enumerate(functions if isinstance(functions, list) else []):
            yield _PathField(f"{path}.functions.{i}.path", "code", as_object(function), "path")


def _section(document: JsonObject, path: str) -> JsonObject | None:
    """Return the section at a dotted path; None where the document has none."""
    section: JsonValue = document
    for name in path.split("."):
        section = section.get(name) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else None


def _replace(named: _PathField, file: LocalFile, uri: str) -> None:
    section = named.section
    if named.kind == "code":
        # The server needs no path of this machine: the file's name is for people, the digest says what runs.
        section["path"] = f"{file.path.name}:{named.text.rpartition(':')[2]}"
        section["code_digest"] = uri.removeprefix("sha256:")
        return
    section[named.key] = uri
    if named.kind == "data" and section.get("format") is None:
        section["format"] = FORMATS.get(file.path.suffix.lower())


def _code_file(path: str) -> str:
    """Return `file.py` of `file.py:function`; empty for `module:function`, which the server imports."""
    file = path.rpartition(":")[0]
    return file if file.removeprefix("file://").endswith(".py") else ""


def _missing(file: LocalFile) -> Iterator[FieldViolation]:
    if file.kind != "model":
        if not file.path.is_file():
            yield FieldViolation(file.field, f"{file.path} is not a file; paths start from the folder of the spec file")
        return
    if not file.path.is_dir():
        yield FieldViolation(file.field, f"{file.path} is not a folder; paths start from the folder of the spec file")
        return
    try:
        check_folder(file.path)
    except InvalidData as error:
        yield FieldViolation(file.field, error.message)
