"""train.py computes what the released code computes, and what the paper describes, to float rounding."""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import released
import torch
from conftest import ROOT, TWO_PROCESSES, run_script, train_args
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from trainings import SHORT, largest_difference, losses_of, unet_of

import train
from core.diffusion.noise import derived_seed
from core.diffusion.stable_diffusion import load_stable_diffusion
from hand1000.draws import STAGE_THREE, photo_draws, photo_seed, place_draw, shuffled_photo
from hand1000.hyperparameters import Hyperparameters
from hand1000.schedules import begin_anew
from hand1000.training import encode


def listed(data_root: Path) -> tuple[list[Path], list[str]]:
    names = (data_root / "palm_BLIP2_file_name.txt").read_text().split("\n")[:-1]
    return [data_root / "palm" / name for name in names], (data_root / "palm_BLIP2_modified.txt").read_text().split(
        "\n"
    )


def test_interleaved_equals_the_released_code(data_root, tiny_model):
    torch.manual_seed(7)
    fusion = torch.nn.Linear(77 * 32 + 63, 77 * 32)
    save_file(fusion.state_dict(), data_root / "fusion.safetensors")
    pipe = load_stable_diffusion(str(tiny_model))
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    photos, captions = listed(data_root)
    feature = np.load(data_root / "palm.npy")
    expected = released.train(pipe, fusion, feature, photos[:4], captions[:4], Lambda=0.6, resolution=64)

    train.main(
        train_args(data_root, tiny_model, "--Lambda", 0.6, "--max_train_images", 4)
        + ["--fusion_checkpoint", str(data_root / "fusion.safetensors")]
    )
    rows = losses_of(data_root / "run")
    one_photo = [("embedding", step) for step in range(10)] + [("finetune", step) for step in range(20)]
    assert [row[:3] for row in rows] == [(f"photo{i}.png", *stage_step) for i in range(4) for stage_step in one_photo]
    assert np.abs(np.array([row[3] for row in rows]) - expected).max() < 1e-6
    trained = unet_of(data_root / "run")
    assert largest_difference(trained, pipe.unet.state_dict()) < 2e-6
    # 80 Adam steps of 1e-6: the comparison above means something only if the weights moved by much more than that.
    assert largest_difference(trained, before) > 2e-5


def test_random_numbers_are_the_released_ones():
    """Timesteps read off the released code, at 8 x 8 latents and seed 0; every photo has the same."""
    draws = photo_draws(0, (1, 4, 8, 8), embedding_steps=10, finetune_steps=20)
    timesteps = [int(draw.timesteps) for draw in (*draws.stage_two, *draws.stage_three)]
    assert timesteps[:10] == [937, 963, 175, 940, 928, 961, 991, 404, 474, 46]
    assert timesteps[10:13] == [752, 409, 901] and len(timesteps) == 30
    torch.manual_seed(0)
    assert torch.equal(draws.posterior_noise, torch.randn(1, 4, 8, 8))
    assert photo_seed(Hyperparameters(seed=3), 5) == 3  # seeded anew for every photo


def test_noise_offset_moves_the_mean_of_each_channel():
    plain, draw = place_draw(0, 0, (1, 4, 8, 8)), place_draw(0, 0, (1, 4, 8, 8), noise_offset=0.1)
    generator = torch.Generator().manual_seed(derived_seed(0, STAGE_THREE, 0))
    assert torch.equal(plain.noise, torch.randn(1, 4, 8, 8, generator=generator))
    means = torch.randn(1, 4, 1, 1, generator=generator)
    assert torch.equal(draw.noise, plain.noise + 0.1 * means)
    assert int(draw.timesteps) == int(torch.randint(1000, (1,), generator=generator))


def test_interleaved_trains_with_the_noise_offset_and_records_it(data_root, tiny_model):
    losses = {}
    for offset, option in ((None, ()), (0.1, ("--noise_offset", 0.1))):
        run = data_root / f"offset_{offset}"
        train.main(train_args(data_root, tiny_model, *SHORT, *option, "--output_dir", run))
        losses[offset] = [row[3] for row in losses_of(run)]
        settings = json.loads((run / "hand1000.json").read_text())["settings"]
        assert settings["noise_offset"] == offset  # None: a run from before the option has no such key
    assert all(plain != moved for plain, moved in zip(losses[None], losses[0.1], strict=True))


