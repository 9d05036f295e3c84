"""The files of one data set: a file, a list of files, a folder or a pattern, and the split that is meant."""

import bisect
import glob
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import BinaryIO

from quatrain.data.files.arrow_rows import read_arrow, read_parquet
from quatrain.data.files.csv_rows import read_csv
from quatrain.data.files.json_rows import OnBad, read_json
from quatrain.data.files.opening import detect_format, open_unpacked
from quatrain.data.records import Drop, NumberedRow, Row
from quatrain.errors import InvalidData

_DATA = re.compile(r"\.(jsonl|ndjson|json|csv|tsv|parquet|arrow|feather)(\.(gz|zst|bz2|xz))?$", re.IGNORECASE)
_SPLIT = re.compile(r"(?:^|[_-])(train|test|validation|valid|val|dev|eval)(?=[_-]|$)", re.IGNORECASE)
_SHARD = re.compile(r"-\d+-of-\d+$|-\d+$")
_SYNONYMS = {"valid": "validation", "val": "validation", "dev": "validation", "eval": "validation"}
_BESIDE = frozenset(("dataset_info.json", "dataset_dict.json", "state.json", "dataset_infos.json"))
MAX_FILES = 10_000


@dataclass(frozen=True)
class DataFile:
    """A file of a data set. name: what people call it, in messages. format: where it is told; else found by content."""

    path: Path
    name: str
    format: str | None = None


