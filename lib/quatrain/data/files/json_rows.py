"""Rows of JSON files: an object a line, a list of objects, or objects one after the other. Read as a stream."""

import codecs
import json
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

from quatrain.data.records import NumberedRow, Row
from quatrain.errors import InvalidData

OnBad = Callable[[int, str], None]
OnNote = Callable[[str], None]
MAX_ROW = 1 << 26
"""Bytes, or characters, of the largest row; more is a file that is broken or no list of rows."""
_CHUNK = 1 << 20
_BLANK = " \t\r\n"
_NOT_UTF8 = "is not UTF-8"
_WRAPPERS = frozenset(("data", "rows", "train", "test", "examples", "items", "instances", "records", "dataset"))


class _NotFinite:
    """A counter of the NaN and Infinity that a parser met."""

    met = False

    def __call__(self, _name: str) -> None:
        self.met = True


def read_json(stream: BinaryIO, name: str, on_bad: OnBad, on_note: OnNote) -> Iterator[NumberedRow]:
    """Yield the rows of a file with the line at which each begins. Raises InvalidData."""
    head = _skip_blank_lines(stream)
    line, text = head
    if text.lstrip(_BLANK.encode()).startswith(b"["):
        yield from _read_list(_Values(stream, name, line, text), on_bad, on_note)
        return
    first = _parse(text, on_note)
    if isinstance(first, str) and text.lstrip().startswith(b"{") and not first.endswith(_NOT_UTF8):
        # A bad first row of JSON Lines is followed by a row; an object over several lines is not.
        second = stream.readline(MAX_ROW)
        if not text.rstrip().endswith(b"}") and isinstance(_parse(second, on_note), str):
            yield from _read_objects(_Values(stream, name, line, text + second), on_note, first)
            return
        on_bad(line, first)
        line, text = line + 1, second
    yield from _read_lines(stream, name, line, text, on_bad, on_note)


def _skip_blank_lines(stream: BinaryIO) -> tuple[int, bytes]:
    line = 0
    while True:
        line += 1
        text = stream.readline(MAX_ROW)
        if line == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")
        if text.strip() or not text:
            return line, text


def _read_lines(
    stream: BinaryIO, name: str, line: int, text: bytes, on_bad: OnBad, on_note: OnNote
) -> Iterator[NumberedRow]:
    is_first = True
    while text:
        if text.strip():
            value = _parse(text, on_note)
            if isinstance(value, str):
                on_bad(line, value)
            else:
                if is_first:
                    _refuse_table(value, name)
                is_first = False
                yield line, value
        line += 1
        text = stream.readline(MAX_ROW)


def _parse(text: bytes, on_note: OnNote) -> Row | str:
    """Return the object of a line, or what is wrong with it."""
    constants = _NotFinite()
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=constants)
    except UnicodeDecodeError as error:
        return f"byte 0x{error.object[error.start]:02x} at position {error.start + 1} of the line {_NOT_UTF8}"
    except json.JSONDecodeError as error:
        return f"not valid JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        return f"not valid JSON: {error}"
    if not isinstance(value, dict):
        return f"a JSON object is needed, not {'null' if value is None else f'a {type(value).__name__}'}"
    if constants.met:
        on_note("NaN or Infinity, which JSON does not have, is read as null")
    return value


def _read_list(values: "_Values", on_bad: OnBad, on_note: OnNote) -> Iterator[NumberedRow]:
    values.skip("[")
    while values.peek() != "]":
        line = values.line
        value = values.next(on_note)
        if isinstance(value, dict):
            yield line, value
        else:
            on_bad(line, f"a JSON object is needed, not {'null' if value is None else f'a {type(value).__name__}'}")
        if values.peek() == ",":
            values.skip(",")
        elif values.peek() != "]":
            raise InvalidData(f"{values.name}:{values.line}: not valid JSON: a comma or ] is needed after this object.")
    values.skip("]")
    if values.peek():
        raise InvalidData(f"{values.name}: not valid JSON: there is text after the closing ].")


