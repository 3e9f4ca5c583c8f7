"""A folder of pictures: resumed after a kill, more of the same, and refused otherwise; mistakes end in one line."""

import json
import re
import signal
import time

import pytest
from conftest import (
    ROOT,
    copy_model,
    error_of,
    files_under,
    generate_args,
    pixels,
    run_script,
    start_script,
    write_lists,
)
from trainings import finish_run, write_record

import image_generation
from core.runs.run import UNFINISHED, Run


def test_killed_and_started_again_it_draws_only_what_is_missing(data_root, run_folder, one_thread):
    options = ("--num_inference_steps", 30, "--batch_size", 1, "--guidance_scale", 1)
    command = [ROOT / "image_generation.py", *generate_args(data_root, run_folder, data_root / "out", *options)]
    process = start_script(*command)
    while len(list((data_root / "out").glob("*.png"))) < 3:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    drawn = {path: path.stat().st_mtime_ns for path in (data_root / "out").glob("photo*.png")}
    assert 3 <= len(drawn) < 8
    assert run_script(*command).returncode == 0
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in drawn.items())
    image_generation.main([*command[1:], "--img_save_path", str(data_root / "whole")])
    for i in range(8):
        assert (pixels(data_root / f"out/photo{i}.png") == pixels(data_root / f"whole/photo{i}.png")).all()


def test_more_of_the_same_may_follow_but_nothing_else(data_root, run_folder, capsys):
    arguments = generate_args(data_root, run_folder, data_root / "out", "--num_inference_steps", 2)
    image_generation.main([*arguments, "--num_images", "1"])
    image_generation.main([*arguments, "--num_images", "2"])
    before = files_under(data_root)
    other = error_of(image_generation.main, [*arguments, "--guidance_scale", "4"], capsys)
    assert "holds a finished set of pictures of other settings (guidance_scale was 3.0, is now 4.0)" in other
    yaml = data_root / "config.yaml"
    yaml.write_text("model:")
    other = error_of(image_generation.main, [*arguments, "--original_config", yaml], capsys)
    assert "pictures of other settings (original_config was None, is now " in other
    yaml.unlink()
    write_lists(data_root, ["photo0.png", "photo1.png"], ["another prompt", "and another"])
    assert "other file names or prompts" in error_of(image_generation.main, arguments, capsys)
    foreign = generate_args(data_root, run_folder, data_root / "palm", "--num_inference_steps", 2)
    assert "holds 'photo0.png' but no generation.json" in error_of(image_generation.main, foreign, capsys)
    (data_root / "mine").mkdir()
    (data_root / "mine" / "grid.png").write_text("my own")
    sweep = generate_args(data_root, run_folder, data_root / "mine", "--mu", 0, 1)
    assert "holds 'grid.png' but no generation.json" in error_of(image_generation.main, sweep, capsys)
    assert files_under(data_root) == before | {"mine/grid.png"}


MISTAKES = {
    "mu": (("--mu", "1.5"), "1.5 is outside 0 to 1"),
    "mu twice": (("--mu", "0.5", "0.5"), "the same value twice"),
    "no model": (("--ckpt", "runs/nothing/here"), "runs/nothing/here: no such folder"),
    "no folder": (("--ckpt", "runs/ful"), "runs/ful: no such folder here"),
    "no file": (("--ckpt", "gone.ckpt"), "gone.ckpt: no such checkpoint file"),
    "no feature": (("--feature_npy_path", "gone.npy"), "gone.npy: no such file; cal_mean_feature.py makes it"),
    "no prompts": (("--prompts_file", "gone.txt"), "gone.txt: no such file"),
    "no yaml": (("--original_config", "gone.yaml"), r"gone.yaml: no such file \(--original_config\)"),
    "steps": (("--num_inference_steps", "1000"), "1000 is above 999"),
    "resolution": (("--resolution", "100"), "--resolution 100 is not a multiple of 8"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake, data_root, run_folder, capsys):
    options, expected = MISTAKES[mistake]
    before = files_under(data_root)
    message = error_of(image_generation.main, generate_args(data_root, run_folder, data_root / "out", *options), capsys)
    assert re.search(expected, message), message
    assert files_under(data_root) == before


def test_names_may_not_leave_the_folder_and_must_be_pictures(data_root, run_folder, capsys):
    arguments = generate_args(data_root, run_folder, data_root / "out")
    for name, expected in (
        ("../../up.png", "leaves its folder"),
        ("C:\\up.png", "leaves its folder"),
        ("notes.txt", "line 2: 'notes.txt' does not end in one of .jpg"),
    ):
        write_lists(data_root, ["a.png", name], ["a hand"] * 2)
        assert expected in error_of(image_generation.main, arguments, capsys)


def test_an_unfinished_run_is_refused(data_root, capsys):
    write_record(data_root / "run", status=UNFINISHED)
    message = error_of(image_generation.main, generate_args(data_root, data_root / "run", data_root / "out"), capsys)
    assert "run: holds an unfinished training; resume it first with --resume_from_checkpoint latest" in message
    assert not (data_root / "out").exists()


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"fusion": {"seed": -1}}, "fusion is {'seed': -1}"),
        ({"fusion": {"seed": True}}, "fusion is {'seed': True}"),
        ({"fusion": {"file": "/etc/passwd"}}, "fusion is {'file': '/etc/passwd'}"),
        ({"fusion": None}, "fusion is None"),
        ({"settings": {"resolution": 10**9 + 0.5, "feature_sha256": "abc"}}, "resolution is 1000000000.5"),
        ({"settings": {"resolution": 64, "feature_sha256": 3}}, "feature_sha256 is 3"),
    ],
)
def test_a_damaged_record_of_the_training_is_refused(facts, reason, data_root, capsys):
    write_record(data_root / "run", **facts)
    message = error_of(image_generation.main, generate_args(data_root, data_root / "run", data_root / "out"), capsys)
    assert f"hand1000.json: damaged ({reason}); remove it or choose another folder" in message


