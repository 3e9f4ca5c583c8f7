"""AttentionHand: data, both attention stages, training, inference, evaluation, against slow and literal versions."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, TWO_PROCESSES, error_of, files_under, pixels, run_script, start_script
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from attentionhand import data, evaluate, inference, render_meshes, text_attention, train
from attentionhand.checkpoints import load_decoder, load_stage, save_single_file
from attentionhand.sampling import sample_latents, start_noise
from attentionhand.text_attention import attention_loss, attention_of, excite, open_attention, token_positions
from attentionhand.visual_attention import control, controlled_noise, new_stage, view_loss
from core.diffusion.stable_diffusion import ddim_scheduler, encode_texts, load_stable_diffusion, training_scheduler
from core.runs.errors import UserError
from synthetic_hands import make_dataset
from synthetic_hands.tiny_model import byte_tokenizer, pipeline

SIZE = 64  # pixels; 8 x 8 latents, and maps of 2 x 2 at a quarter of their side


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random Stable Diffusion whose latents are an eighth of the picture, with cross-attention on three levels."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=SIZE // 8,
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    with torch.no_grad():  # sharper maps than random weights give, so that the descent has a slope
        for name, parameter in unet.named_parameters():
            if "attn2.to_q" in name or "attn2.to_k" in name:
                parameter.mul_(4)
    vae = AutoencoderKL(
        sample_size=SIZE,
        block_out_channels=(16, 16, 16, 32),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
    )
    folder = tmp_path_factory.mktemp("attentionhand") / "model"
    pipeline(vae, tokenizer, CLIPTextModel(text_config), unet).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(model):
    return load_stable_diffusion(str(model))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Six synthetic samples in AttentionHand's layout."""
    folder = tmp_path_factory.mktemp("samples") / "data"
    options = ["--layout", "attentionhand", "--gestures", "palm", "peace", "--num", "3", "--num_workers", "1"]
    make_dataset.main(["--output_dir", str(folder), "--size", str(SIZE), *options])
    return folder


def inputs(pipe, count: int = 2):
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(count, 4, 8, 8, generator=generator)
    texts = ["a man holding a cup in his hand", "two hands"][:count]
    embeds = encode_texts(pipe, texts, "cpu")
    return latents, torch.tensor([801, 23][:count]), embeds, [token_positions(pipe.tokenizer, text) for text in texts]


# Data


def test_modalities(samples, tmp_path, monkeypatch, capsys):
    listed = data.read_modalities(samples / "modalities.json")
    assert len(listed) == 6 and all(sample.box and sample.text.startswith("a ") for sample in listed)
    whole, local = data.views(listed[0], 128)
    assert whole.mesh.shape == local.rgb.shape == (3, 128, 128)
    assert whole.mesh.min() == 0 and 0.5 < whole.mesh.max() <= 1 and -1 <= local.rgb.min() < local.rgb.max() <= 1
    assert (local.mesh > 0.3).float().mean() > (whole.mesh > 0.3).float().mean()

    monkeypatch.chdir(samples)  # as released: relative to where one works
    (tmp_path / "m.json").write_text('{"mesh": "mesh/00000000.png", "text": "text/00000000.txt"}\n')
    assert data.read_modalities(tmp_path / "m.json", with_rgb=False)[0].rgb is None


