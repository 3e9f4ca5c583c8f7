"""The visual attention stage: control, loss, training steps and sampling, against literal versions."""

import csv

import numpy as np
import pytest
import torch
from attentionhand_helpers import (
    SIZE,
    inference_args,
    inputs,
    literal_clean_latents,
    literal_excite,
    literal_loss,
    random_mesh,
    train_args,
    trained_stage,
    weights,
)
from conftest import error_of, pixels
from diffusers import T2IAdapter

from attentionhand import data, inference, train
from attentionhand.adapter import new_adapter
from attentionhand.hand_words import excited_positions
from attentionhand.sampling import adapted_denoiser, controlled_denoiser
from attentionhand.text_attention import excite_views
from attentionhand.training import decoder_checkpointing
from attentionhand.visual_attention import (
    NoisyView,
    attentionhand_loss,
    control,
    controlled_noise,
    draw_noise,
    new_stage,
    noisy_views,
    predicted_noise,
    view_loss,
)
from core.diffusion.encoding import encode_texts
from core.diffusion.noise import ddim_scheduler, derived_seed, training_scheduler
from core.diffusion.sampling import ddim, start_noise

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_new_stage_changes_nothing_and_guess_mode_is_the_released_one(attention_pipe):
    latents, timesteps, embeds, _ = inputs(attention_pipe)
    mesh = random_mesh()
    with torch.no_grad():
        plain = attention_pipe.unet(latents, timesteps, embeds).sample
        residuals = control(new_stage(attention_pipe.unet, attention_pipe.vae), latents, timesteps, embeds, mesh)
        assert torch.equal(controlled_noise(attention_pipe.unet, latents, timesteps, embeds, residuals), plain)

        stage = trained_stage(attention_pipe)
        full = control(stage, latents, timesteps, embeds, mesh)
        guessed = control(stage, latents, timesteps, embeds, mesh, guess_mode=True, strength=0.5)
        middle = control(stage, latents, timesteps, embeds, mesh, only_mid_control=True)
    last = len(full) - 1
    for i, residual in enumerate(full):
        assert torch.allclose(guessed[i], 0.5 * 0.825 ** (last - i) * residual, atol=1e-7)
        assert torch.equal(middle[i], residual) == (i == last) and (i == last or not middle[i].any())


def test_sampling_is_the_literal_one(attention_pipe):
    stage, mesh = trained_stage(attention_pipe), random_mesh()
    embeds = encode_texts(attention_pipe, ["a hand", "two hands", ""], "cpu")
    noise = start_noise(42, (2, 4, 8, 8))
    for guess_mode in (False, True):
        denoise = controlled_denoiser(attention_pipe.unet, stage, embeds[:2], embeds[2:], mesh, guess_mode=guess_mode)
        ours = ddim(denoise, ddim_scheduler(attention_pipe), noise, num_inference_steps=20)
        x = noise.clone()
        alphas = ddim_scheduler(attention_pipe).alphas_cumprod
        steps = list(range(951, 0, -50))
        assert steps[-1] == 1 and len(steps) == 20
        with torch.no_grad():
            for t in steps:
                time = torch.full((2,), t)
                down, middle = stage(x, time, embeds[:2], mesh, return_dict=False)
                n = len(down)
                scale = [0.825 ** (n - i) if guess_mode else 1.0 for i in range(n + 1)]
                scaled = [r * s for r, s in zip(down, scale)]
                conditional = attention_pipe.unet(
                    x,
                    time,
                    embeds[:2],
                    down_block_additional_residuals=scaled,
                    mid_block_additional_residual=middle * scale[-1],
                ).sample
                blank = embeds[2:].expand(2, -1, -1)
                if guess_mode:
                    unconditional = attention_pipe.unet(x, time, blank).sample
                else:
                    down, middle = stage(x, time, blank, mesh, return_dict=False)
                    unconditional = attention_pipe.unet(
                        x, time, blank, down_block_additional_residuals=down, mid_block_additional_residual=middle
                    ).sample
                eps = unconditional + 9 * (conditional - unconditional)
                before = alphas[t - 50] if t > 50 else alphas[0]
                clean = (x - (1 - alphas[t]).sqrt() * eps) / alphas[t].sqrt()
                x = before.sqrt() * clean + (1 - before).sqrt() * eps
        assert (ours - x).abs().max() < 1e-4 * max(1, x.abs().max())


