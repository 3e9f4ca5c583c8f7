"""Stages II and III of Hand1000: fine-tune Stable Diffusion to a gesture.

Reads from --data_root (for gesture "call", captioner "BLIP2"): the photos in call/, their names in
call_BLIP2_file_name.txt, their enriched captions in call_BLIP2_modified.txt, and the gesture feature call.npy, which is
made first (Stage I) if it is missing. Writes a diffusers folder that any diffusers program loads (with --lora_rank a
LoRA in diffusers' format), with losses.csv and hand1000.json beside it.

Examples:
  python train.py --gesture call --Lambda 0.7
  python train.py --gesture call --mixed_precision bf16 --gradient_checkpointing --resume_from_checkpoint latest
  accelerate launch --num_processes 2 train.py --gesture call --schedule staged --train_batch_size 4
"""

import argparse
from pathlib import Path

from core.diffusion.hub_runs import check_push
from core.diffusion.model_path import check_model_path
from core.diffusion.options import (
    HUB_OPTIONS,
    add_hub_options,
    add_model_options,
    add_training_options,
    check_8bit_adam,
)
from core.runs.command_line import (
    argument_parser,
    command_line,
    folder_name,
    fraction,
    learning_rate,
    natural_int,
    pixels,
    plain_arguments,
    positive_int,
    seed_int,
)
from core.runs.errors import UserError
from core.runs.files import check_writable
from core.runs.processes import counted, num_processes, say, start_accelerator
from core.runs.run import Run
from hand1000.gesture_files import CAPTIONER, GestureFiles
from hand1000.hyperparameters import CONSTANT, INTERLEAVED, LORA_LR, LR_SCHEDULERS, STAGED, Hyperparameters
from hand1000.presentation import present_run
from hand1000.trained import RECORD
from hand1000.training import (
    add_single_file,
    check_base_model,
    encode,
    input_hashes,
    read_photos_and_captions,
    run_facts,
    save_model,
    stage_one,
    warn_of_full_disk,
)

# torch and diffusers are imported inside functions: --help and a wrong path answer at once.

MOST_RANK = 320  # numbers of a side of Stable Diffusion's smallest attention matrix

# What may differ between a run and its continuation.
NOT_SETTINGS = {
    "data_root",
    "output_dir",
    "max_train_images",  # the photos themselves are compared
    "train_batch_size",  # the global batch size is compared; how it is shared out is float rounding
    "checkpointing_images",
    "checkpoints_total_limit",
    "gradient_checkpointing",  # float rounding at most
    "resume_from_checkpoint",
    "report_to",
    "save_single_file",
    "skip_bad_images",
    "validation_prompts",
    "num_validation_images",
    *HUB_OPTIONS,
}