@pytest.mark.parametrize("hands", [1, 2])
def test_the_box_is_the_released_one(hands):
    mesh = np.zeros((512, 512, 3), np.uint8)
    for centre in [(150, 200), (380, 330)][:hands]:
        cv2.ellipse(mesh, centre, (60, 90), 20, 0, 360, (200, 200, 200), -1)
    contours, _ = cv2.findContours((data.grey(mesh) > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    boxes = [cv2.boundingRect(contour) for contour in contours]
    released = (
        min(x for x, _, _, _ in boxes),
        min(y for _, y, _, _ in boxes),
        max(x + w for x, _, w, _ in boxes),
        max(y + h for _, y, _, h in boxes),
    )
    assert len(boxes) == hands and data.hand_box(mesh) == released
    mesh[10, 500] = 255  # a speck is no hand
    assert data.hand_box(mesh) == released


def test_bad_data(samples, tmp_path, capsys):
    folder = tmp_path / "data"
    shutil.copytree(samples, folder)
    listing = folder / "modalities.json"
    good = listing.read_text().splitlines()

    def problem(line: str) -> str:
        listing.write_text(line + "\n")
        with pytest.raises(UserError) as error:
            for sample in data.read_modalities(listing):
                data.views(sample, SIZE)
        return str(error.value)

    record = json.loads(good[0])
    assert "line 1: is no JSON object" in problem("nonsense")
    assert "line 1: has no 'rgb'" in problem(json.dumps({key: record[key] for key in ("mesh", "text")}))
    assert "is not a path inside the data's folder" in problem(json.dumps({**record, "mesh": "../secret.png"}))
    assert "neither here nor beside" in problem(json.dumps({**record, "rgb": "rgb/none.png"}))
    assert '"bbox" is four numbers' in problem(json.dumps({**record, "bbox": [1, 2, 3]}))
    assert '"bbox" [70, 70, 90, 90] is empty or outside' in problem(json.dumps({**record, "bbox": [70, 70, 90, 90]}))
    (folder / "text" / "00000000.txt").write_text("\n")
    assert "00000000.txt: its first line, the picture's text, is empty" in problem(good[0])
    (folder / "text" / "00000000.txt").write_text("a hand\n")
    without_box = json.dumps({key: value for key, value in record.items() if key != "bbox"})
    Image.new("RGB", (SIZE, SIZE)).save(folder / "mesh" / "00000000.png")
    assert "00000000.png: shows no hand" in problem(without_box)
    dot = Image.new("RGB", (SIZE, SIZE))
    dot.putpixel((5, 5), (255, 255, 255))
    dot.save(folder / "mesh" / "00000000.png")
    assert "a single pixel's width" in problem(without_box)
    Image.new("RGB", (SIZE, 70), "white").save(folder / "mesh" / "00000000.png")
    assert f"{SIZE}x70 pixels, its picture" in problem(without_box)


def test_real_samples():
    folder = ROOT.parent / "shared" / "data" / "attentionhand-samples"
    if not folder.is_dir():
        pytest.skip("shared/data/attentionhand-samples is not beside the repository")
    for sample in data.read_modalities(folder / "modalities.json", with_rgb=False):
        whole, local = data.views(sample)
        assert whole.mesh.shape == (3, 512, 512) and (local.mesh > 0.5).float().mean() > 0.1


# Text attention stage


def test_token_positions(pipe, monkeypatch):
    monkeypatch.setattr(text_attention, "_nltk_tagger", lambda: None)
    text = "a man holding a ring in his hand this morning"

    def words_at(text: str) -> str:
        ids = pipe.tokenizer(text).input_ids
        return pipe.tokenizer.decode([ids[position] for position in token_positions(pipe.tokenizer, text)])

    assert words_at(text).replace(" ", "") == "holdinghand"  # bytes are tokens here: all pieces of a word
    assert words_at("a red car").replace(" ", "") == "a"  # no hand word: the first
    assert text_attention.has_hand_word(text) and not text_attention.has_hand_word("a red car on the ceiling")
    assert all(1 <= position <= 75 for position in token_positions(pipe.tokenizer, "hand " * 60))
    assert text_attention.released_positions(text) == [2, 7]
    assert text_attention.released_positions("hand") == [75]


class AllMaps:
    """Attention in the open everywhere, every map kept: the released way."""

    def __init__(self, kept):
        self.kept = kept

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        given = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(part) for part in (attn.to_q(hidden_states), attn.to_k(given), attn.to_v(given))
        )
        maps = (query @ key.transpose(1, 2) * attn.scale).softmax(dim=-1)
        if encoder_hidden_states is not None:
            self.kept.append(maps)
        return attn.to_out[0](attn.batch_to_head_dim(maps @ value))


def literal_excite(unet, latents, timestep, embeds, positions, steps):
    """One sample, the whole UNet, all maps, the loss in loops: written from the description alone."""
    before, kept = unet.attn_processors, []
    unet.set_attn_processor({name: AllMaps(kept) for name in before})
    line = np.exp(-(np.array([1.0, 0, 1]) ** 2))
    kernel = torch.tensor(np.outer(line, line) / np.outer(line, line).sum(), dtype=torch.float32)
    side = latents.shape[-1] // 4
    for step in range(steps):
        latents = latents.detach().requires_grad_()
        kept.clear()
        unet(latents, timestep, encoder_hidden_states=embeds)
        chosen = [one for one in kept if one.shape[1] == side * side]
        mean = torch.cat(chosen).mean(dim=0).reshape(side, side, 77)
        shares = (mean[:, :, 1:-1] * 100).softmax(dim=-1)
        losses = []
        for position in positions:
            padded = F.pad(shares[:, :, position - 1][None, None], (1, 1, 1, 1), mode="reflect")[0, 0]
            smooth = [(padded[y : y + 3, x : x + 3] * kernel).sum() for y in range(side) for x in range(side)]
            losses.append(max(torch.zeros(()), 1 - max(smooth)))
        size = 20 * np.sqrt(np.linspace(1, 0.5, steps)[step])
        latents = latents - size * torch.autograd.grad(max(losses), latents)[0]
    unet.set_attn_processor(before)
    return latents.detach()


def test_excite_is_the_literal_descent_in_any_batch(pipe):
    latents, timesteps, embeds, positions = inputs(pipe)
    ours = excite(pipe.unet, latents, timesteps, embeds, positions, steps=6)
    assert (ours - latents).abs().max() > 1e-3
    for one in range(2):
        part = slice(one, one + 1)
        literal = literal_excite(pipe.unet, latents[part], timesteps[part], embeds[part], positions[one], steps=6)
        assert (literal - ours[part]).abs().max() < 5e-6
        alone = excite(pipe.unet, latents[part], timesteps[part], embeds[part], positions[part], steps=6)
        assert (alone - ours[part]).abs().max() < 2e-6


def test_stopping_early_leaves_the_gradient(pipe):
    latents, timesteps, embeds, positions = inputs(pipe)
    gradients = []
    for stop in (True, False):
        with open_attention(pipe.unet) as maps:
            maps.stop = stop
            moved = latents.clone().requires_grad_()
            loss = attention_loss(attention_of(pipe.unet, maps, moved, timesteps, embeds), positions)
            gradients.append(torch.autograd.grad(loss.sum(), moved)[0])
    assert gradients[0].abs().max() > 0 and torch.equal(*gradients)
    assert not any(isinstance(one, text_attention.AttentionMaps) for one in pipe.unet.attn_processors.values())


# Visual attention stage


def trained_stage(pipe) -> ControlNetModel:
    """One whose zero convolutions are no longer zero."""
    stage = new_stage(pipe.unet, pipe.vae)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in stage.named_parameters():
            if not parameter.any():
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
            assert parameter.any(), name
    return stage.requires_grad_(False)


def test_a_new_stage_changes_nothing_and_guess_mode_is_the_released_one(pipe):
    latents, timesteps, embeds, _ = inputs(pipe)
    mesh = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        plain = pipe.unet(latents, timesteps, embeds).sample
        residuals = control(new_stage(pipe.unet, pipe.vae), latents, timesteps, embeds, mesh)
        assert torch.equal(controlled_noise(pipe.unet, latents, timesteps, embeds, residuals), plain)

        stage = trained_stage(pipe)
        full = control(stage, latents, timesteps, embeds, mesh)
        guessed = control(stage, latents, timesteps, embeds, mesh, guess_mode=True, conditioning_scale=0.5)
        middle = control(stage, latents, timesteps, embeds, mesh, only_mid_control=True)
    last = len(full) - 1
    for i, residual in enumerate(full):
        assert torch.allclose(guessed[i], 0.5 * 0.825 ** (last - i) * residual, atol=1e-7)
        assert torch.equal(middle[i], residual) == (i == last) and (i == last or not middle[i].any())


def test_sampling_is_the_literal_one(pipe):
    stage, mesh = trained_stage(pipe), torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    embeds = encode_texts(pipe, ["a hand", "two hands", ""], "cpu")
    noise = start_noise(42, 2, pipe, SIZE, SIZE)
    for guess_mode in (False, True):
        ours = sample_latents(pipe, stage, noise, embeds[:2], embeds[2:], mesh, guess_mode=guess_mode)
        x = noise.clone()
        alphas = ddim_scheduler(pipe).alphas_cumprod
        steps = list(range(951, 0, -50))
        assert steps[-1] == 1 and len(steps) == 20
        with torch.no_grad():
            for t in steps:
                time = torch.full((2,), t)
                down, middle = stage(x, time, embeds[:2], mesh, return_dict=False)
                n = len(down)
                scale = [0.825 ** (n - i) if guess_mode else 1.0 for i in range(n + 1)]
                scaled = [r * s for r, s in zip(down, scale)]
                conditional = pipe.unet(
                    x,
                    time,
                    embeds[:2],
                    down_block_additional_residuals=scaled,
                    mid_block_additional_residual=middle * scale[-1],
                ).sample
                blank = embeds[2:].expand(2, -1, -1)
                if guess_mode:
                    unconditional = pipe.unet(x, time, blank).sample
                else:
                    down, middle = stage(x, time, blank, mesh, return_dict=False)
                    unconditional = pipe.unet(
                        x, time, blank, down_block_additional_residuals=down, mid_block_additional_residual=middle
                    ).sample
                eps = unconditional + 9 * (conditional - unconditional)
                before = alphas[t - 50] if t > 50 else alphas[0]
                clean = (x - (1 - alphas[t]).sqrt() * eps) / alphas[t].sqrt()
                x = before.sqrt() * clean + (1 - before).sqrt() * eps
        assert (ours - x).abs().max() < 1e-4 * max(1, x.abs().max())


def test_released_file_round_trip(pipe, tmp_path):
    stage = trained_stage(pipe)
    for name in ("attentionhand.ckpt", "attentionhand.safetensors"):
        save_single_file(pipe, stage, tmp_path / name)
        again = load_stage(tmp_path / name, pipe)
        assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in stage.state_dict().items())
    names = torch.load(tmp_path / "attentionhand.ckpt", weights_only=True)["state_dict"]
    for key in ("VAS.zero_convs.0.0.weight", "VAS.middle_block_out.0.bias", "VAS.input_hint_block.14.weight"):
        assert key in names
    parts = {name.split(".")[0] for name in names}
    assert parts == {"VAS", "model", "first_stage_model", "cond_stage_model"}

    only_base = {key: value for key, value in names.items() if not key.startswith("VAS")}
    torch.save({"state_dict": only_base}, tmp_path / "sd.ckpt")
    with pytest.raises(UserError, match="holds no tensors of a visual attention stage"):
        load_stage(tmp_path / "sd.ckpt", pipe)
    names["VAS.input_hint_block.0.weight"] = torch.zeros(16, 4, 3, 3)
    torch.save(names, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="another size, the first is controlnet_cond_embedding.conv_in.weight"):
        load_stage(tmp_path / "other.ckpt", pipe)


