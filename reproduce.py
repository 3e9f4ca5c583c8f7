"""The paper's table from one command: data, Hand1000 for every gesture and seed, pictures, metrics, report.

Every stage is one of the other scripts, whose command is printed. A stage that is complete with the same inputs is
skipped, and a killed one goes on where it was. What a stage is given beyond the defaults goes into --train_args,
--generate_args, ... as one quoted text after "=": --train_args="--mixed_precision bf16 --gradient_checkpointing".

--ablate adds rows to the table: `--ablate Lambda 0 0.3 1`, `--ablate mu 0 1`, `--ablate schedule staged`,
`--ablate captioner PaliGemma`, or `--ablate without stage_2 stage_3 fusion` (fusion: plain fine-tuning).

Examples:
  python reproduce.py --gestures call four --source hagrid --annotations hagrid/ann_train_val --output_dir results
  python reproduce.py --gestures call --data_root data --ablate Lambda 0 0.3 1 --ablate without stage_2 stage_3
  python reproduce.py --gestures call --data_root data --dry_run
"""

import argparse
import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captioning.enrich import check_phrase
from core.runs.command_line import (
    argument_parser,
    command_line,
    fraction,
    gesture_name,
    natural_int,
    positive_int,
    seed_int,
)
from core.runs.errors import UserError
from core.runs.files import atomic_file, check_writable, read_lines
from core.runs.photos import list_photos
from core.runs.processes import cpu_count, num_processes, say
from core.runs.run import read_record
from core.runs.steps import Job, fingerprints, is_complete, ran_with, run_once
from hand1000.evaluation import METRICS, NO_SCORE, REAL, Score, all_scores, hand_scores, resamples
from hand1000.gestures import PHRASES

STAGES = ("select", "caption", "enrich", "feature", "train", "generate", "evaluate", "report")
LAUNCHED = {"caption", "train", "generate"}  # stages that can use several processes
CAPTIONERS = {"BLIP2": "blip2", "PaliGemma": "paligemma", "VitGpt2": "vitgpt2"}
WITHOUT = {"stage_2": ["--embedding_steps", "0"], "stage_3": ["--finetune_steps", "0"], "fusion": ["--Lambda", "1"]}
SWEEP_MU, SWEEP_PROMPTS = ("0", "0.25", "0.5", "0.75", "1"), "8"
MODEL_BYTES = 4.3e9  # of Stable Diffusion 1.4 in float32, where the base model is not local


class Variant(NamedTuple):
    """A row of the table: how the model is trained and asked."""

    name: str
    folder: str
    mu: float
    captioner: str
    run: str | None  # folder of the trained model, which rows of another mu share; None: the base model
    train_args: list[str] = []


class Step(NamedTuple):
    """One script with its arguments, what it reads and what it makes."""

    stage: str
    name: str
    script: str  # module name
    arguments: list[str]
    inputs: list[Path]
    outputs: list[Path]

    @property
    def job(self) -> Job:
        return Job(self.name, {"arguments": self.arguments}, self.inputs, self.outputs)


