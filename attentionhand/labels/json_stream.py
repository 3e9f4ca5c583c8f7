"""JSON files of gigabytes, item by item: the label sets' annotations would not fit in memory as Python objects."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.runs.errors import UserError, reason_of

CHUNK = 2**20  # characters


class _Stream:
    """A JSON text read in chunks, of which only the part not yet parsed is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = open(path, encoding="utf-8")  # noqa: SIM115 - the readers below close it
        self.text, self.place = "", 0
        self.decoder = json.JSONDecoder()

    def more(self) -> bool:
        chunk = self.file.read(CHUNK)
        self.text, self.place = self.text[self.place :] + chunk, 0
        return bool(chunk)

    def peek(self) -> str:
        """The next character that is not blank; "" at the end."""
        while True:
            while self.place < len(self.text) and self.text[self.place].isspace():
                self.place += 1
            if self.place < len(self.text):
                return self.text[self.place]
            if not self.more():
                return ""

    def take(self, expected: str) -> str:
        found = self.peek()
        if not found or found not in expected:
            raise UserError(f"{self.path}: damaged ('{found or 'its end'}' where one of {expected} should be)")
        self.place += 1
        return found

    def value(self) -> Any:
        """The next whole value."""
        self.peek()
        while True:
            try:
                found, end = self.decoder.raw_decode(self.text, self.place)
                if end < len(self.text):  # else a number may continue in the next chunk
                    self.place = end
                    return found
            except json.JSONDecodeError as error:
                problem = reason_of(error)
            else:
                problem = "it ends too early"
            if not self.more():
                raise UserError(f"{self.path}: damaged ({problem})")


def stream_list(path: Path, key: str | None = None) -> Iterator[Any]:
    """The items of the list that the file is, or that its object holds under `key`.

    Raises:
        UserError: damaged, or another kind of file.
    """
    stream = _Stream(path)
    with stream.file:
        if key is not None:
            for name in _keys(stream):
                if name == key:
                    break
                _skip(stream)
            else:
                raise UserError(f"{path}: has no '{key}'; is this the right file?")
        yield from _items(stream)


def stream_object(path: Path) -> Iterator[tuple[str, Any]]:
    """The keys and values of the object that the file is."""
    stream = _Stream(path)
    with stream.file:
        for name in _keys(stream):
            yield name, stream.value()


def _keys(stream: _Stream) -> Iterator[str]:
    """The keys of an object, one after another; the caller takes each key's value."""
    stream.take("{")
    if stream.peek() == "}":
        return
    while True:
        name = stream.value()
        stream.take(":")
        yield name
        if stream.take(",}") == "}":
            return


def _items(stream: _Stream) -> Iterator[Any]:
    stream.take("[")
    if stream.peek() == "]":
        stream.take("]")
        return
    while True:
        yield stream.value()
        if stream.take(",]") == "]":
            return


def _skip(stream: _Stream) -> None:
    """Pass over a value without keeping a long list of it."""
    if stream.peek() == "[":
        for _ in _items(stream):
            pass
    else:
        stream.value()


def load_object(path: Path) -> dict[str, Any]:
    """A small JSON file that holds an object.

    Raises:
        UserError: missing, damaged, or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable JSON ({reason_of(error)})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not an object")
    return content
