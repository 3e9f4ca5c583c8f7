"""One training step of AttentionHand: ours against the released procedure, re-enacted with the same random models.

Released: the text attention stage runs the whole UNet and keeps every attention map, for the global view, then the
local one; the UNet's decoder gathers gradients that nobody uses. (Its moving of models between CPU and GPU is left out:
there is nothing to move to on a CPU.) Ours: as attentionhand.train does it.

Examples:
  python -m benchmarks.attentionhand_step --size mini --tas_steps 50
  python -m benchmarks.attentionhand_step --size sd15 --resolution 512 --tas_steps 50
"""

import argparse
import time
from types import SimpleNamespace

from benchmarks.train_step import synchronize
from core.runs.command_line import argument_parser, command_line, positive_int


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--size", choices=("mini", "sd15"), default="mini", help="a UNet of 7 M weights, or Stable Diffusion's 860 M")
    add("--resolution", type=positive_int, default=256, help="pixels a side; latents are an eighth")
    add("--tas_steps", type=positive_int, default=50, help="gradient steps of the text attention stage")
    add("--train_batch_size", type=positive_int, default=1, help="samples of ours; the released code takes one")
    args = parser.parse_args(argv)

    import torch

    from attentionhand.train import step_losses, total_loss
    from attentionhand.visual_attention import HINT_CHANNELS, view_loss
    from reproduce import peak_memory, reset_peak_memory

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    unet, tas_unet = (build_unet(args.size).to(device).requires_grad_(False) for _ in range(2))
    from diffusers import ControlNetModel

    stage = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT_CHANNELS).to(device)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=1e-5)
    side, count = args.resolution // 8, args.train_batch_size
    embeds = torch.randn(count, 77, unet.config.cross_attention_dim, device=device)
    part = {f"{view}_mesh": torch.rand(count, 3, args.resolution, args.resolution) for view in ("global", "local")}
    part |= {f"{view}_rgb": torch.rand(count, 4, side, side) for view in ("global", "local")}
    draws = {"timesteps": torch.randint(1000, (count,))}
    draws |= {
        f"{v}_{k}": torch.randn(count, 4, side, side) for v in ("global", "local") for k in ("noise", "posterior")
    }
    schedule = SimpleNamespace(add_noise=lambda clean, noise, timesteps: 0.7 * clean + 0.7 * noise)
    pipe = SimpleNamespace(unet=unet, vae=NoVae())
    options = argparse.Namespace(
        local_view="paper", only_mid_control=False, tas_steps=args.tas_steps, tas_tokens="words"
    )

    def ours() -> None:
        positions = [[2, 5]] * count
        losses = step_losses(options, pipe, stage, tas_unet, schedule, part, embeds, positions, draws)
        total_loss(*losses).backward()
        optimizer.step()
        optimizer.zero_grad()

    def released() -> None:
        moved = {}
        for view in ("global", "local"):
            noisy = 0.7 * part["global_rgb"][:1].to(device) + 0.7 * draws[f"{view}_noise"][:1].to(device)
            moved[view] = released_excite(
                tas_unet, noisy, draws["timesteps"][:1].to(device), embeds[:1], args.tas_steps
            )
        unet.up_blocks.requires_grad_(True)  # gathered and never cleared
        for view in ("global", "local"):
            given = draws["timesteps"][:1].to(device), embeds[:1], part[f"{view}_mesh"][:1].to(device)
            loss = view_loss(unet, stage, moved[view], *given, draws[f"{view}_noise"][:1].to(device))
            (0.5 * loss.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        unet.up_blocks.requires_grad_(False)
        for parameter in unet.parameters():
            parameter.grad = None

    weights = sum(parameter.numel() for parameter in unet.parameters()) / 1e6
    print(
        f"{args.size}: UNet of {weights:.1f} M weights, {side} x {side} latents, {args.tas_steps} text attention steps"
    )
    print("| step | seconds a sample | peak memory, GB |\n| --- | --- | --- |")
    for name, step, samples in (("released procedure", released, 1), ("ours", ours, count)):
        step()
        reset_peak_memory()
        synchronize(device)
        started = time.perf_counter()
        step()
        synchronize(device)
        seconds = (time.perf_counter() - started) / samples
        peaks = peak_memory()
        print(f"| {name} | {seconds:.2f} | {peaks.get('gpu', peaks['process'])} |", flush=True)


class NoVae:
    """Latents are given: the VAE is the same in both."""

    config = SimpleNamespace(scaling_factor=1.0)

    def encode(self, latents):
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=latents, std=0.0))


class EveryMap:
    """An attention processor that keeps all maps of a forward with their graphs."""

    def __init__(self, kept: list) -> None:
        self.kept = kept

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        import torch

        given = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(part) for part in (attn.to_q(hidden_states), attn.to_k(given), attn.to_v(given))
        )
        maps = attn.get_attention_scores(query, key, attention_mask)
        if maps.shape[1] <= 32**2:
            self.kept.append((encoder_hidden_states is not None, maps))
        return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(torch.bmm(maps, value))))


def released_excite(unet, latents, timesteps, embeds, steps: int):
    """The whole UNet and every map, one sample."""
    import torch

    from attentionhand.text_attention import STEP_SIZE, attention_loss

    kept, before, side = [], unet.attn_processors, latents.shape[-1] // 4
    unet.set_attn_processor(dict.fromkeys(before, EveryMap(kept)))
    for scale in torch.linspace(1, 0.5, steps).sqrt().tolist():
        kept.clear()
        latents = latents.detach().requires_grad_()
        unet(latents, timesteps, encoder_hidden_states=embeds)
        chosen = torch.cat([maps for is_cross, maps in kept if is_cross and maps.shape[1] == side * side])
        attention = chosen.mean(dim=0).view(1, side, side, -1)
        loss = attention_loss(attention, [[2, 5]]).sum()
        latents = latents - STEP_SIZE * scale * torch.autograd.grad(loss, latents, retain_graph=True)[0]
    unet.set_attn_processor(before)
    return latents.detach()


def build_unet(size: str):
    """Random weights, Stable Diffusion 1's layout."""
    from diffusers import UNet2DConditionModel

    if size == "sd15":
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    return UNet2DConditionModel(
        block_out_channels=(32, 64, 96, 96), cross_attention_dim=96, attention_head_dim=4, norm_num_groups=8
    )


if __name__ == "__main__":
    main()
