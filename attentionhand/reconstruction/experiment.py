"""The experiment as steps: which generators draw the lab's labels, which networks are trained, and where all lies.

results/prompts/                            the lab's meshes with new texts, what every generator draws
results/generators/with_tas/run/            a trained generator
results/generators/with_tas/pictures/       what it drew
results/generators/with_tas/kept_10/        those whose hands follow their label, as a data folder
results/with_tas/seed_0/run/                a network trained on the lab's and on these pictures
results/with_tas/seed_0/wild.json, .png     its errors on the test "wild", and skeletons
results/steps/                              the records of the steps
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from attentionhand.data import first_line, paths_of, photo_in_both
from attentionhand.reconstruction.data import check_same_unit, read_hands
from core.runs.errors import UserError
from core.runs.files import atomic_folder, read_lines, write_lines, write_text
from core.runs.steps import Step

SCRIPTS = Path(__file__).resolve().parents[1]


class Generator(NamedTuple):
    """What draws pictures for labels."""

    name: str
    folder: str
    train_args: list[str] | None  # of attentionhand.train, beyond those of all; None: drawn by the text alone


GENERATORS = {
    one.folder: one
    for one in (
        Generator("base model", "base", None),
        Generator("ControlNet", "controlnet", ["--no_tas", "--local_view", "none"]),
        Generator("AttentionHand without TAS", "without_tas", ["--no_tas"]),
        Generator("AttentionHand", "with_tas", []),
    )
}


class Row(NamedTuple):
    """A row of the table: what a network is trained on."""

    name: str
    folder: str
    data: list[Path]


@dataclass(frozen=True)
class Experiment:
    """What makes one table."""

    lab: Path  # labelled pictures from the lab, whose labels the generators draw
    wild: Path  # labelled pictures in the wild of other poses, which the generators learn from
    tests: dict[str, Path]  # by name, such as "wild" and "lab"
    output_dir: Path
    base_model: str  # hub id or diffusers folder
    seeds: list[int]
    upper_bound: Path | None = None  # real pictures in the wild of the lab's labels, where such a thing exists
    texts: Path | None = None  # new scenes, one a line (None: those of the wild pictures)
    resolution: int = 512  # pixels a side of generated pictures, and of the lab's
    num_samples: int = 3  # pictures of each label
    added_share: float | None = None  # of the added pictures in a training (None: by the numbers of pictures)
    threshold: float = 10.0  # highest landmark error of a picture that is kept, in hand sizes
    sweep: list[float] = field(default_factory=list)  # further thresholds, for the last generator only
    train_args: list[str] = field(default_factory=list)  # further arguments of attentionhand.train
    draw_args: list[str] = field(default_factory=list)  # ... of attentionhand.inference
    reconstruction_args: list[str] = field(default_factory=list)  # ... of attentionhand.reconstruction.train
    network_steps: int = 20000  # of training, the same for every row
    bootstrap: int = 1000
    generators: list[str] = field(default_factory=lambda: list(GENERATORS))  # by folder

    # The rows of the table

    @property
    def chosen(self) -> list[Generator]:
        return [GENERATORS[folder] for folder in self.generators]

    @property
    def ours(self) -> Generator:
        """The generator that the thresholds are compared for: the last one, which is AttentionHand."""
        return self.chosen[-1]

    def rows(self) -> list[Row]:
        """The lab alone first, the upper bound last."""
        rows = [Row("lab", "lab", [self.lab]), Row("+ wild, other poses", "wild", [self.lab, self.wild])]
        for one in self.chosen:
            rows.append(Row(f"+ {one.name}", one.folder, [self.lab, self.kept(one, self.threshold)]))
        if self.upper_bound:
            rows.append(Row("+ wild, same poses", "upper_bound", [self.lab, self.upper_bound]))
        return rows

    def sweep_rows(self) -> list[Row]:
        """The last generator's pictures kept by stricter thresholds, strictest first."""
        return [
            Row(
                f"+ {self.ours.name}, error ≤ {one:g}",
                f"{self.ours.folder}_{name_of(one)}",
                [self.lab, self.kept(self.ours, one)],
            )
            for one in sorted(self.sweep)
        ]

    # Where everything lies

    @property
    def records(self) -> Path:
        return self.output_dir / "steps"

    @property
    def prompts(self) -> Path:
        return self.output_dir / "prompts"

    def generator(self, one: Generator) -> Path:
        return self.output_dir / "generators" / one.folder

    def drawn(self, one: Generator, label: int) -> Path:
        """The first picture of a label."""
        return self.generator(one) / "pictures" / f"result_{label:03d}_0.png"

    def kept(self, one: Generator, threshold: float) -> Path:
        return self.generator(one) / f"kept_{name_of(threshold)}"

    def cell(self, row: Row, seed: int) -> Path:
        return self.output_dir / row.folder / f"seed_{seed}"

    def scores(self, row: Row, seed: int, test: str) -> Path:
        return self.cell(row, seed) / f"{test}.json"

    # The steps

    def steps(self) -> list[Step]:
        """All steps, each after those whose results it needs: every row of the first seed, then of the next."""
        steps = [self.prompts_step()]
        for one in self.chosen:
            steps += [self.train_generator_step(one, one.train_args)] if one.train_args is not None else []
            steps.append(self.draw_step(one))
            thresholds = {self.threshold, *(self.sweep if one is self.ours else [])}
            steps += [self.export_step(one, threshold) for threshold in sorted(thresholds)]
        for seed in self.seeds:
            for row in [*self.rows(), *self.sweep_rows()]:
                steps.append(self.train_step(row, seed))
                steps += [self.evaluate_step(row, seed, test) for test in self.tests]
        return steps

    def prompts_step(self) -> Step:
        inputs = [self.lab, *([self.texts] if self.texts else [self.wild])]
        return Step("prompts", "prompts", inputs, [self.prompts], run=self.write_prompts)

    def write_prompts(self) -> None:
        """The lab's meshes, each with a text of the wild drawn at random: an AttentionHand folder without photos."""
        texts = read_lines(self.texts) if self.texts else texts_of(self.wild)
        meshes = paths_of(self.lab, "mesh")
        chosen = np.random.default_rng(0).integers(len(texts), size=len(meshes))
        with atomic_folder(self.prompts) as folder:
            lines = []
            for number, (mesh, text) in enumerate(zip(meshes, chosen)):
                names = {"mesh": f"mesh/{number:08}{mesh.suffix}", "text": f"text/{number:08}.txt"}
                (folder / names["mesh"]).parent.mkdir(exist_ok=True)
                shutil.copyfile(mesh, folder / names["mesh"])
                write_text(folder / names["text"], texts[text] + "\n")
                lines.append(json.dumps(names))
            write_lines(folder / "modalities.json", lines)

    def train_generator_step(self, one: Generator, train_args: list[str]) -> Step:
        run = self.generator(one) / "run"
        arguments = ["--data_dir", str(self.wild), "--output_dir", str(run), *self.model_args]
        arguments += ["--resume_from_checkpoint", "latest", *self.train_args, *train_args]
        outputs = [run / "attentionhand.json", run / "config.json"]
        return self.script_step(
            "train_generator", f"generators/{one.folder}", "train.py", arguments, [self.wild], outputs
        )

    def draw_step(self, one: Generator) -> Step:
        run, pictures = self.generator(one) / "run", self.generator(one) / "pictures"
        arguments = ["--sample_path", str(self.prompts / "modalities.json"), "--output_dir", str(pictures)]
        arguments += ["--num_samples", str(self.num_samples), *self.model_args]
        inputs = [self.prompts]
        if one.train_args is None:
            arguments.append("--no_control")
        else:
            arguments += ["--weights", str(run)]
            inputs += [run / "attentionhand.json", run / "diffusion_pytorch_model.safetensors"]
        outputs = [pictures / "inference.json"]
        arguments += self.draw_args
        return self.script_step("draw", f"generators/{one.folder}", "inference.py", arguments, inputs, outputs)

    def export_step(self, one: Generator, threshold: float) -> Step:
        pictures, kept = self.generator(one) / "pictures", self.kept(one, threshold)
        arguments = ["--labels", str(self.lab / "joints.npz"), "--image_folder", str(pictures)]
        arguments += ["--image_size", str(self.resolution), "--threshold", str(threshold), "--export", str(kept)]
        arguments += ["--bootstrap", str(self.bootstrap), "--json", str(kept.with_suffix(".json"))]
        inputs, name = [pictures, self.lab / "joints.npz"], f"generators/{one.folder}/{name_of(threshold)}"
        step = self.script_step("export", name, "evaluate.py", arguments, inputs, [kept, kept.with_suffix(".json")])
        # Before it runs, what another export or a killed one has left there goes.
        return step._replace(check=lambda: shutil.rmtree(kept, ignore_errors=True))

    def train_step(self, row: Row, seed: int) -> Step:
        run = self.cell(row, seed) / "run"
        arguments = [text for folder in row.data for text in ("--data", str(folder))]
        arguments += ["--output_dir", str(run), "--seed", str(seed), "--resume_from_checkpoint", "latest"]
        if self.added_share and len(row.data) > 1:
            arguments += ["--shares", f"{1 - self.added_share:g}", f"{self.added_share:g}"]
        arguments += ["--max_train_steps", str(self.network_steps), *self.reconstruction_args]
        outputs, name = [run / "model.safetensors", run / "losses.csv"], f"{row.folder}/seed_{seed}"
        step = self.script_step("train", name, "reconstruction/train.py", arguments, row.data, outputs)
        return step._replace(scratch=[run / "checkpoints"])

    def evaluate_step(self, row: Row, seed: int, test: str) -> Step:
        run, output = self.cell(row, seed) / "run", self.scores(row, seed, test)
        arguments = ["--weights", str(run), "--data", str(self.tests[test]), "--json", str(output)]
        arguments += ["--sheet", str(output.with_suffix(".png")), "--bootstrap", str(self.bootstrap)]
        inputs = [run / "model.safetensors", run / "reconstruction.json", self.tests[test]]
        name, outputs = f"{row.folder}/seed_{seed}/{test}", [output, output.with_suffix(".png")]
        return self.script_step("evaluate", name, "reconstruction/evaluate.py", arguments, inputs, outputs)

    @property
    def model_args(self) -> list[str]:
        return ["--pretrained_model_name_or_path", self.base_model, "--resolution", str(self.resolution)]

    def script_step(
        self, stage: str, name: str, script: str, arguments: list[str], inputs: list[Path], outputs: list[Path]
    ) -> Step:
        return Step(stage, f"{name}/{stage}", inputs, outputs, script=SCRIPTS / script, arguments=arguments)

    # Checks before the first step

    def check(self) -> None:
        """Refuse what can't work, before the first step runs.

        Raises:
            UserError: as `read_hands`; mixed units, a test with training pictures, or lab pictures of another
                size than is generated.
        """
        folders = [self.lab, self.wild, *([self.upper_bound] if self.upper_bound else []), *self.tests.values()]
        sets = [read_hands(folder) for folder in folders]
        check_same_unit(sets)
        tests = len(self.tests)
        seen, unseen = ([photo for hands in part for photo in hands.photos] for part in (sets[:-tests], sets[-tests:]))
        if photo := photo_in_both(seen, unseen):
            raise UserError(f"{photo}: is a training picture, too; a test needs pictures of its own")
        with Image.open(sets[0].photos[0]) as picture:
            if picture.size != (self.resolution, self.resolution):
                raise UserError(
                    f"{sets[0].photos[0]}: {picture.width}x{picture.height} pixels; labels from the lab must be for "
                    f"squares of --resolution {self.resolution} (attentionhand.prepare --crop --size)"
                )
        paths_of(self.lab, "mesh")
        if self.texts is None:
            texts_of(self.wild)


def name_of(threshold: float) -> str:
    """Part of a file name: "0.25" as "0_25"."""
    return f"{threshold:g}".replace(".", "_")


def texts_of(folder: Path) -> list[str]:
    """The first lines of a folder's texts. Raises UserError where they are missing."""
    return [first_line(path) for path in paths_of(folder, "text")]
