"""The README's first command with few photos, and (slow) the paper's claim in miniature."""

import csv
import json
import re

import numpy as np
import pytest
from conftest import error_of, files_under, pixels

import reproduce
from core.metrics import table
from core.metrics.scores import NO_SCORE, Score
from core.metrics.table import TableRow
from hand1000 import report
from hand1000.experiment import ALL_METRICS, COMPARED, CellScores, table_rows
from hand1000.gesture_feature import feature_hash, save_gesture_feature
from synthetic_hands import demo


def test_demo_from_nothing_to_the_table(tmp_path, capsys, monkeypatch):
    arguments = ["--output_dir", str(tmp_path), "--gestures", "call", "--num", "2", "--num_test", "10"]
    arguments += ["--ablate", "mu", "1", "--ablate", "without", "stage_2"]
    arguments += ["--compare", "finetuned_imagic", "lora", "--jobs", "1"]
    monkeypatch.setattr(demo, "IMAGIC_ARGS", "--embedding_steps 2 --finetune_steps 2")
    monkeypatch.setitem(demo.LORA_ARGS, "staged", "--finetune_lr 2e-3 --finetune_steps 3")
    monkeypatch.setattr(demo, "GENERATE_ARGS", demo.GENERATE_ARGS.replace("steps 10", "steps 4"))
    demo.main(arguments)
    output = capsys.readouterr().out
    for script in ("captioning/enrich", "cal_mean_feature", "train", "image_generation", "hand1000/imagic"):
        assert f"$ python {script}.py " in output
    assert re.search(
        r"time of the steps: enrich \d+ s, feature \d+ s, train \d+ s, generate \d+ s, evaluate \d+ s\n", output
    )
    made = files_under(tmp_path)
    results = {"table.md", "table.csv", "table.tex", "results.json", "report.html", "grid.png", "losses.png"}
    assert results <= made and "call/seed_0/mu_sweep/grid.png" in made
    table = (tmp_path / "table.md").read_text()
    names = ["real photos", "base", "Hand1000", "fine-tuned + Imagic", "LoRA", "mu 1", "without stage_2"]
    for name in names:
        assert f"| call | {name} | " in table
    assert "| paper | change | -28.599 | -0.017 | -30.208 | -0.041 | +0.053 | – | – | – |" in table
    assert (
        "attributes (skin, sleeve, wall, pattern) that a classifier finds in the pictures; a guess finds 23%." in table
    )
    assert "| attributes kept ↑ |" in table and "CLIP" not in table
    assert pixels(tmp_path / "grid.png").shape[1] == 1000  # five columns
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert {row["metric"] for row in rows} == set(ALL_METRICS) and len(rows) == len(names) * len(ALL_METRICS)
    content = json.loads((tmp_path / "results.json").read_text())
    assert [cell["row"] for cell in content["results"]] == names
    assert all(cell["images"] == 10 for cell in content["results"])
    assert content["stages"]["call/seed_0/hand1000/train"]["peak_memory_gb"]["process"] > 0.1
    runs = [tmp_path / "call" / "seed_0" / row / "run" / "hand1000.json" for row in ("hand1000", "lora")]
    rates = [json.loads(run.read_text())["settings"]["finetune_lr"] for run in runs]
    assert rates == [2e-4, 2e-3]  # --lora_args reach the LoRA alone
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "http" not in page.replace("http-equiv", "")

    demo.main(arguments)
    output = capsys.readouterr().out
    assert "already finished" in output and output.count("complete: ") == 21 and "Drawing" not in output
    plan = ["--gestures", "call", "--data_root", str(tmp_path / "data"), "--captioner", "synthetic", "--dry_run"]
    reproduce.main([*plan, "--output_dir", str(tmp_path), "--seeds", "1"])
    assert re.search(r"time: about \d+ minutes?, judging by the stages that have run", capsys.readouterr().out)

    # Nothing that was made otherwise gets into the report; a lost picture is drawn again.
    settings = demo.mini_arguments(tmp_path, tmp_path / "data", "synthetic", "staged")
    settings = ["--gestures", "call", *settings]
    other_mu = [*settings, "--mu", "0.9", "--stages", "evaluate,report"]
    assert "made with other settings; run the stage generate" in error_of(reproduce.main, other_mu, capsys)
    (tmp_path / "call" / "seed_0" / "base" / "pictures" / "call_test_00003.png").unlink()
    assert "9 pictures, not the 10 wanted" in error_of(reproduce.main, [*settings, "--stages", "report"], capsys)
    reproduce.main([*settings, "--jobs", "2"])
    logs = [path.read_text() for path in (tmp_path / "steps").rglob("*.log")]
    assert len(logs) == 2 and sum("1 drawn now" in log for log in logs) == 1  # the base's pictures and their metrics
    (tmp_path / "data" / "call_test_synthetic_modified.txt").write_text("changed\n")
    assert "lines" in error_of(demo.main, arguments, capsys)


