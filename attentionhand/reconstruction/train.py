"""Train a network for 3D hand reconstruction on labelled pictures: from the lab, from the wild, or generated.

Reads folders with rgb/, modalities.json and joints.npz, as attentionhand.prepare, synthetic_hands.make_dataset and
attentionhand.evaluate --export write them. Writes a run folder: model.safetensors, losses.csv, checkpoints/ and the
record reconstruction.json.

Examples:
  python -m attentionhand.reconstruction.train --data lab --output_dir output/lab
  python -m attentionhand.reconstruction.train --data lab --data generated --shares 1 1 --output_dir output/more
  accelerate launch --num_processes 2 -m attentionhand.reconstruction.train --data lab --output_dir output/lab
"""

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `python attentionhand/reconstruction/train.py`

from core.diffusion.options import add_checkpoint_options, add_precision_option
from core.runs.command_line import (
    argument_parser,
    command_line,
    learning_rate,
    natural_int,
    pixels,
    plain_arguments,
    positive_int,
    real_number,
    seed_int,
)
from core.runs.errors import UserError
from core.runs.files import atomic_parts, check_writable
from core.runs.processes import counted, from_main_process, progress, say, start_accelerator
from core.runs.run import Run, saving
from core.runs.software import software

# torch is imported inside main: --help and a wrong path answer at once.

BACKBONES = ("resnet10", "resnet18", "resnet50")
# Arguments that may differ between a run and its continuation; the data counts by its content.
NOT_SETTINGS = {
    *("data", "output_dir", "num_workers", "checkpointing_steps", "checkpoints_total_limit", "report_to"),
    *("max_train_steps", "num_train_epochs", "train_batch_size", "resume_from_checkpoint"),
}


