"""Generate pictures with a model that train.py made, or with a base model (mu 1).

Each line of --prompts_file becomes one picture in --img_save_path, saved under the name on the same line of
--image_filenames_file. mu is the share of the text in the embedding: 1 is the text alone, 0 the fusion with the
gesture alone. Several values of mu make one sub-folder each (mu_0, mu_0.25, ...) and a labelled sheet, grid.png.
Run again after a kill, it goes on with the pictures that are missing.

Examples:
  python image_generation.py --image_filenames_file call_BLIP2_file_name.txt --prompts_file call_BLIP2_modified.txt \\
      --feature_npy_path call.npy --ckpt output/call --img_save_path generated/call --mu 0.6
  python image_generation.py --image_filenames_file call_BLIP2_file_name.txt --prompts_file call_BLIP2_modified.txt \\
      --ckpt CompVis/stable-diffusion-v1-4 --img_save_path generated/base --mu 1
  python image_generation.py ... --num_images 8 --mu 0 0.25 0.5 0.75 1
"""

import argparse
import json
from pathlib import Path
from typing import Any

from core.diffusion.model_path import check_model_path, is_single_file
from core.runs.command_line import argument_parser, command_line, fraction, natural_int, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.files import atomic_file, check_writable, read_paired_lines
from core.runs.photos import IMAGE_SUFFIXES
from core.runs.processes import check_all_processes_started, is_main_process, processes_need_cpu, progress, say
from core.runs.run import FINISHED, differing_settings, read_record
from hand1000.gesture_feature import feature_hash, load_gesture_feature

# torch and diffusers are imported inside functions: --help and a wrong path answer at once.

GRID_ROWS = 8  # prompts on the contact sheet
SETTINGS_FILE, GRID_FILE = "generation.json", "grid.png"


