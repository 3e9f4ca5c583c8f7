"""The paper's tables as an experiment: its rows, where everything lies, and the steps that make it.

A cell of the table is a seed and a row. Its files:

    results/seed_0/attentionhand/run/         the trained weights; rows may share them
    results/seed_0/attentionhand/pictures/    drawn for the labels of the test
    results/seed_0/attentionhand/scores.json  every metric of these pictures
    results/real/scores.json                  the metrics of the test's photos themselves
    results/steps/                            the records of the steps
"""

import functools
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attentionhand.data import Sample, content_hash, load_picture, photo_in_both, read_modalities
from attentionhand.known_labels import load_labels
from core.hands.detection import hand_detector
from core.metrics.scores import Score
from core.runs.errors import UserError
from core.runs.photos import list_photos
from core.runs.processes import counted
from core.runs.run import read_json
from core.runs.steps import Step, is_complete

SCRIPTS = Path(__file__).parent
STAGE_BYTES = 1.45e9  # of a ControlNet for Stable Diffusion 1.5 in float32
CHECKPOINTS = 3.0  # times the weights: what the checkpoint of one training takes
GLOBAL_ONLY, NO_TAS = ["--local_view", "none"], ["--no_tas"]

TRAININGS = {  # of attentionhand.train, beyond the arguments of all
    "t2i_adapter": ["--control", "t2i_adapter", *GLOBAL_ONLY, *NO_TAS],
    "controlnet": [*GLOBAL_ONLY, *NO_TAS],
    "without_tas": NO_TAS,
    "attentionhand": [],
    "local_only": ["--local_view", "only", *NO_TAS],
    "released_tokens": ["--tas_tokens", "released"],
    "released_noise": ["--local_view", "released"],
}


class Row(NamedTuple):
    """A row of the table: whose weights draw, and how."""

    name: str
    folder: str
    runs: list[str]  # of `TRAININGS`; of several the controls are averaged, of none the text is alone
    generate_args: list[str] = []  # of attentionhand.inference, beyond those of all rows


ROWS = {
    row.folder: row
    for row in (
        Row("Stable Diffusion", "base", [], ["--no_control"]),
        Row("T2I-Adapter", "t2i_adapter", ["t2i_adapter"]),
        Row("ControlNet", "controlnet", ["controlnet"]),
        Row("AttentionHand (w/o TAS)", "without_tas", ["without_tas"]),
        Row("AttentionHand", "attentionhand", ["attentionhand"]),
        Row("local view only", "local_only", ["local_only"]),
        Row("separate weights", "separate_weights", ["controlnet", "local_only"]),
        Row("TAS on the released tokens", "released_tokens", ["released_tokens"]),
        Row("local noise as released", "released_noise", ["released_noise"]),
        Row("TAS at inference, too", "tas_at_inference", ["attentionhand"], ["--tas"]),
    )
}
MAIN_ROWS = ["base", "t2i_adapter", "controlnet", "without_tas", "attentionhand"]
BASE, REAL = "base", "real photos"


class Cell(NamedTuple):
    """A seed and a row, and where their files lie."""

    seed: int
    row: Row
    seed_folder: Path

    @property
    def folder(self) -> Path:
        return self.seed_folder / self.row.folder

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    @property
    def scores(self) -> Path:
        return self.folder / "scores.json"

    @property
    def runs(self) -> list[Path]:
        return [run_folder(self.seed_folder, run) for run in self.row.runs]

    def picture(self, label: int) -> Path:
        return self.pictures / f"result_{label:03d}_0.png"


def run_folder(seed_folder: Path, run: str) -> Path:
    return seed_folder / run / "run"


