"""Stages II and III of Hand1000: fine-tune Stable Diffusion to a gesture.

Reads from --data_root (for gesture "call", captioner "BLIP2"): the photos in call/, their names in
call_BLIP2_file_name.txt, their enriched captions in call_BLIP2_modified.txt, and the gesture feature call.npy, which is
made first (Stage I) if it is missing. Writes a diffusers folder that any diffusers program loads, with losses.csv and
hand1000.json beside it.

Examples:
  python train.py --gesture call --Lambda 0.7
  python train.py --gesture call --mixed_precision bf16 --gradient_checkpointing --resume_from_checkpoint latest
  accelerate launch --num_processes 2 train.py --gesture call --schedule staged --train_batch_size 4
"""

import argparse
import functools
import hashlib
import importlib.util
from pathlib import Path

from core.diffusion.model_path import check_model_path
from core.runs.command_line import (
    argument_parser,
    command_line,
    fraction,
    gesture_name,
    learning_rate,
    natural_int,
    plain_arguments,
    positive_int,
    seed_int,
)
from core.runs.errors import UserError
from core.runs.files import (
    atomic_file,
    check_writable,
    fingerprint_if_local,
    free_bytes,
    read_paired_lines,
    sha256_of_files,
)
from core.runs.photos import unreadable_photos
from core.runs.processes import is_main_process, num_processes, say, start_accelerator
from core.runs.run import (
    FINISHED,
    UNFINISHED,
    checkpoint_to_resume,
    differing_settings,
    locked,
    read_record,
    write_losses,
    write_record,
)
from core.runs.software import software
from hand1000.gesture_feature import compute_gesture_feature, feature_hash, load_gesture_feature

# torch and diffusers are imported inside functions: --help and a wrong path answer at once.

# What may differ between a run and its continuation.
NOT_SETTINGS = {
    "data_root",
    "output_dir",
    "max_train_images",  # the photos themselves are compared
    "train_batch_size",  # the global batch size is compared; how it is shared out is float rounding
    "checkpointing_images",
    "checkpoints_total_limit",
    "resume_from_checkpoint",
    "report_to",
    "save_single_file",
    "skip_bad_images",
}


