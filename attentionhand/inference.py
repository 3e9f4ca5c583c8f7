"""Generate pictures from mesh images and texts: DDIM 20 steps, scale 9, 4 samples a pair, as released.

Writes result_000_0.png ... (pair, sample) and a sheet mesh | samples to --output_dir. A killed run goes on with the
pairs that are missing.

Examples:
  python -m attentionhand.inference --weights output/attentionhand
  python -m attentionhand.inference --weights weights/attentionhand.ckpt --sample_path samples/modalities.json
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python attentionhand/inference.py`

from core.diffusion.model_path import check_model_path
from core.runs.command_line import argument_parser, command_line, plain_arguments, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.files import atomic_file, check_writable, fingerprint_if_local
from core.runs.processes import is_main_process, processes_need_cpu, progress, say
from core.runs.run import differing_settings
from image_generation import ddim_steps

SETTINGS_FILE, SHEET_FILE, CELL, SHEET_ROWS = "inference.json", "sheet.png", 200, 50


def parse_args(argv=None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add(
        "--sample_path",
        type=Path,
        default=Path(__file__).parent / "samples" / "modalities.json",
        help="modalities.json with mesh and text of each pair",
    )
    add("--weights", type=Path, required=True, help="run folder of attentionhand.train, or a released .ckpt")
    add(
        "--pretrained_model_name_or_path",
        default="stable-diffusion-v1-5/stable-diffusion-v1-5",
        help="base model: hub id, diffusers folder, or single file",
    )
    add("--original_config", help="YAML of a single-file base model")
    add("--config", help="diffusers folder with the configs and tokenizer of a single-file base model")
    add("--output_dir", type=Path, default=Path("results/attentionhand"), help="folder for the pictures")
    add("--num_samples", type=positive_int, default=4, help="pictures of each pair")
    add("--num_inference_steps", type=ddim_steps, default=20, help="DDIM steps")
    add("--guidance_scale", type=float, default=9.0, help="classifier-free guidance")
    add("--strength", type=float, default=1.0, help="of the control")
    add("--guess_mode", action="store_true", help="control the conditional pass only, deep layers most")
    add("--only_mid_control", action="store_true", help="as trained with --only_mid_control")
    add("--a_prompt", default="", help="appended to every text after a comma")
    add("--n_prompt", default="", help="negative prompt")
    add("--tas", action="store_true", help="text attention stage before each step (the released code has it off)")
    add("--tas_steps", type=positive_int, default=5, help="its gradient steps before each DDIM step")
    add("--seed", type=seed_int, default=42, help="of the start noise, the same for every pair")
    add("--resolution", type=positive_int, default=512, help="pixels a side")
    add("--mixed_precision", choices=("no", "fp16", "bf16"), default="no", help="precision of the models")
    return parser.parse_args(argv)


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    check_model_path(args.pretrained_model_name_or_path, args.original_config, args.config)
    if not args.weights.exists():
        raise UserError(f"{args.weights}: no such run folder or file (--weights)")
    check_trained_alike(args)
    check_writable(args.output_dir)

    from attentionhand.data import grey, load_picture, read_modalities, resize

    samples = read_modalities(args.sample_path, with_rgb=False)
    meshes = [resize(grey(load_picture(sample.mesh)), args.resolution) for sample in samples]
    begin(args, samples)
    missing = [
        pair
        for pair in range(len(samples))
        if not all(result_path(args, pair, number).is_file() for number in range(args.num_samples))
    ]
    if missing:
        generate(args, samples, meshes, missing)
    if is_main_process():
        save_sheet(args, samples, meshes)
        say(f"{args.output_dir}: {args.num_samples} pictures of {len(samples)} pairs; {len(missing)} pairs drawn now")


def check_trained_alike(args) -> None:
    """Raises UserError where a run folder was trained with another --only_mid_control."""
    record = args.weights / "attentionhand.json"
    if record.is_file():
        trained = json.loads(record.read_text(encoding="utf-8"))["settings"].get("only_mid_control", False)
        if trained != args.only_mid_control:
            needed = "pass" if trained else "leave out"
            raise UserError(f"{args.weights}: trained with --only_mid_control {trained}; {needed} that flag")


def begin(args, samples) -> None:
    """Note what the pictures depend on; raises UserError where the folder holds others."""
    from attentionhand.checkpoints import weights_fingerprint
    from attentionhand.data import content_hash

    settings = plain_arguments(args)
    del settings["output_dir"], settings["sample_path"]
    settings |= {"samples": content_hash(samples), "weights_fingerprint": weights_fingerprint(args.weights)}
    settings["model_fingerprint"] = fingerprint_if_local(args.pretrained_model_name_or_path)
    path = args.output_dir / SETTINGS_FILE
    if path.is_file():
        try:
            made = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise UserError(f"{path}: damaged; choose another --output_dir") from None
        if different := differing_settings(made, settings):
            raise UserError(f"{args.output_dir}: holds pictures of other settings ({different}); choose another folder")
    elif result_path(args, 0, 0).exists():
        raise UserError(f"{result_path(args, 0, 0)}: there already, but of an unknown run; choose another --output_dir")
    elif is_main_process():
        args.output_dir.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def result_path(args, pair: int, number: int) -> Path:
    return args.output_dir / f"result_{pair:03d}_{number}.png"


def generate(args, samples, meshes, missing: list[int]) -> None:
    """Draw the missing pairs, all samples of a pair at once; each process its share."""
    import torch
    from accelerate import PartialState

    from attentionhand.checkpoints import load_decoder, load_stage
    from attentionhand.sampling import sample_latents, start_noise
    from attentionhand.text_attention import excite, layers_at, token_positions
    from core.diffusion.stable_diffusion import encode_texts, latent_shape, load_stable_diffusion
    from hand1000.generation import decode

    state = PartialState(cpu=processes_need_cpu())
    state.wait_for_everyone()  # all have seen the same pairs missing
    pipe = load_stable_diffusion(
        args.pretrained_model_name_or_path, original_config=args.original_config, config=args.config
    )
    latent_shape(pipe, args.resolution)
    stage = load_stage(args.weights, pipe).eval().requires_grad_(False)
    load_decoder(args.weights, pipe)
    if args.tas and not layers_at(pipe.unet, level=2):
        raise UserError("--tas: this model has no cross-attention at a quarter of the latents' side")
    prompts = [f"{sample.text}, {args.a_prompt}" for sample in samples]
    embeds = encode_texts(pipe, [*prompts, args.n_prompt], state.device)
    for model in (pipe.unet, pipe.vae, stage):
        model.to(state.device)
    precision = {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}[args.mixed_precision]

    own = missing[state.process_index :: state.num_processes]
    with progress(total=len(own) * args.num_inference_steps, desc=f"{len(own)} pairs", unit="step") as bar:
        for pair in own:
            count = args.num_samples
            mesh = torch.from_numpy(meshes[pair]).float().expand(count, 3, -1, -1) / 255
            prompt_embeds = embeds[pair].expand(count, -1, -1)
            positions = [token_positions(pipe.tokenizer, prompts[pair])] * count

            def attend(latents, timestep, prompt_embeds=prompt_embeds, positions=positions):
                with torch.autocast(state.device.type, enabled=False):
                    timesteps = timestep.expand(len(latents))
                    given = prompt_embeds.to(latents.device)
                    return excite(pipe.unet, latents, timesteps, given, positions, steps=args.tas_steps)

            with torch.autocast(state.device.type, precision, enabled=precision is not None):
                latents = sample_latents(
                    pipe,
                    stage,
                    start_noise(args.seed, count, pipe, args.resolution, args.resolution),
                    prompt_embeds,
                    embeds[-1:],
                    mesh,
                    num_inference_steps=args.num_inference_steps,
                    guidance_scale=args.guidance_scale,
                    strength=args.strength,
                    guess_mode=args.guess_mode,
                    only_mid_control=args.only_mid_control,
                    after_step=bar.update,
                    **({"before_step": attend} if args.tas else {}),
                )
            for number, picture in enumerate(decode(pipe.vae, latents.float())):
                with atomic_file(result_path(args, pair, number)) as temporary:
                    picture.save(temporary, format="PNG")
    state.wait_for_everyone()


def save_sheet(args, samples, meshes) -> None:
    """Mesh and samples of the first pairs, a row each."""
    rows = min(len(samples), SHEET_ROWS)
    sheet = Image.new("RGB", ((1 + args.num_samples) * CELL, rows * CELL), "white")
    for pair, mesh in enumerate(meshes[:rows]):
        tiles = [Image.fromarray(np.asarray(mesh))]
        tiles += [Image.open(result_path(args, pair, number)) for number in range(args.num_samples)]
        for column, tile in enumerate(tiles):
            sheet.paste(tile.convert("RGB").resize((CELL, CELL)), (column * CELL, pair * CELL))
    with atomic_file(args.output_dir / SHEET_FILE) as temporary:
        sheet.save(temporary, format="PNG")


if __name__ == "__main__":
    main()
