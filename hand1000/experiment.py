"""The paper's table as an experiment: its rows, where everything lies, and the steps that make it.

A cell of the table is a gesture, a seed and a row (base, Hand1000, an ablation). Its files:

    results/call/seed_0/hand1000/run/         the trained model
    results/call/seed_0/hand1000/pictures/    drawn from the captions of the test photos
    results/call/seed_0/hand1000/scores.json  every metric of these pictures
    results/call/seed_0/mu_sweep/grid.png     a few captions at five values of mu
    results/call/real_scores.json             the metrics of hands of the test photos themselves
    results/steps/                            the records of the steps
"""

import argparse
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from core.hands.detection import hand_detector
from core.metrics.scores import METRICS, NO_SCORE, TEXT_METRICS, Score, all_scores, hand_scores
from core.runs.command_line import fraction, option_value, without_option
from core.runs.errors import UserError
from core.runs.experiments import check_step_arguments
from core.runs.files import read_lines, write_json
from core.runs.photos import list_photos
from core.runs.processes import counted, cpu_count, say
from core.runs.run import read_json
from core.runs.steps import Step, fingerprints, is_complete, ran_with_these_settings
from hand1000.caption_scores import caption_scores, check_caption_models
from hand1000.gesture_feature import is_users_own
from hand1000.gesture_files import CAPTIONER, GestureFiles
from hand1000.gestures import PHRASES
from hand1000.hyperparameters import LR_SCHEDULERS
from hand1000.prompts import RECORD as PICTURES_RECORD
from hand1000.trained import LORA_FILE, RECORD, StoredModel

SCRIPTS = Path(__file__).resolve().parents[1]
STAGES = ("select", "caption", "enrich", "feature", "train", "generate", "evaluate", "report")
LAUNCHED = {"caption", "train", "generate"}  # stages that can use several processes
CAPTIONERS = {"BLIP2": "blip2", "PaliGemma": "paligemma", "VitGpt2": "vitgpt2", "plain": "plain"}
WITHOUT = {"stage_2": ["--embedding_steps", "0"], "stage_3": ["--finetune_steps", "0"], "fusion": ["--Lambda", "1"]}
COMPARED = ("imagic", "finetuned", "finetuned_imagic", "lora")  # with Hand1000: the paper's comparison, and a LoRA
LORA_RANK = 16
BASE_MODEL_OPTIONS = ("--resolution", *(f"--{name}" for name in StoredModel._fields[1:]))  # of --train_args
SWEEP_MU, SWEEP_PROMPTS = ("0", "0.25", "0.5", "0.75", "1"), 8
MODEL_BYTES = 4.3e9  # of Stable Diffusion 1.4 in float32, where the base model is not local
CHECKPOINTS = 2.5  # times the model: what the checkpoints of one training take at most
ALL_METRICS = METRICS | TEXT_METRICS  # those of texts only where asked for
NO_PHOTOS = "put photos there, or pass --source"


# The rows of the table


class Row(NamedTuple):
    """A row of the table: how the model is trained and asked."""

    name: str
    folder: str
    mu: float  # share of the text in generation
    captioner: str
    run: str | None  # folder of the trained model, which rows of another mu share; None: the base model
    train_args: list[str] = []  # of train.py, beyond those of all rows
    imagic: bool = False  # drawn by Imagic, from the photos of training


def table_rows(
    mu: float,
    captioner: str,
    ablations: Sequence[Sequence[str]],
    compared: Sequence[str] = (),
    lora_args: Sequence[str] = (),
) -> list[Row]:
    """The base model, Hand1000 as asked for, what it is compared with, and its ablations.

    Args:
        ablations: for each what is changed, then the values: ["Lambda", "0", "0.3"].
        compared: of `COMPARED`.
        lora_args: of train.py, for the LoRA alone: a learning rate that suits all weights is too small for it.

    Raises:
        UserError: an ablation of something else, or the same one twice.
    """
    ours = Row("Hand1000", "hand1000", mu, captioner, "hand1000")
    rows = [Row("base", "base", 1, captioner, None), ours, *(compared_row(ours, what, lora_args) for what in compared)]
    for what, *values in ablations:
        if not values:
            raise UserError(f"--ablate {what}: name the values")
        rows += [ablation(ours, what, value) for value in values]
    if len({row.folder for row in rows}) < len(rows):
        raise UserError("--ablate: the same row twice")
    return rows