def parse_args(argv=None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--image_filenames_file", type=Path, required=True, help="file names to save under, one a line")
    add("--prompts_file", type=Path, required=True, help="prompts, one a line, in the same order")
    add("--feature_npy_path", type=Path, help="gesture feature from cal_mean_feature.py (needed unless mu is 1)")
    add(
        "--ckpt",
        required=True,
        help="run folder of train.py, released .ckpt, or a base model: hub id, diffusers folder, single file",
    )
    add("--img_save_path", type=Path, required=True, help="folder for the pictures")
    add("--mu", type=fraction, nargs="+", default=[0.7], help="share of the text, 0 to 1; several values make a sweep")
    add("--original_config", help="YAML of a single-file --ckpt")
    add("--config", help="diffusers folder with the configs and tokenizer of a single-file --ckpt")
    add("--num_images", type=positive_int, help="only the first N prompts (default: all)")
    add("--batch_size", type=positive_int, default=4, help="pictures at a time on each process")
    add("--guidance_scale", type=float, default=3.0, help="classifier-free guidance; 1 is none")
    add("--num_inference_steps", type=ddim_steps, default=45, help="DDIM steps, at most 999")
    add("--resolution", type=positive_int, help="pixels a side that the model draws (default: as trained, else 512)")
    add("--image_size", type=natural_int, default=400, help="pixels a side of the saved picture; 0 keeps --resolution")
    add("--seed", type=seed_int, default=0, help="seed of the start noise")
    add("--vary_seed", action="store_true", help="seed + line index instead of the same start noise for every prompt")
    add("--mixed_precision", choices=("no", "fp16", "bf16"), default="no", help="precision of the UNet")
    return parser.parse_args(argv)


def ddim_steps(text: str) -> int:
    """argparse type: the released timesteps start at 1, so that a thousandth step would lie beyond the last, 999."""
    steps = positive_int(text)
    if steps > 999:
        raise argparse.ArgumentTypeError(f"{text} is above 999")
    return steps


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    if len(set(args.mu)) < len(args.mu):
        raise UserError("--mu: the same value twice")
    names, prompts = read_names_and_prompts(args)
    record = model_record(args)
    args.resolution = args.resolution or (record or {"settings": {}})["settings"].get("resolution", 512)
    fusion = fusion_source(args, record)
    feature = load_gesture_feature(args.feature_npy_path) if args.feature_npy_path else None
    if record and feature is not None and feature_hash(feature) != record["settings"].get("feature_sha256"):
        say(f"warning: {args.feature_npy_path} is not the feature that {args.ckpt} was trained with")
    check_writable(args.img_save_path)
    settings = generation_settings(args, feature, record)
    check_continuation(args, settings, names, prompts)
    jobs = [
        (mu, index)
        for mu in args.mu
        for index in range(len(names))
        if not (picture_folder(args, mu) / names[index]).is_file()
    ]
    if jobs:
        generate(args, names, prompts, fusion, feature, settings, jobs)
    if is_main_process():
        if len(args.mu) > 1:
            save_grid(args, names)
        mus = ", ".join(f"{mu:.12g}" for mu in args.mu)
        say(f"{args.img_save_path}: {len(names)} pictures for mu {mus}; {len(jobs)} drawn now")


def read_names_and_prompts(args) -> tuple[list[str], list[str]]:
    names, prompts = read_paired_lines(args.image_filenames_file, args.prompts_file)
    for number, name in enumerate(names, start=1):
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            endings = ", ".join(IMAGE_SUFFIXES)
            raise UserError(f"{args.image_filenames_file}: line {number}: '{name}' does not end in one of {endings}")
    return names[: args.num_images], prompts[: args.num_images]


def model_record(args) -> dict[str, Any] | None:
    """`hand1000.json` of a finished run folder; None for any other model.

    Raises:
        UserError: no model there, or an unfinished run.
    """
    record = read_record(Path(args.ckpt))
    if record and record["status"] != FINISHED:
        raise UserError(f"{args.ckpt}: this run is not finished; go on with train.py --resume_from_checkpoint latest")
    check_model_path(args.ckpt, args.original_config, args.config)
    return record


def fusion_source(args, record: dict[str, Any] | None) -> dict[str, Any] | None:
    """Where the model's fusion weights come from: keyword arguments for `fuse`, or None where mu is 1 throughout.

    Raises:
        UserError: the model or the feature can't serve the mu asked for.
    """
    if all(mu == 1 for mu in args.mu):
        return None
    if not args.feature_npy_path:
        raise UserError("--feature_npy_path is needed unless --mu is 1; cal_mean_feature.py makes the file")
    if record:
        fusion = record["fusion"]
        return {"weights_file": Path(args.ckpt) / fusion["file"]} if "file" in fusion else {"seed": fusion["seed"]}
    if args.ckpt.endswith(".ckpt"):
        from core.diffusion.unpickling import load_pickle

        if "fusion_model_state_dict" in load_pickle(Path(args.ckpt)):
            return {"weights_file": Path(args.ckpt)}
    if not Path(args.ckpt).exists():
        raise UserError(f"{args.ckpt}: no such folder here, and a model of the hub has no fusion, so --mu must be 1")
    hint = " (the run folder that it came from has one)" if is_single_file(args.ckpt) else ""
    raise UserError(f"{args.ckpt}: a model without fusion{hint}, so --mu must be 1")


def picture_folder(args, mu: float) -> Path:
    return args.img_save_path / f"mu_{mu:.12g}" if len(args.mu) > 1 else args.img_save_path


# Going on where a killed run stopped, and never mixing two


def generation_settings(args, feature, record: dict[str, Any] | None) -> dict[str, Any]:
    """All that a picture depends on beside its prompt."""
    keys = "ckpt guidance_scale num_inference_steps resolution image_size seed vary_seed mixed_precision".split()
    return {
        **{key: getattr(args, key) for key in keys},
        "trained_with": record and record["settings"],  # the run folder may hold another run by then
        "mu": "sweep" if len(args.mu) > 1 else args.mu[0],
        "feature": feature_hash(feature) if feature is not None else None,
    }


def check_continuation(args, settings: dict[str, Any], names: list[str], prompts: list[str]) -> None:
    """Refuse a folder with pictures of other settings or prompts; more or fewer of the same prompts may follow.

    Raises:
        UserError
    """
    folder, pairs = args.img_save_path, [[name, prompt] for name, prompt in zip(names, prompts)]
    path = folder / SETTINGS_FILE
    if not path.is_file():
        targets = [picture_folder(args, mu) / name for mu in args.mu for name in names] + [folder / GRID_FILE]
        taken = [target for target in targets if target.exists()]
        if taken:
            raise UserError(f"{taken[0]}: there already, but not made by this script; choose another --img_save_path")
        return
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        old_settings, old_pairs = old["settings"], old["prompts"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: damaged; remove the folder or choose another --img_save_path") from None
    if different := differing_settings(old_settings, settings):
        raise UserError(f"{folder}: holds pictures of other settings ({different}); choose another --img_save_path")
    common = min(len(old_pairs), len(pairs))
    if old_pairs[:common] != pairs[:common]:
        raise UserError(f"{folder}: holds pictures of other file names or prompts; choose another --img_save_path")


def save_settings(folder: Path, settings: dict[str, Any], names: list[str], prompts: list[str]) -> None:
    path, pairs = folder / SETTINGS_FILE, [[name, prompt] for name, prompt in zip(names, prompts)]
    if path.is_file():
        old_pairs = json.loads(path.read_text(encoding="utf-8"))["prompts"]
        pairs = max(pairs, old_pairs, key=len)
    with atomic_file(path) as temporary:
        text = json.dumps({"settings": settings, "prompts": pairs}, indent=1, ensure_ascii=False)
        temporary.write_text(text, encoding="utf-8")


# The work


def generate(args, names, prompts, fusion, feature, settings, jobs: list[tuple[float, int]]) -> None:
    """Draw the missing pictures, each process its share."""
    import torch
    from accelerate import PartialState

    from core.diffusion.stable_diffusion import ddim_scheduler, encode_texts, latent_shape, load_stable_diffusion
    from hand1000.fusion import double_fusion, fuse
    from hand1000.generation import decode, sample, save_picture, start_noise

    check_all_processes_started()
    state = PartialState(cpu=processes_need_cpu())
    pipe = load_stable_diffusion(args.ckpt, original_config=args.original_config, config=args.config)
    shape = latent_shape(pipe, args.resolution)
    embeds = encode_texts(pipe, [*prompts, ""], state.device)
    prompt_embeds, negative_prompt_embeds = embeds[:-1], embeds[-1:]
    fused_embeds = prompt_embeds  # never looked at where mu is 1 throughout
    if fusion:
        fused_embeds = fuse(prompt_embeds, torch.from_numpy(feature), device=state.device, **fusion)

    if state.is_main_process:
        save_settings(args.img_save_path, settings, names, prompts)
    state.wait_for_everyone()
    dtype = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[args.mixed_precision]
    pipe.unet.to(state.device, dtype)
    pipe.vae.to(state.device)
    scheduler = ddim_scheduler(pipe)

    jobs = jobs[state.process_index :: state.num_processes]
    batches = [jobs[start : start + args.batch_size] for start in range(0, len(jobs), args.batch_size)]
    with progress(total=len(batches) * args.num_inference_steps, desc=f"{len(jobs)} pictures", unit="step") as bar:
        for batch in batches:
            latents = sample(
                pipe.unet,
                scheduler,
                torch.cat([start_noise(args.seed + index * args.vary_seed, shape) for _, index in batch]),
                torch.stack([double_fusion(prompt_embeds[i], fused_embeds[i], mu) for mu, i in batch]),
                negative_prompt_embeds,
                guidance_scale=args.guidance_scale,
                num_inference_steps=args.num_inference_steps,
                after_step=bar.update,
            )
            for (mu, index), picture in zip(batch, decode(pipe.vae, latents)):
                save_picture(picture, picture_folder(args, mu) / names[index], args.image_size)
    state.wait_for_everyone()


def save_grid(args, names: list[str]) -> None:
    from hand1000.generation import contact_sheet

    rows = [[picture_folder(args, mu) / name for mu in args.mu] for name in names[:GRID_ROWS]]
    with atomic_file(args.img_save_path / GRID_FILE) as temporary:
        contact_sheet(rows, [f"mu = {mu:.12g}" for mu in args.mu]).save(temporary, format="PNG")


if __name__ == "__main__":
    main()
