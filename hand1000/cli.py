"""What every script's command line shares: help that shows defaults, checked numbers, one-line errors."""

import argparse
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

# The first process of a machine names a mistake that all of them meet: the launcher ends the others when it exits, and
# would end it if they were faster. A process that is alone with its error names it after this time.
SECONDS_FOR_THE_FIRST = 10


class UserError(Exception):
    """Something the person at the shell can mend. The text says what is wrong, in which file, and what to do."""


def command_line(main: Callable[..., None]) -> Callable[..., None]:
    """Let `main(argv=None)` end a user's mistake with one line and exit status 2, without a traceback."""

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> None:
        try:
            main(argv)
            leave_process_group()
        except (UserError, OSError) as error:
            message = str(error)
            if isinstance(error, OSError) and error.filename:  # a full disk, a folder without permission
                message = f"{error.filename}: {error.strerror}"
            if int(os.environ.get("LOCAL_RANK", 0)) > 0:
                time.sleep(SECONDS_FOR_THE_FIRST)
            print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr, flush=True)
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's; not imported here
                raise
            print(f"{Path(sys.argv[0]).name}: error: the GPU's memory is full ({reason_of(error)})", file=sys.stderr)
            sys.exit(2)

    return wrapped


def leave_process_group() -> None:
    """End this process's part in `accelerate launch`; gloo's threads may abort a process that just exits."""
    torch = sys.modules.get("torch")
    if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the layout of the description and appends each option's default, where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.required:
            return action.help
        return super()._get_help_string(action)


class OneLineParser(argparse.ArgumentParser):
    """A mistake gets one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help is the manual)\n")


def argument_parser(docstring: str) -> argparse.ArgumentParser:
    """A parser whose manual is the script's own docstring (it ends with an example)."""
    return OneLineParser(description=docstring, formatter_class=HelpFormatter)


def fraction(text: str) -> float:
    """argparse type: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is outside 0 to 1")
    return value


def learning_rate(text: str) -> float:
    """argparse type: a finite number from 0."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no learning rate")
    return value


def gesture_name(text: str) -> str:
    """argparse type: the name of a gesture, which is also that of a folder and begins the names of its lists."""
    name = text.rstrip("/\\")  # tab completion adds one
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise argparse.ArgumentTypeError(f"'{text}' is no plain name; --data_root says where its folder is")
    return name


def positive_int(text: str) -> int:
    """argparse type: a whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def natural_int(text: str) -> int:
    """argparse type: a whole number from 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def seed_int(text: str) -> int:
    """argparse type: a seed. torch's CPU generator keeps only 32 bits of one, so larger ones would repeat."""
    value = natural_int(text)
    if value >= 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not below 2**32")
    return value


def reason_of(error: Exception) -> str:
    """What another library's error says, on one line and not too long."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return reason if len(reason) < 200 else f"{reason[:200]}…"


def cpu_count() -> int:
    """Cores this process may use (a container or `taskset` may allow fewer than the machine has)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_processes() -> int:
    """How many processes `accelerate launch` or `torchrun` started, known before torch is imported."""
    return int(os.environ.get("WORLD_SIZE", 1))


def processes_need_cpu() -> bool:
    """Whether several processes have to meet on the CPU (gloo): accelerate must be told so."""
    import torch

    return num_processes() > 1 and not torch.cuda.is_available() and not torch.xpu.is_available()


def check_all_processes_started() -> None:
    """`accelerate launch --num_processes 2` starts only one process, silently, where there is no GPU.

    Raises:
        UserError
    """
    import torch

    asked_for_several = {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"} <= os.environ.keys()
    if asked_for_several and "LOCAL_RANK" not in os.environ and not torch.cuda.is_available():
        raise UserError(
            "accelerate launch started only one process, because it sees no GPU; pass it --multi_gpu as well, "
            "to get all of them on the CPU"
        )


def is_main_process() -> bool:
    """Whether this is the process that prints and writes."""
    return int(os.environ.get("RANK", 0)) == 0


def say(text: str) -> None:
    """Print once, whatever the number of processes."""
    if is_main_process():
        print(text, flush=True)
