"""Train AttentionHand: the visual attention stage on global and local views, with the text attention stage before it.

Reads {data_dir}/modalities.json. Writes a folder that ControlNetModel.from_pretrained loads, with losses.csv,
checkpoints/ and, every --validation_steps, pictures of mesh | real | generated. The base model stays frozen.

Examples:
  python -m attentionhand.train --data_dir data --max_train_steps 10000 --mixed_precision fp16 --tas_model shared
  python -m attentionhand.train --data_dir data --resume_path weights/attentionhand.ckpt --output_dir output/finetuned
  accelerate launch --num_processes 2 -m attentionhand.train --data_dir data --train_batch_size 4
"""

import argparse
import csv
import importlib.util
import json
import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python attentionhand/train.py`

from hand1000.evaluation import check_outputs

from core.diffusion.model_path import check_model_path
from core.runs.command_line import (
    argument_parser,
    command_line,
    learning_rate,
    natural_int,
    plain_arguments,
    positive_int,
    seed_int,
)
from core.runs.errors import UserError
from core.runs.files import atomic_file, check_writable, fingerprint_if_local, give_default_permissions
from core.runs.processes import cpu_count, progress, say, start_accelerator
from core.runs.run import differing_settings, locked

# torch and diffusers are imported inside functions: --help and a wrong path answer at once.

RECORD = "attentionhand.json"
# What may differ between a run and its continuation.
NOT_SETTINGS = {
    "data_dir",
    "output_dir",
    "resume_from_checkpoint",
    "max_train_steps",
    "num_train_epochs",
    "validation_steps",
    "checkpointing_steps",
    "checkpoints_total_limit",
    "report_to",
    "num_workers",
    "save_single_file",
}


def parse_args(argv=None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--data_dir", type=Path, default=Path("data"), help="folder with modalities.json")
    add("--output_dir", type=Path, default=Path("output/attentionhand"), help="run folder")
    add(
        "--pretrained_model_name_or_path",
        default="stable-diffusion-v1-5/stable-diffusion-v1-5",
        help="base model: hub id, diffusers folder, or single file such as the released sd15_ini.ckpt",
    )
    add("--original_config", help="YAML of a single-file base model")
    add("--config", help="diffusers folder with the configs and tokenizer of a single-file base model")
    add("--resume_path", type=Path, help="weights to fine-tune: a run folder or a released .ckpt")
    add("--resolution", type=positive_int, default=512, help="pixels a side of both views")
    add("--learning_rate", type=learning_rate, default=1e-5, help="of AdamW, weight decay 0.01")
    add("--train_batch_size", type=positive_int, default=1, help="samples a step on each process")
    add("--max_train_steps", type=positive_int, help="steps in all (overrides the epochs)")
    add("--num_train_epochs", type=positive_int, default=10, help="passes over the data")
    add("--sd_unlocked", action="store_true", help="also train the UNet's decoder")
    add("--only_mid_control", action="store_true", help="control the UNet's middle block only")
    add("--no_tas", action="store_true", help="without the text attention stage")
    add("--tas_model", default="CompVis/stable-diffusion-v1-4", help="its own frozen model, or shared: the base's UNet")
    add("--tas_steps", type=positive_int, default=50, help="gradient steps on the latents")
    add("--tas_tokens", choices=("words", "released"), default="words", help="the hand words, or what was released")
    add(
        "--local_view",
        choices=("paper", "released", "none"),
        default="paper",
        help="local latents under the local loss, the global ones as released, or no local loss",
    )
    add("--seed", type=seed_int, default=0, help="of order, noise and timesteps")
    add("--mixed_precision", choices=("no", "fp16", "bf16"), default="no", help="of the models' arithmetic")
    add("--gradient_checkpointing", action="store_true", help="less memory, more time")
    add("--use_8bit_adam", action="store_true", help="bitsandbytes' 8-bit AdamW")
    add("--num_workers", type=natural_int, default=2, help="processes that read pictures")
    add("--validation_steps", type=natural_int, default=500, help="steps between validation pictures; 0: none")
    add("--checkpointing_steps", type=positive_int, default=500, help="steps between checkpoints")
    add("--checkpoints_total_limit", type=positive_int, default=1, help="how many checkpoints to keep")
    add("--resume_from_checkpoint", help='"latest", or a checkpoint\'s path')
    add("--report_to", help="tensorboard, or another tracker that accelerate knows")
    add("--save_single_file", type=Path, help="also write all weights with the released names to this .ckpt")
    return parser.parse_args(argv)


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    check_model_path(args.pretrained_model_name_or_path, args.original_config, args.config)
    if not args.no_tas and args.tas_model != "shared":
        check_model_path(args.tas_model, None, None)
    if args.use_8bit_adam and not importlib.util.find_spec("bitsandbytes"):
        raise UserError("--use_8bit_adam needs bitsandbytes: pip install bitsandbytes")
    if args.resume_path and not args.resume_path.exists():
        raise UserError(f"{args.resume_path}: no such file or folder (--resume_path)")
    check_writable(args.output_dir)
    if args.save_single_file:
        check_outputs(args.save_single_file)
        if args.save_single_file.suffix not in (".ckpt", ".safetensors"):
            raise UserError(f"--save_single_file {args.save_single_file}: name a .ckpt or a .safetensors file")
        for given in (args.resume_path, Path(args.pretrained_model_name_or_path)):
            if given and given.is_file() and args.save_single_file.resolve() == given.resolve():
                raise UserError(f"--save_single_file {args.save_single_file}: would overwrite the model it starts from")

    from attentionhand.data import read_modalities, views

    samples = read_modalities(args.data_dir / "modalities.json")
    with ThreadPoolExecutor(cpu_count()) as pool:  # a bad picture ends the run now, not after hours
        checked = pool.map(lambda sample: views(sample, args.resolution) and None, samples)
        for _ in progress(checked, total=len(samples), desc="Checking", unit="sample"):
            pass
    accelerator = start_accelerator(args)
    if args.report_to:
        accelerator.init_trackers("attentionhand")
    settings = run_settings(args, samples, accelerator.num_processes)
    with locked(args.output_dir):
        accelerator.wait_for_everyone()  # until the folder is there
        check_record(args, settings)
        accelerator.wait_for_everyone()  # before the main process writes into it
        train(args, accelerator, samples, settings)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def run_settings(args, samples: Sequence, processes: int) -> dict[str, Any]:
    """All that the result depends on, beside the number of steps."""
    from attentionhand.checkpoints import weights_fingerprint
    from attentionhand.data import content_hash

    return {
        **{key: value for key, value in plain_arguments(args).items() if key not in NOT_SETTINGS},
        "global_batch_size": args.train_batch_size * processes,
        "samples": len(samples),
        "data_sha256": content_hash(samples),
        "model_fingerprint": fingerprint_if_local(args.pretrained_model_name_or_path),
        "tas_fingerprint": fingerprint_if_local(args.tas_model),
        "start_fingerprint": weights_fingerprint(args.resume_path) if args.resume_path else None,
    }


def check_record(args, settings: dict[str, Any]) -> None:
    """Refuse a folder that holds something else or another run, or this one if it is not to be gone on with.

    Raises:
        UserError
    """
    path = args.output_dir / RECORD
    if not path.is_file():
        others = [one.name for one in args.output_dir.iterdir() if one.name not in (".lock", "logs")]
        if others:
            raise UserError(f"{args.output_dir}: holds {others[0]} and no run of this script; choose another folder")
    else:
        try:
            made = json.loads(path.read_text(encoding="utf-8"))["settings"]
        except (ValueError, KeyError):
            raise UserError(f"{path}: damaged; choose another --output_dir") from None
        if different := differing_settings(made, settings):
            raise UserError(f"{args.output_dir}: holds a run of other settings ({different}); choose another folder")
        if not args.resume_from_checkpoint:
            raise UserError(
                f"{args.output_dir}: begun already; pass --resume_from_checkpoint latest, or another folder"
            )


def train(args, accelerator, samples: Sequence, settings: dict[str, Any]) -> None:

    from attentionhand.checkpoints import load_decoder, load_stage, load_state, save_single_file, save_state
    from attentionhand.visual_attention import new_stage
    from core.diffusion.single_file import check_convertible
    from core.diffusion.stable_diffusion import encode_texts, latent_shape, load_stable_diffusion, training_scheduler

    pipe = load_stable_diffusion(
        args.pretrained_model_name_or_path, original_config=args.original_config, config=args.config
    )
    latent_shape(pipe, args.resolution)  # refuses a resolution that the model can't take
    stage = load_stage(args.resume_path, pipe) if args.resume_path else new_stage(pipe.unet, pipe.vae, args.seed)
    if args.resume_path:
        load_decoder(args.resume_path, pipe)
    if args.save_single_file:
        check_convertible(pipe)
    stage.train().requires_grad_(True)
    if args.gradient_checkpointing:
        stage.enable_gradient_checkpointing()
    embeds = encode_texts(pipe, [sample.text for sample in samples], accelerator.device)
    positions = token_choice(args, pipe.tokenizer, samples)
    tas_unet = text_attention_unet(args, pipe)
    trained = {"stage": stage}
    if args.sd_unlocked:
        trained["decoder"] = decoder_of(pipe.unet).requires_grad_(True)
    optimizer = make_optimizer(args, trained)
    states = trained | ({"scaler": accelerator.scaler} if accelerator.scaler else {})  # fp16 only
    start, losses = 0, list[list[float]]()
    if checkpoint := find_checkpoint(args):
        start, losses = load_state(checkpoint, states, optimizer, settings)
        say(f"going on from {checkpoint}")
    noise_scheduler = training_scheduler(pipe)
    for model in (pipe.unet, pipe.vae, tas_unet):
        if model is not None:
            model.to(accelerator.device)
    stage.to(accelerator.device)
    optimizer = accelerator.prepare(optimizer)
    parameters = [parameter for model in trained.values() for parameter in model.parameters()]
    if accelerator.is_main_process:
        write_record(args, settings, finished=False)

    batch = args.train_batch_size * accelerator.num_processes
    steps = args.max_train_steps or args.num_train_epochs * math.ceil(len(samples) / batch)
    loader = own_batches(args, samples, batch, start, steps, accelerator)
    bar = progress(loader, total=steps, initial=min(start, steps), desc="Training", unit="step")
    for step, part in enumerate(bar, start=start):
        rows = part["index"].tolist()
        draws = draw_noise(args.seed, step, batch, part["global_rgb"], pipe, accelerator)
        with accelerator.autocast():
            global_loss, local_loss = step_losses(
                args,
                pipe,
                stage,
                tas_unet,
                noise_scheduler,
                part,
                embeds[rows],
                [positions[row] for row in rows],
                draws,
            )
            loss = total_loss(global_loss, local_loss)
        accelerator.backward(loss)
        share_gradients(accelerator, parameters)
        optimizer.step()
        optimizer.zero_grad()
        shown = [accelerator.reduce(one.detach().mean(), "mean").item() for one in (global_loss, local_loss)]
        if not all(map(math.isfinite, shown)):
            raise UserError(f"the loss became {shown[0]} at step {step}; lower --learning_rate, or use bf16, not fp16")
        losses.append([step, *shown])
        bar.set_postfix(loss=f"{np.mean(shown):.4f}")
        accelerator.log({"global_loss": shown[0], "local_loss": shown[1]}, step=step)
        last = step + 1 == steps
        if accelerator.is_main_process:
            if (step + 1) % args.checkpointing_steps == 0 or last:
                path = args.output_dir / "checkpoints" / f"checkpoint-{step + 1}.pt"
                save_state(path, states, optimizer, step + 1, losses, settings)
                remove_old(path.parent, args.checkpoints_total_limit, newest=path)
            if args.validation_steps and ((step + 1) % args.validation_steps == 0 or last):
                validate(args, pipe, stage, samples, embeds, step + 1)

    if accelerator.is_main_process:
        stage.save_pretrained(args.output_dir)
        if args.sd_unlocked:
            pipe.unet.save_pretrained(args.output_dir / "unet")
        give_default_permissions(args.output_dir)
        write_losses(args.output_dir / "losses.csv", losses)
        if args.save_single_file:
            save_single_file(pipe, stage, args.save_single_file)
        write_record(args, settings, finished=True)
        say(f"{args.output_dir}: {steps} steps, loads with ControlNetModel.from_pretrained")


# One step


def share_gradients(accelerator, parameters: Sequence) -> None:
    """The mean of all processes' gradients: two views go through the same weights, which DDP's hooks do not take."""
    if accelerator.num_processes > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = accelerator.reduce(parameter.grad, "mean")


def step_losses(args, pipe, stage, tas_unet, noise_scheduler, part, prompt_embeds, positions, draws):
    """Global and local loss (B,) of a batch: noised latents, excited by the text attention stage, under control.

    `draws` holds for each view the posterior's noise and the latents' noise, and timesteps (B,) that both share.
    """
    import torch

    from attentionhand.text_attention import excite
    from attentionhand.visual_attention import view_loss
    from core.diffusion.stable_diffusion import sampled_latents

    device = pipe.unet.device
    prompt_embeds, timesteps = prompt_embeds.to(device), draws["timesteps"].to(device)
    names = ("global", "local") if args.local_view != "none" else ("global",)
    clean, noisy, noises = {}, {}, {}
    for name in names:
        clean[name] = sampled_latents(pipe.vae, part[f"{name}_rgb"].to(device), draws[f"{name}_posterior"].to(device))
        noises[name] = draws[f"{name}_noise"].to(device)
        source = clean["global" if args.local_view == "released" else name]
        noisy[name] = noise_scheduler.add_noise(source, noises[name], timesteps)
    if tas_unet is not None:  # both views together: one pass of twice the batch
        with torch.autocast(device.type, enabled=False):  # half precision would lose the small gradients
            moved = excite(
                tas_unet,
                torch.cat([noisy[name] for name in names]),
                timesteps.repeat(len(names)),
                prompt_embeds.repeat(len(names), 1, 1),
                [*positions, *local_positions(args, positions)][: len(positions) * len(names)],
                steps=args.tas_steps,
            )
        noisy = dict(zip(names, moved.chunk(len(names))))
    options = {"only_mid_control": args.only_mid_control}
    losses = [
        view_loss(
            pipe.unet,
            stage,
            noisy[name],
            timesteps,
            prompt_embeds,
            part[f"{name}_mesh"].to(device),
            noises[name],
            **options,
        )
        for name in names
    ]
    return losses[0], losses[-1]


def total_loss(global_loss, local_loss):
    """Half the global plus half the local loss, the mean over the batch (a single number)."""
    return 0.5 * global_loss.mean() + 0.5 * local_loss.mean()


def local_positions(args, positions: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """The local view's tokens: the caption's hand words; as released the text "hand", whose index 0 is the last."""
    from attentionhand.text_attention import released_positions

    return [released_positions("hand")] * len(positions) if args.tas_tokens == "released" else list(positions)


def draw_noise(seed: int, step: int, batch: int, rgb, pipe, accelerator) -> dict[str, Any]:
    """The step's random numbers for this process's share, all drawn on the CPU for the whole batch."""
    import torch

    from hand1000.training import derived_seed

    side = rgb.shape[-1] // pipe.vae_scale_factor
    shape = (batch, pipe.unet.config.in_channels, side, side)
    generator = torch.Generator().manual_seed(derived_seed(seed, 1, step))
    draws = {"timesteps": torch.randint(1000, (batch,), generator=generator)}
    for name in ("global", "local"):
        for kind in ("posterior", "noise"):
            draws[f"{name}_{kind}"] = torch.randn(shape, generator=generator)
    own = slice(accelerator.process_index * len(rgb), (accelerator.process_index + 1) * len(rgb))
    return {name: tensor[own] for name, tensor in draws.items()}


# What a run is made of


def token_choice(args, tokenizer, samples: Sequence) -> list[list[int]]:
    """The CLIP positions that each text's excitation is about; says once if texts have no hand word."""
    from attentionhand.text_attention import has_hand_word, released_positions, token_positions

    texts = [sample.text for sample in samples]
    without = [text for text in texts if not has_hand_word(text)]
    if without and not args.no_tas:
        say(f"{len(without)} texts have no hand word: their first word is taken, e.g. '{without[0][:60]}'")
    if args.tas_tokens == "released":
        return [released_positions(text) for text in texts]
    positions = [token_positions(tokenizer, text) for text in texts]
    cut = [text for text, found in zip(texts, positions) if has_hand_word(text) and found == [1]]
    if cut and not args.no_tas:
        most = tokenizer.model_max_length
        say(f"{len(cut)} texts have their hand words beyond CLIP's {most} tokens; shorten them, e.g. '{cut[0][:60]}…'")
    return positions


def text_attention_unet(args, pipe):
    """The frozen UNet of the text attention stage, or None."""
    from attentionhand.text_attention import layers_at
    from core.diffusion.stable_diffusion import load_stable_diffusion

    if args.no_tas:
        return None
    unet = pipe.unet if args.tas_model == "shared" else load_stable_diffusion(args.tas_model).unet
    ours, theirs = pipe.unet.config, unet.config
    if (ours.in_channels, ours.cross_attention_dim) != (theirs.in_channels, theirs.cross_attention_dim):
        raise UserError(
            f"{args.tas_model}: latents of {theirs.in_channels} channels, {theirs.cross_attention_dim} numbers a "
            f"token; the base model has {ours.in_channels} and {ours.cross_attention_dim}; try --tas_model shared"
        )
    if not layers_at(unet, level=2):
        raise UserError(f"{args.tas_model}: has no cross-attention at a quarter of the latents' side; pass --no_tas")
    return unet


def decoder_of(unet):
    """The UNet's way up and its output, which --sd_unlocked trains."""
    import torch

    return torch.nn.ModuleList([unet.up_blocks, unet.conv_norm_out, unet.conv_out])


def make_optimizer(args, models: dict[str, Any]):
    import torch

    parameters = [parameter for model in models.values() for parameter in model.parameters()]
    if args.use_8bit_adam:
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(parameters, lr=args.learning_rate, weight_decay=0.01)
    return torch.optim.AdamW(parameters, lr=args.learning_rate, weight_decay=0.01)


def own_batches(args, samples, batch: int, start: int, steps: int, accelerator) -> Iterator[dict]:
    """This process's share of every batch from step `start` on: an endless shuffle, the same after a kill."""
    import torch

    from attentionhand.data import HandViews
    from hand1000.training import derived_seed

    def order() -> Iterator[int]:
        epoch = 0
        while True:
            yield from np.random.default_rng(derived_seed(args.seed, 0, epoch)).permutation(len(samples)).tolist()
            epoch += 1

    endless, own = order(), []
    for step in range(steps):
        rows = [next(endless) for _ in range(batch)]
        first = accelerator.process_index * args.train_batch_size
        if step >= start:
            own.append(rows[first : first + args.train_batch_size])
    return iter(
        torch.utils.data.DataLoader(
            HandViews(samples, args.resolution), batch_sampler=own, num_workers=args.num_workers if own else 0
        )
    )


def find_checkpoint(args) -> Path | None:
    """The checkpoint that --resume_from_checkpoint names.

    Raises:
        UserError: it is not there.
    """
    if not args.resume_from_checkpoint:
        return None
    if args.resume_from_checkpoint == "latest":
        found = checkpoints(args.output_dir / "checkpoints")
        return found[-1] if found else None
    path = Path(args.resume_from_checkpoint)
    path = path if path.is_file() else args.output_dir / "checkpoints" / path.name
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(folder.glob("checkpoint-*.pt"), key=lambda path: int(path.stem.partition("-")[2]))


def remove_old(folder: Path, keep: int, newest: Path) -> None:
    """Keep so many, of which one is the newest, whatever an earlier run left there with higher numbers."""
    others = [path for path in checkpoints(folder) if path != newest]
    for path in others[: len(others) - (keep - 1)]:
        path.unlink()


def validate(args, pipe, stage, samples, embeds, step: int) -> None:
    """Mesh, real picture and a generated one of up to four samples, to validation/."""
    import torch
    from PIL import Image

    from attentionhand.data import views
    from attentionhand.sampling import sample_pictures
    from core.diffusion.stable_diffusion import encode_texts

    chosen = range(min(4, len(samples)))
    wholes = [views(samples[index], args.resolution)[0] for index in chosen]
    unconditional = encode_texts(pipe, [""], pipe.unet.device)
    stage.eval()
    pictures = sample_pictures(
        pipe,
        stage,
        embeds[list(chosen)],
        unconditional,
        torch.stack([whole.mesh for whole in wholes]),
        seed=args.seed,
        only_mid_control=args.only_mid_control,
    )
    stage.train()
    sheet = Image.new("RGB", (3 * args.resolution, len(wholes) * args.resolution))
    for row, (whole, picture) in enumerate(zip(wholes, pictures)):
        assert whole.rgb is not None  # what is trained on has a picture
        for column, tensor in enumerate((whole.mesh, (whole.rgb + 1) / 2)):
            tile = Image.fromarray((255 * tensor).round().byte().permute(1, 2, 0).numpy())
            sheet.paste(tile, (column * args.resolution, row * args.resolution))
        sheet.paste(picture, (2 * args.resolution, row * args.resolution))
    path = args.output_dir / "validation" / f"step_{step:06}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        sheet.save(temporary, format="PNG")


def write_losses(path: Path, losses: Sequence) -> None:
    with atomic_file(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "global_loss", "local_loss"])
        writer.writerows(losses)


def write_record(args, settings: dict[str, Any], *, finished: bool) -> None:
    from core.runs.software import software

    content = {"finished": finished, "settings": settings, "software": software()}
    with atomic_file(args.output_dir / RECORD) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
