"""The README's first command with few photos, and (slow) the paper's claim in miniature."""

import csv
import json
import math
import re

import pytest
from conftest import error_of, files_under, pixels

import reproduce
from hand1000 import report
from core.metrics.scores import METRICS, Score
from synthetic_hands import demo


def test_demo_from_nothing_to_the_table(tmp_path, capsys):
    arguments = ["--output_dir", str(tmp_path), "--gestures", "call", "--num", "2", "--num_test", "10"]
    arguments += ["--ablate", "mu", "1", "--ablate", "without", "stage_2"]
    demo.main(arguments)
    output = capsys.readouterr().out
    for script in ("captioning/enrich", "cal_mean_feature", "train", "image_generation"):
        assert f"$ python {script}.py " in output
    made = files_under(tmp_path)
    results = {"table.md", "table.csv", "table.tex", "results.json", "report.html", "grid.png", "losses.png"}
    assert results <= made and "call/seed_0/mu_sweep/grid.png" in made
    table = (tmp_path / "table.md").read_text()
    for row in ("real photos", "base", "Hand1000", "mu 1", "without stage_2"):
        assert f"| call | {row} | " in table
    assert "| paper | change | -28.599 | -0.017 | -30.208 | -0.041 | +0.053 | – | – |" in table
    assert pixels(tmp_path / "grid.png").shape[1] == 600
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert {row["metric"] for row in rows} == set(METRICS) and len(rows) == 5 * len(METRICS)
    content = json.loads((tmp_path / "results.json").read_text())
    assert [cell["row"] for cell in content["results"]] == [
        "real photos",
        "base",
        "Hand1000",
        "mu 1",
        "without stage_2",
    ]
    assert all(cell["images"] == 10 for cell in content["results"])
    assert content["stages"]["call/seed_0/hand1000/train"]["peak_memory_gb"]["process"] > 0.1
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "http" not in page.replace("http-equiv", "")

    demo.main(arguments)
    output = capsys.readouterr().out
    assert "already finished" in output and output.count("complete: ") == 15 and "Drawing" not in output
    plan = ["--gestures", "call", "--data_root", str(tmp_path / "data"), "--captioner", "synthetic", "--dry_run"]
    reproduce.main([*plan, "--output_dir", str(tmp_path), "--seeds", "1"])
    assert re.search(r"time: about \d+ minutes, by the stages that have run", capsys.readouterr().out)

    # Nothing that was made otherwise gets into the report; a lost picture is drawn again.
    settings = demo.mini_arguments(tmp_path, tmp_path / "data", "synthetic", "staged")
    settings = ["--gestures", "call", *settings]
    other_mu = [*settings, "--mu", "0.9", "--stages", "evaluate,report"]
    assert "made with other settings; run generate" in error_of(reproduce.main, other_mu, capsys)
    (tmp_path / "call" / "seed_0" / "base" / "pictures" / "call_test_00003.png").unlink()
    assert "9 pictures, not the 10 wanted" in error_of(reproduce.main, [*settings, "--stages", "report"], capsys)
    reproduce.main(settings)
    assert "10 drawn now" not in (output := capsys.readouterr().out) and "1 drawn now" in output
    (tmp_path / "data" / "call_test_synthetic_modified.txt").write_text("changed\n")
    assert "lines" in error_of(demo.main, arguments, capsys)