def parse_args(argv=None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--gestures", nargs="+", type=gesture_name, required=True, help="of HaGRID, or your own with --phrase")
    add("--data_root", type=Path, default=Path(), help="folder of the gestures' photos and lists")
    add("--output_dir", type=Path, default=Path("results"), help="folder for models, pictures, tables, report")
    add("--source", type=Path, help="HaGRID download to select photos from, if {gesture}/ is not there yet")
    add("--annotations", type=Path, help="folder of HaGRID's JSON files, {gesture}.json")
    add("--num", type=positive_int, default=1000, help="photos to select for training")
    add("--num_test", type=positive_int, default=1000, help="photos to select for the test")
    add("--captioner", default="BLIP2", help="BLIP2, PaliGemma, VitGpt2, or whose captions are there already")
    add("--phrase", help="gesture phrase, for a single gesture (default: built-in ones)")
    add(
        "--pretrained_model_name_or_path",
        default="CompVis/stable-diffusion-v1-4",
        help="base model: hub id or diffusers folder",
    )
    add("--seeds", nargs="+", type=seed_int, default=[0], help="of training, fusion and generation; averaged")
    add("--mu", type=fraction, default=0.7, help="share of the text in generation")
    add("--ablate", nargs="+", action="append", default=[], metavar=("WHAT", "VALUE"), help="further rows, see above")
    add("--num_images", type=positive_int, help="pictures to draw for each row (default: every test caption)")
    add("--bootstrap", type=resamples, default=1000, help="resamples of the 95 %% intervals")
    add("--protocol", choices=["released", "standard"], default="released", help="of FID and KID")
    add("--feature_extractor", type=Path, help="TorchScript module instead of Inception")
    add("--inception_weights", type=Path, help="local file of the protocol's Inception weights")
    add("--num_workers", type=natural_int, help="processes that read photos and find hands (default: one a core)")
    for script in ("caption", "enrich", "train", "generate"):
        add(f"--{script}_args", type=shlex.split, default=[], metavar="TEXT", help=f"further arguments of {script}")
    add(
        "--launcher",
        type=shlex.split,
        metavar="TEXT",
        help='of captioning, training, generation: "accelerate launch --num_processes 2"',
    )
    add("--stages", type=stage_list, default=list(STAGES), help=f"only these, with commas: {','.join(STAGES)}")
    add("--dry_run", action="store_true", help="print the plan, what is complete, and the disk space; do nothing")
    return parser.parse_args(argv)


def stage_list(text: str) -> list[str]:
    """argparse type."""
    stages = [stage.strip() for stage in text.split(",") if stage.strip()]
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown or not stages:
        raise argparse.ArgumentTypeError(f"'{text}': the stages are {','.join(STAGES)}")
    return stages


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    check_args(args)
    check_writable(args.output_dir)
    rows = variants(args)
    steps = [step for step in plan(args, rows) if step.stage in args.stages]
    if args.dry_run:
        return print_plan(args, steps, rows)
    check_steps(args, steps)
    started = time.monotonic()
    for number, step in enumerate(steps, start=1):
        say(f"\n[{number}/{len(steps)}] {step.name}")
        run_step(args, step)
    if "evaluate" in args.stages:
        for gesture in args.gestures:
            evaluate_real(args, gesture)
        for gesture, seed, row in cells(args, rows):
            evaluate(args, gesture, seed, row)
    if "report" in args.stages:
        from hand1000.report import write_report

        write_report(args, rows, collect(args, rows), costs(args, rows), time.monotonic() - started)
    return None


def check_args(args: argparse.Namespace) -> None:
    """Refuse what can't work before the first stage runs."""
    if num_processes() > 1:
        raise UserError("start it as one process; --launcher gives the stages that can use several theirs")
    for name in ("gestures", "seeds"):
        if len(set(getattr(args, name))) < len(getattr(args, name)):
            raise UserError(f"--{name}: the same one twice")
    if args.phrase and len(args.gestures) > 1:
        raise UserError("--phrase is of one gesture; run reproduce.py once for each gesture of your own")
    for gesture in args.gestures:
        check_phrase(args.phrase or PHRASES.get(gesture), gesture)
    for path in (args.source, args.annotations, args.feature_extractor, args.inception_weights):
        if path and not path.exists():
            raise UserError(f"{path}: no such file or folder")
    if args.feature_extractor and args.inception_weights:
        raise UserError("--feature_extractor stands in place of Inception: leave out --inception_weights")
    for gesture in args.gestures:
        for name in (gesture, f"{gesture}_test"):
            if not args.source and not (args.data_root / name).is_dir():
                raise UserError(f"{args.data_root / name}: no such folder; put photos there, or give --source")


def check_steps(args: argparse.Namespace, steps: Sequence[Step]) -> None:
    """Let a mistake in what the later stages are given show now, not after hours."""
    for step in steps:
        if step.stage in ("train", "generate"):
            script = importlib.import_module(step.script)
            given = script.parse_args(step.arguments)
            if step.stage == "train" and not args.launcher:
                script.check_args(given)
    if args.feature_extractor and "evaluate" in args.stages:
        import torch

        from core.metrics.features import load_torchscript

        load_torchscript(args.feature_extractor, torch.device("cpu"))


# The rows of the table


def variants(args: argparse.Namespace) -> list[Variant]:
    """The base model, Hand1000 as asked for, and the ablations.

    Raises:
        UserError: an ablation of something else.
    """
    rows = [Variant("base", "base", 1, args.captioner, None), hand1000_row(args)]
    for what, *values in args.ablate:
        if not values:
            raise UserError(f"--ablate {what}: which values?")
        for value in values:
            rows.append(ablation(args, what, value))
    if len({row.folder for row in rows}) < len(rows):
        raise UserError("--ablate: the same row twice")
    return rows


def hand1000_row(args: argparse.Namespace) -> Variant:
    return Variant("Hand1000", "hand1000", args.mu, args.captioner, "hand1000")


def ablation(args: argparse.Namespace, what: str, value: str) -> Variant:
    """Hand1000 with one thing changed."""
    if what in ("Lambda", "mu"):
        try:
            value = f"{fraction(value):g}"
        except (ValueError, argparse.ArgumentTypeError):
            raise UserError(f"--ablate {what} {value}: is no number from 0 to 1") from None
    folder = f"{what}_{value}"
    row = Variant(f"{what} {value}", folder, args.mu, args.captioner, folder)
    if what == "mu":
        return row._replace(mu=float(value), run="hand1000")
    if what == "Lambda":
        return row._replace(train_args=["--Lambda", value])
    if what == "schedule" and value in ("interleaved", "staged"):
        return row._replace(train_args=["--schedule", value])
    if what == "captioner":
        return row._replace(captioner=value)
    if what == "without" and value == "fusion":
        return row._replace(train_args=WITHOUT[value], mu=1, run="Lambda_1")  # a run that the row "Lambda 1" shares
    if what == "without" and value in WITHOUT:
        return row._replace(train_args=WITHOUT[value])
    raise UserError(
        f"--ablate {what} {value}: there are Lambda and mu (0 to 1), schedule (interleaved, staged), captioner, "
        f"and without ({', '.join(WITHOUT)})"
    )


def cells(args: argparse.Namespace, rows: Sequence[Variant]) -> Iterator[tuple[str, int, Variant]]:
    """Everything that is drawn and measured."""
    for gesture in args.gestures:
        for seed in args.seeds:
            for row in rows:
                yield gesture, seed, row


# The steps


def plan(args: argparse.Namespace, rows: Sequence[Variant]) -> list[Step]:
    """All scripts to run, in order."""
    steps = []
    for gesture in args.gestures:
        steps += data_steps(args, gesture, sorted({row.captioner for row in rows}))
        for seed in args.seeds:
            runs = {row.run: row for row in reversed(rows) if row.run}
            steps += [train_step(args, gesture, seed, row) for row in reversed(runs.values())]
            steps += [generate_step(args, gesture, seed, row) for row in rows]
        steps.append(sweep_step(args, gesture, args.seeds[0]))
    return steps


def data_steps(args: argparse.Namespace, gesture: str, captioners: Sequence[str]) -> list[Step]:
    """Selection, captions, enrichment and Stage I; captions that are there already are taken as they are."""
    root, steps = args.data_root, []
    folders = [root / gesture, root / f"{gesture}_test"]
    at_root = ["--data_root", str(root)]
    selected = (root / f"{gesture}_selection.json").exists()
    if args.source and (selected or not all(folder.is_dir() for folder in folders)):
        arguments = ["--source", str(args.source), "--gesture", gesture, *at_root]
        arguments += ["--num", str(args.num), "--num_test", str(args.num_test)]
        if args.annotations:
            arguments += ["--annotations", str(args.annotations / f"{gesture}.json")]
        steps.append(Step("select", f"{gesture}/select", "select_images", arguments, [], folders))
    for captioner in captioners:
        for folder in folders:
            stem = f"{folder.name}_{captioner}"
            names, captions, enriched = (root / f"{stem}{end}.txt" for end in ("_file_name", "", "_modified"))
            if enriched.is_file() and not enriched.with_suffix(".json").is_file():
                continue  # the user's own
            own = captions.is_file() and not captions.with_suffix(".json").is_file()
            if captioner in CAPTIONERS and not own:
                arguments = ["--gesture", folder.name, *at_root, *args.caption_args]
                script = f"captioning.{CAPTIONERS[captioner]}"
                steps.append(Step("caption", f"{stem}/caption", script, arguments, [folder], [names, captions]))
            arguments = ["--gesture", folder.name, "--captioner", captioner, *at_root]
            arguments += ["--phrase", args.phrase or PHRASES[gesture], *args.enrich_args]
            steps.append(
                Step("enrich", f"{stem}/enrich", "captioning.enrich", arguments, [names, captions], [enriched])
            )
    arguments = ["--gesture", gesture, *at_root]
    arguments += [flag for flag in args.train_args if flag == "--skip_bad_images"]  # both read the photos
    steps.append(
        Step("feature", f"{gesture}/feature", "cal_mean_feature", arguments, folders[:1], [root / f"{gesture}.npy"])
    )
    return steps


def train_step(args: argparse.Namespace, gesture: str, seed: int, row: Variant) -> Step:
    run = run_folder(args, gesture, seed, row)
    arguments = ["--gesture", gesture, "--data_root", str(args.data_root), "--captioner", row.captioner]
    arguments += ["--pretrained_model_name_or_path", args.pretrained_model_name_or_path, "--output_dir", str(run)]
    arguments += ["--seed", str(seed), "--fusion_seed", str(seed), "--resume_from_checkpoint", "latest"]
    arguments += args.train_args + row.train_args
    inputs = [args.data_root / gesture, args.data_root / f"{gesture}.npy", *local_model(args)]
    inputs += [args.data_root / f"{gesture}_{row.captioner}{end}.txt" for end in ("_file_name", "_modified")]
    name = f"{gesture}/seed_{seed}/{row.run}/train"
    return Step("train", name, "train", arguments, inputs, [run / "model_index.json", run / "losses.csv"])


def generate_step(args: argparse.Namespace, gesture: str, seed: int, row: Variant) -> Step:
    arguments, inputs = generation(args, gesture, seed, row)
    pictures = cell_folder(args, gesture, seed, row) / "pictures"
    arguments += ["--img_save_path", str(pictures), "--mu", str(row.mu)]
    if args.num_images:
        arguments += ["--num_images", str(args.num_images)]
    name = f"{gesture}/seed_{seed}/{row.folder}/generate"
    outputs = [pictures / "generation.json", *(pictures / name for name in picture_names(args, gesture, row))]
    return Step("generate", name, "image_generation", arguments, inputs, outputs)


def picture_names(args: argparse.Namespace, gesture: str, row: Variant) -> list[str]:
    """Of the pictures to draw; none as long as there are no captions."""
    names = args.data_root / f"{gesture}_test_{row.captioner}_file_name.txt"
    return read_lines(names)[: args.num_images] if names.is_file() else []


def sweep_step(args: argparse.Namespace, gesture: str, seed: int) -> Step:
    """A sheet of a few prompts at five values of mu."""
    row = hand1000_row(args)
    arguments, inputs = generation(args, gesture, seed, row)
    pictures = args.output_dir / gesture / f"seed_{seed}" / "mu_sweep"
    arguments += ["--img_save_path", str(pictures), "--mu", *SWEEP_MU, "--num_images", SWEEP_PROMPTS]
    return Step(
        "generate",
        f"{gesture}/seed_{seed}/mu_sweep/generate",
        "image_generation",
        arguments,
        inputs,
        [pictures / "grid.png"],
    )


def generation(args: argparse.Namespace, gesture: str, seed: int, row: Variant) -> tuple[list[str], list[Path]]:
    """Arguments and inputs of a generation from the held-out captions."""
    names, prompts = (
        args.data_root / f"{gesture}_test_{row.captioner}{end}.txt" for end in ("_file_name", "_modified")
    )
    arguments = ["--image_filenames_file", str(names), "--prompts_file", str(prompts), "--seed", str(seed)]
    inputs = [names, prompts]
    if row.run:
        run, feature = run_folder(args, gesture, seed, row), args.data_root / f"{gesture}.npy"
        arguments += ["--ckpt", str(run), "--feature_npy_path", str(feature)]
        inputs += [run / "hand1000.json", run / "losses.csv", feature]
    else:
        arguments += ["--ckpt", args.pretrained_model_name_or_path]
        arguments += resolution_of(args.train_args)
        inputs += local_model(args)
    return arguments + args.generate_args, inputs


def resolution_of(train_args: Sequence[str]) -> list[str]:
    """The base model draws at the resolution that the others are trained for."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--resolution")
    given = parser.parse_known_args(list(train_args))[0].resolution
    return ["--resolution", given] if given else []


def cell_folder(args: argparse.Namespace, gesture: str, seed: int, row: Variant) -> Path:
    return args.output_dir / gesture / f"seed_{seed}" / row.folder


def run_folder(args: argparse.Namespace, gesture: str, seed: int, row: Variant) -> Path:
    return args.output_dir / gesture / f"seed_{seed}" / row.run / "run"


def records_of(args: argparse.Namespace) -> Path:
    """The folder of the records of what has run."""
    return args.output_dir / "steps"


def local_model(args: argparse.Namespace) -> list[Path]:
    path = Path(args.pretrained_model_name_or_path)
    return [path] if path.exists() else []


# Running them, once


def run_step(args: argparse.Namespace, step: Step) -> None:
    """Print and run a script, unless it is complete."""

    def run() -> None:
        command = [script_path(step), *step.arguments]
        launcher = args.launcher if step.stage in LAUNCHED else None
        say(f"$ {shlex.join([*(launcher or ['python']), *command])}")
        if not launcher:
            return importlib.import_module(step.script).main(step.arguments)
        status = subprocess.run([*launcher, *command]).returncode
        if status:
            sys.exit(status)
        return None

    launched = bool(args.launcher) and step.stage in LAUNCHED
    run_once(records_of(args), step.job, run, measurable=not launched)
    if step.stage == "train":  # up to three times the model
        shutil.rmtree(step.outputs[0].parent / "checkpoints", ignore_errors=True)


def script_path(step: Step) -> str:
    """Seen from the current folder."""
    path = Path(__file__).resolve().parent / f"{step.script.replace('.', '/')}.py"
    return os.path.relpath(path)


# Metrics


def evaluate(args: argparse.Namespace, gesture: str, seed: int, row: Variant) -> None:
    """All metrics of one cell, to scores.json."""
    job = evaluation(args, gesture, seed, row)
    (pictures, real, *given), (output,) = job.inputs, job.outputs
    check_pictures(args, gesture, seed, row)
    cache = args.output_dir / gesture / "real_features" / short_hash([job.settings, fingerprints([real, *given])])

    def run() -> None:
        cache.mkdir(parents=True, exist_ok=True)
        options = {**score_options(args), **feature_options(args)}
        write_scores(output, pictures, lambda: all_scores(real, pictures, gesture=gesture, cache=cache, **options))

    run_once(records_of(args), job, run)


def evaluate_real(args: argparse.Namespace, gesture: str) -> None:
    """What the test photos themselves score in the metrics of hands."""
    job = real_evaluation(args, gesture)
    (real,), (output,) = job.inputs, job.outputs

    def run() -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_scores(output, real, lambda: hand_scores(real, gesture=gesture, **score_options(args)))

    run_once(records_of(args), job, run)


def write_scores(output: Path, pictures: Path, score: Callable[[], dict[str, Score]]) -> None:
    """Compute a row's scores, print and keep them; a metric that does not apply is NaN."""
    say(f"\nMetrics of {pictures}")
    scores = score()
    say("   ".join(f"{metric} {score.value:.4g}" for metric, score in scores.items()))
    content = {"images": len(list_photos(pictures)), "scores": dict.fromkeys(METRICS, NO_SCORE) | scores}
    with atomic_file(output) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def score_options(args: argparse.Namespace) -> dict[str, int]:
    workers = cpu_count() if args.num_workers is None else args.num_workers
    return {"resamples": args.bootstrap, "seed": 0, "num_workers": workers}


def evaluation(args: argparse.Namespace, gesture: str, seed: int, row: Variant) -> Job:
    """All metrics of a cell's pictures."""
    folder = cell_folder(args, gesture, seed, row)
    settings = {name: str(value) for name, value in feature_options(args).items()} | score_settings(args)
    given = [path for path in (args.feature_extractor, args.inception_weights) if path]
    inputs = [folder / "pictures", args.data_root / f"{gesture}_test", *given]
    return Job(f"{gesture}/seed_{seed}/{row.folder}/evaluate", settings, inputs, [folder / "scores.json"])


def real_evaluation(args: argparse.Namespace, gesture: str) -> Job:
    """The metrics of hands of the test photos."""
    inputs, outputs = [args.data_root / f"{gesture}_test"], [args.output_dir / gesture / "real_scores.json"]
    return Job(f"{gesture}/real/evaluate", score_settings(args), inputs, outputs)


def evaluations(args: argparse.Namespace, rows: Sequence[Variant]) -> list[Job]:
    real = [real_evaluation(args, gesture) for gesture in args.gestures]
    return real + [evaluation(args, *cell) for cell in cells(args, rows)]


def score_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Another metric, and all are computed anew."""
    return {"bootstrap": args.bootstrap, "metrics": list(METRICS)}


def feature_options(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in ("protocol", "feature_extractor", "inception_weights")}


def check_pictures(args: argparse.Namespace, gesture: str, seed: int, row: Variant) -> None:
    """Raises UserError unless the cell's pictures are all there, no others, and made with these settings."""
    pictures, names = cell_folder(args, gesture, seed, row) / "pictures", picture_names(args, gesture, row)
    made = {path.name for path in list_photos(pictures)} if pictures.is_dir() else set()
    if made != set(names):
        raise UserError(
            f"{pictures}: {len(made)} pictures, not the {len(names)} wanted; run generate, or take another --output_dir"
        )
    steps = [generate_step(args, gesture, seed, row)] + ([train_step(args, gesture, seed, row)] if row.run else [])
    for step in steps:
        if not ran_with(records_of(args), step.job):
            raise UserError(f"{pictures}: made with other settings; run {step.stage}, or take another --output_dir")


def short_hash(content: Any) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def collect(args: argparse.Namespace, rows: Sequence[Variant]) -> dict[tuple[str, int | None, str], dict[str, Any]]:
    """`images` and `scores` of everything evaluated, by gesture, seed (None for the real photos) and the row's name."""
    jobs: dict[tuple[str, int | None, str], Job] = {}
    for gesture in args.gestures:
        jobs[gesture, None, REAL] = real_evaluation(args, gesture)
    for gesture, seed, row in cells(args, rows):
        check_pictures(args, gesture, seed, row)
        jobs[gesture, seed, row.name] = evaluation(args, gesture, seed, row)
    found = {}
    for key, job in jobs.items():
        (path,) = job.outputs
        if not is_complete(records_of(args), job):
            raise UserError(f"{path}: not evaluated yet with these settings; run the stage evaluate first")
        content = json.loads(path.read_text(encoding="utf-8"))
        content["scores"] = {metric: Score(*content["scores"][metric]) for metric in METRICS}
        found[key] = content
    return found


def costs(args: argparse.Namespace, rows: Sequence[Variant]) -> dict[str, dict[str, Any]]:
    """Seconds, peak memory and commit of every step of these rows that ran, by its name."""
    names = [step.name for step in plan(args, rows)] + [job.name for job in evaluations(args, rows)]
    records = {name: read_record(records_of(args), name) for name in names}
    kept = ("seconds", "peak_memory_gb", "git_commit")
    return {name: {key: record.get(key) for key in kept} for name, record in records.items() if record}


# The plan


def print_plan(args: argparse.Namespace, steps: Sequence[Step], rows: Sequence[Variant]) -> None:
    """Every command, marked where it is complete; the disk space that the models will take, and the time."""
    to_do: Counter[str] = Counter()
    for step in steps:
        complete = is_complete(records_of(args), step.job)
        to_do[step.stage] += not complete
        say(f"{'complete' if complete else 'to do   '}  {shlex.join([script_path(step), *step.arguments])}")
    if "evaluate" in args.stages:
        to_do["evaluate"] = sum(not is_complete(records_of(args), job) for job in evaluations(args, rows))
    counts = [f"{count} to {stage}" for stage, count in to_do.items() if count]
    say(f"\n{len(steps)} steps; {', '.join(counts) or 'all complete'}")
    trainings = [step for step in steps if step.stage == "train" and not step.outputs[0].exists()]
    size = sum(sum(file.stat().st_size for file in path.rglob("*")) for path in local_model(args)) or MODEL_BYTES
    space = f"{len(trainings) * size / 1e9:.1f} GB for {len(trainings)} models still to train"
    say(f"disk space: about {space}, and {2.5 * size / 1e9:.1f} GB of checkpoints while one trains")
    say(f"time: {time_estimate(args, to_do)}")


def time_estimate(args: argparse.Namespace, to_do: Counter[str]) -> str:
    """By what finished steps of the same stages took in this output folder."""
    taken: dict[str, list[float]] = {}
    for path in records_of(args).rglob("*.json"):
        taken.setdefault(path.stem, []).append(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    unknown = [stage for stage, count in to_do.items() if count and stage not in taken]
    if unknown:
        return f"not known yet for {', '.join(unknown)}; run one gesture and seed, then ask again"
    seconds = sum(count * sum(taken[stage]) / len(taken[stage]) for stage, count in to_do.items() if count)
    return f"about {seconds / 60:.0f} minutes, by the stages that have run"


if __name__ == "__main__":
    main()
