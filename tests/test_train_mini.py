"""The miniature Stable Diffusion: a few steps of its training, resuming after a kill, and the shipped one."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT, error_of, files_under
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import load_file

from core.diffusion.encoding import encode_texts
from core.diffusion.sampling import decode
from core.diffusion.stable_diffusion import load_stable_diffusion
from core.hands.detection import find_hands
from core.runs.errors import UserError
from core.runs.run import Run
from synthetic_hands import train_mini


def arguments(folder) -> list[str]:
    return ["--output_dir", str(folder), "--num", "1", "--autoencoder_steps", "4", "--unet_steps", "4"]


pytestmark = pytest.mark.usefixtures("one_thread")


def test_mini_is_a_stable_diffusion_and_resumes_with_the_same_bits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_mini, "SAVE_EVERY", 2)
    monkeypatch.setattr(train_mini, "cpu_count", lambda: 1)  # worker processes begin slowly
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_mini.main(arguments(whole))
    pipe = load_stable_diffusion(str(whole / "model"))
    embeds = encode_texts(pipe, ["a dark hand with a red sleeve in front of a blue wall", "日本 thumbs up"], "cpu")
    assert embeds.shape == (2, 77, 96) and (embeds[0] != embeds[1]).any()
    words = pipe.tokenizer.tokenize("a dark hand with a red sleeve")
    assert words == ["a</w>", "dark</w>", "hand</w>", "with</w>", "a</w>", "red</w>", "sleeve</w>"]

    endless = train_mini.batches
    for size_of_phase in (16, 32):  # the autoencoder's, the UNet's

        def stops(count, size, seed, start, *, last=size_of_phase):
            for step, rows in enumerate(endless(count, size, seed, start), start=start):
                if step == 3 and size == last:
                    raise KeyboardInterrupt
                yield rows

        monkeypatch.setattr(train_mini, "batches", stops)
        with pytest.raises(SystemExit):
            train_mini.main(arguments(killed))
        assert not (killed / "model").exists()
    monkeypatch.setattr(train_mini, "batches", endless)
    train_mini.main(arguments(killed))
    for name in files_under(whole / "model"):
        if name.endswith(".safetensors"):
            ours, theirs = load_file(killed / "model" / name), load_file(whole / "model" / name)
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    capsys.readouterr()
    train_mini.main(arguments(killed))
    assert "model: already finished" in capsys.readouterr().out
    message = error_of(train_mini.main, [*arguments(killed), "--seed", "1"], capsys)
    assert "killed: holds a finished training of other settings (seed was 0, is now 1)" in message
    assert json.loads((killed / "model" / "text_encoder" / "config.json").read_text())["dtype"] == "float32"


def test_a_miniature_is_trained_further_with_the_same_latents(tmp_path, monkeypatch):
    monkeypatch.setattr(train_mini, "cpu_count", lambda: 1)
    mini = ROOT / "synthetic_hands" / "mini" / "model"
    further = ["--output_dir", str(tmp_path), "--num", "1", "--autoencoder_steps", "2", "--unet_steps", "2"]
    train_mini.main([*further, "--pretrained_model_name_or_path", str(mini)])
    before, after = (load_stable_diffusion(str(model)) for model in (mini, tmp_path / "model"))
    assert after.vae.config.scaling_factor == before.vae.config.scaling_factor
    assert after.tokenizer.get_vocab() == before.tokenizer.get_vocab()
    for name in ("text_encoder", "unet", "vae"):
        ours, theirs = getattr(after, name).state_dict(), getattr(before, name).state_dict()
        stays = [key for key in theirs if key.startswith(("encoder.", "quant_conv.")) and name == "vae"]
        assert all(torch.equal(ours[key], theirs[key]) for key in stays)
        weights = [key for key in theirs if key not in stays and theirs[key].ndim > 1]
        changed = [key for key in weights if not torch.equal(ours[key], theirs[key])]
        assert len(changed) > 0.9 * len(weights)


def test_the_unet_learns_only_pictures_whose_hand_is_found(tmp_path, monkeypatch, capsys):
    seen = []
    training_text = train_mini.training_text

    def noted(caption, seed):
        seen.append(caption)
        return training_text(caption, seed)

    monkeypatch.setattr(train_mini, "cpu_count", lambda: 1)
    monkeypatch.setattr(train_mini, "training_text", noted)
    mini = ROOT / "synthetic_hands" / "mini" / "model"
    options = ["--num", "2", "--autoencoder_steps", "0", "--unet_steps", "2", "--unet_lr", "0"]
    folder = tmp_path / "further"
    options += ["--min_detection_confidence", "0.7", "--pretrained_model_name_or_path", str(mini)]
    train_mini.main(["--output_dir", str(folder), *options])
    pipe, data = load_stable_diffusion(str(mini)), dict(np.load(folder / "data.npz"))
    pixels = torch.from_numpy(data["pictures"]).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        after = decode(pipe.vae, pipe.vae.encode(pixels).latent_dist.mean * pipe.vae.config.scaling_factor)
    found = [bool(find_hands(picture, min_detection_confidence=0.7)) for picture in after]
    assert 0 < found.count(False) < 18
    of_found = {caption for caption, is_found in zip(data["captions"], found) if is_found}
    assert set(seen) <= of_found and len(set(seen)) > 0.8 * len(of_found)
    for name in ("text_encoder", "unet", "vae"):  # at rate 0, and with no steps of the autoencoder
        ours, theirs = (load_file(next((model / name).glob("*.safetensors"))) for model in (folder / "model", mini))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)

    pipe.vae = AutoencoderKL()  # one block, so that it makes nothing smaller
    pipe.save_pretrained(tmp_path / "other")
    options = ["--num", "1", "--pretrained_model_name_or_path", tmp_path / "other"]
    message = error_of(train_mini.main, ["--output_dir", tmp_path / "further_other", *options], capsys)
    assert "other: not a miniature; the side of its latents is 1/1 of a picture's, not 1/4" in message
    fresh = ["--output_dir", str(tmp_path / "fresh"), "--num", "1", "--min_detection_confidence", "0.7"]
    message = error_of(train_mini.main, [*fresh, "--autoencoder_steps", "0"], capsys)
    assert "0 takes a miniature's autoencoder: name it by --pretrained_model_name_or_path" in message
    message = error_of(train_mini.main, [*fresh, "--autoencoder_steps", "1"], capsys)
    assert "no hand is found at confidence 0.7; train the autoencoder for longer" in message


def test_a_damaged_checkpoint_is_named(tmp_path):
    run, model = Run(tmp_path / "mini.json", {"seed": 0}, what="training"), torch.nn.Linear(2, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    run.begin()
    assert train_mini.restore(run, "autoencoder", model, optimiser) == 0
    train_mini.save(run, "autoencoder", 3, 3, model, optimiser)
    assert train_mini.restore(run, "autoencoder", model, optimiser) == 3
    assert train_mini.restore(run, "unet", model, optimiser) == 0  # the next phase begins
    (tmp_path / "checkpoints" / "checkpoint-3" / "state.pt").write_bytes(b"half")
    with pytest.raises(UserError, match="checkpoint-3: damaged checkpoint .*remove it"):
        train_mini.restore(run, "autoencoder", model, optimiser)


def test_the_shipped_one_runs_in_plain_diffusers():
    pipe = StableDiffusionPipeline.from_pretrained(ROOT / "synthetic_hands" / "mini" / "model")
    pipe.set_progress_bar_config(disable=True)
    parts = [getattr(pipe, name) for name in ("text_encoder", "unet", "vae")]
    assert {part.dtype for part in parts} == {torch.float32}
    picture = pipe("a dark hand", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
    assert picture.size == (64, 64) and len(np.unique(np.asarray(picture))) > 100
    ours = load_stable_diffusion(str(ROOT / "synthetic_hands" / "mini" / "model"))
    for name in ("text_encoder", "unet", "vae"):
        theirs = getattr(pipe, name).state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in getattr(ours, name).state_dict().items())


def test_edges_count_in_the_pictures_loss():
    real = torch.zeros(1, 3, 16, 16)
    real[..., 8:] = 1
    weight = torch.ones(1, 1, 16, 16)
    assert train_mini.picture_loss(real, real, weight) == 0
    flat = real + 0.1  # the same edges
    ragged = real + 0.1 * (-1) ** (torch.arange(16) // 2)  # as far off everywhere, with other edges
    assert train_mini.picture_loss(ragged, real, weight) > train_mini.picture_loss(flat, real, weight) > 0
    heavier = train_mini.picture_loss(flat, real, 4 * weight)
    assert heavier == pytest.approx(4 * float(train_mini.picture_loss(flat, real, weight)))


def test_the_hand_counts_four_times_in_the_denoising_loss():
    masks = np.zeros((2, 64, 64), dtype=bool)
    masks[0, 8:12, 4:8] = True  # one place of the latents, and half of another
    masks[0, 8:10, 8:12] = True
    weight = train_mini.hand_weights(masks)
    assert weight.dtype == torch.uint8 and weight.shape == (2, 1, 64, 64)
    weight = torch.nn.functional.avg_pool2d(weight.float(), train_mini.FACTOR)
    assert weight.shape == (2, 1, 16, 16) and weight[0, 0, 2, 1] == 4 and weight[0, 0, 2, 2] == 2.5
    assert weight.sum() == 2 * 256 + 3 + 1.5
    noise_pred, noise = torch.randn(2, 2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    squares, total = 0.0, 0.0
    for (one, _, row, column), value in np.ndenumerate(((noise_pred - noise) ** 2).numpy()):
        squares += float(weight[one, 0, row, column]) * float(value)
        total += float(weight[one, 0, row, column])
    assert train_mini.weighted_loss(noise_pred, noise, weight).item() == pytest.approx(squares / total)