# Training


def train_args(samples, model, output, *more) -> list[str]:
    return [
        *("--data_dir", str(samples), "--pretrained_model_name_or_path", str(model), "--tas_model", "shared"),
        *("--output_dir", str(output), "--resolution", str(SIZE), "--train_batch_size", "2", "--tas_steps", "2"),
        *("--max_train_steps", "4", "--num_workers", "0", "--validation_steps", "0", "--learning_rate", "1e-3"),
        *map(str, more),
    ]


def weights(folder):
    return ControlNetModel.from_pretrained(folder).state_dict()


def test_training_and_inference(samples, model, tmp_path, capsys):
    run = tmp_path / "run"
    train.main(train_args(samples, model, run, "--validation_steps", 4, "--save_single_file", tmp_path / "all.ckpt"))
    rows = list(csv.DictReader((run / "losses.csv").open()))
    assert [row["step"] for row in rows] == list("0123") and all(float(row["local_loss"]) > 0 for row in rows)
    assert pixels(run / "validation" / "step_000004.png").shape == (4 * SIZE, 3 * SIZE, 3)
    assert "begun already" in error_of(train.main, train_args(samples, model, run), capsys)
    message = error_of(train.main, train_args(samples, model, run, "--seed", 1), capsys)
    assert "other settings (seed was 0, is now 1)" in message

    pictures = tmp_path / "pictures"
    options = ["--pretrained_model_name_or_path", model, "--resolution", SIZE, "--num_inference_steps", 3]
    options += ["--sample_path", samples / "modalities.json", "--num_samples", 2, "--tas", "--tas_steps", 1]
    arguments = [str(one) for one in ("--weights", run, "--output_dir", pictures, *options)]
    inference.main(arguments)
    expected = {f"result_{pair:03d}_{number}.png" for pair in range(6) for number in range(2)}
    assert files_under(pictures) == expected | {"sheet.png", "inference.json"}
    first = pixels(pictures / "result_003_1.png")
    (pictures / "result_003_1.png").unlink()
    inference.main(arguments)
    assert "1 pairs drawn now" in capsys.readouterr().out
    assert (pixels(pictures / "result_003_1.png") == first).all()
    assert "scale was 9.0" in error_of(inference.main, [*arguments, "--guidance_scale", "5"], capsys)
    inference.main([str(one) for one in ("--weights", tmp_path / "all.ckpt", "--output_dir", tmp_path / "b", *options)])
    assert (pixels(tmp_path / "b" / "result_003_1.png") == first).all()