def compared_row(ours: Row, what: str, lora_args: Sequence[str] = ()) -> Row:
    """A row of the paper's comparison: Stable Diffusion and fine-tuned Stable Diffusion, each with Imagic; and a LoRA.

    Fine-tuned Stable Diffusion is Hand1000 without the gesture: λ = μ = 1, with Stages II and III as they are.
    """
    if what == "lora":
        train_args = ["--lora_rank", str(LORA_RANK), *lora_args]
        return ours._replace(name="LoRA", folder=what, run=what, train_args=train_args)
    finetuned = ablation(ours, "without", "fusion")._replace(name="fine-tuned", folder="finetuned")
    return {
        "finetuned": finetuned,
        "finetuned_imagic": finetuned._replace(name="fine-tuned + Imagic", folder=what, mu=ours.mu, imagic=True),
        "imagic": Row("Imagic", "imagic", ours.mu, ours.captioner, None, imagic=True),
    }[what]


def ablation(ours: Row, what: str, value: str) -> Row:
    """Hand1000 with one thing changed.

    Raises:
        UserError: there is no such ablation.
    """
    if what in ("Lambda", "mu"):
        try:
            value = f"{fraction(value):g}"
        except argparse.ArgumentTypeError:
            raise UserError(f"--ablate {what} {value}: not a number from 0 to 1") from None
    folder = f"{what}_{value}"
    row = ours._replace(name=f"{what} {value}", folder=folder, run=folder)
    if what == "mu":
        return row._replace(mu=float(value), run=ours.run)
    if what == "Lambda":
        return row._replace(train_args=["--Lambda", value])
    if what == "schedule" and value in ("interleaved", "staged"):
        return row._replace(train_args=["--schedule", value])
    if what == "lr_scheduler" and value in LR_SCHEDULERS:
        return row._replace(train_args=["--lr_scheduler", value])
    if what == "captioner" and value.isidentifier():
        return row._replace(captioner=value)
    if what == "without" and value == "fusion":
        return row._replace(train_args=WITHOUT[value], mu=1, run="Lambda_1")  # a run that the row "Lambda 1" shares
    if what == "without" and value in WITHOUT:
        return row._replace(train_args=WITHOUT[value])
    raise UserError(
        f"--ablate {what} {value}: there are Lambda and mu (0 to 1), schedule (interleaved, staged), "
        f"lr_scheduler ({', '.join(LR_SCHEDULERS)}), captioner, and without ({', '.join(WITHOUT)})"
    )


class Cell(NamedTuple):
    """A gesture, a seed and a row, and where their files lie."""

    gesture: str
    seed: int
    row: Row
    seed_folder: Path

    @property
    def run(self) -> Path:
        """The trained model's folder; not for the base model's row, which has none."""
        return self.seed_folder / str(self.row.run) / "run"

    @property
    def pictures(self) -> Path:
        return self.seed_folder / self.row.folder / "pictures"

    @property
    def scores(self) -> Path:
        return self.seed_folder / self.row.folder / "scores.json"

    def step_name(self, stage: str) -> str:
        folder = self.row.run if stage == "train" else self.row.folder
        return f"{self.gesture}/seed_{self.seed}/{folder}/{stage}"


