"""Makes a spec ready to send: what it names by path is found beside the spec file, uploaded, and named by digest."""

import copy
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quatrain.client.resources import Artifact, NamedModel
from quatrain.client.uploads import check_folder
from quatrain.errors import FieldViolation, InvalidData
from quatrain.jobspec import JobSpec, apply_overrides, load_yaml, parse_spec, resolved_document
from quatrain.jobspec.sections import DATA_SETS

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

    document: dict[str, Any]
    base: Path


def read_draft(spec: Path | str | dict[str, Any], overrides: Sequence[str]) -> Draft:
    """The spec in a file (Path), a YAML text (str) or a document, with overrides, checked as far as it can be here.

    Paths in a file are relative to its folder, others to the working directory. Raises InvalidSpec for a wrong spec,
    InvalidData for files that are not there; each names every wrong field.
    """
    document = copy.deepcopy(spec) if isinstance(spec, dict) else load_yaml(spec)
    base = spec.absolute().parent if isinstance(spec, Path) else Path.cwd()
    resolved = resolved_document(parse_spec(apply_overrides(document, overrides)))
    draft = Draft(resolved, base)
    violations = [violation for each in local_files(draft) for violation in _missing(each)]
    if violations:
        lines = "; ".join(f"{each.field}: {each.description}" for each in violations)
        raise InvalidData(f"the spec names files that cannot be used: {lines}", violations)
    return draft


def local_files(draft: Draft) -> list[LocalFile]:
    """The files and folders of this machine that the spec names."""
    found: list[LocalFile] = []
    for place in _places(draft.document):
        text = place.section[place.key]
        if place.kind == "code":
            if place.section.get("code_digest") or not (text := _code_file(text)):
                continue
        elif not text or text.startswith(REMOTE_SCHEMES) or ("://" in text and not text.startswith("file://")):
            continue
        path = draft.base / Path(text.removeprefix("file://")).expanduser()
        found.append(LocalFile(place.field, place.kind, path))
    return found


async def send_files(
    draft: Draft,
    upload_file: Callable[[Path], Awaitable[Artifact]],
    upload_model: Callable[[Path], Awaitable[NamedModel]],
) -> JobSpec:
    """Uploads what the draft names by path and returns the spec that names digests instead."""
    document = copy.deepcopy(draft.document)
    places = {place.field: place for place in _places(document)}
    sent: dict[tuple[Kind, Path], str] = {}
    for each in local_files(draft):
        key = (each.kind, each.path)
        if key not in sent:
            if each.kind == "model":
                sent[key] = f"sha256:{(await upload_model(each.path)).model.digest}"
            else:
                sent[key] = (await upload_file(each.path)).uri
        _replace(places[each.field], each, sent[key])
    return parse_spec(document)


@dataclass(frozen=True)
class _Place:
    field: str
    kind: Kind
    section: dict[str, Any]
    key: str


def _places(document: dict[str, Any]) -> Iterator[_Place]:
    """Every field of a resolved document that may name something of this machine."""
    ppo = document["ppo"]
    yield _Place("model.uri", "model", document["model"], "uri")
    yield _Place("reference.model", "model", document["reference"], "model")
    for path in DATA_SETS:
        stage, _, field = path.partition(".")
        section = (document.get(stage) or {}).get(field)
        if section:
            yield _Place(path, "data", section, "uri")
    for field, reward in (("reward", document["reward"]), ("ppo.eval_gold", ppo.get("eval_gold"))):
        if reward:
            yield _Place(f"{field}.model", "model", reward, "model")
            for i, function in enumerate(reward.get("functions") or []):
                yield _Place(f"{field}.functions.{i}.path", "code", function, "path")


def _replace(place: _Place, file: LocalFile, uri: str) -> None:
    if place.kind == "code":
        # The folder it came from is nobody else's business; the name is for people, the digest says what runs.
        place.section["path"] = f"{file.path.name}:{place.section['path'].rpartition(':')[2]}"
        place.section["code_digest"] = uri.removeprefix("sha256:")
        return
    place.section[place.key] = uri
    if place.kind == "data" and place.section.get("format") is None:
        place.section["format"] = FORMATS.get(file.path.suffix.lower())


def _code_file(path: str) -> str:
    """`file.py` of `file.py:function`; empty for `module:function`, which the server imports."""
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
