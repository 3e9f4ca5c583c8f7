"""What is read again is checked against the type that it is said to have: a TypedDict, a list, a number in a range.

class Facts(TypedDict):
    steps: Annotated[int, positive]
    losses: list[float]

misfit({"steps": 0, "losses": []}, Facts) == "steps is 0"
"""

import json
import math
from collections.abc import Iterable
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

LONGEST_VALUE = 60  # characters of a value in a message


def parsed_json(text: str | bytes) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is not UTF-8 or not JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def misfit(value: Any, kind: Any, name: str = "it") -> str | None:
    """What keeps a value read from JSON from being of a kind, such as "steps is -1"; None where nothing does.

    Args:
        kind: str, int, float (a finite number), bool, None, Any, Literal, a union, list[...], tuple[...] (a list of
            that length), dict[str, ...], a TypedDict (further keys may follow), or Annotated[..., test].
        name: of the value in the message.
    """
    origin, parts = get_origin(kind), get_args(kind)
    wrong = f"{name} is {shortened(value)}"
    if is_typeddict(kind):
        if not isinstance(value, dict):
            return wrong
        hints = get_type_hints(kind, include_extras=True)
        missing = [key for key in kind.__required_keys__ if key not in value]
        if missing:
            return f"{name} has no {min(missing)}"
        return first(misfit(value[key], hint, key) for key, hint in hints.items() if key in value)
    if origin is Annotated:
        return misfit(value, parts[0], name) or (None if all(test(value) for test in parts[1:]) else wrong)
    if origin in (Union, UnionType):
        return None if any(misfit(value, part) is None for part in parts) else wrong
    if origin is Literal:
        return None if any(type(value) is type(part) and value == part for part in parts) else wrong
    if origin is dict:
        return wrong if not isinstance(value, dict) else first(misfit(one, parts[1], key) for key, one in value.items())
    if origin is list:
        return wrong if not isinstance(value, list) else first(misfit(one, parts[0], name) for one in value)
    if origin is tuple:
        is_row = isinstance(value, list) and len(value) == len(parts)
        return first(misfit(one, part, name) for one, part in zip(value, parts)) if is_row else wrong
    if kind is float:
        return None if type(value) in (int, float) and abs(value) < math.inf else wrong
    return None if kind is Any or type(value) is (type(None) if kind is None else kind) else wrong


def first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem), None)


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


# Tests for Annotated


def natural(value: float) -> bool:
    return value >= 0


def positive(value: float) -> bool:
    return value > 0


def a_seed(value: int) -> bool:
    return 0 <= value < 2**32
