"""The table of the claim: its plan, its refusals, and the report of what was measured."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import error_of, run_script
from PIL import Image
from reconstruction_helpers import SIZE, make_hands, two_hands, write_set

from attentionhand.reconstruction import report, reproduce
from attentionhand.reconstruction.experiment import GENERATORS, Experiment
from core.runs.errors import UserError
from core.runs.steps import script_functions


def add_meshes(folder):
    """The rest of AttentionHand's modalities."""
    lines = []
    for number, line in enumerate((folder / "modalities.json").read_text().splitlines()):
        names = {**json.loads(line), "mesh": f"mesh/{number}.png", "text": f"text/{number}.txt"}
        for name in ("mesh", "text"):
            (folder / name).mkdir(exist_ok=True)
        Image.new("RGB", (SIZE, SIZE), (200, 200, 200)).save(folder / names["mesh"])
        (folder / names["text"]).write_text(f"hand number {number}\n")
        lines.append(json.dumps(names))
    (folder / "modalities.json").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def experiment(tmp_path):
    return Experiment(
        lab=add_meshes(write_set(tmp_path / "lab", make_hands(4))),
        wild=add_meshes(write_set(tmp_path / "wild", make_hands(5, seed=1))),
        tests={"wild": write_set(tmp_path / "test", make_hands(4, seed=2))},
        output_dir=tmp_path / "results",
        base_model="some/model",
        seeds=[0, 1],
        upper_bound=write_set(tmp_path / "same", make_hands(4)),
        resolution=SIZE,
        sweep=[0.1],
    )


def arguments(experiment, *more):
    given = ["--lab", experiment.lab, "--wild", experiment.wild, "--output_dir", experiment.output_dir]
    return [*given, "--test", f"wild={experiment.tests['wild']}", "--resolution", SIZE, *more]


def test_the_plan(experiment, capsys):
    steps = experiment.steps()
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    stages = [step.stage for step in steps]
    counts = {stage: stages.count(stage) for stage in dict.fromkeys(stages)}
    # 7 rows and one of the sweep, two seeds, one test
    assert counts == {
        "prompts": 1,
        "train_generator": 3,
        "draw": 4,
        "export": 5,
        "train": 16,
        "evaluate": 16,
    }
    reproduce.main([str(part) for part in arguments(experiment, "--dry_run", "--seeds", "0", "--generators", "base")])
    plan = capsys.readouterr().out
    assert "9 steps, 0 complete" in plan
    assert not experiment.output_dir.exists()


def test_every_script_takes_the_arguments_that_it_is_given(experiment):
    for step in experiment.steps():
        if step.script and step.stage != "export":
            script_functions(step.script)["parse_args"](step.arguments)


def test_every_network_takes_as_many_steps(experiment):
    """Whatever it is trained on: rows of more pictures would gain from longer training alone."""
    steps = [step for step in replace(experiment, network_steps=7).steps() if step.stage == "train"]
    assert {step.arguments[step.arguments.index("--max_train_steps") + 1] for step in steps} == {"7"}


def test_the_mixing_ratio_reaches_every_training_of_two_sets(experiment):
    mixed = replace(experiment, added_share=0.3)
    for row in mixed.rows():
        given = mixed.train_step(row, 0).arguments
        assert ("--shares" in given) == (len(row.data) == 2)
        if "--shares" in given:
            assert given[given.index("--shares") + 1 :][:2] == ["0.7", "0.3"]


def test_prompts_are_the_labs_meshes_with_texts_of_the_wild(experiment):
    experiment.write_prompts()
    lines = [json.loads(line) for line in (experiment.prompts / "modalities.json").read_text().splitlines()]
    assert len(lines) == 4
    known = {f"hand number {number}" for number in range(5)}
    for line in lines:
        assert (experiment.prompts / line["mesh"]).is_file()
        assert (experiment.prompts / line["text"]).read_text().strip() in known


