"""image_generation.py: the released pictures, the same ones however they are made, sweeps, going on, mistakes."""

import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import released
import torch
from conftest import (
    ROOT,
    TWO_PROCESSES,
    copy_model,
    error_of,
    files_under,
    generate_args,
    pixels,
    run_script,
    start_script,
    write_lists,
)

import image_generation
from core.diffusion.stable_diffusion import ddim_scheduler, load_stable_diffusion
from core.runs.run import FINISHED, UNFINISHED, write_record


@pytest.fixture(scope="module")
def run_folder(tiny_model, tmp_path_factory) -> Path:
    """A finished run with fusion seed 3, as train.py leaves it."""
    run = copy_model(tiny_model, tmp_path_factory.mktemp("runs") / "run")
    write_record(run, {"status": FINISHED, "settings": {"gesture": "palm"}, "fusion": {"seed": 3}})
    return run


def assert_same_pictures(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Float rounding moves a value over the edge of truncation now and then: by 1, in fewer than 0.2 % of values."""
    difference = np.abs(ours - theirs)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.002


def test_timesteps_are_the_released_ones(tiny_model):
    scheduler = ddim_scheduler(load_stable_diffusion(str(tiny_model)))
    scheduler.set_timesteps(45)
    assert scheduler.timesteps.tolist() == list(range(969, 0, -22))
    assert abs(float(scheduler.final_alpha_cumprod) - (1 - 0.00085)) < 1e-7


@pytest.mark.parametrize("mu", [0.6, 1.0])
def test_pictures_equal_the_released_ones(mu, data_root, run_folder):
    images = data_root / "out"
    arguments = generate_args(data_root, run_folder, images, "--num_images", 3, "--mu", mu, "--image_size", 50)
    image_generation.main(arguments)
    pipe = load_stable_diffusion(str(run_folder))
    torch.manual_seed(3)
    fusion = torch.nn.Linear(77 * 32 + 63, 77 * 32)
    feature, prompts = np.load(data_root / "palm.npy"), (data_root / "palm_BLIP2_modified.txt").read_text().split("\n")
    ours = np.stack([pixels(images / f"photo{i}.png") for i in range(3)])
    options = {"mu": mu, "resolution": 64, "latent_side": 16, "image_size": 50}
    theirs = np.stack([released.generate(pipe, fusion, feature, prompt, **options) for prompt in prompts[:3]])
    assert ours.std() > 10  # there is something in the pictures
    assert np.abs(ours[0] - ours[1]).mean() > 0.1  # and the prompt changes it
    assert_same_pictures(ours, theirs)


def test_the_same_pictures_whatever_batch_and_processes(data_root, run_folder):
    options = ("--num_images", 5, "--num_inference_steps", 5)
    outputs = [data_root / name for name in ("one", "four", "two")]
    image_generation.main(generate_args(data_root, run_folder, outputs[0], *options, "--batch_size", 1))
    image_generation.main(generate_args(data_root, run_folder, outputs[1], *options, "--batch_size", 4))
    command = [ROOT / "image_generation.py", *generate_args(data_root, run_folder, outputs[2], *options)]
    done = run_script(*command, "--batch_size", 2, launcher=TWO_PROCESSES)
    assert done.returncode == 0, done.stderr
    one, four, two = (np.stack([pixels(output / f"photo{i}.png") for i in range(5)]) for output in outputs)
    assert_same_pictures(one, four)
    assert_same_pictures(one, two)


def test_start_noise_is_the_same_for_every_prompt_unless_the_seed_varies(data_root, run_folder):
    write_lists(data_root, ["a.png", "b.png"], ["the same prompt"] * 2)
    options = ("--num_inference_steps", 3, "--batch_size", 1)
    image_generation.main(generate_args(data_root, run_folder, data_root / "same", *options))
    image_generation.main(generate_args(data_root, run_folder, data_root / "varied", *options, "--vary_seed"))
    image_generation.main(generate_args(data_root, run_folder, data_root / "one", *options, "--seed", 1))
    assert (pixels(data_root / "same/a.png") == pixels(data_root / "same/b.png")).all()
    assert (pixels(data_root / "varied/a.png") != pixels(data_root / "varied/b.png")).any()
    assert_same_pictures(pixels(data_root / "varied/b.png"), pixels(data_root / "one/a.png"))


def test_resolution_is_the_runs_and_another_feature_is_mentioned(data_root, tiny_model, tmp_path, capsys):
    run = copy_model(tiny_model, tmp_path / "a_run")
    write_record(run, {"status": FINISHED, "settings": {"resolution": 32}, "fusion": {"seed": 3}})
    arguments = generate_args(data_root, run, data_root / "out", "--num_images", 1, "--num_inference_steps", 2)
    place = arguments.index("--resolution")
    image_generation.main(arguments[:place] + arguments[place + 2 :])
    assert pixels(data_root / "out" / "photo0.png").shape == (32, 32, 3)
    assert "palm.npy is not the feature that" in capsys.readouterr().out


def test_sweep_over_mu_makes_folders_and_a_sheet(data_root, run_folder):
    options = ("--num_images", 2, "--num_inference_steps", 3, "--mu", 0, 0.5, 1)
    image_generation.main(generate_args(data_root, run_folder, data_root / "sweep", *options))
    folders = ("mu_0", "mu_0.5", "mu_1")
    expected = {f"{folder}/photo{i}.png" for folder in folders for i in (0, 1)}
    assert files_under(data_root / "sweep") == expected | {"grid.png", "generation.json"}
    assert (pixels(data_root / "sweep/mu_0/photo0.png") != pixels(data_root / "sweep/mu_1/photo0.png")).any()
    sheet = pixels(data_root / "sweep/grid.png")
    assert sheet.shape == (24 + 2 * 220, 600, 3)
    for column in range(3):  # a label above each column, a picture below it
        assert sheet[:24, 200 * column : 200 * (column + 1)].min() < 128
        assert sheet[24:224, 200 * column : 200 * (column + 1)].std() > 10


def test_a_base_model_draws_at_mu_one_and_needs_no_feature(data_root, tiny_model, capsys):
    arguments = generate_args(data_root, tiny_model, data_root / "base", "--num_images", 1, "--num_inference_steps", 2)
    assert "a model without fusion, so --mu must be 1" in error_of(image_generation.main, arguments, capsys)
    place = arguments.index("--feature_npy_path")
    image_generation.main([*arguments[:place], *arguments[place + 2 :], "--mu", "1"])
    assert pixels(data_root / "base" / "photo0.png").shape == (64, 64, 3)


def test_default_size_is_400_and_jpeg_names_become_jpegs(data_root, run_folder):
    write_lists(data_root, ["a.jpg"], ["a hand"])
    arguments = generate_args(data_root, run_folder, data_root / "out", "--num_inference_steps", 2)
    place = arguments.index("--image_size")
    image_generation.main(arguments[:place] + arguments[place + 2 :])
    assert pixels(data_root / "out" / "a.jpg").shape == (400, 400, 3)
    assert (data_root / "out" / "a.jpg").read_bytes()[:2] == b"\xff\xd8"


def test_killed_and_started_again_it_draws_only_what_is_missing(data_root, run_folder):
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
    assert run_script(*command, "--img_save_path", data_root / "whole").returncode == 0
    for i in range(8):
        assert (pixels(data_root / f"out/photo{i}.png") == pixels(data_root / f"whole/photo{i}.png")).all()


def test_more_of_the_same_may_follow_but_nothing_else(data_root, run_folder, capsys):
    arguments = generate_args(data_root, run_folder, data_root / "out", "--num_inference_steps", 2)
    image_generation.main([*arguments, "--num_images", "1"])
    image_generation.main([*arguments, "--num_images", "2"])
    before = files_under(data_root)
    other = error_of(image_generation.main, [*arguments, "--guidance_scale", "4"], capsys)
    assert "pictures of other settings (guidance_scale was 3.0, is now 4.0)" in other
    write_lists(data_root, ["photo0.png", "photo1.png"], ["another prompt", "and another"])
    assert "other file names or prompts" in error_of(image_generation.main, arguments, capsys)
    foreign = generate_args(data_root, run_folder, data_root / "palm", "--num_inference_steps", 2)
    assert "photo0.png: there already" in error_of(image_generation.main, foreign, capsys)
    (data_root / "mine").mkdir()
    (data_root / "mine" / "grid.png").write_text("my own")
    sweep = generate_args(data_root, run_folder, data_root / "mine", "--mu", 0, 1)
    assert "grid.png: there already" in error_of(image_generation.main, sweep, capsys)
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
    write_record(data_root / "run", {"status": UNFINISHED, "settings": {}, "fusion": {"seed": 0}})
    message = error_of(image_generation.main, generate_args(data_root, data_root / "run", data_root / "out"), capsys)
    assert "this run is not finished" in message
