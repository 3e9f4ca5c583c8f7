"""Train AttentionHand: the visual attention stage on global and local views, with the text attention stage before it.

Reads {data_dir}/modalities.json. Writes a folder that ControlNetModel.from_pretrained loads, with losses.csv,
checkpoints/ and, every --validation_steps, pictures of mesh | photo | generated. The base model stays frozen, unless
--sd_unlocked.

Examples:
  python -m attentionhand.train --data_dir data --max_train_steps 10000 --mixed_precision fp16 --tas_model shared
  python -m attentionhand.train --data_dir data --resume_path weights/attentionhand.ckpt --output_dir output/finetuned
  accelerate launch --num_processes 2 -m attentionhand.train --data_dir data --train_batch_size 4
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python attentionhand/train.py`

from attentionhand.model_card import card_of_run
from attentionhand.runs import (
    LOSS_COLUMNS,
    STAGE_FILE,
    TRAINING,
    finished_training,
    steps_of,
    weights_fingerprint,
)
from core.diffusion.hub_runs import check_push, publish_run
from core.diffusion.model_card import SAMPLES
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
    learning_rate,
    natural_int,
    pixels,
    plain_arguments,
    positive_int,
)
from core.runs.errors import UserError
from core.runs.files import check_outputs, check_writable, model_identity
from core.runs.processes import counted, from_main_process, progress, say, start_accelerator
from core.runs.run import FINISHED, Run, warn_of_small_disk
from core.runs.software import software

if TYPE_CHECKING:
    from attentionhand.data import Sample

# torch and diffusers are imported inside functions: --help and a wrong path answer at once.

# Arguments that the weights do not depend on, and may differ between a run and its continuation.
NOT_SETTINGS = {
    "data_dir",  # its contents are what counts
    "output_dir",
    "num_workers",
    "gradient_checkpointing",  # the same numbers for less memory
    "report_to",
    "save_single_file",
    "max_train_steps",  # a run may be extended
    "num_train_epochs",
    "logging_steps",
    "validation_steps",
    "checkpointing_steps",
    "checkpoints_total_limit",
    "resume_from_checkpoint",
    *HUB_OPTIONS,
}
VALIDATION_SAMPLES = 4


def parse_args(argv=None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--data_dir", type=Path, default=Path("data"), help="folder with modalities.json")
    add("--output_dir", type=Path, default=Path("output/attentionhand"), help="run folder")
    add_model_options(parser, "stable-diffusion-v1-5/stable-diffusion-v1-5")
    add("--resume_path", type=Path, help="weights to fine-tune: a run folder or a released .ckpt")
    add("--resolution", type=pixels, default=512, help="pixels per side of both views")
    add("--learning_rate", type=learning_rate, default=1e-5, help="learning rate of AdamW (weight decay 0.01)")
    add("--train_batch_size", type=positive_int, default=1, help="samples per step on each process")
    add("--max_train_steps", type=positive_int, help="steps in all (overrides --num_train_epochs)")
    add("--num_train_epochs", type=positive_int, default=10, help="passes over the data")
    add(
        "--control",
        choices=("controlnet", "t2i_adapter"),
        default="controlnet",
        help="what is trained: the paper's stage, or for comparison diffusers' T2I-Adapter",
    )
    add("--sd_unlocked", action="store_true", help="also train the UNet's decoder")
    add("--only_mid_control", action="store_true", help="control the UNet's middle block only")
    add("--no_tas", action="store_true", help="leave the text attention stage out")
    add(
        "--tas_model",
        default="CompVis/stable-diffusion-v1-4",
        help="frozen model of the text attention stage; shared: the base model's UNet, for less memory",
    )
    add("--tas_steps", type=positive_int, default=50, help="gradient steps of the text attention stage")
    add(
        "--tas_every", type=positive_int, default=1, help="training steps to the next one with the text attention stage"
    )
    add(
        "--tas_tokens",
        choices=("words", "released"),
        default="words",
        help="excite the hand words, or the tokens that the released code takes",
    )
    add(
        "--tas_verbs",
        choices=("ending", "nltk"),
        default="ending",
        help="verbs to excite: words ending in -ing but for known nouns, or NLTK's VBG as released",
    )
    add(
        "--local_view",
        choices=("paper", "released", "none", "only"),
        default="paper",
        help="paper: noise the local view's own latents; released: the global latents; none: no local loss; only: no "
        "global loss",
    )
    add_training_options(parser, seed_of="first weights, order, noise and timesteps")
    add("--num_workers", type=natural_int, default=2, help="processes that read pictures")
    add("--logging_steps", type=positive_int, default=10, help="training steps between looks at the losses")
    add("--validation_steps", type=natural_int, default=500, help="steps between validation pictures; 0: none")
    add("--checkpointing_steps", type=positive_int, default=500, help="steps between checkpoints")
    add(
        "--save_single_file",
        type=Path,
        help="also write all weights with the released names to this .ckpt or .safetensors file",
    )
    add_hub_options(parser)
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace) -> None:
    """Refuse what can't work before anything heavy is imported."""
    check_model_path(args.pretrained_model_name_or_path, args.original_config, args.config)
    if not args.no_tas and args.tas_model != "shared":
        check_model_path(args.tas_model, None, None)
    check_8bit_adam(args.use_8bit_adam)
    if args.control == "t2i_adapter" and (
        args.only_mid_control or args.save_single_file or args.gradient_checkpointing
    ):
        raise UserError(
            "--control t2i_adapter goes without --only_mid_control, --save_single_file and --gradient_checkpointing"
        )
    if args.resume_path:
        if not args.resume_path.exists():
            raise UserError(f"{args.resume_path}: no such file or folder (--resume_path)")
        finished_training(args.resume_path)  # or UserError
    check_push(args.push_to_hub, args.hub_model_id, args.output_dir)
    check_writable(args.output_dir)
    if args.save_single_file:
        inputs = (args.pretrained_model_name_or_path, args.tas_model, args.resume_path, args.resume_from_checkpoint)
        check_single_file(args.save_single_file, args.output_dir, [Path(path) for path in inputs if path])