@pytest.mark.parametrize(
    ("noise_offset", "lr_scheduler", "rates"),  # the rate of each of the five steps, as a share of the first
    [
        (None, None, [1, 1, 1, 1, 1]),
        (0.1, "linear", [1, 0.8, 0.6, 0.4, 0.2]),
        (None, "cosine", [1, 0.904508, 0.654508, 0.345492, 0.095492]),  # (1 + cos(pi step / 5)) / 2
    ],
)
def test_staged_equals_the_papers_order_done_literally(data_root, tiny_model, noise_offset, lr_scheduler, rates):
    """Three photos in batches of two: Stage II for all of them, then Stage III with one Adam."""
    options = ("--schedule", "staged", "--train_batch_size", 2, "--embedding_steps", 2, "--finetune_steps", 3)
    options += ("--noise_offset", noise_offset) if noise_offset else ()
    options += ("--lr_scheduler", lr_scheduler) if lr_scheduler else ()
    options += ("--max_train_images", 3, "--finetune_lr", 1e-4, "--seed", 4)
    train.main(train_args(data_root, tiny_model, *options))

    pipe = load_stable_diffusion(str(tiny_model))
    photos, captions = listed(data_root)
    feature = np.load(data_root / "palm.npy").astype(np.float32)
    params, shape = Hyperparameters(schedule="staged", resolution=64, seed=4), (1, 4, 16, 16)
    data = encode(pipe, data_root / "palm", photos[:3], captions[:3], feature, params, "cpu")
    seeds = [photo_seed(params, photo) for photo in range(3)]
    # Three passes over three photos, and one more place to fill the fifth batch.
    places = [(shuffled_photo(4, place, 3), *place_draw(4, place, shape, noise_offset)) for place in range(10)]
    assert sorted(photo for photo, _, _ in places[:9]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len({int(t) for _, _, t in places}) > 5  # every place has its own noise and timestep
    expected = released.train_staged(
        pipe,
        data.latents,
        data.prompt_embeds,
        [photo_draws(seed, shape, embedding_steps=2, noise_offset=noise_offset).stage_two for seed in seeds],
        [places[start : start + 2] for start in range(0, 10, 2)],
        finetune_lrs=[1e-4 * rate for rate in rates],
    )
    rows = [row for row in losses_of(data_root / "run") if row[1] == "finetune"]
    assert [row[0] for row in rows] == [f"photo{photo}.png" for photo, _, _ in places]
    assert np.abs(np.array([row[3] for row in rows]) - expected).max() < 1e-5


def test_staged_does_not_depend_on_the_batch_size_in_stage_two(data_root, tiny_model):
    """Every photo's embedding is optimised as if alone: the same losses one by one and four at a time."""
    losses = {}
    for batch in (1, 4):
        train.main(
            train_args(data_root, tiny_model, *SHORT, "--schedule", "staged", "--train_batch_size", batch)
            + ["--output_dir", str(data_root / f"run{batch}")]
        )
        rows = losses_of(data_root / f"run{batch}")
        losses[batch] = {row[:3]: row[3] for row in rows if row[1] == "embedding"}
    assert losses[1].keys() == losses[4].keys() and len(losses[1]) == 4 * 2
    assert max(abs(losses[1][key] - losses[4][key]) for key in losses[1]) < 2e-6


def test_staged_on_two_processes_equals_one(data_root, tiny_model, one_thread):
    """Five photos in global batches of four: also a last batch that does not fill both processes."""
    options = ("--schedule", "staged", "--embedding_steps", 2, "--finetune_steps", 2, "--finetune_lr", 1e-4)
    options += ("--max_train_images", 5, "--checkpointing_images", 4)
    common = [ROOT / "train.py", *train_args(data_root, tiny_model, *options)]
    train.main([*common[1:], "--train_batch_size", "4"])
    other = (*common, "--train_batch_size", 2, "--output_dir", data_root / "two")
    two = run_script(*other, launcher=TWO_PROCESSES)
    assert two.returncode == 0, two.stderr
    assert largest_difference(unet_of(data_root / "run"), unet_of(data_root / "two")) < 2e-5  # a fifth of one lr step
    rows_one, rows_two = (losses_of(data_root / name) for name in ("run", "two"))
    assert [row[:3] for row in rows_one] == [row[:3] for row in rows_two]
    assert max(abs(a[3] - b[3]) for a, b in zip(rows_one, rows_two)) < 1e-5


@pytest.mark.parametrize("schedule", ["interleaved", "staged"])
def test_stage_two_can_be_left_out(schedule, data_root, tiny_model):
    train.main(train_args(data_root, tiny_model, *SHORT, "--embedding_steps", 0, "--schedule", schedule))
    assert {row[1] for row in losses_of(data_root / "run")} == {"finetune"}


@pytest.mark.parametrize("schedule", ["interleaved", "staged"])
def test_stage_three_can_be_left_out(schedule, data_root, tiny_model):
    train.main(train_args(data_root, tiny_model, *SHORT, "--finetune_steps", 0, "--schedule", schedule))
    assert {row[1] for row in losses_of(data_root / "run")} == {"embedding"}
    assert largest_difference(unet_of(data_root / "run"), unet_of(tiny_model)) == 0


@pytest.mark.parametrize("schedule", ["interleaved", "staged"])
def test_memory_and_speed_options(schedule, data_root, tiny_model, fresh_accelerate, monkeypatch):
    """Gradient checkpointing and torch.compile change nothing beyond rounding, bf16 little."""
    checkpointed, compiled = [], []
    enable = UNet2DConditionModel.enable_gradient_checkpointing
    monkeypatch.setattr(
        UNet2DConditionModel, "enable_gradient_checkpointing", lambda unet: [checkpointed.append(unet), enable(unet)]
    )
    # The compiler itself takes half a minute here; what it makes is torch's business.
    monkeypatch.setattr(torch, "compile", lambda model, mode: compiled.append(model) or model)

    arguments = train_args(data_root, tiny_model, *SHORT, "--schedule", schedule)
    train.main(arguments)
    assert not checkpointed and not compiled
    train.main([*arguments, "--gradient_checkpointing", "--compile", "--output_dir", str(data_root / "gc")])
    assert checkpointed[0].is_gradient_checkpointing and compiled[0] is checkpointed[0]
    fresh_accelerate()
    tracked = ["--mixed_precision", "bf16", "--report_to", "tensorboard"]
    train.main([*arguments, *tracked, "--output_dir", str(data_root / "bf")])
    losses = [np.array([row[3] for row in losses_of(data_root / run)]) for run in ("run", "gc", "bf")]
    assert np.abs(losses[0] - losses[1]).max() < 1e-5
    assert 0 < np.abs(losses[0] - losses[2]).max() < 0.05
    assert list((data_root / "bf" / "logs").rglob("events.out.tfevents*"))


def test_8bit_adam_is_bitsandbytes(data_root, tiny_model, monkeypatch):
    """bitsandbytes is optional and needs a GPU to be of use: a stand-in records how it is called."""
    made = []

    class Adam8bit(torch.optim.Adam):
        def __init__(self, parameters, lr):
            super().__init__(parameters, lr=lr, fused=True)
            made.append(lr)

    module = types.ModuleType("bitsandbytes.optim")
    module.Adam8bit = Adam8bit
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", module)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: name == "bitsandbytes" or find_spec(name, *more)
    )
    train.main(train_args(data_root, tiny_model, *SHORT, "--use_8bit_adam"))
    train.main(train_args(data_root, tiny_model, *SHORT, "--output_dir", data_root / "torch"))
    assert made == [1e-4]
    # The stand-in is torch's Adam: it begins anew for every photo as torch's does.
    assert losses_of(data_root / "run") == losses_of(data_root / "torch")


def test_adam_that_begins_anew_takes_the_steps_of_a_new_one():
    """The interleaved schedule has a new Adam for each photo, in the memory of the last one's."""
    gradients = torch.randn(2, 3, 50)

    def steps(weights: torch.nn.Parameter, optimizer: torch.optim.Optimizer, gradients: torch.Tensor) -> None:
        for weights.grad in gradients:
            optimizer.step()

    weights = [torch.nn.Parameter(torch.ones(50)) for _ in range(2)]
    kept = torch.optim.Adam([weights[0]], lr=0.1)
    for photo in gradients:
        begin_anew(kept, Hyperparameters())
        steps(weights[0], kept, photo)
        steps(weights[1], torch.optim.Adam([weights[1]], lr=0.1), photo)
    assert torch.equal(*weights)