def parse_args(argv=None) -> argparse.Namespace:
    parser, released = argument_parser(__doc__), Hyperparameters()
    add = parser.add_argument
    add("--gesture", type=folder_name, required=True, help="name of the gesture, e.g. call")
    add(
        "--Lambda",
        type=fraction,
        default=released.Lambda,
        help="share of the plain text embedding, 0 to 1; the rest is fused with the gesture",
    )
    add("--data_root", type=Path, default=Path(), help="folder of the gesture's photos and lists")
    add("--captioner", default=CAPTIONER, help="whose captions: BLIP2, PaliGemma, VitGpt2, plain, or your own name")
    add("--output_dir", type=Path, help="run folder (default: output/{gesture})")
    add_model_options(parser, default="CompVis/stable-diffusion-v1-4")
    add("--revision", help="revision of a hub id, e.g. non-ema")
    add("--variant", help="variant of a hub id's files, e.g. fp16")
    add(
        "--resolution",
        type=pixels,
        default=released.resolution,
        help="pixels per side: shorter side resized, centre crop",
    )
    add(
        "--schedule",
        choices=(INTERLEAVED, STAGED),
        default=released.schedule,
        help="interleaved: photo by photo, as the released code; staged: Stage II for all, then III, as the paper",
    )
    add("--embedding_steps", type=natural_int, default=released.embedding_steps, help="Stage II steps per photo")
    add("--embedding_lr", type=learning_rate, default=released.embedding_lr, help="Stage II learning rate")
    add("--finetune_steps", type=natural_int, default=released.finetune_steps, help="Stage III steps per photo")
    rates = f"{released.finetune_lr:g}; {LORA_LR:g} with --lora_rank"
    add("--finetune_lr", type=learning_rate, help=f"Stage III learning rate (default: {rates})")
    add(
        "--lr_scheduler",
        choices=LR_SCHEDULERS,
        help="Stage III's learning rate: constant (default, as released), or falling to 0 (staged only)",
    )
    add(
        "--lora_rank",
        type=lora_rank,
        help="train a LoRA of this rank in Stage III instead of the whole UNet: less memory, and a file of megabytes",
    )
    add(
        "--noise_offset",
        type=fraction,
        help="0 to 1: varies the noise's mean, for a model that was trained so; 0.1 is usual (released: not at all)",
    )
    add("--train_batch_size", type=positive_int, default=1, help="photos per step on each process (staged only)")
    add("--max_train_images", type=positive_int, help="train on the first N photos of the list (default: all)")
    add("--fusion_seed", type=seed_int, default=0, help="seed of the fusion layer's weights")
    add("--fusion_checkpoint", type=Path, help="file with fusion weights instead: released .ckpt, or .safetensors")
    add_training_options(parser, seed_of="noise, timesteps and order")
    add(
        "--compile",
        nargs="?",
        const="default",
        choices=("default", "reduce-overhead", "max-autotune"),
        help="torch.compile the UNet in this mode; reduce-overhead records CUDA graphs: minutes to start, then faster",
    )
    add("--channels_last", action="store_true", help="the UNet's memory format for fast convolutions on GPUs")
    add(
        "--checkpointing_images",
        type=positive_int,
        default=100,
        help="photos between two checkpoints",
    )
    add("--save_single_file", action="store_true", help="also write {gesture}.safetensors in CompVis style")
    add("--skip_bad_images", action="store_true", help="leave unreadable photos out, don't stop")
    add("--validation_prompts", nargs="+", help="prompts to draw after training, for the model card (default: none)")
    add("--num_validation_images", type=positive_int, default=4, help="pictures of each of them")
    add_hub_options(parser)
    args = parser.parse_args(argv)
    args.output_dir = args.output_dir or Path("output") / args.gesture
    if args.lr_scheduler == CONSTANT:
        args.lr_scheduler = None  # the same run, whether the default is named or not
    if args.finetune_lr is None:
        args.finetune_lr = LORA_LR if args.lora_rank else released.finetune_lr
    return args


def lora_rank(text: str) -> int:
    """argparse type: a rank that is smaller than the matrices."""
    value = positive_int(text)
    if value > MOST_RANK:
        raise argparse.ArgumentTypeError(f"{text}: a rank of more than {MOST_RANK} is no low rank")
    return value