def parse_args(argv=None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--gesture", type=gesture_name, required=True, help="name of the gesture, e.g. call")
    add("--Lambda", type=fraction, default=0.7, help="share of the text in the double-fused embedding, 0 to 1")
    add("--data_root", type=Path, default=Path(), help="folder of the gesture's photos and lists")
    add("--captioner", default="BLIP2", help="whose captions: BLIP2, PaliGemma, VitGpt2, or your own name")
    add("--output_dir", type=Path, help="run folder (default: output/{gesture})")
    add(
        "--pretrained_model_name_or_path",
        default="CompVis/stable-diffusion-v1-4",
        help="base model: hub id, diffusers folder, or CompVis-style .ckpt / .safetensors",
    )
    add("--revision", help="revision of a hub id, e.g. non-ema")
    add("--variant", help="variant of a hub id's files, e.g. fp16")
    add("--original_config", help="YAML of a single-file base model")
    add("--config", help="diffusers folder with the configs and tokenizer of a single-file base model")
    add("--resolution", type=positive_int, default=512, help="pixels a side: shorter side resized, centre crop")
    add(
        "--schedule",
        choices=("interleaved", "staged"),
        default="interleaved",
        help="interleaved: photo by photo as the released code; staged: Stage II for all, then III, as the paper",
    )
    add("--embedding_steps", type=natural_int, default=10, help="Stage II steps a photo")
    add("--embedding_lr", type=learning_rate, default=1e-3, help="Stage II learning rate")
    add("--finetune_steps", type=natural_int, default=20, help="Stage III steps a photo")
    add("--finetune_lr", type=learning_rate, default=1e-6, help="Stage III learning rate")
    add("--train_batch_size", type=positive_int, default=1, help="photos a step on each process (staged only)")
    add("--max_train_images", type=positive_int, help="train on the first N photos of the list (default: all)")
    add("--fusion_seed", type=seed_int, default=0, help="seed of the fusion layer's weights")
    add("--fusion_checkpoint", type=Path, help="file with fusion weights instead: released .ckpt, or .safetensors")
    add("--seed", type=seed_int, default=0, help="seed of noise, timesteps and order")
    add("--mixed_precision", choices=("no", "fp16", "bf16"), default="no", help="precision of the UNet's arithmetic")
    add("--gradient_checkpointing", action="store_true", help="less memory, about a third more time")
    add("--use_8bit_adam", action="store_true", help="Stage III with bitsandbytes' 8-bit Adam, for less memory")
    add("--compile", action="store_true", help="torch.compile the UNet")
    add("--checkpointing_images", type=positive_int, default=100, help="photos' worth of work between checkpoints")
    add("--checkpoints_total_limit", type=positive_int, default=1, help="how many checkpoints to keep")
    add("--resume_from_checkpoint", help='"latest", or a checkpoint\'s name or path')
    add("--report_to", help="tensorboard, or another tracker that accelerate knows; logs in {output_dir}/logs")
    add("--save_single_file", action="store_true", help="also write {gesture}.safetensors in CompVis style")
    add("--skip_bad_images", action="store_true", help="leave unreadable photos out, don't stop")
    args = parser.parse_args(argv)
    args.output_dir = args.output_dir or Path("output") / args.gesture
    return args


def check_args(args: argparse.Namespace) -> None:
    """Refuse what can't work before anything heavy is imported."""
    if args.schedule == "interleaved" and num_processes() > 1:
        raise UserError(
            "--schedule interleaved goes photo by photo and can't use several processes; "
            "start it on one, or pass --schedule staged"
        )
    if args.schedule == "interleaved" and args.train_batch_size > 1:
        raise UserError("--schedule interleaved goes photo by photo: --train_batch_size needs --schedule staged")
    if args.use_8bit_adam and not importlib.util.find_spec("bitsandbytes"):
        raise UserError("--use_8bit_adam needs bitsandbytes: pip install bitsandbytes")
    if args.fusion_checkpoint and not args.fusion_checkpoint.is_file():
        raise UserError(f"{args.fusion_checkpoint}: no such file (--fusion_checkpoint)")
    check_model_path(args.pretrained_model_name_or_path, args.original_config, args.config)


def read_photos_and_captions(args: argparse.Namespace) -> tuple[list[Path], list[str]]:
    """The listed photos, all of them readable, and their enriched captions."""
    folder, stem = args.data_root / args.gesture, f"{args.gesture}_{args.captioner}"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; put the gesture's photos there")
    names_file, captions_file = args.data_root / f"{stem}_file_name.txt", args.data_root / f"{stem}_modified.txt"
    names, captions = read_paired_lines(names_file, captions_file)
    photos = [folder / name for name in names[: args.max_train_images]]
    for photo in photos:
        if not photo.is_file():
            raise UserError(f"{photo}: listed in {names_file} but not there")
    errors = unreadable_photos(photos)
    bad = [error for error in errors if error]
    if bad and not args.skip_bad_images:
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise UserError(f"{bad[0]}{others}, or pass --skip_bad_images")
    for error in bad:
        say(f"skipped: {error}")
    pairs = [(photo, caption) for photo, caption, error in zip(photos, captions, errors) if not error]
    if not pairs:
        raise UserError(f"{names_file}: none of its photos can be read")
    return [photo for photo, _ in pairs], [caption for _, caption in pairs]


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    check_args(args)
    photos, captions = read_photos_and_captions(args)
    feature_file = args.data_root / f"{args.gesture}.npy"
    if feature_file.is_file():
        load_gesture_feature(feature_file)  # complains now, not after the imports
        say(f"{feature_file}: taken as it is; delete it to have Stage I run again")
    check_writable(args.output_dir)

    accelerator = start_accelerator(args)
    if accelerator.is_main_process and not feature_file.is_file():
        compute_gesture_feature(args.data_root / args.gesture, feature_file, skip_bad_images=args.skip_bad_images)
    accelerator.wait_for_everyone()
    feature = load_gesture_feature(feature_file)

    settings = run_settings(args, photos, captions, feature, accelerator.num_processes)
    record = read_record(args.output_dir)
    if record and record["status"] == FINISHED and not differing_settings(record["settings"], settings):
        if args.save_single_file:
            add_single_file(args)
        say(f"{args.output_dir}: already finished with these settings")
        return
    checkpoint = checkpoint_to_resume(args.output_dir, settings, args.resume_from_checkpoint)
    if args.resume_from_checkpoint:
        say(f"going on from {checkpoint}" if checkpoint else f"{args.output_dir}: no checkpoint yet; starting anew")
    train(args, accelerator, photos, captions, feature, settings, checkpoint)


def run_settings(args, photos: list[Path], captions: list[str], feature, processes: int) -> dict:
    """All that the result depends on; two runs with the same settings end with the same weights."""
    return {
        **{key: value for key, value in plain_arguments(args).items() if key not in NOT_SETTINGS},
        "global_batch_size": args.train_batch_size * processes,
        "photos": len(photos),
        "photos_sha256": sha256_of_files(photos),
        "captions_sha256": hashlib.sha256("\n".join(captions).encode()).hexdigest(),
        "feature_sha256": feature_hash(feature),
        "model_fingerprint": fingerprint_if_local(args.pretrained_model_name_or_path),
        "fusion_fingerprint": fingerprint_if_local(args.fusion_checkpoint),
    }


def train(args, accelerator, photos, captions, feature, settings, checkpoint: Path | None) -> None:
    """Load the base model, encode the photos and captions, run the schedule, and write the run folder."""
    import torch

    from core.diffusion.stable_diffusion import training_scheduler
    from hand1000.checkpoints import checkpoint_saver, load_checkpoint
    from hand1000.training import Hyperparameters, TrainingState, denoising_loss, train_interleaved, train_staged

    pipe = load_base_model(args)
    state = load_checkpoint(checkpoint, pipe.unet) if checkpoint else TrainingState()
    data = encode(args, pipe, photos, captions, feature, accelerator.device)
    params = Hyperparameters(**{name: getattr(args, name) for name in Hyperparameters.__dataclass_fields__})
    noise_scheduler = training_scheduler(pipe)

    def make_loss(model: torch.nn.Module):
        model = torch.compile(model) if args.compile else model
        return functools.partial(denoising_loss, accelerator, model, noise_scheduler)

    accelerator.wait_for_everyone()  # every process has looked at the run folder before it changes
    with locked(args.output_dir):
        record = start_run(args, pipe, settings, checkpoint, accelerator)
        pipe.unet.to(accelerator.device).train()
        if args.gradient_checkpointing:
            pipe.unet.enable_gradient_checkpointing()
        every, keep = args.checkpointing_images, args.checkpoints_total_limit
        save = checkpoint_saver(args.output_dir, pipe.unet, settings, every=every, keep=keep, start=state.photos)
        schedule = train_interleaved if args.schedule == "interleaved" else train_staged
        schedule(accelerator, pipe.unet, make_loss, data, params, state, save)
        if accelerator.is_main_process:
            save_run(args, pipe, state, record)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def load_base_model(args):
    """The pipeline to fine-tune; refuses at once what would otherwise fail hours later."""
    from core.diffusion.single_file import check_convertible
    from core.diffusion.stable_diffusion import load_stable_diffusion
    from hand1000.fusion import fusion_features, open_weights

    pipe = load_stable_diffusion(
        args.pretrained_model_name_or_path,
        original_config=args.original_config,
        config=args.config,
        revision=args.revision,
        variant=args.variant,
    )
    if args.save_single_file:
        check_convertible(pipe)
    if args.fusion_checkpoint:
        open_weights(args.fusion_checkpoint, *fusion_features(pipe.text_encoder.config.hidden_size))
    return pipe


def encode(args, pipe, photos, captions, feature, device):
    """The photos' latents and double-fused embeddings, once and up front; then the VAE and text encoder are idle."""
    import torch

    from core.diffusion.stable_diffusion import encode_photos, encode_texts, latent_shape
    from hand1000.fusion import double_fusion, fuse
    from hand1000.training import TrainingSet, posterior_noise, staged_photo_seed

    shape = latent_shape(pipe, args.resolution)
    if args.schedule == "interleaved":
        seeds = [args.seed] * len(photos)
    else:
        seeds = [staged_photo_seed(args.seed, index) for index in range(len(photos))]
    latents = encode_photos(pipe.vae, photos, args.resolution, [posterior_noise(seed, shape) for seed in seeds], device)
    prompt_embeds = encode_texts(pipe, captions, device)
    fused_embeds = fuse(
        prompt_embeds,
        torch.from_numpy(feature),
        seed=args.fusion_seed,
        weights_file=args.fusion_checkpoint,
        device=device,
    )
    names = [photo.relative_to(args.data_root / args.gesture).as_posix() for photo in photos]
    return TrainingSet(names, latents, double_fusion(prompt_embeds, fused_embeds, args.Lambda))


def start_run(args, pipe, settings: dict, checkpoint: Path | None, accelerator) -> dict:
    """Mark the run folder as unfinished, warn of a disk too small, start the tracker; returns the run's record."""
    record = {
        "status": UNFINISHED,
        "base_model": args.pretrained_model_name_or_path,
        "fusion": {"file": "fusion.safetensors"} if args.fusion_checkpoint else {"seed": args.fusion_seed},
        "settings": settings,
        "arguments": plain_arguments(args),
        "software": software(),
    }
    if accelerator.is_main_process:
        # Once more, now that the folder is ours: another run may have ended there while the model was loading.
        if checkpoint_to_resume(args.output_dir, settings, args.resume_from_checkpoint) != checkpoint:
            raise UserError(f"{args.output_dir}: another training has been there meanwhile; start again")
        write_record(args.output_dir, record)
        warn_of_full_disk(args, pipe)
    if args.report_to:
        accelerator.init_trackers("train")
    return record


def warn_of_full_disk(args, pipe) -> None:
    """Say before training starts when the disk will not hold the next checkpoint beside the finished model."""
    from hand1000.checkpoints import gigabytes, model_bytes

    checkpoint = model_bytes(pipe.unet) * (3 if args.schedule == "staged" else 1)  # Adam keeps two values a weight
    model = model_bytes(pipe.unet, pipe.vae, pipe.text_encoder) * (1 + args.save_single_file)
    needed = checkpoint + model
    needed += args.fusion_checkpoint.stat().st_size if args.fusion_checkpoint else 0
    free = free_bytes(args.output_dir)
    if free < needed:
        say(
            f"warning: {args.output_dir}: {gigabytes(free)} free, but the next checkpoint and the finished model need "
            f"{gigabytes(needed)}; free some space while training runs"
        )


def save_run(args, pipe, state, record: dict) -> None:
    """Write the finished run; the record's "finished" comes last, when all the rest is there."""
    from core.diffusion.single_file import save_single_file
    from hand1000.checkpoints import WRITE_ERRORS, save_model
    from hand1000.fusion import save_fusion_weights

    try:
        if args.fusion_checkpoint:
            with atomic_file(args.output_dir / "fusion.safetensors") as temporary:
                save_fusion_weights(args.fusion_checkpoint, temporary, pipe.text_encoder.config.hidden_size)
        if args.save_single_file:
            save_single_file(pipe, single_file_path(args))
        write_losses(args.output_dir / "losses.csv", state.losses)
        save_model(args.output_dir, pipe)
        write_record(args.output_dir, {**record, "status": FINISHED})
    except WRITE_ERRORS as error:
        raise UserError(
            f"{args.output_dir}: can't save the model ({error}); free some space and start again "
            "with --resume_from_checkpoint latest"
        ) from None
    say(f"{args.output_dir}: finished, {record['settings']['photos']} photos, {len(state.losses)} losses in losses.csv")


def single_file_path(args) -> Path:
    return args.output_dir / f"{args.gesture}.safetensors"


def add_single_file(args) -> None:
    """`--save_single_file` for a run that was finished without it."""
    if not is_main_process() or single_file_path(args).is_file():
        return
    from core.diffusion.single_file import check_convertible, save_single_file
    from core.diffusion.stable_diffusion import load_stable_diffusion

    pipe = load_stable_diffusion(str(args.output_dir))
    check_convertible(pipe)
    save_single_file(pipe, single_file_path(args))
    say(f"{single_file_path(args)}: written")


if __name__ == "__main__":
    main()