def test_a_released_step_with_text_attention(attention_samples, attention_pipe):
    """Released tokens and local view: both views excited at the released positions, as if alone, then the losses."""
    sample = data.read_modalities(attention_samples / "modalities.json")[0]
    whole, local = data.views(sample, SIZE)
    (pair,) = data.load_batches([sample], SIZE, batch_size=1, own=slice(None), start=0, steps=1, seed=0, num_workers=0)
    noise = draw_noise(0, 0, (1, 4, 8, 8))
    embeds, stage = encode_texts(attention_pipe, [sample.text], "cpu"), trained_stage(attention_pipe)
    positions = excited_positions(attention_pipe.tokenizer, [sample.text], "released")
    assert positions == ([[2]], [[75]])  # "a dark hand ...": the third word
    schedule = training_scheduler(attention_pipe)
    views = noisy_views(attention_pipe.vae, schedule, pair, noise, *positions, local_view="released")
    views = excite_views(attention_pipe.unet, views, noise.timesteps, embeds, steps=3)
    losses = attentionhand_loss(attention_pipe.unet, stage, noise.timesteps, embeds, *views)
    assert losses.total.item() == pytest.approx((losses.global_view + losses.local_view).item() / 2)

    clean = literal_clean_latents(attention_pipe, whole.rgb[None], noise.global_view.posterior)
    alphas, t = ddim_scheduler(attention_pipe).alphas_cumprod, noise.timesteps
    cases = [(noise.global_view, whole, [2], losses.global_view), (noise.local_view, local, [75], losses.local_view)]
    for (_, added), view, chosen, loss in cases:
        noisy = alphas[t].sqrt() * clean + (1 - alphas[t]).sqrt() * added
        moved = literal_excite(attention_pipe.unet, noisy, t, embeds, chosen, steps=3)
        with torch.no_grad():
            expected = literal_loss(attention_pipe, stage, moved, t, embeds, view.mesh[None], added)
        assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("local_view", ["paper", "released", "none"])
def test_two_steps_are_the_literal_ones(attention_samples, attention_model, attention_pipe, tmp_path, local_view):
    """Losses and weights after two AdamW steps, from the description: noise given, no text attention."""
    run = tmp_path / "run"
    more = ["--no_tas", "--max_train_steps", 2, "--learning_rate", 1e-5, "--local_view", local_view]
    train.main(train_args(attention_samples, attention_model, run, *more, "--train_batch_size", 1))

    listed = data.read_modalities(attention_samples / "modalities.json")
    alphas = ddim_scheduler(attention_pipe).alphas_cumprod
    stage = new_stage(attention_pipe.unet, attention_pipe.vae)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=1e-5, weight_decay=0.01)
    order = np.random.default_rng(derived_seed(0, 0, 0)).permutation(6)
    recorded = list(csv.DictReader((run / "losses.csv").open()))
    for step in range(2):
        sample = listed[order[step]]
        noise = draw_noise(0, step, (1, 4, 8, 8))
        embeds, t = encode_texts(attention_pipe, [sample.text], "cpu"), noise.timesteps
        whole, local = data.views(sample, SIZE)
        clean = literal_clean_latents(attention_pipe, whole.rgb[None], noise.global_view.posterior)
        cases = [("global_loss", clean, whole.mesh, noise.global_view.noise)]
        if local_view == "paper":
            clean = literal_clean_latents(attention_pipe, local.rgb[None], noise.local_view.posterior)
        if local_view != "none":
            cases.append(("local_loss", clean, local.mesh, noise.local_view.noise))
        losses = []
        for column, latents, mesh, added in cases:
            noisy = alphas[t].sqrt() * latents + (1 - alphas[t]).sqrt() * added
            losses.append(literal_loss(attention_pipe, stage, noisy, t, embeds, mesh[None], added))
            assert float(recorded[step][column]) == pytest.approx(losses[-1].item(), abs=1e-6)
        if local_view == "none":
            assert recorded[step]["local_loss"] == ""
        optimizer.zero_grad()
        (sum(losses) / len(losses)).backward()
        optimizer.step()
    for name, tensor in weights(run).items():
        assert (tensor - stage.state_dict()[name]).abs().max() < 1e-7, name