def test_unlocked_middle_only_and_one_view(samples, model, tmp_path, capsys):
    """A trained UNet comes back with the weights, from the folder and from the file."""
    run, one_file = tmp_path / "run", tmp_path / "all.ckpt"
    more = ["--sd_unlocked", "--only_mid_control", "--local_view", "none", "--gradient_checkpointing"]
    more += ["--max_train_steps", 2, "--save_single_file", one_file, "--report_to", "tensorboard"]
    train.main(train_args(samples, model, run, *more))
    assert any("tfevents" in name for name in files_under(run / "logs"))
    trained = UNet2DConditionModel.from_pretrained(run / "unet").state_dict()
    base = UNet2DConditionModel.from_pretrained(model / "unet").state_dict()
    changed = {name.split(".")[0] for name in base if not torch.equal(base[name], trained[name])}
    assert changed == {"up_blocks", "conv_norm_out", "conv_out"}
    for path in (run, one_file):
        again = load_stable_diffusion(str(model))
        load_decoder(path, again)
        assert all(torch.equal(tensor, trained[name]) for name, tensor in again.unet.state_dict().items())
    options = ["--pretrained_model_name_or_path", model, "--weights", run, "--output_dir", tmp_path / "pictures"]
    assert "pass that flag" in error_of(inference.main, options, capsys)