def settings_of(args: argparse.Namespace, samples: "Sequence[Sample]", batch_size: int) -> dict[str, Any]:
    """All that the weights depend on, but for the number of steps: a run may be extended."""
    from attentionhand.data import content_hash

    return {
        **plain_arguments(args, without=NOT_SETTINGS),
        "pretrained_model_name_or_path": model_identity(args.pretrained_model_name_or_path),
        "original_config": model_identity(args.original_config),
        "config": model_identity(args.config),
        "tas_model": args.tas_model if args.tas_model == "shared" else model_identity(args.tas_model),
        "resume_path": weights_fingerprint(args.resume_path) if args.resume_path else None,
        "global_batch_size": batch_size,
        "samples": len(samples),
        "data_sha256": from_main_process(content_hash, samples),
    }


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    check_args(args)

    from attentionhand.data import check_views, load_batches, read_modalities

    samples = read_modalities(args.data_dir / "modalities.json")
    accelerator = start_accelerator(
        mixed_precision=args.mixed_precision,
        allow_tf32=args.allow_tf32,
        report_to=args.report_to,
        output_dir=args.output_dir,
    )
    batch_size = args.train_batch_size * accelerator.num_processes
    steps = args.max_train_steps or args.num_train_epochs * math.ceil(len(samples) / batch_size)
    facts = {
        "steps": steps,
        "base_model": args.pretrained_model_name_or_path,
        "arguments": plain_arguments(args),
        "software": software(),
    }

    def present() -> None:
        if accelerator.is_main_process:
            publish_run(
                args.output_dir,
                card_of_run,
                push_to_hub=args.push_to_hub,
                hub_model_id=args.hub_model_id,
                private=args.hub_private_repo,
            )

    run = Run(args.output_dir / TRAINING, settings_of(args, samples, batch_size), what="training")
    with run.hold():
        accelerator.wait_for_everyone()  # the main process holds the folder
        if has_made(run, steps, args.resume_from_checkpoint):
            say(f"{args.output_dir}: already finished with these settings and {counted(steps, 'step')}")
            if args.save_single_file and accelerator.is_main_process:
                from attentionhand.weights import save_run_as_single_file

                save_run_as_single_file(
                    args.output_dir,
                    args.save_single_file,
                    args.pretrained_model_name_or_path,
                    original_config=args.original_config,
                    config=args.config,
                )
            accelerator.end_training()
            present()
            return
        checkpoint = run.checkpoint_to_resume(args.resume_from_checkpoint)
        if args.resume_from_checkpoint and not checkpoint:
            if run.is_finished():
                raise UserError(
                    f"{run.folder}: finished, but without a checkpoint to extend it from; choose another --output_dir"
                )
            say(f"{run.folder}: no checkpoint yet; starting anew")
        accelerator.wait_for_everyone()  # every process has looked at the folder before it changes
        if checkpoint is None and accelerator.is_main_process:  # a run that is resumed has been checked
            check_views(samples, args.resolution)

        import torch
        from accelerate.utils import send_to_device
        from diffusers import T2IAdapter

        from attentionhand.adapter import new_adapter
        from attentionhand.checkpoints import load_checkpoint, needed_bytes, save_checkpoint, save_finished
        from attentionhand.embeddings import distinct, open_embeddings, remove_embeddings, write_embeddings
        from attentionhand.hand_words import excited_positions, warn_of_texts
        from attentionhand.training import (
            decoder_of,
            make_optimizer,
            share_gradients,
            text_attention_unet,
            training_step,
            validate,
        )
        from attentionhand.visual_attention import draw_noise, new_stage
        from attentionhand.weights import load_decoder, load_stage
        from core.diffusion.encoding import encode_texts, latent_shape
        from core.diffusion.noise import training_scheduler
        from core.diffusion.single_file import check_convertible
        from core.diffusion.stable_diffusion import load_stable_diffusion

        # Networks: the stage is trained, with --sd_unlocked the UNet's decoder too; all else is frozen.
        device = accelerator.device
        pipe = load_stable_diffusion(
            args.pretrained_model_name_or_path, original_config=args.original_config, config=args.config
        )
        shape = (batch_size, *latent_shape(pipe, args.resolution)[1:])
        if args.save_single_file:
            check_convertible(pipe)
        if args.resume_path:
            stage = load_stage(args.resume_path, pipe)
            has_own_unet = load_decoder(args.resume_path, pipe)
            if isinstance(stage, T2IAdapter) != (args.control == "t2i_adapter"):
                raise UserError(f"{args.resume_path}: not the weights of a {args.control} (--control)")
        else:
            new = new_adapter if args.control == "t2i_adapter" else new_stage
            stage, has_own_unet = new(pipe.unet, pipe.vae, args.seed), False
        stage.train().requires_grad_(True)
        if args.gradient_checkpointing:
            stage.enable_gradient_checkpointing()
        decoder = decoder_of(pipe.unet) if args.sd_unlocked else None
        if decoder:
            decoder.requires_grad_(True)
        own_unet = pipe.unet if decoder or has_own_unet else None  # saved with the stage
        tas_unet = None if args.no_tas else text_attention_unet(args.tas_model, pipe)

        # Texts: their embeddings, on disk.
        texts = [sample.text for sample in samples]
        file = write_embeddings(
            pipe, texts, args.output_dir, device, model=run.settings["pretrained_model_name_or_path"]
        )
        accelerator.wait_for_everyone()
        embeds, negative_embeds = open_embeddings(file, texts), encode_texts(pipe, [""], device, desc=None)
        if not args.no_tas and accelerator.is_main_process:
            warn_of_texts(pipe.tokenizer, distinct(texts)[0], args.tas_verbs)

        # Optimizer, and the step to start at.
        for model in filter(None, (stage, pipe.unet, pipe.vae, tas_unet)):
            model.to(device)
        parameters = [*stage.parameters(), *(decoder.parameters() if decoder else [])]
        optimizer = make_optimizer(parameters, args.learning_rate, use_8bit_adam=args.use_8bit_adam)
        optimizer = accelerator.prepare(optimizer)
        parts = {"stage": stage, "unet": own_unet, "optimizer": optimizer, "scaler": accelerator.scaler}
        start, losses = 0, list[list[Any]]()
        if checkpoint:
            start, losses = load_checkpoint(run, checkpoint, **parts)
            say(f"resuming from {checkpoint}")
        if start > steps:
            raise UserError(
                f"{checkpoint}: made after {counted(start, 'step')}, which is more than the {steps} asked for"
            )
        run.begin(**facts)
        if args.report_to:
            accelerator.init_trackers("attentionhand")
        warn_of_small_disk(
            args.output_dir, needed_bytes(pipe, stage, own_unet, single_file=bool(args.save_single_file))
        )

        first = accelerator.process_index * args.train_batch_size
        own = slice(first, first + args.train_batch_size)  # this process's part of every batch
        batches = load_batches(
            samples,
            args.resolution,
            batch_size=batch_size,
            own=own,
            start=start,
            steps=steps,
            seed=args.seed,
            num_workers=args.num_workers,
        )
        noise_scheduler = training_scheduler(pipe)
        columns = ["local_loss"] if args.local_view == "only" else list(LOSS_COLUMNS[1:])
        waiting: list[torch.Tensor] = []  # the losses of the last steps, still on the device
        bar = progress(batches, total=steps, initial=start, desc="Training", unit="step")
        for step, pair in enumerate(bar, start=start):
            rows = pair.index.tolist()
            pair, prompt_embeds = send_to_device(pair, device), embeds[rows].to(device)
            noise = draw_noise(args.seed, step, shape, own, device)
            own_texts = [texts[row] for row in rows]
            positions = excited_positions(pipe.tokenizer, own_texts, args.tas_tokens, args.tas_verbs)
            losses_of_views = training_step(
                accelerator,
                pipe,
                stage,
                tas_unet if step % args.tas_every == 0 else None,
                noise_scheduler,
                pair,
                prompt_embeds,
                noise,
                positions,
                local_view=args.local_view,
                tas_steps=args.tas_steps,
                only_mid_control=args.only_mid_control,
                gradient_checkpointing=args.gradient_checkpointing,
            )
            share_gradients(accelerator, parameters)
            optimizer.step()
            optimizer.zero_grad()

            done, is_last = step + 1, step + 1 == steps
            waiting.append(losses_of_views)
            pictures_due, checkpoint_due = (
                is_due(every, done, is_last) for every in (args.validation_steps, args.checkpointing_steps)
            )
            if pictures_due or checkpoint_due or is_due(args.logging_steps, done, is_last):
                values = accelerator.reduce(torch.stack(waiting), "mean").tolist()
                for number, row in enumerate(values, start=done - len(waiting)):
                    logged = dict(zip(columns, row))
                    if not all(map(math.isfinite, row)):
                        raise UserError(
                            f"the loss became {logged} at step {number}; lower --learning_rate, or use bf16, not fp16"
                        )
                    losses.append([number, *(logged.get(name, "") for name in LOSS_COLUMNS[1:])])
                    accelerator.log(logged, step=number)
                bar.set_postfix(loss=f"{sum(values[-1]) / len(values[-1]):.4f}")
                waiting.clear()
            # The pictures come before the checkpoint: a run that is killed in between draws them again.
            if accelerator.is_main_process and pictures_due:
                validate(
                    args.output_dir / "validation" / f"step_{done:06}.png",
                    pipe,
                    stage,
                    samples[:VALIDATION_SAMPLES],
                    embeds[range(min(VALIDATION_SAMPLES, len(samples)))],
                    negative_embeds,
                    resolution=args.resolution,
                    seed=args.seed,
                    only_mid_control=args.only_mid_control,
                    without_photos=args.output_dir / SAMPLES if is_last else None,
                )
            if accelerator.is_main_process and checkpoint_due:
                save_checkpoint(run, done, **parts, losses=losses, keep=args.checkpoints_total_limit)

        if accelerator.is_main_process:
            if not args.validation_steps:
                (args.output_dir / SAMPLES).unlink(missing_ok=True)  # of the run that this one extends
            save_finished(args.output_dir, pipe, stage, own_unet, losses, args.save_single_file)
            remove_embeddings(args.output_dir)
            run.finish(**facts)
            say(f"{args.output_dir}: {counted(steps, 'step')}, loads with {type(stage).__name__}.from_pretrained")
        accelerator.wait_for_everyone()
        accelerator.end_training()
        present()