def test_mistakes(tmp_path, capsys):
    message = error_of(demo.main, ["--output_dir", tmp_path, "--gestures", "wave"], capsys)
    assert message.startswith("no gesture 'wave'; there are call, dislike, fist")
    (tmp_path / "demo" / "data").mkdir(parents=True)
    (tmp_path / "demo" / "data" / "note.txt").write_text("mine")
    assert "is no synthetic data set" in error_of(demo.main, ["--output_dir", tmp_path / "demo"], capsys)

    for name in ("call", "call_test"):
        (tmp_path / name).mkdir()
    common = ["--gestures", "call", "--data_root", tmp_path, "--output_dir", tmp_path / "out"]

    def of(*more) -> str:
        return error_of(reproduce.main, [*common, *more], capsys)

    assert "--ablate Lambda 2: is no number from 0 to 1" in of("--ablate", "Lambda", "2")
    assert "there are Lambda and mu (0 to 1)" in of("--ablate", "colour", "red")
    assert "--ablate: the same row twice" in of("--ablate", "mu", "1", "--ablate", "mu", "1")
    assert "--ablate mu: which values?" in of("--ablate", "mu")
    assert "no such file or folder" in of("--feature_extractor", tmp_path / "none.pt")
    assert "--seeds: the same one twice" in of("--seeds", "1", "1")
    assert "--ablate: the same row twice" in of("--ablate", "Lambda", "0.3", ".30")
    assert "the stages are select,caption" in of("--stages", "cook")
    assert "unrecognized arguments: --learning" in of("--train_args=--learning 1", "--stages", "caption,train")
    message = error_of(reproduce.main, ["--gestures", "wave"], capsys)
    assert "no phrase is known for the gesture 'wave'; pass --phrase" in message
    assert "put photos there, or give --source" in error_of(reproduce.main, ["--gestures", "four"], capsys)
    assert not (tmp_path / "out").exists()


def test_dry_run_prints_the_plan_and_does_nothing(tmp_path, capsys):
    for name in ("call", "call_test"):
        (tmp_path / name).mkdir()
    arguments = ["--gestures", "call", "--data_root", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    reproduce.main([*arguments, "--dry_run", "--seeds", "0", "1", "--ablate", "Lambda", "0", "--ablate", "mu", "1"])
    output = capsys.readouterr().out
    assert output.count("train.py") == 4  # two seeds, two values of Lambda; another mu needs no training
    assert "captioning/blip2.py" in output and "4 models still to train" in output
    assert "2 to caption, 2 to enrich, 1 to feature, 4 to train, 9 to generate, 9 to evaluate" in output
    assert "time: not known yet for caption, enrich, feature, train, generate, evaluate;" in output
    assert not (tmp_path / "out").exists()


def test_table_marks_what_is_better_beyond_the_intervals():
    nothing = {metric: Score(math.nan, math.nan, math.nan) for metric in METRICS}

    def cell(fid, confidence):
        return {"scores": {**nothing, "FID": Score(fid, fid - 1, fid + 1), "HAND-CONF": Score(confidence, 0.8, 0.9)}}

    results = {("call", None, "real photos"): cell(0, 0.99)}
    results |= {("call", seed, "base"): cell(10 + seed, 0.84) for seed in (0, 1)}
    results |= {("call", seed, "Hand1000"): cell(5 + seed, 0.86) for seed in (0, 1)}
    rows = report.table(results, ["call"], ["real photos", "base", "Hand1000"])
    assert rows[2].scores["FID"] == (5.5, 4.5, 6.5) and rows[2].better == {"FID"}
    assert not rows[0].better and not rows[1].better
    text = report.markdown(rows)
    assert "| **5.50 [4.50, 6.50]** | – |" in text and "| call | change | -5.000 | – |" in text
    assert r"\textbf{5.50 [4.50, 6.50]}" in report.latex(rows)


@pytest.mark.slow
def test_the_papers_claim_in_miniature(tmp_path):
    """The base draws hands but not the gesture; Hand1000 draws it, and the pictures come closer to the real ones."""
    demo.main(["--output_dir", str(tmp_path), "--gestures", "call"])
    cells = json.loads((tmp_path / "results.json").read_text())["results"]
    _, base, ours = (cell["scores"] for cell in cells)
    for metric in ("FID", "KID", "FID-H", "KID-H"):
        assert ours[metric][0] < base[metric][0], metric
    assert ours["gesture accuracy"][1] > base["gesture accuracy"][2]