def test_a_released_step_with_text_attention(samples, pipe):
    """--tas_tokens released: both views excited at the released positions, each as if alone, then the plain losses."""
    args = train.parse_args(["--tas_tokens", "released", "--local_view", "released", "--tas_steps", "3"])
    sample = data.read_modalities(samples / "modalities.json")[0]
    whole, local = data.views(sample, SIZE)
    part = {"global_rgb": whole.rgb[None], "local_rgb": local.rgb[None]}
    part |= {"global_mesh": whole.mesh[None], "local_mesh": local.mesh[None]}

    class Alone:
        process_index = 0

    draws = train.draw_noise(0, 0, 1, part["global_rgb"], pipe, Alone)
    embeds, stage = encode_texts(pipe, [sample.text], "cpu"), trained_stage(pipe)
    positions = train.token_choice(args, pipe.tokenizer, [sample])
    assert positions == [[2]]  # "a dark hand ...": the third word
    schedule = training_scheduler(pipe)
    losses = train.step_losses(args, pipe, stage, pipe.unet, schedule, part, embeds, positions, draws)
    posterior = pipe.vae.encode(whole.rgb[None]).latent_dist
    clean = pipe.vae.config.scaling_factor * (posterior.mean + posterior.std * draws["global_posterior"]).detach()
    alphas, t = ddim_scheduler(pipe).alphas_cumprod, draws["timesteps"]
    for name, mesh, chosen, loss in zip(("global", "local"), (whole.mesh, local.mesh), ([2], [75]), losses):
        noise = draws[f"{name}_noise"]
        noisy = alphas[t].sqrt() * clean + (1 - alphas[t]).sqrt() * noise
        moved = literal_excite(pipe.unet, noisy, t, embeds, chosen, steps=3)
        with torch.no_grad():
            down, middle = stage(moved, t, embeds, mesh[None], return_dict=False)
            eps = pipe.unet(
                moved, t, embeds, down_block_additional_residuals=down, mid_block_additional_residual=middle
            ).sample
        assert loss.item() == pytest.approx(((eps - noise) ** 2).mean().item(), abs=1e-5)


