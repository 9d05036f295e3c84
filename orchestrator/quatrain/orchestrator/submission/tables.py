"""Pinning data: from a URI of the spec to a prepared table by content."""

import tempfile
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from quatrain.data import (
    DataFile,
    DataFiles,
    Mapping,
    PairsWriter,
    Prepared,
    Reading,
    asked,
    count_common,
    fingerprint,
    held_out_prompts,
    open_pairs,
    open_prompts,
    open_sft,
    prepare_prompts,
    prepare_sft,
)
from quatrain.errors import Corrupt, FieldViolation, InvalidData, InvalidInput, NotFound, Unavailable
from quatrain.jobspec import DataSpec, PpoSpec, SftSpec
from quatrain.orchestrator.plan import StageRows
from quatrain.orchestrator.submission.hub import address as hub_address
from quatrain.orchestrator.submission.sources import OUTSIDE, Sources, unreadable
from quatrain.refs import TableRef
from quatrain.stages import Stage
from quatrain.storage import ObjectStore
from quatrain.storage.files import file_sha256
from quatrain.storage.folders import read_file
from quatrain.text import Tokenizer

T = TypeVar("T")


class PairsSection(Protocol):
    """The section of a stage that trains on pairs."""

    @property
    def data(self) -> DataSpec | None:
        """Return where they are."""
        ...

    @property
    def max_length(self) -> int:
        """Return the tokens of the longest side."""
        ...

    @property
    def held_out_share(self) -> float:
        """Return the share of the pairs that no step trains on."""
        ...


@dataclass
class DataPinner:
    """A pinner of one spec's data sets: it reads, checks and tokenises them, row by row. `warnings` is for people.

    `origins`: by field, the exact name of what was read, where that is not its content.
    """

    store: ObjectStore
    tokenizer: Tokenizer
    sources: Sources
    local_files: bool
    warnings: list[str] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    _prompts: dict[str, "array[int]"] = field(default_factory=dict)
    """64 bits of each prompt of a set, by field."""

    async def completions(self, stage: Stage, section: SftSpec) -> StageRows:
        """Return the prepared prompts and completions of a stage."""
        name = f"{stage}.data"

        def prepare(files: DataFiles, said: Mapping, scratch: Path) -> StageRows:
            reading = open_sft(files, said)
            prepared = prepare_sft(reading, self.tokenizer, section.max_length, scratch / "rows")
            self._note(name, reading)
            return StageRows(self._put(prepared, name))

        return await self._with_files(name, section.data, prepare)

    async def pairs(self, stage: Stage, section: PairsSection, seed: int) -> StageRows:
        """Return the prepared training and held-out pairs of a stage; the split is a function of the seed."""
        name, data = f"{stage}.data", section.data
        assert data is not None, "a stage of pairs is trained from data"

        def prepare(files: DataFiles, said: Mapping, scratch: Path) -> StageRows:
            reading = open_pairs(files, said)
            reading.go_through()
            held_out = held_out_prompts(reading.seen.prompts, section.held_out_share, seed)
            self._note(name, reading)
            train = PairsWriter(scratch / "train", self.tokenizer, section.max_length)
            rest = PairsWriter(scratch / "held-out", self.tokenizer, section.max_length) if held_out else train
            for pair in reading:
                (rest if fingerprint(pair.prompt) in held_out else train).add(pair)
            table = self._put(train.close(), name)
            return StageRows(table, self._put(rest.close(), name)) if held_out else StageRows(table)

        return await self._with_files(name, data, prepare)

    async def prompts(self, name: str, data: DataSpec, ppo: PpoSpec) -> TableRef:
        """Return a prepared prompt table."""

        def prepare(files: DataFiles, said: Mapping, scratch: Path) -> TableRef:
            reading = open_prompts(files, said)
            prepared = prepare_prompts(
                reading, self.tokenizer, ppo.max_prompt_length, scratch / "rows", ppo.truncate_prompt
            )
            self._note(name, reading)
            return self._put(prepared, name)

        return await self._with_files(name, data, prepare)

    async def _with_files(self, name: str, data: DataSpec, prepare: Callable[[DataFiles, Mapping, Path], T]) -> T:
        def read(_uri: str) -> T:
            with tempfile.TemporaryDirectory(prefix="quatrain-data-") as folder, ExitStack() as copies:
                found = []
                for index, uri in enumerate(data.uris):
                    shown = data.names[index] if data.names else name if uri.startswith("sha256:") else uri
                    path = self._fetch(name, uri, data.split or "", Path(folder) / f"data-{index}", copies)
                    found.append(DataFile(path, shown))
                files, said = asked(DataFiles(found), data.format, data.columns, data.label_rule)
                return prepare(files, said, Path(folder))

        try:
            return await self.sources.in_thread(data.uri, read)
        except (InvalidInput, NotFound, Corrupt) as error:
            violations = [FieldViolation(name, error.message)]
            raise InvalidData(f"{name}: {error.message}", violations) from error
        except Unavailable as error:
            raise Unavailable(f"{name}: {error.message}") from error

    def _fetch(self, name: str, uri: str, split: str, target: Path, copies: ExitStack) -> Path:
        """Return a file of this machine with the content of the URI; copies last as long as `copies`."""
        if uri.startswith("file:///") and self.local_files:
            path = Path(uri.removeprefix("file://"))
            if not path.is_file():
                raise NotFound(f"there is no file {path}")
            return path
        if uri.startswith(OUTSIDE):
            exact = self.sources.exact(uri, "dataset")
            if exact.startswith(hub_address.SCHEME):
                self.origins[name] = f"{self.origins[name]}, {exact}" if name in self.origins else exact
            return copies.enter_context(self.sources.data(exact, split))
        if not uri.startswith("sha256:"):
            raise unreadable(uri, "sha256:DIGEST, s3://BUCKET/KEY or hf://datasets/ORG/NAME/FILE")
        digest = uri.removeprefix("sha256:")
        read_file(self.store, f"data/sha256/{digest}", digest, target)
        return target

    def _note(self, name: str, reading: Reading[Any]) -> None:
        """Keep what people should know of a set, alone and beside the others."""
        report = reading.report()
        self.warnings.extend(f"{name}: {warning}" for warning in report.warnings)
        if report.is_bare_text and self.tokenizer.has_chat_template:
            self.warnings.append(
                f"{name}: all prompts are bare text, which is tokenised as it is, but the model has a chat template: "
                "give messages if it should see them as a chat"
            )
        prompts = reading.seen.prompts
        for other, known in self._prompts.items():
            common = count_common(prompts, known)
            if common and EVAL_PROMPTS in (name, other):
                which = "all" if common == len(prompts) else str(common)
                self.warnings.append(
                    f"{name}: {which} of its {len(prompts)} prompts also stand in {other}: evaluations flatter"
                )
        self._prompts[name] = prompts

    def _put(self, prepared: Prepared, name: str) -> TableRef:
        self.warnings.extend(f"{name}: {note}" for note in prepared.notes)
        digest = file_sha256(prepared.path)
        key = f"data/sha256/{digest}"
        if self.store.stat(key) is None:
            self.store.put_file(key, prepared.path)
        return TableRef(key, digest, prepared.path.stat().st_size, prepared.rows)


EVAL_PROMPTS = "ppo.eval_prompts"
