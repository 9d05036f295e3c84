"""Makes a spec ready to send: files that it names by path are found beside it, uploaded, and named by digest."""

import asyncio
import copy
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quatrain.client.resources import Artifact, NamedModel
from quatrain.client.reward_code import code_faults, code_path, packed, sent_path
from quatrain.client.uploads import check_folder
from quatrain.data.files import find_files
from quatrain.errors import FieldViolation, InvalidData
from quatrain.jobspec import JobSpec, apply_overrides, load_yaml, parse_spec, resolved_document
from quatrain.jobspec.sections import DATA_SETS
from quatrain.json_values import JsonObject, JsonValue, as_list, as_object
from quatrain.text.adapter_folder import is_adapter, read_adapter

# Names that the server resolves.
REMOTE_SCHEMES = ("sha256:", "models://", "s3://", "hf://", "store:")

_HUB_NAME = re.compile(
    r"(?:datasets/)?[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(?<!\.jsonl)(?<!\.json)(?<!\.csv)(?<!\.parquet)"
)

Kind = Literal["model", "data", "code"]


@dataclass(frozen=True)
class LocalFile:
    """A path in a spec: the dotted field that names it, where it is on this machine, and how the spec writes it."""

    field: str
    kind: Kind
    path: Path
    text: str = ""
    """What the spec says."""


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
    _find_base(draft)
    violations = list(_find_data(draft))
    violations += [violation for each in local_files(draft) for violation in _missing(each)]
    if violations:
        lines = "; ".join(f"{each.field}: {each.description}" for each in violations)
        raise InvalidData(f"the spec names files that cannot be used: {lines}", violations)
    return draft


def _find_base(draft: Draft) -> None:
    """Name the base of a local adapter that names a folder of this machine, which the server cannot see."""
    model = as_object(draft.document["model"])
    adapter = next((each.path for each in local_files(draft) if each.field == "model.uri"), None)
    if adapter is not None and model.get("base") is None and is_adapter(adapter):
        named = read_adapter(adapter).base
        for folder in (Path(named), adapter / named):
            if named and folder.is_dir():
                model["base"] = str(folder.absolute())
                return


def local_files(draft: Draft) -> list[LocalFile]:
    """Return the files and folders of this machine that the spec names."""
    found: list[LocalFile] = []
    for named in _path_fields(draft.document):
        text = named.text
        if named.kind == "code":
            if named.section.get("code_digest") or not (text := code_path(text)):
                continue
        elif not text or not _is_path(text):
            continue
        found.append(LocalFile(named.field, named.kind, _local(draft, text), named.text))
    return found


def _is_path(uri: str) -> bool:
    """Return whether a URI names something of this machine."""
    return not uri.startswith(REMOTE_SCHEMES) and ("://" not in uri or uri.startswith("file://"))


def _local(draft: Draft, text: str) -> Path:
    return draft.base / Path(text.removeprefix("file://")).expanduser()


def _find_data(draft: Draft) -> Iterator[FieldViolation]:
    """Put the files of folders and patterns in their places, with the names that people know them by."""
    for field in DATA_SETS:
        data = _section(draft.document, field)
        if data is None:
            continue
        uris = [str(data["uri"]), *map(str, as_list(data["more_uris"]))]
        files, names, split = list[str](), list[str](), data["split"]
        for uri in uris:
            try:
                found = find_files(str(_local(draft, uri)), str(split) if split else None) if _is_path(uri) else []
            except InvalidData as error:
                yield FieldViolation(field, error.message)
                continue
            # One file keeps its text, by which a wrong one is recognised.
            files += [uri] if found in ([], [_local(draft, uri)]) else [str(path) for path in found]
            names += [_shown(path, draft.base) for path in found] or [uri]
        if files and any(map(_is_path, uris)):
            data.update({"uri": files[0], "more_uris": [*files[1:]], "names": [*names], "split": None})


def _shown(path: Path, base: Path) -> str:
    """Return a path as it would be written in the spec."""
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)


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
            elif each.kind == "code" and each.path.is_dir():
                sent[key] = await _send_folder(each.path, upload_file)
            else:
                sent[key] = (await upload_file(each.path)).uri
        _replace(fields[each.field], each, sent[key])
    return parse_spec(document)


async def _send_folder(folder: Path, upload_file: Callable[[Path], Awaitable[Artifact]]) -> str:
    """Upload a folder of reward code as one object and return its URI."""
    with tempfile.TemporaryDirectory(prefix="quatrain-code-") as scratch:
        file = Path(scratch) / "code.zip"
        content = await asyncio.to_thread(packed, folder)
        await asyncio.to_thread(file.write_bytes, content)
        return (await upload_file(file)).uri


@dataclass(frozen=True)
class _PathField:
    """A field of a resolved document that may name something of this machine: its dotted name, section and key."""

    field: str
    kind: Kind
    section: JsonObject
    key: str
    index: int | None = None
    """The place in the list that the field is, if it is one."""

    @property
    def text(self) -> str:
        """What the field names; empty where it is not set."""
        value = self.section.get(self.key)
        if self.index is not None:
            value = as_list(value)[self.index]
        return value if isinstance(value, str) else ""

    def set(self, uri: str) -> None:
        """Name something else."""
        if self.index is None:
            self.section[self.key] = uri
        else:
            as_list(self.section[self.key])[self.index] = uri


def _path_fields(document: JsonObject) -> Iterator[_PathField]:
    for path, key in (("model", "uri"), ("model", "base"), ("reference", "model")):
        yield _PathField(f"{path}.{key}", "model", as_object(document[path]), key)
    for path in DATA_SETS:
        data = _section(document, path)
        if data is not None:
            yield _PathField(path, "data", data, "uri")
            for index in range(len(as_list(data["more_uris"]))):
                yield _PathField(f"{path}.{index + 1}", "data", data, "more_uris", index)
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
        # The server needs no path of this machine: the digest says what runs.
        section["path"] = sent_path(named.text, file.path)
        section["code_digest"] = uri.removeprefix("sha256:")
        return
    named.set(uri)


def _where(file: LocalFile) -> str:
    """Return where the path was looked for, and what else its text may be: ORG/NAME is how the Hub's names look."""
    if _HUB_NAME.fullmatch(file.text):
        folder = "" if file.kind == "model" else "datasets/"
        return f"if it is a name of the Hub, write hf://{folder}{file.text.removeprefix('datasets/')}"
    return "paths start from the folder of the spec file"


def _missing(file: LocalFile) -> Iterator[FieldViolation]:
    if file.kind == "code":
        yield from (FieldViolation(file.field, text) for text in code_faults(file.text, file.path))
        return
    if file.kind != "model":
        if not file.path.is_file():
            yield FieldViolation(file.field, f"{file.path} is not a file; {_where(file)}")
        return
    if not file.path.is_dir():
        yield FieldViolation(file.field, f"{file.path} is not a folder; {_where(file)}")
        return
    try:
        check_folder(file.path)
    except InvalidData as error:
        yield FieldViolation(file.field, error.message)