def _read_objects(values: "_Values", on_note: OnNote, line_error: str) -> Iterator[NumberedRow]:
    """Yield objects that are written over several lines, one after the other."""
    line, is_first = values.line, True
    while values.peek():
        line = values.line
        try:
            value = values.next(on_note)
        except InvalidData:
            if is_first:
                raise InvalidData(f"{values.name}:{line}: {line_error}.") from None
            raise
        if not isinstance(value, dict):
            raise InvalidData(f"{values.name}:{line}: a JSON object is needed, not a {type(value).__name__}.")
        if is_first:
            _refuse_table(value, values.name)
        is_first = False
        yield line, value


def _refuse_table(value: Mapping[str, object], name: str) -> None:
    """Raise InvalidData for a whole table in one object: by columns, as pandas writes it by default, or wrapped."""
    columns = list(value.values())
    way = "write it with `to_json(path, orient='records', lines=True)`"
    if {"columns", "data"} <= set(value):
        raise InvalidData(f"{name} holds one table in pandas' orient 'split', not rows: {way}.")
    indices = [set(column) if isinstance(column, dict) else None for column in columns]
    if indices and indices[0] and all(index == indices[0] for index in indices) and all(map(str.isdecimal, indices[0])):
        raise InvalidData(f"{name} holds one table by columns, as pandas writes it by default, not rows: {way}.")
    lists = [column for column in columns if isinstance(column, list)]
    plain = all(isinstance(item, str | int | float) for column in lists for item in column)
    if plain and len(lists) == len(columns) > 0 and len({len(column) for column in lists}) == 1 < len(lists[0]):
        raise InvalidData(f"{name} holds one table by columns, as lists, not rows: {way}.")
    if len(columns) == 1 and next(iter(value)) in _WRAPPERS and lists and all(isinstance(i, dict) for i in lists[0]):
        raise InvalidData(f"{name} holds its rows under {next(iter(value))!r}: give the list alone, or one row a line.")


class _Values:
    """JSON values in a stream, decoded one after the other. `line` is that of the next value."""

    def __init__(self, stream: BinaryIO, name: str, line: int, start: bytes) -> None:
        self.name = name
        self.line = line
        self._stream = stream
        self._bytes = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._position = 0
        self._counted = 0
        self._is_end = False
        self._add(start)

    def peek(self) -> str:
        """Return the next character that is no blank, empty at the end."""
        while True:
            while self._position < len(self._text) and self._text[self._position] in _BLANK:
                self._position += 1
            if self._position < len(self._text) or self._is_end:
                self._count_lines()
                return self._text[self._position : self._position + 1]
            self._fill()

    def skip(self, mark: str) -> None:
        """Go on behind a character. Raises InvalidData when another one stands there."""
        if self.peek() != mark:
            raise InvalidData(f"{self.name}:{self.line}: not valid JSON: {mark} is needed here.")
        self._position += 1

    def next(self, on_note: OnNote) -> object:
        """Return the next value. Raises InvalidData."""
        self.peek()
        while True:
            constants = _NotFinite()
            try:
                value, end = json.JSONDecoder(parse_constant=constants).raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated") or len(self._text) - error.pos < 100
                if self._is_end or not is_cut or len(self._text) - self._position > MAX_ROW:
                    raise InvalidData(f"{self.name}:{self.line}: not valid JSON: {error.msg}.") from None
            except (ValueError, RecursionError) as error:
                raise InvalidData(f"{self.name}:{self.line}: not valid JSON: {error}.") from None
            else:
                # A number at the end of what is there may go on.
                if end < len(self._text) or self._is_end:
                    self._position = end
                    if constants.met:
                        on_note("NaN or Infinity, which JSON does not have, is read as null")
                    return value
            self._fill()

    def _fill(self) -> None:
        """Read on, as much again as is there, so that a long value is decoded a few times only."""
        data = self._stream.read(max(_CHUNK, len(self._text) - self._position))
        if not data:
            self._is_end = True
        self._add(data)

    def _add(self, data: bytes) -> None:
        self._count_lines()
        try:
            text = self._bytes.decode(data, final=self._is_end)
        except UnicodeDecodeError as error:
            line = self.line + self._text.count("\n", self._position) + error.object.count(b"\n", 0, error.start)
            byte = error.object[error.start]
            raise InvalidData(f"{self.name}:{line}: byte 0x{byte:02x} is not UTF-8.") from None
        self._text = self._text[self._position :] + text
        self._position = self._counted = 0

    def _count_lines(self) -> None:
        self.line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