@dataclass(frozen=True)
class Experiment:
    """What makes one table."""

    gestures: list[str]
    rows: list[Row]  # base first, Hand1000 second, then what it is compared with
    seeds: list[int]
    data_root: Path
    output_dir: Path
    base_model: str  # hub id or diffusers folder
    phrase: str | None = None  # of a single gesture that has no built-in one
    num_images: int | None = None  # pictures of each cell (None: one for each test caption)
    source: Path | None = None  # a HaGRID download to select photos from
    annotations: Path | None = None  # its folder of JSON files
    num: int = 1000  # photos to select for training
    num_test: int = 1000
    protocol: str = "released"  # of FID and KID
    feature_extractor: Path | None = None
    inception_weights: Path | None = None
    clip_model: str | None = None  # for the CLIP score of pictures and captions
    attribute_classifier: Path | None = None  # see core/metrics/texts.py
    bootstrap: int = 1000  # resamples of the intervals
    num_workers: int | None = None
    further_args: dict[str, list[str]] = field(default_factory=dict)  # by script: caption, enrich, train, ...

    # Where everything lies

    @property
    def records(self) -> Path:
        return self.output_dir / "steps"

    def files(self, gesture: str, captioner: str = CAPTIONER) -> GestureFiles:
        return GestureFiles(self.data_root, gesture, captioner)

    def cell(self, gesture: str, seed: int, row: Row) -> Cell:
        return Cell(gesture, seed, row, self.output_dir / gesture / f"seed_{seed}")

    def cells(self) -> Iterator[Cell]:
        """Everything that is drawn and measured."""
        for gesture in self.gestures:
            for seed in self.seeds:
                for row in self.rows:
                    yield self.cell(gesture, seed, row)

    def mu_sweep(self, gesture: str) -> Path:
        return self.cell(gesture, self.seeds[0], self.rows[1]).seed_folder / "mu_sweep" / "grid.png"

    def real_scores(self, gesture: str) -> Path:
        return self.output_dir / gesture / "real_scores.json"

    @property
    def local_model(self) -> list[Path]:
        """The base model's folder, where it is not a hub id."""
        path = Path(self.base_model)
        return [path] if path.exists() else []

    def picture_names(self, cell: Cell) -> list[str]:
        """Of the pictures to draw; none as long as there are no captions."""
        names = self.files(cell.gesture, cell.row.captioner).test.names
        return read_lines(names)[: self.num_images] if names.is_file() else []

    # The steps

    def steps(self) -> list[Step]:
        """All steps, each after those whose results it needs."""
        steps = [step for gesture in self.gestures for step in self.data_steps(gesture)]  # a mistake shows early
        for gesture in self.gestures:
            for seed in self.seeds:
                cells = [self.cell(gesture, seed, row) for row in self.rows]
                trained: dict[str, Cell] = {}
                for cell in cells:
                    if cell.row.run:
                        trained.setdefault(cell.row.run, cell)  # rows of another mu share a run
                steps += [self.train_step(cell) for cell in trained.values()]
                steps += [self.generate_step(cell) for cell in cells]
            steps.append(self.sweep_step(gesture))
        steps += [self.real_evaluation_step(gesture) for gesture in self.gestures]
        return steps + [self.evaluation_step(cell) for cell in self.cells()]

    def data_steps(self, gesture: str) -> list[Step]:
        """Selection, captions, enrichment and Stage I; the user's own captions and feature are taken as they are."""
        files, steps = self.files(gesture), []
        at_root = ["--data_root", str(self.data_root)]
        folders = [files.photos, files.test.photos]
        if self.source and (files.selection.exists() or not all(folder.is_dir() for folder in folders)):
            arguments = ["--source", str(self.source), "--gesture", gesture, *at_root]
            arguments += ["--num", str(self.num), "--num_test", str(self.num_test)]
            if self.annotations:
                arguments += ["--annotations", str(self.annotations / f"{gesture}.json")]
            steps.append(script_step("select", f"{gesture}/select", "select_images.py", arguments, [], folders))
        for captioner in sorted({row.captioner for row in self.rows}):
            for part in (files, files.test):
                steps += self.caption_steps(part._replace(captioner=captioner), self.phrase or PHRASES[gesture])
        arguments = ["--gesture", gesture, *at_root]
        if "--skip_bad_images" in self.further("train"):
            arguments.append("--skip_bad_images")  # Stage I reads the same photos
        if not is_users_own(files.feature):
            name, inputs, outputs = f"{gesture}/feature", [files.photos], [files.feature]
            steps.append(script_step("feature", name, "cal_mean_feature.py", arguments, inputs, outputs))
        return steps

    def caption_steps(self, files: GestureFiles, phrase: str) -> list[Step]:
        """Captions of one folder of photos and their enrichment, unless they are the user's own."""
        if files.enriched.is_file() and not files.enriched.with_suffix(".json").is_file():
            return []
        steps, name = [], f"{files.gesture}_{files.captioner}"
        common = ["--gesture", files.gesture, "--data_root", str(files.root)]
        own = files.captions.is_file() and not files.captions.with_suffix(".json").is_file()
        if files.captioner in CAPTIONERS and not own:
            script, outputs = f"captioning/{CAPTIONERS[files.captioner]}.py", [files.names, files.captions]
            arguments = [*common, *self.further("caption")]
            steps.append(script_step("caption", f"{name}/caption", script, arguments, [files.photos], outputs))
        arguments = [*common, "--captioner", files.captioner, "--phrase", phrase, *self.further("enrich")]
        inputs = [files.names, files.captions]
        steps.append(
            script_step("enrich", f"{name}/enrich", "captioning/enrich.py", arguments, inputs, [files.enriched])
        )
        return steps

    def train_step(self, cell: Cell) -> Step:
        files, run = self.files(cell.gesture, cell.row.captioner), cell.run
        arguments = ["--gesture", cell.gesture, "--data_root", str(self.data_root), "--captioner", files.captioner]
        arguments += ["--pretrained_model_name_or_path", self.base_model, "--output_dir", str(run)]
        arguments += ["--seed", str(cell.seed), "--fusion_seed", str(cell.seed), "--resume_from_checkpoint", "latest"]
        arguments += [*self.further("train"), *cell.row.train_args]
        inputs = [files.photos, files.feature, files.names, files.enriched, *self.local_model]
        outputs = [
            run / (LORA_FILE if option_value(arguments, "--lora_rank") else "model_index.json"),
            run / "losses.csv",
        ]
        step = script_step("train", cell.step_name("train"), "train.py", arguments, inputs, outputs)
        return step._replace(scratch=[run / "checkpoints"])  # see CHECKPOINTS

    def generate_step(self, cell: Cell) -> Step:
        arguments, inputs = self.generation(cell)
        script = "image_generation.py"
        if cell.row.imagic:
            photos = self.files(cell.gesture).photos
            script, inputs = "hand1000/imagic.py", [*inputs, photos]
            arguments = [*without_option(arguments, "--batch_size"), "--image_folder", str(photos)]
            arguments += self.further("imagic")
        arguments += ["--img_save_path", str(cell.pictures), "--mu", str(cell.row.mu)]
        if self.num_images:
            arguments += ["--num_images", str(self.num_images)]
        outputs = [cell.pictures / PICTURES_RECORD, *(cell.pictures / name for name in self.picture_names(cell))]
        return script_step("generate", cell.step_name("generate"), script, arguments, inputs, outputs)

    def sweep_step(self, gesture: str) -> Step:
        """A sheet of a few prompts at five values of mu."""
        cell, grid = self.cell(gesture, self.seeds[0], self.rows[1]), self.mu_sweep(gesture)
        arguments, inputs = self.generation(cell)
        arguments += ["--img_save_path", str(grid.parent), "--mu", *SWEEP_MU, "--num_images", str(SWEEP_PROMPTS)]
        name = f"{gesture}/seed_{cell.seed}/mu_sweep/generate"
        return script_step("generate", name, "image_generation.py", arguments, inputs, [grid])

    def generation(self, cell: Cell) -> tuple[list[str], list[Path]]:
        """Arguments and inputs of a generation from the captions of the test photos."""
        files = self.files(cell.gesture, cell.row.captioner)
        names, prompts = files.test.names, files.test.enriched
        arguments = ["--image_filenames_file", str(names), "--prompts_file", str(prompts), "--seed", str(cell.seed)]
        inputs = [names, prompts]
        if cell.row.run:
            arguments += ["--ckpt", str(cell.run)]
            inputs += [cell.run / RECORD, cell.run / "losses.csv"]
            if not cell.row.imagic:
                arguments += ["--feature_npy_path", str(files.feature)]
                inputs.append(files.feature)
        else:
            arguments += ["--ckpt", self.base_model, *self.base_model_args]
            inputs += self.local_model
        return arguments + self.further("generate"), inputs

    @property
    def base_model_args(self) -> list[str]:
        """The base model draws as the trainings load it, and at the resolution that they are given."""
        given = {option: option_value(self.further("train"), option) for option in BASE_MODEL_OPTIONS}
        return [part for option, value in given.items() if value is not None for part in (option, value)]

    def further(self, script: str) -> list[str]:
        return self.further_args.get(script, [])

    # Metrics

    def evaluation_step(self, cell: Cell) -> Step:
        """All metrics of a cell's pictures."""
        real, files = self.files(cell.gesture).test.photos, self.files(cell.gesture, cell.row.captioner).test
        options = {name: str(value) for name, value in self.feature_options.items()}
        inputs = [cell.pictures, real, *self.given_files, *self.caption_inputs(files)]
        return Step(
            "evaluate",
            cell.step_name("evaluate"),
            inputs,
            [cell.scores],
            run=functools.partial(self.evaluate, cell),
            settings={**options, **self.score_settings()},
            check=lambda: self.check_pictures(cell),
        )

    def evaluate(self, cell: Cell) -> None:
        real, files = self.files(cell.gesture).test.photos, self.files(cell.gesture, cell.row.captioner).test
        features = short_hash([self.protocol, hand_detector(), fingerprints([real, *self.given_files])])
        cache = self.output_dir / cell.gesture / "real_features" / features
        cache.mkdir(parents=True, exist_ok=True)
        settings = {**self.feature_options, **self.score_options(), "gesture": cell.gesture, "cache": cache}

        def score() -> dict[str, Score]:
            return all_scores(real, cell.pictures, **settings) | self.caption_scores(cell.pictures, files)

        write_scores(cell.scores, cell.pictures, score)

    def real_evaluation_step(self, gesture: str) -> Step:
        """The metrics of hands of the test photos: what the pictures can hope for."""
        files, output = self.files(gesture, self.rows[1].captioner).test, self.real_scores(gesture)
        inputs = [files.photos, *self.caption_inputs(files)]
        run, name = functools.partial(self.evaluate_real, gesture), f"{gesture}/real/evaluate"
        return Step("evaluate", name, inputs, [output], run=run, settings=self.score_settings())

    def evaluate_real(self, gesture: str) -> None:
        files = self.files(gesture, self.rows[1].captioner).test

        def score() -> dict[str, Score]:
            hands = hand_scores(files.photos, gesture=gesture, **self.score_options())
            return hands | self.caption_scores(files.photos, files)

        write_scores(self.real_scores(gesture), files.photos, score)

    @property
    def feature_options(self) -> dict[str, Any]:
        names = ("protocol", "feature_extractor", "inception_weights")
        return {name: getattr(self, name) for name in names}

    @property
    def given_files(self) -> list[Path]:
        return [path for path in (self.feature_extractor, self.inception_weights) if path]

    def caption_scores(self, folder: Path, files: GestureFiles) -> dict[str, Score]:
        return caption_scores(
            folder,
            files,
            clip_model=self.clip_model,
            attribute_classifier=self.attribute_classifier,
            **self.score_options(),
        )

    def caption_inputs(self, files: GestureFiles) -> list[Path]:
        """What `caption_scores` depends on beside the pictures."""
        local_clip = [Path(self.clip_model)] if self.clip_model and Path(self.clip_model).exists() else []
        given = [*local_clip, *([self.attribute_classifier] if self.attribute_classifier else [])]
        return [*given, files.names, files.enriched] if self.clip_model or given else []

    def score_options(self) -> dict[str, Any]:
        workers = cpu_count() if self.num_workers is None else self.num_workers
        return {"resamples": self.bootstrap, "seed": 0, "num_workers": workers}

    def score_settings(self) -> dict[str, Any]:
        """With another metric, all are computed anew."""
        clip = {"clip_model": self.clip_model} if self.clip_model else {}
        return {"bootstrap": self.bootstrap, "metrics": list(ALL_METRICS), "hand_detector": hand_detector(), **clip}

    def check_pictures(self, cell: Cell) -> None:
        """Raises UserError unless the cell's pictures are all there, no others, and made with these settings."""
        names = self.picture_names(cell)
        made = {path.name for path in list_photos(cell.pictures)} if cell.pictures.is_dir() else set()
        if made != set(names):
            raise UserError(
                f"{cell.pictures}: {counted(len(made), 'picture')}, not the {len(names)} wanted; run the stage "
                "generate, or choose another --output_dir"
            )
        for step in [self.generate_step(cell)] + ([self.train_step(cell)] if cell.row.run else []):
            if not ran_with_these_settings(self.records, step):
                raise UserError(
                    f"{cell.pictures}: made with other settings; run the stage {step.stage}, or choose another "
                    "--output_dir"
                )

    def scores_of(self, cell: Cell) -> "CellScores":
        """Raises UserError where the cell has not been evaluated with these settings."""
        self.check_pictures(cell)
        return self._evaluated(self.evaluation_step(cell))

    def scores_of_real_photos(self, gesture: str) -> "CellScores":
        """Raises UserError where they have not been evaluated with these settings."""
        return self._evaluated(self.real_evaluation_step(gesture))

    def _evaluated(self, step: Step) -> "CellScores":
        (path,) = step.outputs
        if not is_complete(self.records, step):
            raise UserError(f"{path}: not evaluated yet with these settings; run the stage evaluate first")
        return read_scores(path)

    # Checks before the first step

    def check(self) -> None:
        """Raises UserError where photos or files are missing."""
        for path in (
            *(self.source, self.annotations, self.feature_extractor, self.inception_weights),
            self.attribute_classifier,
        ):
            if path and not path.exists():
                raise UserError(f"{path}: no such file or folder")
        if self.feature_extractor and self.inception_weights:
            raise UserError("--feature_extractor stands in place of Inception: leave out --inception_weights")
        for gesture in self.gestures:
            for folder in (self.files(gesture).photos, self.files(gesture).test.photos):
                if not self.source and not folder.is_dir():
                    raise UserError(f"{folder}: no such folder; {NO_PHOTOS}")

    def disk_space(self) -> str:
        """What the models that are still to be trained will take."""
        trainings = [step for step in self.steps() if step.stage == "train" and not step.outputs[0].exists()]
        trainings = [step for step in trainings if step.outputs[0].name != LORA_FILE]  # which takes next to nothing
        size = sum(file.stat().st_size for path in self.local_model for file in path.rglob("*")) or MODEL_BYTES
        models = counted(len(trainings), "model")
        return (
            f"about {len(trainings) * size / 1e9:.1f} GB for {models} still to train, "
            f"and {CHECKPOINTS * size / 1e9:.1f} GB of checkpoints while one trains"
        )