def test_the_papers_comparison():
    """Which model each row draws with, and how it was trained."""
    base, ours, imagic, finetuned, both, lora = table_rows(0.7, "BLIP2", [], list(COMPARED))
    assert (imagic.run, imagic.mu, imagic.imagic) == (None, 0.7, True)
    assert (finetuned.run, finetuned.mu, finetuned.imagic) == ("Lambda_1", 1, False)
    assert (both.run, both.mu, both.imagic) == ("Lambda_1", 0.7, True)
    assert finetuned.train_args == both.train_args == ["--Lambda", "1"]
    assert (lora.run, lora.mu, lora.train_args) == ("lora", ours.mu, ["--lora_rank", "16"])
    rows = table_rows(0.7, "BLIP2", [], ["finetuned", "lora"], lora_args=["--finetune_lr", "1e-2"])
    assert [row.train_args for row in rows[2:]] == [["--Lambda", "1"], ["--lora_rank", "16", "--finetune_lr", "1e-2"]]
    assert not base.imagic and len({row.folder for row in (base, ours, imagic, finetuned, both, lora)}) == 6


def test_mistakes(tmp_path, capsys):
    message = error_of(demo.main, ["--output_dir", tmp_path, "--gestures", "wave"], capsys)
    assert message.startswith("no gesture 'wave'; there are call, dislike, fist")
    message = error_of(demo.main, ["--output_dir", tmp_path, "--pretrained_model_name_or_path", tmp_path], capsys)
    assert "not a diffusers folder (no model_index.json in it)" in message
    for option, value, expected in [
        ("--compare", ["loar"], "invalid choice: 'loar'"),
        ("--ablate", ["Lambda", "2"], "--ablate Lambda 2: not a number from 0 to 1"),
        ("--seeds", ["0", "0"], "--seeds: the same one twice"),
        ("--gestures", ["call", "call"], "--gestures: the same one twice"),
    ]:
        assert expected in error_of(demo.main, ["--output_dir", tmp_path / "demo", option, *value], capsys)
    assert not (tmp_path / "demo").exists()  # nothing was drawn
    (tmp_path / "demo" / "data").mkdir(parents=True)
    (tmp_path / "demo" / "data" / "note.txt").write_text("mine")
    assert "holds 'note.txt' but no dataset.json" in error_of(demo.main, ["--output_dir", tmp_path / "demo"], capsys)

    for name in ("call", "call_test"):
        (tmp_path / name).mkdir()
    common = ["--gestures", "call", "--data_root", tmp_path, "--output_dir", tmp_path / "out"]

    def of(*more) -> str:
        return error_of(reproduce.main, [*common, *more], capsys)

    assert "--ablate Lambda 2: not a number from 0 to 1" in of("--ablate", "Lambda", "2")
    assert "there are Lambda and mu (0 to 1)" in of("--ablate", "colour", "red")
    assert "lr_scheduler (constant, linear, cosine)" in of("--ablate", "lr_scheduler", "tea")
    assert "--ablate: the same row twice" in of("--ablate", "mu", "1", "--ablate", "mu", "1")
    assert "--ablate mu: name the values" in of("--ablate", "mu")
    assert "no such file or folder" in of("--feature_extractor", tmp_path / "none.pt")
    assert "--seeds: the same one twice" in of("--seeds", "1", "1")
    assert "--ablate: the same row twice" in of("--ablate", "Lambda", "0.3", ".30")
    assert "the stages are select,caption" in of("--stages", "cook")
    owned = of("--train_args=--output_dir elsewhere")
    assert owned == "--train_args: --output_dir is set by the experiment itself"
    assert of("--lora_args=--finetune_lr 1e-3") == "--lora_args: the table has no such row; add --compare lora"
    for script in ("train", "lora"):
        pushed = of(f"--{script}_args=--push_to_hub", "--compare", "lora")
        assert pushed.startswith(
            f"--{script}_args: an experiment pushes nothing, for its models would all get the same "
        )
    assert "--ablate captioner ../x: there are Lambda" in of("--ablate", "captioner", "../x")
    assert "unrecognized arguments: --learning" in of("--train_args=--learning 1", "--stages", "caption,train")
    message = error_of(reproduce.main, ["--gestures", "wave"], capsys)
    assert "no phrase is known for the gesture 'wave'; pass --phrase" in message
    assert "put photos there, or pass --source" in error_of(reproduce.main, ["--gestures", "four"], capsys)
    assert not (tmp_path / "out").exists()