def parse_args(argv=None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, action="append", required=True, help="folder of labelled pictures; may be repeated")
    add("--shares", type=real_number, nargs="+", help="share of each --data in the training (default: by their sizes)")
    add("--output_dir", type=Path, required=True, help="run folder")
    add("--backbone", choices=BACKBONES, default="resnet18", help="torchvision's; resnet10 is for miniatures")
    add("--imagenet", action="store_true", help="start from torchvision's ImageNet weights, which it downloads")
    add("--image_size", type=pixels, default=256, help="pixels a side of the crop around the hands")
    add("--learning_rate", type=learning_rate, default=3e-4, help="highest learning rate of AdamW")
    add("--train_batch_size", type=positive_int, default=32, help="pictures a step on each process")
    add("--max_train_steps", type=positive_int, help="steps in all (overrides --num_train_epochs)")
    add("--num_train_epochs", type=positive_int, default=20, help="passes over the data")
    add("--seed", type=seed_int, default=0, help="seed of weights, order and augmentation")
    add_precision_option(parser)
    add("--num_workers", type=natural_int, default=2, help="processes that read pictures; 0: this one")
    add("--checkpointing_steps", type=positive_int, default=500, help="steps between checkpoints")
    add_checkpoint_options(parser)
    return parser.parse_args(argv)


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    check_writable(args.output_dir)
    check_shares(args.shares, len(args.data))

    from attentionhand.reconstruction.data import check_photos, check_same_unit, joined, read_hands, settings_of_data

    sets = [read_hands(folder) for folder in args.data]
    unit = check_same_unit(sets)
    sizes = [len(hands.photos) for hands in sets]
    accelerator = start_accelerator(
        mixed_precision=args.mixed_precision, report_to=args.report_to, output_dir=args.output_dir
    )
    batch_size = args.train_batch_size * accelerator.num_processes
    steps = args.max_train_steps or math.ceil(args.num_train_epochs * sum(sizes) / batch_size)
    settings = {
        **plain_arguments(args, without=NOT_SETTINGS),
        "unit": unit,
        "steps": steps,  # the learning rate's way down depends on them
        "global_batch_size": batch_size,
        **from_main_process(settings_of_data, sets),
    }
    facts = {"arguments": {**plain_arguments(args), "data": list(map(str, args.data))}, "software": software()}
    run = Run(args.output_dir / "reconstruction.json", settings, what="training")
    with run.hold():
        accelerator.wait_for_everyone()  # the main process holds the folder
        if run.is_finished():
            say(f"{args.output_dir}: already finished with these settings")
            accelerator.end_training()
            return
        checkpoint = run.checkpoint_to_resume(args.resume_from_checkpoint)
        accelerator.wait_for_everyone()  # every process has looked at the folder before it changes
        if accelerator.is_main_process:
            check_photos(sets)
        accelerator.wait_for_everyone()

        import torch
        from accelerate.utils import send_to_device

        from attentionhand.reconstruction.data import TrainingTargets, training_order
        from attentionhand.reconstruction.network import new_network
        from attentionhand.reconstruction.training import (
            LOSS_COLUMNS,
            WEIGHT_DECAY,
            load_checkpoint,
            rate_at,
            reconstruction_loss,
            save_checkpoint,
            save_weights,
        )

        torch.manual_seed(args.seed)  # of the first weights; everything else has generators of its own
        network = new_network(args.backbone, imagenet=args.imagenet).to(accelerator.device).train()
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=args.learning_rate, weight_decay=WEIGHT_DECAY, fused=True
        )
        model, optimizer = accelerator.prepare(network, optimizer)
        start, losses = 0, list[list]()
        if checkpoint:
            start, losses = load_checkpoint(run, checkpoint, network, optimizer, accelerator.scaler)
            say(f"resuming from {checkpoint}")
        run.begin(**facts)
        if args.report_to:
            accelerator.init_trackers("reconstruction")

        order = training_order(sizes, args.shares, steps * batch_size, args.seed)
        first = accelerator.process_index * args.train_batch_size  # this process's part of every batch
        batches = [
            range(step * batch_size + first, step * batch_size + first + args.train_batch_size)
            for step in range(start, steps)
        ]
        loader = torch.utils.data.DataLoader(
            TrainingTargets(joined(sets), order, args.image_size, args.seed),
            batch_sampler=batches,
            num_workers=args.num_workers if batches else 0,
        )
        bar = progress(loader, total=steps, initial=start, desc="Training", unit="step")
        for step, target in enumerate(bar, start=start):
            target = send_to_device(target, accelerator.device)
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step, steps, args.learning_rate)
            with accelerator.autocast():
                hands = model(target.picture)
            loss = reconstruction_loss(hands, target)
            accelerator.backward(loss.total)
            optimizer.step()
            optimizer.zero_grad()

            logged = [accelerator.reduce(part.detach(), "mean").item() for part in loss]
            if not all(map(math.isfinite, logged)):
                raise UserError(
                    f"the loss became {logged} at step {step}; lower --learning_rate, or use bf16, not fp16"
                )
            losses.append([step, *logged])
            bar.set_postfix(loss=f"{sum(logged[:2]):.4f}")
            accelerator.log(dict(zip(LOSS_COLUMNS[1:], logged)), step=step)
            done = step + 1
            if accelerator.is_main_process and (done % args.checkpointing_steps == 0 or done == steps):
                keep = args.checkpoints_total_limit
                save_checkpoint(run, done, network, optimizer, accelerator.scaler, losses, keep=keep)

        if accelerator.is_main_process:
            with saving(args.output_dir), atomic_parts(args.output_dir, last="model.safetensors") as folder:
                save_weights(folder, network, losses)
            run.finish(**facts)
            say(f"{args.output_dir}: {counted(steps, 'step')} on {counted(sum(sizes), 'picture')}, lengths in {unit}")
        accelerator.wait_for_everyone()
    accelerator.end_training()


def check_shares(shares: list[float] | None, sets: int) -> None:
    """Raises UserError unless there is a positive share for each of the sets, or none at all."""
    if shares is not None and (len(shares) != sets or not all(0 < share < math.inf for share in shares)):
        given = f"{counted(len(shares), 'number')} for {counted(sets, '--data folder')}"
        raise UserError(f"--shares: {given}; give one above 0 for each")


if __name__ == "__main__":
    main()
