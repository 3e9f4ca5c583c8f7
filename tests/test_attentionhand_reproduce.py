"""AttentionHand's tables from one command: the demo with few samples, and what it refuses."""

import csv
import json
import shutil

import numpy as np
import pytest
from conftest import error_of, files_under, pixels
from PIL import Image, ImageOps

from attentionhand import reproduce
from attentionhand.experiment import ROWS, TRAININGS, chosen_rows
from attentionhand.published import METHODS, PUBLISHED, PUBLISHED_COLUMNS, VIEWS
from core.runs.errors import UserError
from synthetic_hands import demo_attentionhand

pytestmark = pytest.mark.usefixtures("one_thread")


def test_demo_from_nothing_to_the_tables(tmp_path, capsys, fresh_accelerate):
    arguments = ["--output_dir", str(tmp_path), "--gestures", "palm", "--num", "2", "--num_test", "3", "--steps", "1"]
    arguments += ["--rows", "separate_weights", "--jobs", "1"]
    demo_attentionhand.main(arguments)
    output = capsys.readouterr().out
    for script in ("train", "inference", "evaluate"):
        assert f"$ python attentionhand/{script}.py " in output
    made = files_under(tmp_path)
    assert {"table.md", "table.csv", "table.tex", "results.json", "report.html", "grid.png", "losses.png"} <= made
    assert "seed_0/controlnet/run/config.json" in made and "seed_0/controlnet/pictures/inference.json" not in made
    table = (tmp_path / "table.md").read_text()
    for row in ("real photos", "Stable Diffusion", "separate weights"):
        assert f"\n| {row} | " in table
    assert "| Uni-ControlNet | 30.34 | 0.00744 | 37.77 | 0.02004 | 0.855 | 2.105 | 3.039 | 8.796 |" in table
    assert "\n| yes | yes | separate | " in table and "| yes | yes | separate | 21.90 | 0.00293 " in table
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert {row["model"] for row in rows} == {"real photos", "Stable Diffusion", "separate weights"}
    assert {"FID", "landmark error 3D", "PCK@0.2"} < {row["metric"] for row in rows}
    content = json.loads((tmp_path / "results.json").read_text())
    assert [cell["row"] for cell in content["results"]] == ["real photos", "base", "separate_weights"]
    assert content["steps"]["seed_0/local_only/train"]["seconds"] > 0
    assert pixels(tmp_path / "grid.png").shape == (24 + 3 * 220, 4 * 200, 3)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and "http" not in page.replace("http-equiv", "")
    assert "3 labels of" in page and "attentionhand/train.py" in page

    # Again, nothing is to do; a lost picture is drawn again; what was made otherwise gets into no report.
    fresh_accelerate()
    demo_attentionhand.main(arguments)
    output = capsys.readouterr().out
    assert output.count("complete: ") == 7 and "Drawing" not in output
    settings = [*demo_attentionhand.mini_arguments(tmp_path, 1), "--rows", "separate_weights"]
    reproduce.main([*settings, "--dry_run", "--seeds", "0", "1"])
    output = capsys.readouterr().out
    assert "13 steps, 7 complete, 6 to do: 2 to evaluate, 2 to train, 2 to generate" in output
    assert "for 2 models still to train" in output
    other = [*settings, "--seeds", "1", "--stages", "report"]
    assert "seed_1/base/generate is not complete with these settings" in error_of(reproduce.main, other, capsys)
    before = pixels(tmp_path / "seed_0" / "base" / "pictures" / "result_001_0.png")
    (tmp_path / "seed_0" / "base" / "pictures" / "result_001_0.png").unlink()
    fresh_accelerate()
    reproduce.main(settings)
    output = capsys.readouterr().out
    assert "3 pictures of 3 labels, 1 drawn now" in output and output.count("complete: ") == 6
    assert (pixels(tmp_path / "seed_0" / "base" / "pictures" / "result_001_0.png") == before).all()


def test_mistakes(attention_samples, attention_model, tmp_path, capsys):
    data = shutil.copytree(attention_samples, tmp_path / "data")
    for photo in (data / "rgb").iterdir():  # other photos than the test's
        ImageOps.invert(Image.open(photo)).save(photo)

    def of(*more) -> str:
        common = ["--data_dir", data, "--test_dir", attention_samples, "--output_dir", tmp_path / "out"]
        return error_of(reproduce.main, [*common, "--pretrained_model_name_or_path", attention_model, *more], capsys)

    assert "--rows: there is no 'magic', but base, t2i_adapter, controlnet" in of("--rows", "magic")
    demo = ["--output_dir", tmp_path / "demo", "--rows", "magic"]
    assert "--rows: there is no 'magic'" in error_of(demo_attentionhand.main, demo, capsys)
    assert not (tmp_path / "demo").exists()  # nothing was drawn
    assert "--train_args: an experiment pushes nothing" in of("--train_args=--push_to_hub --hub_model_id me/x")
    assert "--train_args: --local_view is set by the experiment itself" in of("--train_args=--local_view none")
    assert "--seeds: the same one twice" in of("--seeds", "1", "1")
    assert "argument --stages: 'cook': the stages are train,generate,evaluate,report" in of("--stages", "cook")
    assert "unrecognized arguments: --colour red" in of("--train_args=--colour red")
    assert "no such file" in of("--data_dir", tmp_path / "pictures")
    test = shutil.copytree(attention_samples, tmp_path / "test")
    shutil.copyfile(test / "rgb" / "00000000.png", test / "rgb" / "another.png")
    assert "a test needs a photo of its own for each label" in of("--test_dir", test)
    np.savez(test / "joints.npz", joints_2d=np.random.default_rng(0).uniform(0, 64, (2, 21, 2)))
    assert "joints.npz: 2 labels for 6 lines of modalities.json" in of("--test_dir", test)
    assert "is a training picture, too; a test needs pictures of its own" in of("--data_dir", attention_samples)
    assert not (tmp_path / "out").exists()


def test_the_rows_are_the_papers():
    """Every published row but Uni-ControlNet's is ours, and every row's weights are trained somewhere."""
    assert [name for name in {*METHODS, *VIEWS} if name not in ROWS] == ["Uni-ControlNet"]
    assert set(PUBLISHED) == {*METHODS, *VIEWS}
    assert all(len(figures) == len(PUBLISHED_COLUMNS) for figures in PUBLISHED.values())
    assert {run for row in ROWS.values() for run in row.runs} == set(TRAININGS)
    assert chosen_rows(["attentionhand", "controlnet"]) == ["base", "controlnet", "attentionhand"]
    assert chosen_rows(["all"]) == list(ROWS)
    with pytest.raises(UserError, match="--rows: there is no 'uni'"):
        chosen_rows(["uni"])
