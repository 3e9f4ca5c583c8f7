"""Imagic against its three steps done literally; resuming; mistakes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import error_of
from diffusers import DDIMScheduler
from PIL import Image

from core.diffusion.encoding import encode_photos, encode_texts, latent_shape
from core.diffusion.noise import derived_seed, training_scheduler
from core.diffusion.stable_diffusion import load_stable_diffusion
from hand1000 import imagic
from hand1000.draws import IMAGIC, photo_draws

STEPS = ("--embedding_steps", "3", "--finetune_steps", "2", "--finetune_lr", "1e-4", "--num_inference_steps", "3")


@pytest.fixture
def command(data_root, tiny_model):
    (data_root / "names.txt").write_text("a.png\nb.png\n")
    (data_root / "prompts.txt").write_text("a hand\na red hand\n")
    command = ["--image_folder", data_root / "palm", "--ckpt", tiny_model, "--img_save_path", data_root / "pictures"]
    command += ["--image_filenames_file", data_root / "names.txt", "--prompts_file", data_root / "prompts.txt"]
    return [*map(str, command), *STEPS, "--resolution", "64", "--image_size", "0"]


def test_it_is_imagic(command, data_root, tiny_model):
    """Each picture by plain loops over diffusers, from the model as it was."""
    imagic.main(command)
    for place, prompt in enumerate(["a hand", "a red hand"]):
        pipe = load_stable_diffusion(str(tiny_model))
        shape, scheduler = latent_shape(pipe, 64), training_scheduler(pipe)
        draws = photo_draws(derived_seed(0, IMAGIC, place), shape, embedding_steps=3, finetune_steps=2)
        photo = data_root / "palm" / f"photo{place}.png"
        latents = encode_photos(pipe.vae, [photo], 64, [draws.posterior_noise], "cpu")
        target, negative = encode_texts(pipe, [prompt, ""], "cpu").split(1)

        def loss(draw, embeds, pipe=pipe, scheduler=scheduler, latents=latents):
            noisy = scheduler.add_noise(latents, draw.noise, draw.timesteps)
            return F.mse_loss(pipe.unet(noisy, draw.timesteps, embeds).sample, draw.noise)

        optimised = target.clone().requires_grad_()
        adam = torch.optim.Adam([optimised], lr=1e-3)
        for draw in draws.stage_two:
            adam.zero_grad()
            loss(draw, optimised).backward()
            adam.step()
        pipe.unet.requires_grad_(True)
        adam = torch.optim.Adam(pipe.unet.parameters(), lr=1e-4)
        for draw in draws.stage_three:
            adam.zero_grad()
            loss(draw, optimised.detach()).backward()
            adam.step()

        embeds = 0.7 * target + 0.3 * optimised.detach()
        ddim = DDIMScheduler.from_config(
            pipe.scheduler.config,
            timestep_spacing="leading",
            steps_offset=1,
            clip_sample=False,
            set_alpha_to_one=False,
        )
        ddim.set_timesteps(3)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            for t in ddim.timesteps:
                without, with_text = (pipe.unet(x, t, e).sample for e in (negative, embeds))
                x = ddim.step(without + 3 * (with_text - without), t, x).prev_sample
            pixels = pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample[0]
        expected = (255 * (pixels / 2 + 0.5).clamp(0, 1)).permute(1, 2, 0).numpy()
        drawn = np.asarray(Image.open(data_root / "pictures" / f"{'ab'[place]}.png"), float)
        assert np.abs(drawn - expected).max() < 2


def test_resuming_and_mistakes(command, data_root, capsys):
    imagic.main(command)
    pictures = {path.name: path.read_bytes() for path in (data_root / "pictures").glob("*.png")}
    (data_root / "pictures" / "b.png").unlink()
    imagic.main(command)
    assert "1 drawn now" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (data_root / "pictures").glob("*.png")} == pictures
    other = [*command, "--mu", "0.5"]
    assert "other settings" in error_of(imagic.main, other, capsys)
    nowhere = [*command, "--image_folder", str(data_root / "none")]
    assert str(data_root / "none") in error_of(imagic.main, nowhere, capsys)
    (data_root / "palm" / "photo1.png").write_bytes(b"no picture")
    assert "photo1.png" in error_of(imagic.main, [*command, "--img_save_path", str(data_root / "new")], capsys)
    assert not (data_root / "new").exists()
