"""Generate pictures with a model that train.py made, or with a base model (mu 1).

What to draw is either a list, or prompts on the command line. Of a list, each line of --prompts_file becomes one
picture in --img_save_path under the name on the same line of --image_filenames_file. With --prompt the pictures are
prompt_000.png, prompt_001.png, ...: one for each prompt, or --num_images of a single prompt, each from another start
noise (--seed, --seed + 1, ...).

mu is the share of the text in the embedding: 1 is the text alone, 0 the fusion with the gesture alone. Several values
of mu make one sub-folder each (mu_0, mu_0.25, ...) and a labelled sheet, grid.png. The same command again, after a
kill, draws the pictures that are missing.

Examples:
  python image_generation.py --prompt "a man in a red shirt making phone call hand gesture" --num_images 4 \\
      --feature_npy_path call.npy --ckpt output/call --img_save_path generated/man --mu 0.6
  python image_generation.py --image_filenames_file call_BLIP2_file_name.txt --prompts_file call_BLIP2_modified.txt \\
      --feature_npy_path call.npy --ckpt output/call --img_save_path generated/call --mu 0 0.25 0.5 0.75 1
  python image_generation.py --image_filenames_file call_BLIP2_file_name.txt --prompts_file call_BLIP2_modified.txt \\
      --ckpt CompVis/stable-diffusion-v1-4 --img_save_path generated/base --mu 1
"""

import argparse
from pathlib import Path

from core.runs.command_line import argument_parser, command_line, fraction, positive_int
from core.runs.errors import UserError
from core.runs.files import check_writable, fingerprint_if_local, model_identity
from core.runs.processes import counted, is_main_process, say, start_processes
from core.runs.run import Run
from core.runs.sheets import contact_sheet, save_png
from hand1000.gesture_feature import feature_hash, load_gesture_feature
from hand1000.options import add_picture_options
from hand1000.prompts import RECORD, listed_prompts, names_of_prompts, with_recorded_prompts
from hand1000.trained import StoredModel, fusion_of_model, local_run, model_to_load, own_feature, read_trained_model

# torch and diffusers are imported inside functions: --help and a wrong path answer at once.

GRID_ROWS = 8  # prompts on the contact sheet
GRID = "grid.png"


def parse_args(argv=None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--prompt", nargs="+", help="one or several prompts, in place of the two lists")
    add_picture_options(parser, required=False)
    add("--feature_npy_path", type=Path, help="gesture feature from cal_mean_feature.py (default: the run's own)")
    add("--mu", type=fraction, nargs="+", default=[0.7], help="share of the text, 0 to 1; several values make a sweep")
    add(
        "--num_images",
        type=positive_int,
        help="only the first N prompts (default: all); of a single --prompt, draw N pictures (default: 1)",
    )
    add("--batch_size", type=positive_int, default=4, help="pictures at a time on each process")
    return parser.parse_args(argv)


def mu_name(mu: float) -> str:
    """As folders and labels name it."""
    return f"{mu:.12g}"


def check_args(args: argparse.Namespace) -> None:
    """Refuse what can't work before anything is read."""
    lists = [args.image_filenames_file, args.prompts_file]
    if args.prompt and any(lists):
        raise UserError("--prompt stands in place of --image_filenames_file and --prompts_file; give one or the other")
    if not args.prompt and not all(lists):
        raise UserError("what to draw? give --prompt, or --image_filenames_file and --prompts_file")
    if len({mu_name(mu) for mu in args.mu}) < len(args.mu):
        raise UserError("--mu: the same value twice")
    check_writable(args.img_save_path)


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    check_args(args)
    if args.prompt:
        names, prompts = names_of_prompts(args.prompt, args.num_images)
    else:
        names, prompts = listed_prompts(args.image_filenames_file, args.prompts_file, args.num_images)
    vary_seed = args.vary_seed or len(args.prompt or []) == 1
    ckpt = str(local_run(args.ckpt, args.revision))
    trained = read_trained_model(Path(ckpt))
    configs = {name: getattr(args, name) for name in StoredModel._fields[1:]}
    model = model_to_load(ckpt, trained, args.pretrained_model_name_or_path, **configs)
    resolution = args.resolution or (trained.resolution if trained else 512)
    fusion = fusion_of_model(args.ckpt, trained) if any(mu != 1 for mu in args.mu) else None
    feature_path = args.feature_npy_path or (own_feature(Path(ckpt)) if fusion else None)
    if fusion and not feature_path:
        raise UserError("--feature_npy_path is needed unless --mu is 1; cal_mean_feature.py makes the file")
    feature = load_gesture_feature(feature_path) if feature_path else None
    if trained and feature is not None and feature_hash(feature) != trained.feature_sha256:
        say(f"warning: {feature_path} is not the feature that {args.ckpt} was trained with")

    settings = {
        "ckpt": args.ckpt,
        **configs,
        "model": trained.settings if trained else fingerprint_if_local(args.ckpt),
        "base_model": model_identity(model.path) if trained and trained.lora_base else None,
        "feature": feature_hash(feature) if fusion and feature is not None else None,
        "mu": "sweep" if len(args.mu) > 1 else args.mu[0],
        "guidance_scale": args.guidance_scale,
        "num_inference_steps": args.num_inference_steps,
        "resolution": resolution,
        "image_size": args.image_size,
        "seed": args.seed,
        "vary_seed": vary_seed,
        "mixed_precision": args.mixed_precision,
    }
    folders = {
        mu: args.img_save_path / f"mu_{mu_name(mu)}" if len(args.mu) > 1 else args.img_save_path for mu in args.mu
    }
    run = Run(args.img_save_path / RECORD, settings, what="set of pictures", flag="--img_save_path")
    with run.hold():
        all_prompts = with_recorded_prompts(run, names, prompts)
        places = [(mu, place) for mu in args.mu for place in range(len(names))]
        missing = [(mu, place) for mu, place in places if not (folders[mu] / names[place]).is_file()]
        if missing:
            from core.diffusion.encoding import latent_shape
            from hand1000.generation import Picture, draw_pictures, encode_prompts, load_model

            processes = start_processes()
            pipe = load_model(ckpt, model)
            shape = latent_shape(pipe, resolution)
            embeds = encode_prompts(pipe, prompts, feature, fusion, processes.device)
            pictures = [
                Picture(folders[mu] / names[place], place, mu, args.seed + place * vary_seed) for mu, place in missing
            ]
            processes.wait_for_everyone()  # every process has looked at the folder before it changes
            run.begin(prompts=all_prompts)
            draw_pictures(
                pipe,
                embeds,
                pictures[processes.process_index :: processes.num_processes],
                processes.device,
                latent_shape=shape,
                image_size=args.image_size,
                batch_size=args.batch_size,
                guidance_scale=args.guidance_scale,
                num_inference_steps=args.num_inference_steps,
                mixed_precision=args.mixed_precision,
            )
            processes.wait_for_everyone()
        if not is_main_process():
            return
        if len(args.mu) > 1:
            rows = [[folders[mu] / name for mu in args.mu] for name in names[:GRID_ROWS]]
            labels = [f"mu = {mu_name(mu)}" for mu in args.mu]
            save_png(contact_sheet(rows, column_labels=labels, row_labels=prompts[:GRID_ROWS]), run.folder / GRID)
        if all((folder / name).is_file() for folder in folders.values() for name, _ in all_prompts):
            run.finish(prompts=all_prompts)
    values = ", ".join(map(mu_name, args.mu))
    say(f"{run.folder}: {counted(len(names), 'picture')} for mu {values}; {len(missing)} drawn now")


if __name__ == "__main__":
    main()