@pytest.mark.parametrize("local_view", ["paper", "released"])
def test_two_steps_are_the_literal_ones(samples, model, pipe, tmp_path, local_view):
    """Losses and weights after two AdamW steps, from the description: noise given, no text attention."""
    run = tmp_path / "run"
    more = ["--no_tas", "--max_train_steps", 2, "--learning_rate", 1e-5, "--local_view", local_view]
    more += ["--train_batch_size", 1]
    train.main(train_args(samples, model, run, *more))

    class Alone:
        process_index = 0

    args = train.parse_args(train_args(samples, model, run, *more))
    listed = data.read_modalities(samples / "modalities.json")
    alphas = ddim_scheduler(pipe).alphas_cumprod
    stage = new_stage(pipe.unet, pipe.vae)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=1e-5, weight_decay=0.01)
    order = np.random.default_rng(train_order_seed(args)).permutation(6)
    for step in range(2):
        losses = []
        sample = listed[order[step]]
        rgb = torch.zeros(1, 3, SIZE, SIZE)
        draws = train.draw_noise(0, step, 1, rgb, pipe, Alone)
        views = dict(zip(("global", "local"), data.views(sample, SIZE)))
        embeds = encode_texts(pipe, [sample.text], "cpu")
        latents = {}
        for name, view in views.items():
            posterior = pipe.vae.encode(view.rgb[None]).latent_dist
            noise = draws[f"{name}_posterior"]
            latents[name] = pipe.vae.config.scaling_factor * (posterior.mean + posterior.std * noise).detach()
        for name, view in views.items():
            clean = latents["global" if local_view == "released" else name]
            noise, t = draws[f"{name}_noise"], draws["timesteps"]
            noisy = alphas[t].sqrt() * clean + (1 - alphas[t]).sqrt() * noise
            down, middle = stage(noisy, t, embeds, view.mesh[None], return_dict=False)
            eps = pipe.unet(
                noisy, t, embeds, down_block_additional_residuals=down, mid_block_additional_residual=middle
            ).sample
            losses.append(0.5 * ((eps - noise) ** 2).mean())
        recorded = list(csv.DictReader((run / "losses.csv").open()))[step]
        ours = (float(recorded["global_loss"]) + float(recorded["local_loss"])) / 2
        assert ours == pytest.approx(sum(losses).item(), abs=1e-6)
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    for name, tensor in weights(run).items():
        assert (tensor - stage.state_dict()[name]).abs().max() < 1e-7, name


