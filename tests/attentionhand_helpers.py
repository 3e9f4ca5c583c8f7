"""What the tests of AttentionHand share: a tiny model, samples, arguments, and literal versions of the method."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from attentionhand.hand_words import token_positions
from attentionhand.visual_attention import new_stage
from core.diffusion.encoding import encode_texts
from synthetic_hands import make_dataset
from synthetic_hands.tiny_model import byte_tokenizer, pipeline

SIZE = 64  # pixels; 8 x 8 latents, and maps of 2 x 2 at a quarter of their side


def save_attention_model(folder: Path) -> Path:
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
    pipeline(vae, tokenizer, CLIPTextModel(text_config), unet).save_pretrained(folder)
    return folder


def make_samples(folder: Path) -> Path:
    """Six synthetic samples in AttentionHand's layout."""
    options = ["--layout", "attentionhand", "--gestures", "palm", "peace", "--num", "3", "--num_workers", "1"]
    make_dataset.main(["--output_dir", str(folder), "--size", str(SIZE), *options])
    return folder


def inputs(pipe: StableDiffusionPipeline, count: int = 2):
    """Latents, timesteps, embeddings and token positions of a batch."""
    latents = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    texts = ["a man holding a cup in his hand", "two hands"][:count]
    embeds = encode_texts(pipe, texts, "cpu")
    return latents, torch.tensor([801, 23][:count]), embeds, [token_positions(pipe.tokenizer, text) for text in texts]


def random_mesh(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))


def trained_stage(pipe: StableDiffusionPipeline) -> ControlNetModel:
    """One whose zero convolutions are no longer zero."""
    stage = new_stage(pipe.unet, pipe.vae)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in stage.named_parameters():
            if not parameter.any():
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
            assert parameter.any(), name
    return stage.requires_grad_(False)


def train_args(samples: Path, model: Path, output: Path, *more) -> list[str]:
    """Arguments for a short training."""
    return [
        *("--data_dir", str(samples), "--pretrained_model_name_or_path", str(model), "--tas_model", "shared"),
        *("--output_dir", str(output), "--resolution", str(SIZE), "--train_batch_size", "2", "--tas_steps", "2"),
        *("--max_train_steps", "4", "--num_workers", "0", "--validation_steps", "0", "--learning_rate", "1e-3"),
        *map(str, more),
    ]


def inference_args(weights: Path, samples: Path, model: Path, output: Path, *more) -> list[str]:
    """Arguments for a short drawing of pictures."""
    return [
        *("--weights", str(weights), "--output_dir", str(output), "--pretrained_model_name_or_path", str(model)),
        *("--sample_path", str(samples / "modalities.json"), "--resolution", str(SIZE)),
        *("--num_inference_steps", "3", "--num_samples", "2", *map(str, more)),
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return ControlNetModel.from_pretrained(folder).state_dict()


# Literal versions, written from the description alone


class AllMaps:
    """Attention in the open everywhere, every map kept: the released way."""

    def __init__(self, kept: list) -> None:
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
    """The text attention stage of one sample: the whole UNet, all maps, the loss in loops."""
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


def literal_clean_latents(pipe, rgb: torch.Tensor, posterior_noise: torch.Tensor) -> torch.Tensor:
    """A sample of the VAE's posterior, scaled."""
    posterior = pipe.vae.encode(rgb).latent_dist
    return pipe.vae.config.scaling_factor * (posterior.mean + posterior.std * posterior_noise).detach()


def literal_loss(pipe, stage, latents, timesteps, embeds, mesh, noise) -> torch.Tensor:
    """The mean squared error of one view's noise under control."""
    down, middle = stage(latents, timesteps, embeds, mesh, return_dict=False)
    noise_pred = pipe.unet(
        latents, timesteps, embeds, down_block_additional_residuals=down, mid_block_additional_residual=middle
    ).sample
    return ((noise_pred - noise) ** 2).mean()
