"""Pinning data: from a URI of the spec to a prepared table by content."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from quatrain.algorithms.permutation import permutation
from quatrain.data import PairRecord, Report, load_pairs, load_prompts, load_sft
from quatrain.data.tables import Prepared, prepare_pairs, prepare_prompts, prepare_sft
from quatrain.digests import sha256_hex
from quatrain.errors import Corrupt, FieldViolation, InvalidData, InvalidInput, NotFound
from quatrain.jobspec import DataSpec, PpoSpec, SftSpec
from quatrain.orchestrator.plan import StageRows
from quatrain.orchestrator.submission.sources import SCHEME, Sources, unreadable
from quatrain.refs import TableRef
from quatrain.stages import Stage
from quatrain.storage import ObjectStore
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
    """A pinner of one spec's data sets: it reads, checks and tokenises them. `warnings` is for people."""

    store: ObjectStore
    tokenizer: Tokenizer
    sources: Sources
    local_files: bool
    warnings: list[str] = field(default_factory=list)

    async def completions(self, stage: Stage, section: SftSpec) -> StageRows:
        """Return the prepared prompts and completions of a stage."""
        name, data = f"{stage}.data", section.data

        def prepare(path: Path) -> StageRows:
            records, report = load_sft(path, format=data.format, columns=data.columns or None)
            self._note(name, report)
            return StageRows(self._put(prepare_sft(records, self.tokenizer, section.max_length), name))

        return await self._with_file(name, data, prepare)

    async def pairs(self, stage: Stage, section: PairsSection, seed: int) -> StageRows:
        """Return the prepared training and held-out pairs of a stage; the split is a function of the seed."""
        name, data = f"{stage}.data", section.data
        assert data is not None, "a stage of pairs is trained from data"

        def prepare(path: Path) -> StageRows:
            records, report = load_pairs(path, format=data.format, columns=data.columns or None)
            self._note(name, report)
            train, held_out = _split(records, section.held_out_share, seed)
            longest = section.max_length
            table = self._put(prepare_pairs(train, self.tokenizer, longest), name)
            if not held_out:
                return StageRows(table)
            return StageRows(table, self._put(prepare_pairs(held_out, self.tokenizer, longest), name))

        return await self._with_file(name, data, prepare)

    async def prompts(self, name: str, data: DataSpec, ppo: PpoSpec) -> TableRef:
        """Return a prepared prompt table."""

        def prepare(path: Path) -> TableRef:
            records, report = load_prompts(path, format=data.format, columns=data.columns or None)
            self._note(name, report)
            prepared = prepare_prompts(records, self.tokenizer, ppo.max_prompt_length, ppo.truncate_prompt)
            return self._put(prepared, name)

        return await self._with_file(name, data, prepare)

    async def _with_file(self, name: str, data: DataSpec, prepare: Callable[[Path], T]) -> T:
        try:
            return await self.sources.in_thread(data.uri, lambda uri: self._read(uri, data.format, prepare))
        except (InvalidInput, NotFound, Corrupt) as error:
            violations = [FieldViolation(name, error.message)]
            raise InvalidData(f"{name}: {error.message}", violations) from error

    def _read(self, uri: str, format: str | None, prepare: Callable[[Path], T]) -> T:
        if uri.startswith("file:///") and self.local_files:
            path = Path(uri.removeprefix("file://"))
            if not path.is_file():
                raise NotFound(f"there is no file {path}")
            return prepare(path)
        if uri.startswith(SCHEME):
            with self.sources.data(uri) as path:
                return prepare(path)
        if not uri.startswith("sha256:"):
            raise unreadable(uri, "sha256:DIGEST or s3://BUCKET/KEY")
        digest = uri.removeprefix("sha256:")
        with tempfile.TemporaryDirectory(prefix="quatrain-data-") as folder:
            path = Path(folder) / f"data.{format or 'jsonl'}"
            read_file(self.store, f"data/sha256/{digest}", digest, path)
            return prepare(path)

    def _note(self, name: str, report: Report) -> None:
        if report.dropped:
            first = report.dropped[0]
            self.warnings.append(
                f"{name}: {len(report.dropped)} of {report.rows} rows dropped, first line {first.line}: {first.reason}"
            )

    def _put(self, prepared: Prepared, name: str) -> TableRef:
        self.warnings.extend(f"{name}: {note}" for note in prepared.notes)
        digest = sha256_hex(prepared.data)
        key = f"data/sha256/{digest}"
        self.store.put_if_absent(key, prepared.data)
        return TableRef(key, digest, len(prepared.data), prepared.rows)


def _split(records: Sequence[PairRecord], share: float, seed: int) -> tuple[list[PairRecord], list[PairRecord]]:
    order = permutation(len(records), "held-out", seed)
    count = min(int(len(records) * share), len(records) - 1)
    held_out = set(order[:count])
    train = [record for index, record in enumerate(records) if index not in held_out]
    return train, [record for index, record in enumerate(records) if index in held_out]
