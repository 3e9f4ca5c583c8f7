"""One training step of AttentionHand: ours against the released procedure, rebuilt here with the same random models.

Released: the text attention stage runs the whole UNet and keeps every attention map, for the global view, then the
local one; the UNet's decoder gathers gradients that are never used. (It also moves models between CPU and GPU; that is
left out.) Ours: as attentionhand.train does it. Encoding by the VAE is the same in both and not timed.

Examples:
  python -m benchmarks.attentionhand_step --size mini --tas_steps 50
  python -m benchmarks.attentionhand_step --size sd15 --resolution 512 --tas_steps 50
"""

import time
from collections.abc import Callable

from benchmarks.train_step import synchronize
from core.runs.command_line import argument_parser, command_line, positive_int
from core.runs.software import machine
from core.runs.steps import peak_memory, reset_peak_memory

POSITIONS = [2, 5]  # of the excited tokens


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--size", choices=("mini", "sd15"), default="mini", help="a UNet of 7 M weights, or Stable Diffusion's 860 M")
    add("--resolution", type=positive_int, default=256, help="pixels per side; latents are an eighth")
    add("--tas_steps", type=positive_int, default=50, help="gradient steps of the text attention stage")
    add("--train_batch_size", type=positive_int, default=1, help="samples of ours; the released code takes one")
    add("--gradient_checkpointing", action="store_true", help="ours computes activations again for the gradient")
    args = parser.parse_args(argv)

    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ours, released = training_steps(
        args.size,
        args.resolution,
        args.train_batch_size,
        device=device,
        tas_steps=args.tas_steps,
        gradient_checkpointing=args.gradient_checkpointing,
    )
    print(f"{args.size}, {args.resolution} pixels, {args.tas_steps} text attention steps, on {machine()}")
    print("| step | seconds a sample | peak memory, GB |\n| --- | --- | --- |")
    for name, step, samples in (("released procedure", released, 1), ("ours", ours, args.train_batch_size)):
        step()
        reset_peak_memory()
        synchronize(device)
        started = time.perf_counter()
        step()
        synchronize(device)
        seconds = (time.perf_counter() - started) / samples
        peaks = peak_memory()
        print(f"| {name} | {seconds:.2f} | {peaks.get('gpu', peaks['process'])} |", flush=True)


def training_steps(
    size: str, resolution: int, count: int, *, device, tas_steps: int, gradient_checkpointing: bool = False
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Our step on `count` samples and the released procedure's on one, both of the same random models.

    Args:
        tas_steps: gradient steps of the text attention stage; with 0 ours leaves it out.
    """
    import torch
    from diffusers import ControlNetModel

    from attentionhand.text_attention import excite_views
    from attentionhand.training import decoder_checkpointing, make_optimizer
    from attentionhand.visual_attention import HINT_CHANNELS, NoisyView, view_loss

    torch.manual_seed(0)
    unet, tas_unet = (build_unet(size, device).requires_grad_(False) for _ in range(2))
    stage = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT_CHANNELS).to(device)
    if gradient_checkpointing:
        stage.enable_gradient_checkpointing()
    optimizer = make_optimizer(list(stage.parameters()), 1e-5)
    side = resolution // 8
    embeds = torch.randn(count, 77, unet.config.cross_attention_dim, device=device)
    timesteps = torch.randint(1000, (count,), device=device)
    views = [
        NoisyView(
            torch.randn(count, 4, side, side, device=device),
            torch.rand(count, 3, resolution, resolution, device=device),
            torch.randn(count, 4, side, side, device=device),
            [POSITIONS] * count,
        )
        for _ in range(2)
    ]

    def ours() -> None:
        moved = excite_views(tas_unet, views, timesteps, embeds, steps=tas_steps) if tas_steps else views
        for view in moved:
            with decoder_checkpointing(unet, gradient_checkpointing):
                (view_loss(unet, stage, timesteps, embeds, view) / len(moved)).backward()
        optimizer.step()
        optimizer.zero_grad()

    def released() -> None:
        first = [NoisyView(*(part[:1] for part in view)) for view in views]
        moved = [
            view._replace(latents=released_excite(tas_unet, view.latents, timesteps[:1], embeds[:1], tas_steps))
            for view in first
        ]
        unet.up_blocks.requires_grad_(True)  # gathered and never cleared
        for view in moved:
            (0.5 * view_loss(unet, stage, timesteps[:1], embeds[:1], view)).backward()
        optimizer.step()
        optimizer.zero_grad()
        unet.up_blocks.requires_grad_(False)
        for parameter in unet.parameters():
            parameter.grad = None

    return ours, released


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

    before, side = unet.attn_processors, latents.shape[-1] // 4
    kept: list[tuple[bool, torch.Tensor]] = []
    unet.set_attn_processor(dict.fromkeys(before, EveryMap(kept)))
    for scale in torch.linspace(1, 0.5, steps).sqrt().tolist():
        kept.clear()
        latents = latents.detach().requires_grad_()
        unet(latents, timesteps, encoder_hidden_states=embeds)
        chosen = torch.cat([maps for is_cross, maps in kept if is_cross and maps.shape[1] == side * side])
        attention = chosen.mean(dim=0).view(1, side, side, -1)
        loss = attention_loss(attention, [POSITIONS]).sum()
        latents = latents - STEP_SIZE * scale * torch.autograd.grad(loss, latents, retain_graph=True)[0]
    unet.set_attn_processor(before)
    return latents.detach()


def build_unet(size: str, device):
    """Random weights, Stable Diffusion 1's layout, made on the device."""
    from diffusers import UNet2DConditionModel

    with device:
        if size == "sd15":
            return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        return UNet2DConditionModel(
            block_out_channels=(32, 64, 96, 96), cross_attention_dim=96, attention_head_dim=4, norm_num_groups=8
        )


if __name__ == "__main__":
    main()