def test_the_noise_of_a_step():
    """The same for every share of the batch; each draw is its own."""
    whole = draw_noise(3, 7, (4, 4, 8, 8))
    shares = [draw_noise(3, 7, (4, 4, 8, 8), own) for own in (slice(0, 2), slice(2, 4))]
    assert torch.equal(torch.cat([share.timesteps for share in shares]), whole.timesteps)
    assert torch.equal(torch.cat([share.local_view.noise for share in shares]), whole.local_view.noise)
    drawn = [*whole.global_view, *whole.local_view]
    assert not any(torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    assert not torch.equal(draw_noise(3, 8, (4, 4, 8, 8)).global_view.noise, whole.global_view.noise)


def test_the_loss_is_half_and_half_and_the_mean_over_the_batch(attention_pipe):
    latents, timesteps, embeds, positions = inputs(attention_pipe)
    mesh, noise = random_mesh(), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    views = [NoisyView(latents, mesh, noise, positions), NoisyView(latents.flip(0), mesh.flip(0), noise, positions)]
    stage = trained_stage(attention_pipe)
    with torch.no_grad():
        both = attentionhand_loss(attention_pipe.unet, stage, timesteps, embeds, *views)
        alone = attentionhand_loss(attention_pipe.unet, stage, timesteps, embeds, views[0])
        single = []
        for one in range(2):
            part = slice(one, one + 1)
            view = NoisyView(latents[part], mesh[part], noise[part], positions[part])
            loss = attentionhand_loss(attention_pipe.unet, stage, timesteps[part], embeds[part], view)
            single.append(loss.total.item())
    assert both.global_view.item() == alone.total.item() == pytest.approx(np.mean(single), abs=1e-6)
    assert both.total.item() == pytest.approx((both.global_view + both.local_view).item() / 2, abs=1e-7)
    assert alone.local_view is None


@pytest.mark.parametrize("checkpointing", [False, True])
def test_views_one_after_the_other_have_the_gradient_of_the_sum(attention_pipe, checkpointing):
    """Also where the decoder's activations are computed again; the UNet is left as it was."""
    latents, timesteps, embeds, positions = inputs(attention_pipe)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    views = [NoisyView(latents, random_mesh(), noise, positions), NoisyView(latents.flip(0), random_mesh(), noise, [])]
    stage, gradients = trained_stage(attention_pipe).requires_grad_(True), []
    for in_turn in (False, True):
        stage.zero_grad()
        if in_turn:
            for view in views:
                with decoder_checkpointing(attention_pipe.unet, checkpointing):
                    loss = view_loss(attention_pipe.unet, stage, timesteps, embeds, view)
                (loss / 2).backward()
        else:
            attentionhand_loss(attention_pipe.unet, stage, timesteps, embeds, *views).total.backward()
        gradients.append([parameter.grad.clone() for parameter in stage.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert (one - other).abs().max() <= 1e-6 * one.abs().max()
    assert not attention_pipe.unet.is_gradient_checkpointing


# The baselines


def test_the_adapter_is_diffusers_own(attention_pipe):
    """Hooks do what diffusers' UNet does with the same features; without an adapter the text is alone."""
    latents, timesteps, embeds, _ = inputs(attention_pipe)
    mesh, unet, blank = random_mesh(), attention_pipe.unet, encode_texts(attention_pipe, [""], "cpu")
    adapter = new_adapter(unet, attention_pipe.vae).requires_grad_(False)
    with torch.no_grad():
        theirs = unet(latents, timesteps, embeds, down_intrablock_additional_residuals=list(adapter(mesh))).sample
        ours = predicted_noise(unet, adapter, latents, timesteps, embeds, mesh)
        plain = unet(latents, timesteps, embeds).sample
        assert torch.equal(ours, theirs) and (ours - plain).abs().max() > 1e-3
        for control, without in ((adapter, blank), (None, blank)):
            denoise = adapted_denoiser(unet, control, embeds, without, mesh, guidance_scale=1)
            expected = ours if control else plain
            assert torch.allclose(denoise(latents, timesteps.repeat(2)), expected, atol=1e-5)
    assert torch.equal(unet(latents, timesteps, embeds).sample, plain)  # nothing is left behind


def test_several_stages_control_by_their_mean(attention_pipe):
    latents, timesteps, embeds, _ = inputs(attention_pipe)
    mesh, blank = random_mesh(), encode_texts(attention_pipe, [""], "cpu")
    stages = [trained_stage(attention_pipe), new_stage(attention_pipe.unet, attention_pipe.vae)]  # the second adds 0
    with torch.no_grad():
        both, half = (
            controlled_denoiser(attention_pipe.unet, stage, embeds, blank, mesh, **more)(latents, timesteps[0])
            for stage, more in ((stages, {}), (stages[0], {"strength": 0.5}))
        )
    assert torch.allclose(both, half, atol=1e-5)


def test_baselines_are_trained_and_drawn(attention_samples, attention_model, tmp_path, capsys):
    """The adapter with the global view, the stage with the local view alone, and what can't be combined."""
    runs = {"adapter": ["--control", "t2i_adapter", "--local_view", "none"], "local": ["--local_view", "only"]}
    for name, more in runs.items():
        steps = ["--max_train_steps", 2, "--no_tas", "--validation_steps", 2, "--checkpointing_steps", 1]
        train.main(train_args(attention_samples, attention_model, tmp_path / name, *more, *steps))
        assert (tmp_path / name / "validation" / "step_000002.png").is_file()
    columns = {"adapter": "global_loss", "local": "local_loss"}
    for name, column in columns.items():
        for row in csv.DictReader((tmp_path / name / "losses.csv").open()):
            assert float(row[column]) > 0 and row[({"global_loss", "local_loss"} - {column}).pop()] == ""
    assert T2IAdapter.from_pretrained(tmp_path / "adapter").config.channels == [32, 32, 64, 64]

    def draw(name: str, *weights, more=()) -> list[str]:
        arguments = inference_args("x", attention_samples, attention_model, tmp_path / name, *more)
        chosen = ["--weights", *map(str, weights)] if weights else ["--no_control"]
        return [*chosen, *arguments[2:]]

    inference.main(draw("drawn_adapter", tmp_path / "adapter"))
    inference.main(draw("drawn_base"))
    inference.main(draw("drawn_local", tmp_path / "local"))
    one = tmp_path / "local" / "checkpoints" / "checkpoint-2"
    inference.main(draw("drawn_two", tmp_path / "local", one))  # twice the same weights
    names = [f"drawn_{name}/result_000_0.png" for name in ("adapter", "base", "local", "two")]
    drawn = [pixels(tmp_path / name) for name in names]
    assert np.abs(drawn[0] - drawn[1]).max() > 3 and np.abs(drawn[2] - drawn[3]).max() <= 1
    message = error_of(inference.main, draw("x", tmp_path / "adapter", tmp_path / "local"), capsys)
    assert message == "--weights: only ControlNets can be combined"
    assert "give --weights, or --no_control" in error_of(inference.main, draw("x")[1:], capsys)
    guess = draw("y", tmp_path / "adapter", more=["--guess_mode"])
    assert "--guess_mode and --only_mid_control are for" in error_of(inference.main, guess, capsys)