@dataclass(frozen=True)
class Experiment:
    """What makes the tables."""

    data_dir: Path  # modalities.json to train on
    test_dir: Path  # modalities.json with photos, and joints.npz: labels that training does not see
    output_dir: Path
    rows: list[str]  # folders of `ROWS`; the base first
    seeds: list[int]
    base_model: str  # hub id, diffusers folder or single file
    resolution: int = 512
    protocol: str = "released"  # of FID and KID
    feature_extractor: Path | None = None
    inception_weights: Path | None = None
    clip_model: str | None = None
    bootstrap: int = 1000  # resamples of the intervals
    num_workers: int | None = None
    further_args: dict[str, list[str]] = field(default_factory=dict)  # of train and generate

    # Where everything lies

    @property
    def records(self) -> Path:
        return self.output_dir / "steps"

    @property
    def real_scores(self) -> Path:
        return self.output_dir / "real" / "scores.json"

    def cell(self, seed: int, row: str) -> Cell:
        return Cell(seed, ROWS[row], self.output_dir / f"seed_{seed}")

    def cells(self) -> Iterator[Cell]:
        """Everything that is drawn and measured."""
        for seed in self.seeds:
            for row in self.rows:
                yield self.cell(seed, row)

    @functools.cached_property
    def test(self) -> list[Sample]:
        return read_modalities(self.test_dir / "modalities.json")

    @property
    def real_photos(self) -> Path:
        """The folder of the test's photos."""
        assert self.test[0].rgb is not None  # read_modalities has found it
        return self.test[0].rgb.parent

    @functools.cached_property
    def data_hash(self) -> str:
        """Of the pictures and texts to train on: read once, because there may be many."""
        return content_hash(read_modalities(self.data_dir / "modalities.json"))

    @functools.cached_property
    def test_hash(self) -> str:
        return content_hash(self.test)

    @property
    def local_model(self) -> list[Path]:
        """The base model, where it is not a hub id."""
        path = Path(self.base_model)
        return [path] if path.exists() else []

    @property
    def trainings(self) -> list[str]:
        """The runs that the rows need, each once."""
        return list(dict.fromkeys(run for row in self.rows for run in ROWS[row].runs))

    # The steps

    def steps(self) -> list[Step]:
        """All steps, each after those whose results it needs: a whole seed, then the next."""
        steps = [self.real_evaluation_step()]
        # Those with the text attention stage begin: they take longest, and with --jobs the others run beside them.
        trainings = sorted(self.trainings, key=lambda run: set(NO_TAS) <= set(TRAININGS[run]))
        for seed in self.seeds:
            cells = [self.cell(seed, row) for row in self.rows]
            steps += [self.train_step(seed, run) for run in trainings]
            steps += [self.generate_step(cell) for cell in cells]
            steps += [self.evaluation_step(cell) for cell in cells]
        return steps

    def train_step(self, seed: int, run: str) -> Step:
        folder = run_folder(self.output_dir / f"seed_{seed}", run)
        arguments = ["--data_dir", str(self.data_dir), "--output_dir", str(folder), *self.model_args(seed)]
        arguments += ["--resume_from_checkpoint", "latest", *self.further("train"), *TRAININGS[run]]
        return Step(
            "train",
            f"seed_{seed}/{run}/train",
            [self.data_dir / "modalities.json", *self.local_model],
            [folder / "config.json", folder / "losses.csv", folder / "attentionhand.json"],
            script=SCRIPTS / "train.py",
            arguments=arguments,
            settings={"data": self.data_hash},
            scratch=[folder / "checkpoints"],
        )

    def generate_step(self, cell: Cell) -> Step:
        """One picture of each label of the test, each from a start noise of its own."""
        arguments = ["--sample_path", str(self.test_dir / "modalities.json"), "--output_dir", str(cell.pictures)]
        arguments += [*self.model_args(cell.seed), "--num_samples", "1", "--vary_seed"]
        if cell.runs:
            arguments += ["--weights", *map(str, cell.runs)]
        arguments += [*self.further("generate"), *cell.row.generate_args]
        inputs = [run / name for run in cell.runs for name in ("attentionhand.json", "losses.csv")]
        outputs = [cell.pictures / "inference.json", *(cell.picture(label) for label in range(len(self.test)))]
        return Step(
            "generate",
            f"seed_{cell.seed}/{cell.row.folder}/generate",
            [*inputs, *self.local_model],
            outputs,
            script=SCRIPTS / "inference.py",
            arguments=arguments,
            settings={"test": self.test_hash},
        )

    def evaluation_step(self, cell: Cell) -> Step:
        """All metrics of a cell's pictures."""
        extractor = self.extractor_args()
        digest = hashlib.sha256(json.dumps([self.protocol, hand_detector(), self.test_hash, extractor]).encode())
        cache = self.output_dir / "real" / f"features_{digest.hexdigest()[:12]}"
        arguments = ["--image_folder", str(cell.pictures), "--json", str(cell.scores), *self.label_args()]
        arguments += ["--real_images", str(self.real_photos), "--real_features", str(cache), *extractor]
        if self.clip_model:
            arguments += ["--clip_model", self.clip_model]
        name = f"seed_{cell.seed}/{cell.row.folder}/evaluate"
        step = self.score_step(name, arguments, [cell.pictures, *self.given_files], cell.scores)
        return step._replace(check=lambda: self.check_pictures(cell))

    def real_evaluation_step(self) -> Step:
        """The metrics of hands of the test's photos: what pictures can hope for, with MediaPipe's own error."""
        arguments = ["--image_folder", str(self.real_photos), "--json", str(self.real_scores), *self.label_args()]
        return self.score_step("real/evaluate", arguments, [], self.real_scores)

    def score_step(self, name: str, arguments: list[str], inputs: list[Path], output: Path) -> Step:
        return Step(
            "evaluate",
            name,
            [*inputs, self.labels],
            [output],
            script=SCRIPTS / "evaluate.py",
            arguments=arguments,
            settings={"test": self.test_hash, "hand_detector": hand_detector()},
        )

    # Arguments of the scripts

    def model_args(self, seed: int) -> list[str]:
        model = ["--pretrained_model_name_or_path", self.base_model, "--resolution", str(self.resolution)]
        return [*model, "--seed", str(seed)]

    @property
    def labels(self) -> Path:
        return self.test_dir / "joints.npz"

    def label_args(self) -> list[str]:
        """The test's labels, and the size of their pictures where the file does not say it."""
        arguments = ["--labels", str(self.labels), "--bootstrap", str(self.bootstrap)]
        if self.num_workers is not None:
            arguments += ["--num_workers", str(self.num_workers)]
        with np.load(self.labels) as file:
            if "size" not in file:
                arguments += ["--image_size", str(load_picture(self.test[0].mesh).shape[1])]
        return arguments

    @property
    def given_files(self) -> list[Path]:
        return [path for path in (self.feature_extractor, self.inception_weights) if path]

    def extractor_args(self) -> list[str]:
        arguments = ["--protocol", self.protocol]
        for name in ("feature_extractor", "inception_weights"):
            if path := getattr(self, name):
                arguments += [f"--{name}", str(path)]
        return arguments

    def further(self, script: str) -> list[str]:
        return self.further_args.get(script, [])

    # Checks, and what has been measured

    def check(self) -> None:
        """Raises UserError where data are missing, or the labels are not those of the test's pictures."""
        for path in self.given_files:
            if not path.exists():
                raise UserError(f"{path}: no such file")
        if len(self.given_files) > 1:
            raise UserError("--feature_extractor stands in place of Inception: leave out --inception_weights")
        training = read_modalities(self.data_dir / "modalities.json")
        seen, photos = ([one.rgb for one in samples if one.rgb] for samples in (training, self.test))
        if photo := photo_in_both(seen, photos):
            raise UserError(f"{photo}: is a training picture, too; a test needs pictures of its own")
        labels = load_labels(self.labels, load_picture(self.test[0].mesh).shape[1])
        if len(labels.hands) != len(self.test):
            raise UserError(f"{self.labels}: {len(labels.hands)} labels for {len(self.test)} lines of modalities.json")
        listed, there = [sample.rgb for sample in self.test], list_photos(self.real_photos)
        if sorted(map(str, listed)) != sorted(map(str, there)) or (not labels.names and listed != there):
            raise UserError(
                f"{self.test_dir}: a test needs a photo of its own for each label, in the order of their names, and no "
                f"others in {self.real_photos}"
            )

    def disk_space(self) -> str:
        """What the weights that are still to be trained will take."""
        trainings = [step for step in self.steps() if step.stage == "train" and not step.outputs[0].exists()]
        sizes = [file.stat().st_size for path in self.local_model for file in path.rglob("*") if file.is_file()]
        size = sum(sizes) / 3 or STAGE_BYTES  # a ControlNet has about a third of a Stable Diffusion's weights
        models = counted(len(trainings), "model")
        return (
            f"about {len(trainings) * size / 1e9:.2g} GB for {models} still to train, "
            f"and {CHECKPOINTS * size / 1e9:.2g} GB of checkpoints while one trains"
        )

    def check_pictures(self, cell: Cell) -> None:
        """Raises UserError unless the cell's pictures are all there, and made with these settings."""
        seed_folder = self.output_dir / f"seed_{cell.seed}"
        trainings = [self.train_step(cell.seed, run) for run in cell.row.runs]
        for step in [*trainings, self.generate_step(cell)]:
            if not is_complete(self.records, step):
                raise UserError(
                    f"{seed_folder}: {step.name} is not complete with these settings; run the stage {step.stage}, or "
                    "choose another --output_dir"
                )

    def scores_of(self, cell: Cell) -> dict[str, Score]:
        """Raises UserError where the cell has not been evaluated with these settings."""
        self.check_pictures(cell)
        return self._evaluated(self.evaluation_step(cell))

    def scores_of_real_photos(self) -> dict[str, Score]:
        """Raises UserError where they have not been evaluated with these settings."""
        return self._evaluated(self.real_evaluation_step())

    def _evaluated(self, step: Step) -> dict[str, Score]:
        (path,) = step.outputs
        if not is_complete(self.records, step):
            raise UserError(f"{path}: not evaluated yet with these settings; run the stage evaluate first")
        return read_scores(path)


def read_scores(path: Path) -> dict[str, Score]:
    """What attentionhand.evaluate wrote with --json.

    Raises:
        UserError: the file is damaged.
    """
    content = read_json(path, f"{path}: damaged")
    try:
        return {
            metric: Score(*(math.nan if one is None else float(one) for one in score))
            for metric, score in content["scores"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path}: damaged (no scores in it); remove it and run the stage evaluate again") from None


def chosen_rows(names: Sequence[str]) -> list[str]:
    """The rows in the tables' order, the base always with them; "all" stands for every one.

    Raises:
        UserError: there is no such row.
    """
    unknown = [name for name in names if name not in (*ROWS, "all")]
    if unknown:
        raise UserError(f"--rows: there is no '{unknown[0]}', but {', '.join(ROWS)}, and all")
    return [row for row in ROWS if row == BASE or row in names or "all" in names]