def test_refusals(experiment, tmp_path, capsys):
    def refused(*more) -> str:
        return error_of(reproduce.main, arguments(experiment, *more), capsys)

    assert "is not NAME=DIR" in refused("--test", "nothing")
    assert "--test: the same one twice" in refused("--test", f"wild={experiment.wild}")
    assert "--seeds: the same one twice" in refused("--seeds", "1", "1")
    assert "there is no 'GAN'" in refused("--generators", "GAN")
    assert "1.5 is not between 0 and 1" in refused("--added_share", "1.5")
    assert "--train_args: an experiment pushes nothing" in refused("--train_args=--push_to_hub")
    assert "--train_args: --no_tas is set by the experiment itself" in refused("--train_args=--no_tas")
    assert "labels from the lab must be for squares of --resolution 32" in refused("--resolution", "32")
    other = write_set(tmp_path / "mm", two_hands(4))
    assert "labels in mm, but those of" in refused("--test", f"other={other}")
    (experiment.lab / "modalities.json").write_text('{"rgb": "rgb/0.png"}\n' * 4)
    assert '"mesh"' in refused()
    assert "is a training picture, too; a test needs pictures of its own" in refused("--test", f"lab={experiment.wild}")


def test_the_report(experiment, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    for row in [*experiment.rows(), *experiment.sweep_rows()]:
        for seed in experiment.seeds:
            place = experiment.scores(row, seed, "wild")
            place.parent.mkdir(parents=True)
            error = 0.2 if row.folder == "with_tas" else 0.5
            of = {name: [error, error - 0.05, error + 0.05] for name in ("MPJPE", "PA-MPJPE", "AUC", "handedness")}
            content = {"unit": "palm lengths", "scores": {"all": {**of, "MRRPE": [None, None, None]}}}
            place.write_text(json.dumps(content))
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(place.with_suffix(".png"))
    with pytest.raises(UserError, match="not evaluated with these settings; run the stage evaluate"):
        report.write_report(experiment, {})  # the scores have no record of what they were measured with
    monkeypatch.setattr(report, "is_complete", lambda records, step: step.stage == "evaluate")
    with pytest.raises(UserError):
        report.write_report(experiment, {})  # nothing was exported
    for one in GENERATORS.values():
        (experiment.generator(one) / "pictures").mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (SIZE, SIZE)).save(experiment.drawn(one, number))
        for threshold in (0.1, 10.0) if one.folder == "with_tas" else (10.0,):
            kept = experiment.kept(one, threshold)
            kept.mkdir()
            (kept / "modalities.json").write_text("{}\n{}\n{}\n")
            (kept / "export.json").write_text(json.dumps({"accepted": 3, "of": 12}))
            found = dict.fromkeys(report.LABEL_SCORES, [0.5, 0.4, 0.6])
            kept.with_suffix(".json").write_text(json.dumps({"scores": found}))
    report.write_report(experiment, {})
    text = (experiment.output_dir / "table.md").read_text()
    assert "| wild | + AttentionHand | 4 + 3 | **0.200 [0.150, 0.250]**" in text
    assert "| wild | + ControlNet | 4 + 3 | 0.500 [0.450, 0.550]" in text
    assert "MRRPE ↓" not in text  # no test has two hands
    assert "AttentionHand | 0.1 | 3 of 12" in text
    assert "14.74 / 21.10 / 29.26" in text
    assert "palm lengths" in text
    page = (experiment.output_dir / "report.html").read_text()
    assert page.count("<img") == 3 and "http" not in page.partition("<body>")[2]
    assert len((experiment.output_dir / "table.csv").read_text().splitlines()) == 1 + 8 * 5
    grid = Image.open(experiment.output_dir / "grid.png")
    assert grid.width == 6 * 200  # lab, mesh, four generators
    assert "table" not in capsys.readouterr().err


@pytest.mark.slow
def test_from_nothing_to_the_table(tmp_path):
    few = ["--num", "1", "--num_wild", "1", "--num_test", "1", "--num_samples", "1", "--sweep", "5"]
    short = ["--generator_steps", "1", "--steps", "2"]
    done = run_script("-m", "benchmarks.reconstruction_mini", "--output_dir", tmp_path, *few, *short)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "report.html").is_file()