def train_order_seed(args) -> int:
    from hand1000.training import derived_seed

    return derived_seed(args.seed, 0, 0)


def test_released_stage_order_and_view_loss(pipe):
    """view_loss is the plain noise error of the controlled UNet, one number a sample."""
    latents, timesteps, embeds, _ = inputs(pipe)
    mesh, noise = torch.rand(2, 3, SIZE, SIZE), torch.randn(2, 4, 8, 8)
    stage = trained_stage(pipe)
    with torch.no_grad():
        loss = view_loss(pipe.unet, stage, latents, timesteps, embeds, mesh, noise)
        for one in range(2):
            part = slice(one, one + 1)
            alone = view_loss(pipe.unet, stage, *(t[part] for t in (latents, timesteps, embeds, mesh, noise)))
            assert loss[one] == pytest.approx(alone.item(), abs=1e-6)


def test_killed_and_on_two_processes(samples, model, tmp_path):
    arguments = ("--checkpointing_steps", 1, "--max_train_steps", 6)
    script = ("-m", "attentionhand.train")
    whole, killed, two = (tmp_path / name for name in ("whole", "killed", "two"))
    done = run_script(*script, *train_args(samples, model, whole, *arguments))
    assert done.returncode == 0, done.stderr
    process = start_script(*script, *train_args(samples, model, killed, *arguments))
    while not list((killed / "checkpoints").glob("*.pt")) and process.poll() is None:
        pass
    process.kill()
    process.wait()
    resumed = train_args(samples, model, killed, *arguments, "--resume_from_checkpoint", "latest")
    done = run_script(*script, *resumed)
    assert done.returncode == 0 and "going on from" in done.stdout, done.stderr
    expected = weights(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(killed).items())
    assert (killed / "losses.csv").read_text() == (whole / "losses.csv").read_text()

    done = run_script(
        "-m",
        "attentionhand.train",
        *train_args(samples, model, two, *arguments, "--train_batch_size", 1),
        launcher=TWO_PROCESSES,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    both, start = weights(two), weights_of_new(model)  # Adam blows rounding up where a gradient is nearly zero
    difference = sum((both[name] - expected[name]).abs().sum().item() for name in expected)
    assert difference < 0.02 * sum((expected[name] - start[name]).abs().sum().item() for name in expected)


def weights_of_new(model):
    pipe = load_stable_diffusion(str(model))
    return new_stage(pipe.unet, pipe.vae).state_dict()


def test_training_mistakes(samples, model, tiny_model, tmp_path, capsys, fresh_accelerate):
    def message(*more) -> str:
        fresh_accelerate()
        return error_of(train.main, train_args(samples, model, tmp_path / "run", *more), capsys)

    assert "no such file" in message("--resume_path", tmp_path / "none.ckpt")
    assert f"{tiny_model}: has no cross-attention at a quarter of the latents' side" in message(
        "--tas_model", tiny_model
    )
    if not torch.cuda.is_available():
        assert "needs a GPU" in message("--mixed_precision", "fp16")
    assert "not a tracker that accelerate knows" in message("--report_to", "tensorbord")
    assert "name a .ckpt or a .safetensors" in message("--save_single_file", tmp_path / "all.bin")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert "holds config.json and no run of this script" in message("--output_dir", tmp_path / "mine")
    assert "modalities.json" in message("--data_dir", tmp_path)
    assert "is not a multiple of" in message("--resolution", 60)
    assert not (tmp_path / "run" / "config.json").exists()


# Rendering and evaluation


def test_rendered_joints_look_like_the_mesh_images(samples, tmp_path, capsys):
    joints = samples / "joints.npz"
    arguments = ["--input", str(joints), "--image_size", str(SIZE), "--output_dir", str(tmp_path / "rendered")]
    render_meshes.main(arguments)
    assert "exists already" in error_of(render_meshes.main, arguments, capsys)
    listed = data.read_modalities(tmp_path / "rendered" / "modalities.json", with_rgb=False)
    for sample, own in zip(listed, data.read_modalities(samples / "modalities.json"), strict=True):
        ours, theirs = (data.grey(data.load_picture(one.mesh)) > 60 for one in (sample, own))
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.85
        assert np.abs(np.array(sample.box) - own.box).max() <= 3
    np.save(tmp_path / "bad.npy", np.zeros((2, 20, 3)))
    message = error_of(render_meshes.main, ["--input", tmp_path / "bad.npy", "--output_dir", tmp_path / "x"], capsys)
    assert "joints_3d is (2, 20, 3), not (N, 21, 3)" in message


def test_rendered_triangles(tmp_path, capsys):
    trimesh = pytest.importorskip("trimesh", reason="trimesh, an optional extra, is not installed")
    trimesh.creation.icosphere(subdivisions=3).export(tmp_path / "ball.ply")
    arguments = ["--input", str(tmp_path / "ball.ply"), "--size", "64", "--output_dir", str(tmp_path / "ball")]
    render_meshes.main(arguments)
    picture = pixels(tmp_path / "ball" / "mesh" / "00000000.png")[..., 0]
    share = (picture > 0).mean()
    assert share == pytest.approx(np.pi / 4 / 1.25**2, abs=0.02) and picture[32, 32] > picture[32, 9] > 0
    (tmp_path / "bad.obj").write_text("no mesh")
    message = error_of(render_meshes.main, ["--input", tmp_path / "bad.obj", "--output_dir", tmp_path / "x"], capsys)
    assert "bad.obj" in message


def test_evaluation_tells_the_right_label(tmp_path, capsys):
    folder = tmp_path / "data"
    options = ["--layout", "attentionhand", "--gestures", "palm", "call", "peace", "--num", "4", "--size", "128"]
    make_dataset.main(["--output_dir", str(folder), *options])
    (tmp_path / "pictures").mkdir()
    for number in range(12):
        shutil.copy(folder / "rgb" / f"{number:08}.png", tmp_path / "pictures" / f"result_{number:03d}_0.png")
    arguments = ["--labels", str(folder / "joints.npz"), "--image_folder", str(tmp_path / "pictures")]
    arguments += ["--image_size", "128", "--bootstrap", "100", "--num_workers", "1"]
    results = {}
    for name, more in (("right", []), ("other", ["--shuffle"])):
        path = tmp_path / f"{name}.json"
        evaluate.main([*arguments, *more, "--json", str(path)])
        results[name] = json.loads(path.read_text())
    assert results["right"]["landmark error"][2] < 0.12 < results["other"]["landmark error"][1]
    assert results["right"]["PCK@0.2"][0] > 0.8 > results["other"]["PCK@0.2"][0]

    evaluate.main([*arguments, "--export", str(tmp_path / "accepted"), "--threshold", "0.1"])
    made = np.load(tmp_path / "accepted" / "joints.npz")
    count = len(list((tmp_path / "accepted" / "images").iterdir()))
    assert count == len(made["joints_3d"]) == len(made["image"]) > 6 and (made["error"] <= 0.1).all()
    assert "exists already" in error_of(evaluate.main, [*arguments, "--export", tmp_path / "accepted"], capsys)
    assert "no such file (--labels)" in error_of(
        evaluate.main, ["--labels", tmp_path / "no.npz", "--image_folder", tmp_path / "pictures"], capsys
    )


def test_shipped_samples_are_ready():
    listed = data.read_modalities(ROOT / "attentionhand" / "samples" / "modalities.json", with_rgb=False)
    assert len(listed) >= 3
    for sample in listed:
        data.views(sample)
        assert text_attention.has_hand_word(sample.text)
