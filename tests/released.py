"""What the released Hand1000 scripts compute, re-enacted slowly and literally from ../shared/released-code.md.

One photo at a time, one global random stream, NumPy float64 schedules, hand-written resizing, sampler and layer: it
shares no code with the project, only the networks themselves.
"""

import numpy as np
import torch
from PIL import Image


def alphas_cumprod() -> np.ndarray:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    return np.cumprod(1.0 - betas)


def preprocess(path, resolution: int) -> torch.Tensor:
    image = Image.open(path).convert("RGB")
    width, height = image.size
    if width <= height:
        size = (resolution, int(resolution * height / width))
    else:
        size = (int(resolution * width / height), resolution)
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - resolution) / 2), round((size[1] - resolution) / 2)
    image = image.crop((left, top, left + resolution, top + resolution))
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255
    return 2.0 * pixels - 1.0


def text_embedding(pipe, text: str) -> torch.Tensor:
    ids = pipe.tokenizer(text, truncation=True, max_length=77, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        return pipe.text_encoder(input_ids=ids).last_hidden_state  # (1, 77, hidden)


def fused_embedding(fusion: torch.nn.Linear, text: torch.Tensor, feature: np.ndarray) -> torch.Tensor:
    feature = torch.from_numpy(feature).float()
    with torch.no_grad():
        return fusion(torch.cat([text.reshape(1, -1), feature[None]], dim=1)).reshape(text.shape)


def train(pipe, fusion, feature, photos, captions, *, Lambda, resolution, embedding_steps=10, finetune_steps=20):
    """Train `pipe.unet` in place; returns all losses in order."""
    sqrt_alphas = torch.tensor(np.sqrt(alphas_cumprod()), dtype=torch.float32)
    sqrt_one_minus = torch.tensor(np.sqrt(1.0 - alphas_cumprod()), dtype=torch.float32)
    unet, losses = pipe.unet, []

    def loss_of(latent, embedding):
        noise = torch.randn_like(latent)
        t = torch.randint(1000, (1,))
        noisy = sqrt_alphas[t] * latent + sqrt_one_minus[t] * noise
        return torch.nn.MSELoss()(unet(noisy, t, encoder_hidden_states=embedding).sample, noise)

    for photo, caption in zip(photos, captions, strict=True):
        torch.manual_seed(0)
        with torch.no_grad():
            posterior = pipe.vae.encode(preprocess(photo, resolution)).latent_dist
            latent = 0.18215 * (posterior.mean + posterior.std * torch.randn(posterior.mean.shape))
        torch.randn_like(latent)

        text = text_embedding(pipe, caption)
        embedding = Lambda * text + (1 - Lambda) * fused_embedding(fusion, text, feature)
        embedding = embedding.clone().requires_grad_(True)
        unet.requires_grad_(False)
        optimizer = torch.optim.Adam([embedding], lr=1e-3)
        for _ in range(embedding_steps):
            optimizer.zero_grad()
            loss = loss_of(latent, embedding)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

        embedding = embedding.detach()
        unet.requires_grad_(True)
        optimizer = torch.optim.Adam(unet.parameters(), lr=1e-6)
        for _ in range(finetune_steps):
            optimizer.zero_grad()
            loss = loss_of(latent, embedding)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    unet.requires_grad_(False)
    return losses


def train_staged(pipe, latents, prompt_embeds, embedding_draws, batches, *, finetune_lrs):
    """The paper's order, literally: every embedding alone with the base UNet, then one Adam over given batches.

    embedding_draws: for each photo its (noise, t) pairs; batches: for each step its (photo, noise, t) triples;
    finetune_lrs: for each step its rate. Trains `pipe.unet` in place; returns Stage III's losses in order.
    """
    sqrt_alphas = torch.tensor(np.sqrt(alphas_cumprod()), dtype=torch.float32)
    sqrt_one_minus = torch.tensor(np.sqrt(1.0 - alphas_cumprod()), dtype=torch.float32)

    def loss_of(latent, noise, t, embedding):
        noisy = sqrt_alphas[t] * latent + sqrt_one_minus[t] * noise
        return torch.nn.MSELoss()(pipe.unet(noisy, t, encoder_hidden_states=embedding).sample, noise)

    pipe.unet.requires_grad_(False)
    optimised = []
    for latent, embedding, draws in zip(latents, prompt_embeds, embedding_draws, strict=True):
        embedding = embedding[None].clone().requires_grad_(True)
        optimizer = torch.optim.Adam([embedding], lr=1e-3)
        for noise, t in draws:
            optimizer.zero_grad()
            loss_of(latent[None], noise, t, embedding).backward()
            optimizer.step()
        optimised.append(embedding.detach())
    pipe.unet.requires_grad_(True)
    optimizer, all_losses = torch.optim.Adam(pipe.unet.parameters()), []
    for batch, finetune_lr in zip(batches, finetune_lrs, strict=True):
        optimizer.param_groups[0]["lr"] = finetune_lr
        optimizer.zero_grad()
        losses = [loss_of(latents[photo][None], noise, t, optimised[photo]) for photo, noise, t in batch]
        (sum(losses) / len(losses)).backward()
        optimizer.step()
        all_losses += [loss.item() for loss in losses]
    pipe.unet.requires_grad_(False)
    return all_losses


def generate(pipe, fusion, feature, prompt, *, mu, resolution, latent_side, image_size, scale=3.0, steps=45):
    """One picture as the released script draws it: a uint8 array."""
    text = text_embedding(pipe, prompt)
    condition = mu * text + (1 - mu) * fused_embedding(fusion, text, feature)
    unconditional = text_embedding(pipe, "")
    torch.manual_seed(0)
    x = torch.randn(1, 4, latent_side, latent_side)

    alphas = alphas_cumprod()
    timesteps = np.arange(0, 1000, 1000 // steps) + 1  # one too many: 46 of them from 45
    alphas_at = alphas[timesteps]
    alphas_before = np.concatenate([alphas[:1], alphas[timesteps[:-1]]])
    for index in reversed(range(steps)):
        t = torch.tensor([timesteps[index]])
        with torch.no_grad():
            e_unconditional = pipe.unet(x, t, encoder_hidden_states=unconditional).sample
            e_condition = pipe.unet(x, t, encoder_hidden_states=condition).sample
        e = e_unconditional + scale * (e_condition - e_unconditional)
        a, a_before = float(alphas_at[index]), float(alphas_before[index])
        x0 = (x - (1 - a) ** 0.5 * e) / a**0.5
        x = a_before**0.5 * x0 + (1 - a_before) ** 0.5 * e

    with torch.no_grad():
        pixels = pipe.vae.decode(x / 0.18215).sample
    pixels = torch.clamp((pixels + 1.0) / 2.0, min=0.0, max=1.0)
    array = (255.0 * pixels[0].permute(1, 2, 0).numpy()).astype(np.uint8)
    return np.asarray(Image.fromarray(array).resize((image_size, image_size), Image.Resampling.BICUBIC))