def check_args(args: argparse.Namespace) -> None:
    """Refuse what can't work before anything heavy is imported."""
    if args.schedule == INTERLEAVED and num_processes() > 1:
        raise UserError(
            "--schedule interleaved goes photo by photo and can't use several processes; "
            "start it on one, or pass --schedule staged"
        )
    if args.schedule == INTERLEAVED and args.train_batch_size > 1:
        raise UserError("--schedule interleaved goes photo by photo: --train_batch_size needs --schedule staged")
    if args.schedule == INTERLEAVED and args.lr_scheduler:
        raise UserError(
            f"--schedule interleaved begins anew with every photo: --lr_scheduler {args.lr_scheduler} needs "
            "--schedule staged"
        )
    if args.lora_rank and args.save_single_file:
        raise UserError("--save_single_file writes a whole model, and with --lora_rank there is none: leave it out")
    check_8bit_adam(args.use_8bit_adam)
    if args.fusion_checkpoint and not args.fusion_checkpoint.is_file():
        raise UserError(f"{args.fusion_checkpoint}: no such file (--fusion_checkpoint)")
    check_model_path(args.pretrained_model_name_or_path, args.original_config, args.config, args.revision)
    check_push(args.push_to_hub, args.hub_model_id, args.output_dir)
    check_writable(args.output_dir)


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    check_args(args)
    files = GestureFiles(args.data_root, args.gesture, args.captioner)
    photos, captions = read_photos_and_captions(
        files, max_train_images=args.max_train_images, skip_bad_images=args.skip_bad_images
    )
    feature = stage_one(files, skip_bad_images=args.skip_bad_images)
    options = {name: value for name, value in vars(args).items() if name in Hyperparameters._fields}
    params = Hyperparameters(**options, global_batch_size=args.train_batch_size * num_processes())
    base_model, single_file = args.pretrained_model_name_or_path, args.output_dir / f"{args.gesture}.safetensors"
    # All that the result depends on: two runs with the same settings end with the same weights.
    settings = {
        **plain_arguments(args, without=NOT_SETTINGS),
        **input_hashes(photos, captions, feature, base_model, params),
        "global_batch_size": params.global_batch_size,
    }

    def present() -> None:
        present_run(
            args.output_dir,
            feature,
            validation_prompts=args.validation_prompts,
            num_validation_images=args.num_validation_images,
            push_to_hub=args.push_to_hub,
            hub_model_id=args.hub_model_id,
            private=args.hub_private_repo,
        )

    run = Run(args.output_dir / RECORD, settings, what="training")
    with run.hold():
        if run.is_finished():
            if args.save_single_file:
                add_single_file(run.folder, single_file)
            say(f"{run.folder}: already finished with these settings")
            present()
            return
        checkpoint = run.checkpoint_to_resume(args.resume_from_checkpoint)
        if args.resume_from_checkpoint:
            say(f"resuming from {checkpoint}" if checkpoint else f"{run.folder}: no checkpoint yet; starting anew")

        from core.diffusion.noise import training_scheduler
        from core.diffusion.stable_diffusion import load_stable_diffusion
        from hand1000.checkpoints import load_checkpoint, save_checkpoint
        from hand1000.lora import add_lora
        from hand1000.schedules import first_state, train

        accelerator = start_accelerator(
            mixed_precision=args.mixed_precision,
            allow_tf32=args.allow_tf32,
            report_to=args.report_to,
            output_dir=run.folder,
        )
        pipe = load_stable_diffusion(
            base_model,
            original_config=args.original_config,
            config=args.config,
            revision=args.revision,
            variant=args.variant,
        )
        check_base_model(pipe, params, save_single_file=args.save_single_file)
        if params.lora_rank:
            add_lora(pipe.unet, params.lora_rank, seed=params.seed, mixed_precision=params.mixed_precision)
        state = load_checkpoint(run, checkpoint, pipe, params, len(photos)) if checkpoint else first_state(params)
        data = encode(pipe, files.photos, photos, captions, feature, params, accelerator.device)

        accelerator.wait_for_everyone()  # every process has looked at the run folder before it changes
        facts = run_facts(base_model, params, plain_arguments(args))
        run.begin(**facts)
        if args.report_to:
            accelerator.init_trackers("train")
        warn_of_full_disk(run.folder, pipe, params, save_single_file=args.save_single_file)
        pipe.unet.to(accelerator.device).train()
        if args.gradient_checkpointing:
            pipe.unet.enable_gradient_checkpointing()
        saved, every = state.photos, args.checkpointing_images
        for _ in train(accelerator, pipe.unet, training_scheduler(pipe), data, params, state):
            if state.photos // every > saved // every:
                saved = state.photos
                save_checkpoint(run, pipe.unet, state, keep=args.checkpoints_total_limit)
        save_model(run.folder, pipe, state, params, single_file if args.save_single_file else None)
        run.finish(**facts)
        say(f"{run.folder}: finished, {counted(len(photos), 'photo')}, {len(state.losses)} losses in losses.csv")
        accelerator.wait_for_everyone()
        accelerator.end_training()
        present()


if __name__ == "__main__":
    main()
