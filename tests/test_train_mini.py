"""Training the miniature Stable Diffusion: a few steps of everything, and going on after a kill."""

import shutil

import pytest
import torch
from conftest import error_of, files_under
from safetensors.torch import load_file

from core.diffusion.stable_diffusion import encode_texts, load_stable_diffusion
from synthetic_hands import train_mini


def arguments(folder) -> list[str]:
    return ["--output_dir", str(folder), "--num", "1", "--autoencoder_steps", "4", "--unet_steps", "4"]


@pytest.fixture
def one_thread():
    """Threads add up in any order; with one the bits are the same."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_mini_is_a_stable_diffusion_and_resumes_with_the_same_bits(tmp_path, monkeypatch, capsys, one_thread):
    monkeypatch.setattr(train_mini, "SAVE_EVERY", 2)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_mini.main(arguments(whole))
    pipe = load_stable_diffusion(str(whole / "model"))
    embeds = encode_texts(pipe, ["a dark hand with a red sleeve in front of a blue wall", "日本 thumbs up"], "cpu")
    assert embeds.shape == (2, 77, 96) and (embeds[0] != embeds[1]).any()
    words = pipe.tokenizer.tokenize("a dark hand with a red sleeve")
    assert words == ["a</w>", "dark</w>", "hand</w>", "with</w>", "a</w>", "red</w>", "sleeve</w>"]

    killed.mkdir()
    shutil.copy(whole / "data.npz", killed)
    endless = train_mini.batches

    def stops(count, size, seed, start):
        for step, rows in enumerate(endless(count, size, seed, start), start=start):
            if step == 3 and size == 32:
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
    message = error_of(train_mini.main, [*arguments(killed), "--seed", "1"], capsys)
    assert "begun with other settings (seed was 0, is now 1)" in message


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