def test_dry_run_prints_the_plan_and_does_nothing(tmp_path, capsys):
    for name in ("call", "call_test"):
        (tmp_path / name).mkdir()
    arguments = ["--gestures", "call", "--data_root", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    ablations = ["--ablate", "Lambda", "0", "--ablate", "mu", "1", "--ablate", "lr_scheduler", "linear"]
    reproduce.main([*arguments, "--dry_run", "--seeds", "0", "1", "--train_args=--schedule staged", *ablations])
    output = capsys.readouterr().out
    assert output.count("train.py") == 6  # two seeds; ours, another Lambda and a falling rate; another mu needs none
    assert output.count("--lr_scheduler linear") == 2
    assert "captioning/blip2.py" in output and "6 models still to train" in output
    counts = "2 to caption, 2 to enrich, 1 to feature, 6 to train, 11 to generate, 11 to evaluate"
    assert f"33 steps, 0 complete, 33 to do: {counts}" in output
    assert "time: not known yet for caption, enrich, feature, train, generate, evaluate;" in output
    assert not (tmp_path / "out").exists()


def test_data_comes_first_and_the_users_own_is_kept(tmp_path, capsys):
    for name in ("call", "call_test", "four", "four_test"):
        (tmp_path / name).mkdir()
    save_gesture_feature(tmp_path / "four.npy", np.ones(63))  # the user's own
    save_gesture_feature(tmp_path / "call.npy", np.zeros(63))
    (tmp_path / "call_feature.json").write_text(  # Stage I's, in another experiment
        json.dumps({"feature_sha256": feature_hash(np.zeros(63, dtype=np.float32))})
    )
    arguments = ["--gestures", "call", "four", "--data_root", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    arguments += ["--compare", "imagic", "finetuned", "--train_args=--resolution 64 --revision=non-ema --variant fp16"]
    reproduce.main([*arguments, "--dry_run"])
    commands = [line.removeprefix("to do     ") for line in capsys.readouterr().out.splitlines() if ".py " in line]
    trained = next(place for place, command in enumerate(commands) if "train.py" in command)
    assert {"call", "four"} <= {word for command in commands[:trained] for word in command.split()}
    assert not any("captioning/" in command for command in commands[trained:])
    features = [command for command in commands if "cal_mean_feature.py" in command]
    assert len(features) == 1 and "--gesture call " in features[0]
    for command in commands[trained:]:  # the base model is the one that the trainings start from
        is_of_a_run = "image_generation.py" in command and "/base/" not in command
        assert ("--resolution 64 --revision" in command) != is_of_a_run
        assert ("non-ema --variant fp16" in command) != is_of_a_run


def test_table_marks_what_differs_beyond_the_intervals():
    nothing = dict.fromkeys(ALL_METRICS, NO_SCORE)

    def cell(fid: float, confidence: float, found: float) -> CellScores:
        scores = {"FID": Score(fid, fid - 1, fid + 1), "HAND-CONF": Score(confidence, 0.8, 0.9)}
        return CellScores(10, {**nothing, **scores, "hand found": Score(found, found - 0.1, found + 0.1)})

    results = {("call", None, "real photos"): cell(0, 0.99, 0.9)}
    results |= {("call", seed, "base"): cell(10 + seed, 0.84, 0.92) for seed in (0, 1)}
    results |= {("call", seed, "Hand1000"): cell(5 + seed, 0.86, 0.38) for seed in (0, 1)}
    rows = report.table_rows(results, ["call"], ["real photos", "base", "Hand1000"])
    assert rows[2].scores["FID"] == (5.5, 4.5, 6.5)
    assert rows[2].marks == {"FID": "better", "hand found": "worse"}
    assert not rows[0].marks and not rows[1].marks
    lines = report.lines_of(rows)
    text = table.markdown(lines)
    assert text.splitlines()[0] == "| gesture | model | FID ↓ | HAND-CONF ↑ | hand found ↑ |"  # no columns of dashes
    assert "| **5.50 [4.50, 6.50]** | 0.860 [0.800, 0.900] | *38% [28%, 48%]* |" in text
    assert "| call | change | -5.000 | +0.020 | -54 points |" in text
    latex = table.latex(lines, 2)
    assert r"\textbf{5.50 [4.50, 6.50]}" in latex and r"\textit{38\% [28\%, 48\%]}" in latex
    two = results | {("peace", seed, row): value for (_, seed, row), value in results.items()}
    rows = report.table_rows(two, ["call", "peace"], ["real photos", "base", "Hand1000"])
    assert [row.labels[0] for row in rows] == ["call"] * 3 + ["peace"] * 3 + ["mean"] * 3
    assert rows[8].scores["FID"] == (5.5, 4.5, 6.5)


def test_special_characters_do_no_harm_in_tables(tmp_path):
    row = TableRow((r"a|b_c%$&#{}~^\\", "=cmd"), {**dict.fromkeys(ALL_METRICS, NO_SCORE), "FID": Score(1, 1, 1)})
    lines = [table.headings(("gesture", "model"), ["FID"]), table.cells(row, ["FID"])]
    assert table.markdown(lines).splitlines()[2].startswith(r"| a\|b_c")
    text = table.latex(lines, 2).splitlines()[4]
    assert text.startswith(r"a|b\_c\%\$\&\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}")
    table.write_csv(tmp_path / "table.csv", ("gesture", "model"), [row])
    assert "'=cmd" in (tmp_path / "table.csv").read_text()


@pytest.mark.slow
def test_the_papers_claim_in_miniature(tmp_path):
    """The base draws hands but not the gesture; Hand1000 draws it, the pictures come closer to the real ones, and they
    keep the caption."""
    demo.main(["--output_dir", str(tmp_path), "--gestures", "call"])
    cells = json.loads((tmp_path / "results.json").read_text())["results"]
    _, base, ours = (cell["scores"] for cell in cells)
    for metric in ("FID", "KID", "FID-H", "KID-H"):
        assert ours[metric][0] < base[metric][0], metric
    assert ours["gesture accuracy"][1] > base["gesture accuracy"][2]
    assert ours["attributes kept"][0] > base["attributes kept"][0] - 0.05  # by 3 points; 8 with a constant rate