class DataFiles:
    """The files of one set, read one after the other, and what people should know of how they were read.

    Rows have one running number over all files; `place` says which file and line it is.
    """

    def __init__(self, files: Sequence[DataFile], name: str | None = None) -> None:
        self.files = tuple(files)
        self.name = name or (files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more")
        self._notes: dict[str, None] = {}
        self._starts = [0]
        self._finished = 0
        self._open: BinaryIO | None = None

    @staticmethod
    def of(path: Path, split: str | None = None) -> "DataFiles":
        """Return the file, or the files of a folder or pattern. Raises InvalidData."""
        return DataFiles([DataFile(found, str(found)) for found in find_files(str(path), split)], str(path))

    @property
    def bytes(self) -> int:
        """Return the bytes of all files."""
        return sum(file.path.stat().st_size for file in self.files)

    @property
    def bytes_read(self) -> int:
        """Return how many bytes of the files the pass under way has read, as far as that is known."""
        return self._finished + (0 if self._open is None or self._open.closed else self._open.tell())

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what reading has shown so far."""
        return tuple(self._notes)

    def with_format(self, format: str | None) -> "DataFiles":
        """Return the same files with the format that a person named."""
        return DataFiles([replace(file, format=format) for file in self.files], self.name)

    def place(self, number: int) -> str:
        """Return where a row is: its line, and the file where the set has several."""
        index = bisect.bisect_left(self._starts, number) - 1
        if len(self.files) == 1 or index < 0:
            return f"line {number}"
        return f"{self.files[index].name}:{number - self._starts[index]}"

    def read(self, on_bad: OnBad) -> Iterator[NumberedRow]:
        """Yield the rows of all files, numbered on; `on_bad` hears of those that cannot be read. Raises InvalidData."""
        self._starts, self._finished = [0], 0
        for file in self.files:
            start = last = self._starts[-1]

            def bad(line: int, reason: str, start: int = start) -> None:
                nonlocal last
                last = start + line
                on_bad(start + line, reason)

            for line, row in self._read(file, bad):
                last = start + line
                yield last, row
            self._starts.append(last)
            self._finished += file.path.stat().st_size
            self._open = None

    def _read(self, file: DataFile, on_bad: OnBad) -> Iterator[NumberedRow]:
        match detect_format(file.path, file.name, file.format):
            case "parquet":
                yield from read_parquet(file.path, file.name, self._note)
            case "arrow":
                yield from read_arrow(file.path, file.name, self._note)
            case found:
                with open_unpacked(file.path, file.name) as (stream, self._open):
                    if found == "csv":
                        yield from read_csv(stream, file.name, on_bad, self._note)
                    else:
                        yield from read_json(stream, file.name, on_bad, self._note)

    def _note(self, text: str) -> None:
        self._notes.setdefault(text)


def read_files(files: DataFiles, columns: Mapping[str, str], dropped: list[Drop] | None) -> Iterator[NumberedRow]:
    """Yield (number, row) in file order, with the columns renamed: canonical name to the file's name.

    dropped: receives rows that cannot be read (bad JSON, bad UTF-8); None: the first one raises. Raises InvalidData.
    """

    def on_bad(number: int, reason: str) -> None:
        if dropped is None:
            where = f"{files.name}:{number}" if len(files.files) == 1 else files.place(number)
            raise InvalidData(f"{where}: {reason}.")
        dropped.append(Drop(number, reason))

    for number, row in files.read(on_bad):
        yield number, _rename(row, columns)


def find_files(text: str, split: str | None = None) -> list[Path]:
    """Return the files that a path, folder or pattern means, sorted. Raises InvalidData: none, or several splits."""
    path = Path(text)
    if path.is_dir():
        found = _in_folder(path)
        if not found:
            raise InvalidData(
                f"The folder {path} holds no data file (.jsonl, .json, .csv, .parquet, .arrow; also packed)."
            )
    elif glob.has_magic(text) and not path.exists():
        found = [Path(each) for each in sorted(glob.glob(text, recursive=True)) if Path(each).is_file()]
        if not found:
            raise InvalidData(f"No file matches {text}.")
    elif split is not None:
        raise InvalidData(f"{path} is one file without splits: leave `split` out, or name its folder.")
    else:
        return [path]
    fixed = path if path.is_dir() else _fixed_part(path)
    names = [each.relative_to(fixed).as_posix() for each in found]
    return [found[index] for index in choose_split(text, names, split)]


def choose_split(where: str, names: Sequence[str], split: str | None) -> list[int]:
    """Return which of the files, by their names within a set, are of the split. Raises InvalidData.

    Without a wanted split there must be one at most, apart from files whose names tell none.
    """
    if len(names) > MAX_FILES:
        raise InvalidData(f"{where} has more than {MAX_FILES} files: name a folder or pattern with fewer.")
    splits = _splits(names)
    present = sorted({each for each in splits if each})
    if split is None:
        if len(present) > 1:
            raise InvalidData(
                f"{where} has the splits {', '.join(present)}: say which one, with `split: {present[-1]}` beside `uri`."
            )
        return list(range(len(names)))
    wanted = _SYNONYMS.get(split.lower(), split.lower())
    chosen = [index for index, each in enumerate(splits) if each == wanted]
    if not chosen:
        # A split may have any name: that of a folder, or of a file.
        chosen = [index for index, name in enumerate(names) if split in re.split(r"[/_.-]", name)]
    if not chosen:
        raise InvalidData(f"{where} has no split {split!r}; its files are {', '.join(names[:8])}.")
    return chosen


def _fixed_part(pattern: Path) -> Path:
    """Return the folder that all files of a pattern lie in, as far as it is written out."""
    parts = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


def _splits(names: Sequence[str]) -> list[str | None]:
    """Return the split that each file of a set is of, by a folder or the file's name.

    A split's word within a name counts where another file has the same name but for the word: data-train and data-test.
    """
    found = [_split_word(name) for name in names]
    words: dict[str, set[str]] = {}
    for split, rest in found:
        if split is not None:
            words.setdefault(rest, set()).add(split)
    return [split if not rest or len(words.get(rest, ())) > 1 else None for split, rest in found]


def _split_word(name: str) -> tuple[str | None, str]:
    """Return the split that a path tells, and the rest of the file's name; the rest is empty where nothing is left."""
    path = PurePath(name)
    for folder in reversed(path.parts[:-1]):
        if _SPLIT.fullmatch(folder):
            return _SYNONYMS.get(folder.lower(), folder.lower()), ""
    stem = _SHARD.sub("", path.name.partition(".")[0])
    word = _SPLIT.search(stem)
    if word is None:
        return None, stem
    split = word.group(1).lower()
    return _SYNONYMS.get(split, split), (stem[: word.start(1)] + stem[word.end(1) :]).strip("-_")


def _in_folder(folder: Path) -> list[Path]:
    """Return the data files in a folder. One that `datasets` saved names them in its state.json."""
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.name not in _BESIDE and _DATA.search(path.name):
            found.append(path)
    saved = [state for state in sorted(folder.rglob("state.json")) if state.is_file()]
    listed = {state.parent / name for state in saved for name in _listed(state)}
    # save_to_disk leaves files of earlier versions and caches beside those of its state.
    return [path for path in found if path in listed] if listed else found


def _listed(state: Path) -> list[str]:
    try:
        entries = json.loads(state.read_text("utf-8")).get("_data_files", [])
        return [str(entry["filename"]) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return []


def _rename(row: Row, columns: Mapping[str, str]) -> Row:
    if not columns:
        return row
    taken = set(columns.values())
    renamed = {canonical: row[source] for canonical, source in columns.items() if source in row}
    return {**{name: value for name, value in row.items() if name not in taken | set(columns)}, **renamed}
