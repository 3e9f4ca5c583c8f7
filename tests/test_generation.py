"""image_generation.py: the released pictures, the same ones however they are made, sweeps, prompts without lists."""

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
    write_lists,
)
from diffusers import StableDiffusionPipeline
from trainings import finish_run

import image_generation
from core.diffusion.encoding import latent_shape
from core.diffusion.noise import ddim_scheduler
from core.diffusion.sampling import start_noise
from core.diffusion.stable_diffusion import load_stable_diffusion
from core.runs.errors import UserError
from hand1000.generation import fused_prompt_embeds

LOCK = ".generation.lock"


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
    run = finish_run(copy_model(tiny_model, tmp_path / "a_run"), resolution=32)
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
    assert files_under(data_root / "sweep") == expected | {"grid.png", "generation.json", LOCK}
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


def test_prompts_without_lists(data_root, run_folder):
    """Several prompts make one picture each; one prompt makes as many as asked for, each from another start noise."""
    common = ["--ckpt", run_folder, "--feature_npy_path", data_root / "palm.npy", "--num_inference_steps", 2]
    common += ["--resolution", 64, "--image_size", 0, "--seed", 5]

    def draw(folder: str, *more) -> None:
        image_generation.main([str(one) for one in [*common, "--img_save_path", data_root / folder, *more]])

    draw("two", "--prompt", "a hand", "two hands")
    assert files_under(data_root / "two") == {"prompt_000.png", "prompt_001.png", "generation.json", LOCK}
    draw("one", "--prompt", "a hand")
    draw("one", "--prompt", "a hand", "--num_images", 3)  # more of the same may follow
    assert files_under(data_root / "one") == {*(f"prompt_00{i}.png" for i in range(3)), "generation.json", LOCK}
    one = [pixels(data_root / f"one/prompt_00{i}.png") for i in range(3)]
    assert (one[0] != one[1]).any() and (one[1] != one[2]).any()
    assert_same_pictures(one[0], pixels(data_root / "two/prompt_000.png"))
    draw("seven", "--prompt", "a hand", "--seed", 7)
    assert_same_pictures(one[2], pixels(data_root / "seven/prompt_000.png"))


def test_fusion_at_another_mu_in_plain_diffusers(data_root, run_folder):
    """`fused_prompt_embeds` and diffusers' own pipeline draw what image_generation.py draws, but for rounding."""
    prompts = (data_root / "palm_BLIP2_modified.txt").read_text().split("\n")[:2]
    options = ("--num_images", 2, "--mu", 0.5, "--num_inference_steps", 5, "--guidance_scale", 2)
    image_generation.main(generate_args(data_root, run_folder, data_root / "out", *options))

    pipe = StableDiffusionPipeline.from_pretrained(run_folder, safety_checker=None)
    pipe.scheduler = ddim_scheduler(pipe)
    embeds, negative = fused_prompt_embeds(pipe, prompts, run=run_folder, feature=data_root / "palm.npy", mu=0.5)
    assert embeds.shape == negative.shape == (2, 77, 32)
    theirs = pipe(
        prompt_embeds=embeds,
        negative_prompt_embeds=negative,
        latents=start_noise(0, latent_shape(pipe, 64)).repeat(2, 1, 1, 1),
        num_inference_steps=5,
        guidance_scale=2,
    ).images
    for number, picture in enumerate(theirs):
        ours = pixels(data_root / f"out/photo{number}.png")
        assert np.abs(ours - np.asarray(picture).astype(int)).max() <= 1
    with pytest.raises(UserError, match="not a run folder of train.py"):
        fused_prompt_embeds(pipe, prompts, run=data_root, feature=data_root / "palm.npy", mu=0.5)