def test_a_damaged_record_of_the_pictures_is_refused(data_root, run_folder, capsys):
    arguments = generate_args(data_root, run_folder, data_root / "out", "--num_inference_steps", 1, "--num_images", 1)
    image_generation.main(arguments)
    path = data_root / "out" / "generation.json"
    record = json.loads(path.read_text())
    for prompts in (None, 3, 7.5, "text", {"a": "b"}):
        path.write_text(json.dumps({**record, "prompts": prompts}))
        message = error_of(image_generation.main, arguments, capsys)
        assert f"generation.json: damaged (prompts is {prompts!r}); remove it or choose another folder" in message


def test_two_processes_do_not_mix_their_pictures(data_root, run_folder, capsys, monkeypatch):
    """The second one waits for nobody, loads nothing, and after the first has ended it looks again."""
    arguments = generate_args(data_root, run_folder, data_root / "out", "--num_inference_steps", 1, "--num_images", 1)
    with Run(data_root / "out" / "generation.json", {}, what="set of pictures").hold():
        message = error_of(image_generation.main, [*arguments, "--mu", "0.2"], capsys)
        assert "another set of pictures is in progress there; wait for it, or choose another --img_save_path" in message

    begin = Run.hold

    def hold_after_another(run: Run):
        monkeypatch.setattr(Run, "hold", begin)
        image_generation.main(arguments)
        return begin(run)

    monkeypatch.setattr(Run, "hold", hold_after_another)
    message = error_of(image_generation.main, [*arguments, "--mu", "0.2"], capsys)
    assert "of other settings (mu was 0.7, is now 0.2)" in message


def test_another_model_at_the_same_path_is_another_set(data_root, tiny_model, capsys):
    """A base model is known by its files, a run by its settings."""
    base = copy_model(tiny_model, data_root / "base")
    options = ("--num_inference_steps", 1, "--num_images", 1)
    arguments = generate_args(data_root, base, data_root / "out", *options, "--mu", 1)
    image_generation.main(arguments)
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "other settings (model was" in error_of(image_generation.main, arguments, capsys)

    run = finish_run(copy_model(tiny_model, data_root / "run"))
    arguments = generate_args(data_root, run, data_root / "of_run", *options)
    image_generation.main(arguments)
    finish_run(run, Lambda=0.2)
    assert "other settings (model was" in error_of(image_generation.main, arguments, capsys)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "what to draw? give --prompt, or --image_filenames_file and --prompts_file"),
        (("--prompts_file", "p.txt"), "what to draw?"),
        (("--prompt", "a hand", "--prompts_file", "p.txt"), "--prompt stands in place of --image_filenames_file and"),
    ],
)
def test_either_prompts_or_lists(options, expected, tmp_path, capsys):
    arguments = ["--ckpt", "owner/model", "--mu", "1", "--img_save_path", tmp_path / "out", *options]
    assert expected in error_of(image_generation.main, arguments, capsys)