def script_step(
    stage: str, name: str, script: str, arguments: list[str], inputs: list[Path], outputs: list[Path]
) -> Step:
    """A step that runs one of the repository's scripts."""
    return Step(stage, name, inputs, outputs, script=SCRIPTS / script, arguments=arguments)


def check_arguments(experiment: Experiment, steps: Sequence[Step], *, launched: bool) -> None:
    """Let a mistake in what the later stages are given show now, not after hours.

    Args:
        launched: whether the scripts start in several processes, which this one can't check for.

    Raises:
        UserError, SystemExit: as the scripts do.
    """
    check_step_arguments(steps, ("train", "generate"), also_check=not launched)
    if not any(step.stage == "evaluate" for step in steps):
        return
    check_caption_models(experiment.clip_model, experiment.attribute_classifier)
    if experiment.feature_extractor:
        import torch

        from core.metrics.extractors import load_torchscript

        load_torchscript(experiment.feature_extractor, torch.device("cpu"))


# Scores


class CellScores(NamedTuple):
    """The metrics of a folder of pictures."""

    images: int
    scores: dict[str, Score]


def write_scores(output: Path, pictures: Path, score: Callable[[], dict[str, Score]]) -> None:
    """Compute the scores of a folder, print and keep them; a metric that does not apply is NaN."""
    say(f"\nMetrics of {pictures}")
    scores = score()
    say("   ".join(f"{metric} {score.value:.4g}" for metric, score in scores.items()))
    write_json(output, {"images": len(list_photos(pictures)), "scores": dict.fromkeys(ALL_METRICS, NO_SCORE) | scores})


def read_scores(path: Path) -> CellScores:
    """What `write_scores` wrote.

    Raises:
        UserError: the file is damaged.
    """
    content = read_json(path, f"{path}: damaged")
    try:
        return CellScores(
            int(content["images"]), {metric: Score(*map(float, content["scores"][metric])) for metric in ALL_METRICS}
        )
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: damaged (no scores in it); remove it and run the stage evaluate again") from None


def short_hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