def is_due(every: int, done: int, is_last: bool) -> bool:
    """Whether something is to be done after `done` steps: `every` so many and after the last; never where it is 0."""
    return every > 0 and (is_last or done % every == 0)


def check_single_file(path: Path, output_dir: Path, inputs: Sequence[Path]) -> None:
    """Refuse a --save_single_file that can't be written, or that would overwrite weights that are needed.

    Args:
        inputs: files and folders of weights that the training starts from.

    Raises:
        UserError
    """
    check_outputs(path)
    if path.suffix not in (".ckpt", ".safetensors"):
        raise UserError(f"--save_single_file {path}: name a .ckpt or a .safetensors file")
    target, own = path.resolve(), output_dir.resolve()
    for given in (given.resolve() for given in inputs if given.exists()):
        if target == given or (given != own and given in target.parents):
            raise UserError(f"--save_single_file {path}: would overwrite weights that the training starts from")
    if own in target.parents and (target.parent != own or target.name == STAGE_FILE):
        raise UserError(f"--save_single_file {path}: would overwrite weights of the run itself")


def has_made(run: Run, steps: int, resume: str | None) -> bool:
    """Whether the run is finished with as many steps; False where it is to be started, resumed or extended.

    Raises:
        UserError: as `Run.record`; finished with more steps, or with fewer and not to be resumed.
    """
    record = run.record()
    if record is None or record.status != FINISHED:
        return False
    done = steps_of(run.folder, record)
    if done > steps or (done < steps and not resume):
        extend = "; to extend it, pass --resume_from_checkpoint latest" if done < steps else ""
        raise UserError(
            f"{run.folder}: holds a finished training of {counted(done, 'step')}, not {steps}{extend}; "
            "or choose another --output_dir"
        )
    return done == steps


if __name__ == "__main__":
    main()
