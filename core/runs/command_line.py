"""What every script's command line shares: help that shows defaults, checked numbers, one-line errors."""

import argparse
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from core.runs.errors import UserError, reason_of
from core.runs.files import is_utf8
from core.runs.processes import leave_process_group

# The first process of a machine names a mistake that all of them meet: the launcher ends the others when it exits, and
# would end it if they were faster. A process that is alone with its error names it after this time.
SECONDS_FOR_THE_FIRST = 10
MOST_DDIM_STEPS = 999  # the released timesteps start at 1, so that a thousandth step would lie beyond the last, 999
MOST_PIXELS = 8192  # a side: more than any Stable Diffusion draws, and little enough for every memory
LARGEST_RATE = 1e30  # a learning rate is kept in float32, which ends at 3e38
MEMORY = {  # errors of libraries that are not imported here, by their names, and what they mean
    "OutOfMemoryError": "the GPU's memory is full",
    "BrokenProcessPool": "a worker process was killed, perhaps for want of memory; try a smaller --num_workers",
}


def command_line(main: Callable[..., None]) -> Callable[..., None]:
    """Let `main(argv=None)` end a user's mistake with one line and exit status 2, without a traceback."""

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> None:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a terminal that is not UTF-8 gets what it can show
                stream.reconfigure(errors="backslashreplace")
        try:
            main(argv)
            leave_process_group()
        except (UserError, OSError) as error:
            message = str(error)
            if isinstance(error, OSError) and error.filename:  # a full disk, a folder without permission
                message = f"{error.filename}: {error.strerror}"
            if int(os.environ.get("LOCAL_RANK", 0)) > 0:
                time.sleep(SECONDS_FOR_THE_FIRST)
            end_with(message)
        except KeyboardInterrupt:
            sys.exit(130)
        except MemoryError as error:
            end_with(f"there is not enough memory ({reason_of(error)})")
        except RuntimeError as error:
            if type(error).__name__ not in MEMORY:
                raise
            end_with(f"{MEMORY[type(error).__name__]} ({reason_of(error)})")

    return wrapped


def end_with(message: str) -> NoReturn:
    """Print the mistake on one line, whatever names of files are in it, and end with exit status 2."""
    print(f"{Path(sys.argv[0]).name}: error: {printable(message)}", file=sys.stderr, flush=True)
    sys.exit(2)


def printable(text: str) -> str:
    """The text on one line: newlines and the like, which names of files may hold, as \\n."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the layout of the description and appends each option's default, where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        said = action.required or "(default" in (action.help or "")
        if said or default is None or default is False or default in ("", []):
            return action.help
        if isinstance(default, list):
            values = " ".join(map(str, default)).replace("%", "%%")
            return f"{action.help} (default: {values})"
        return super()._get_help_string(action)


class OneLineParser(argparse.ArgumentParser):
    """A mistake gets one line, without the usage before it; arguments that no file could hold are one."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[override]
        for argument in sys.argv[1:] if args is None else args:
            if not is_utf8(argument):
                self.error(f"argument {argument!r}: is not UTF-8")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {printable(message)} (--help is the manual)\n")


def argument_parser(docstring: str | None) -> argparse.ArgumentParser:
    """A parser whose manual is the script's own docstring (it ends with an example)."""
    # No abbreviations: --see would slip past those who look for --seed.
    return OneLineParser(description=docstring, formatter_class=HelpFormatter, allow_abbrev=False)


def plain_arguments(args: argparse.Namespace, *, without: Sequence[str] | set[str] = ()) -> dict[str, Any]:
    """The arguments as JSON can hold them, all but those in `without`."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(one) for one in value]
        return str(value) if isinstance(value, Path) else value

    return {name: plain(value) for name, value in vars(args).items() if name not in without}


def option_value(arguments: Sequence[str], option: str) -> str | None:
    """What an option is given among another script's arguments, as "--mu 1" or "--mu=1"; None where it is not."""
    parser = OneLineParser(add_help=False, allow_abbrev=False)
    parser.add_argument(option, dest="value")
    return parser.parse_known_args(list(arguments))[0].value


def without_option(arguments: Sequence[str], option: str) -> list[str]:
    """The arguments without an option and its value."""
    parser = OneLineParser(add_help=False, allow_abbrev=False)
    parser.add_argument(option)
    return parser.parse_known_args(list(arguments))[1]


# Types of options


def real_number(text: str) -> float:
    """A number; argparse's own message for a word would name the function that reads it."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def whole_number(text: str) -> int:
    """A whole number; the message for a word is as in `real_number`."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def finite_float(text: str) -> float:
    """argparse type: any number but NaN and the infinite ones."""
    value = real_number(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def fraction(text: str) -> float:
    """argparse type: a number from 0 to 1."""
    value = real_number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is outside 0 to 1")
    return value


def learning_rate(text: str) -> float:
    """argparse type: a number from 0 that float32 can hold."""
    value = real_number(text)
    if not 0 <= value <= LARGEST_RATE:
        raise argparse.ArgumentTypeError(f"{text} is not a learning rate")
    return value


def positive_int(text: str) -> int:
    """argparse type: a whole number from 1."""
    value = whole_number(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def pixels(text: str) -> int:
    """argparse type: pixels a side, from 1 to what memory can hold."""
    value = positive_int(text)
    if value > MOST_PIXELS:
        raise argparse.ArgumentTypeError(f"{text} pixels a side are more than {MOST_PIXELS}")
    return value


def natural_int(text: str) -> int:
    """argparse type: a whole number from 0."""
    value = whole_number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def seed_int(text: str) -> int:
    """argparse type: a seed. torch's CPU generator keeps only 32 bits of one, so larger ones would repeat."""
    value = natural_int(text)
    if value >= 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not below 2**32")
    return value


def ddim_steps(text: str) -> int:
    """argparse type: a number of DDIM steps, 1 to 999."""
    steps = positive_int(text)
    if steps > MOST_DDIM_STEPS:
        raise argparse.ArgumentTypeError(f"{text} is above {MOST_DDIM_STEPS}")
    return steps


def folder_name(text: str) -> str:
    """argparse type: the name of a gesture, which is also that of a folder and begins the names of its lists."""
    name = text.rstrip("/\\")  # tab completion adds one
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise argparse.ArgumentTypeError(f"'{text}' is not a plain name; --data_root says where its folder is")
    return name
