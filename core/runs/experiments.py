"""What the scripts for a whole table share: their options, and running the steps of an experiment."""

import argparse
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from core.runs.command_line import positive_int
from core.runs.errors import UserError
from core.runs.files import hold_lock
from core.runs.jobs import run_side_by_side
from core.runs.processes import num_processes, say
from core.runs.steps import Step, run_step, script_functions, time_taken


def add_experiment_options(
    parser: argparse.ArgumentParser, *, stages: Sequence[str], scripts: Mapping[str, str], launched: Collection[str]
) -> None:
    """Which stages to run and how: `{name}_args`, `launcher`, `jobs`, `stages`, `dry_run`.

    Args:
        scripts: for each `{name}_args`, the script that is given them.
        launched: the stages that `launcher` starts.
    """
    add = parser.add_argument
    for name, script in scripts.items():
        add(f"--{name}_args", type=shlex.split, default=[], metavar="TEXT", help=f"further arguments of {script}")
    several = ", ".join(stage for stage in stages if stage in launched)
    launcher = f'starts the stages {several}, such as "accelerate launch --num_processes 2"'
    add("--launcher", type=shlex.split, metavar="TEXT", help=launcher)
    add(
        "--jobs",
        type=positive_int,
        default=1,
        help="steps to run at the same time, each with its share of the cores; what they print goes to "
        "steps/**/*.log of --output_dir. Two share one GPU, if both fit its memory",
    )
    only = f"only these, with commas: {','.join(stages)} (default: all)"
    add("--stages", type=stage_list(stages), default=list(stages), help=only)
    add("--dry_run", action="store_true", help="print the plan, what is complete, the disk space and the time")


def stage_list(stages: Sequence[str]) -> Callable[[str], list[str]]:
    """argparse type of `--stages`."""

    def chosen(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        if not names or set(names) - set(stages):
            raise argparse.ArgumentTypeError(f"'{text}': the stages are {','.join(stages)}")
        return names

    return chosen


def check_experiment(
    further_args: Mapping[str, Sequence[str]],
    owned: Mapping[str, Collection[str]],
    once: Mapping[str, Sequence],
    *,
    jobs: int,
    launcher: Sequence[str] | None,
) -> None:
    """Refuse what no experiment can take.

    Args:
        further_args: what `--{script}_args` passes on, by script.
        owned: the options of each script that the experiment sets by itself.
        once: values of options that may not repeat, by option.

    Raises:
        UserError
    """
    if num_processes() > 1:
        raise UserError("start it as one process; --launcher starts several for the stages that can use them")
    if launcher and jobs > 1:
        raise UserError("--jobs runs several steps at a time, --launcher several processes of one: choose one of them")
    for option, values in once.items():
        if len(set(values)) < len(values):
            raise UserError(f"{option}: the same one twice")
    for script, arguments in further_args.items():
        for name in (argument.partition("=")[0] for argument in arguments):
            if name in owned[script]:
                raise UserError(f"--{script}_args: {name} is set by the experiment itself")


def check_step_arguments(steps: Sequence[Step], stages: Collection[str], *, also_check: bool = False) -> None:
    """Let the scripts of these stages read their arguments: a mistake in what is passed on shows now, not after hours.

    Args:
        also_check: let those with a `check_args` check them, too.

    Raises:
        UserError, SystemExit: as the scripts do.
    """
    for step in steps:
        if step.script and step.stage in stages:
            functions = script_functions(step.script)
            args = functions["parse_args"](step.arguments)
            if also_check and "check_args" in functions:
                functions["check_args"](args)


def run_steps(
    records: Path,
    steps: Sequence[Step],
    report: Callable[[], object],
    launched: Collection[str],
    *,
    stages: Collection[str],
    jobs: int = 1,
    launcher: Sequence[str] | None = None,
) -> None:
    """Run the steps that are not complete, then write the report; nobody else may meanwhile.

    Args:
        records: folder of their records, inside the experiment's.
        launched: the stages whose scripts `launcher` starts.
        stages: which of the steps to run; with "report" among them, `report` is called.
        jobs: how many may run at the same time.
        launcher: such as ["accelerate", "launch"].

    Raises:
        UserError, SystemExit: another experiment is in progress there; as the steps do.
    """
    folder = records.parent
    in_use = f"{folder}: another experiment is in progress there; wait for it, or choose another folder"
    with hold_lock(folder / ".reproduce.lock", in_use):
        chosen = [step for step in steps if step.stage in stages]
        if jobs > 1:
            run_side_by_side(records, steps, stages, jobs)
        else:
            for number, step in enumerate(chosen, start=1):
                say(f"\n[{number}/{len(chosen)}] {step.name}")
                run_step(records, step, launcher if step.stage in launched else None)
        if "report" in stages:
            report()
        if taken := time_taken(records, chosen):
            say(f"time of the steps: {taken}")
