"""Generate pictures from mesh images and texts: DDIM 20 steps, scale 9, 4 samples a pair, as released.

Writes result_000_0.png ... (pair, sample) and a sheet mesh | samples to --output_dir. A run that was killed is resumed
by the same command: it draws the pairs that are missing.

Examples:
  python -m attentionhand.inference --weights output/attentionhand
  python -m attentionhand.inference --weights weights/attentionhand.ckpt \\
      --sample_path attentionhand/samples/modalities.json
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python attentionhand/inference.py`

from attentionhand.runs import PICTURES, finished_training, weights_fingerprint
from core.diffusion.model_path import check_model_path
from core.diffusion.options import add_generation_options, add_model_options
from core.runs.command_line import argument_parser, command_line, finite_float, pixels, plain_arguments, positive_int
from core.runs.errors import UserError
from core.runs.files import check_writable, model_identity
from core.runs.processes import counted, from_main_process, is_main_process, progress, say, start_processes
from core.runs.run import Run
from core.runs.sheets import contact_sheet, save_png
from core.runs.software import software

# torch and diffusers are imported inside functions: --help and a wrong path answer at once.

NOT_SETTINGS = {"output_dir", "sample_path", "weights"}  # the samples and the weights count by their content
SHEET, SHEET_ROWS = "sheet.png", 50


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
    add_model_options(parser, "stable-diffusion-v1-5/stable-diffusion-v1-5")
    add("--output_dir", type=Path, default=Path("results/attentionhand"), help="folder for the pictures")
    add("--num_samples", type=positive_int, default=4, help="pictures of each pair")
    add_generation_options(parser, num_inference_steps=20, guidance_scale=9.0, seed=42)
    add("--strength", type=finite_float, default=1.0, help="strength of the control")
    add("--guess_mode", action="store_true", help="control the pass with the text only, and shallow layers less")
    add("--only_mid_control", action="store_true", help="for weights that were trained with --only_mid_control")
    add("--a_prompt", default="", help="appended to every text after a comma")
    add("--n_prompt", default="", help="negative prompt")
    add("--tas", action="store_true", help="text attention stage before each step (the released code has it off)")
    add("--tas_verbs", choices=("ending", "nltk"), default="ending", help="how its verbs are found, as in training")
    add("--tas_steps", type=positive_int, default=5, help="its gradient steps before each DDIM step")
    add("--resolution", type=pixels, default=512, help="pixels a side")
    return parser.parse_args(argv)


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    check_model_path(args.pretrained_model_name_or_path, args.original_config, args.config)
    if not args.weights.exists():
        raise UserError(f"{args.weights}: no such run folder or file (--weights)")
    check_trained_alike(args.weights, args.only_mid_control)
    check_writable(args.output_dir)

    from attentionhand.data import Sample, content_hash, grey, load_picture, read_modalities, resize

    processes = start_processes()
    samples = read_modalities(args.sample_path, with_rgb=False)

    def mesh_of(sample: Sample) -> np.ndarray:
        """(S, S) uint8."""
        return resize(grey(load_picture(sample.mesh)), args.resolution)

    settings = {
        **plain_arguments(args, without=NOT_SETTINGS),
        "pretrained_model_name_or_path": model_identity(args.pretrained_model_name_or_path),
        "original_config": model_identity(args.original_config),
        "config": model_identity(args.config),
        "samples": from_main_process(content_hash, samples),
        "weights": weights_fingerprint(args.weights),
    }
    facts = {"weights": str(args.weights.resolve()), "arguments": plain_arguments(args), "software": software()}
    paths = [
        [args.output_dir / f"result_{pair:03d}_{number}.png" for number in range(args.num_samples)]
        for pair in range(len(samples))
    ]
    run = Run(args.output_dir / PICTURES, settings, what="generation of pictures")
    with run.hold():
        processes.wait_for_everyone()  # the main process holds the folder
        was_finished = run.is_finished()
        missing = [pair for pair, files in enumerate(paths) if not all(path.is_file() for path in files)]
        processes.wait_for_everyone()  # every process has seen the same pairs missing
        if was_finished and not missing:
            say(f"{args.output_dir}: already finished with these settings")
            return
        run.begin(**facts)

        import torch

        from attentionhand.hand_words import token_positions
        from attentionhand.sampling import controlled_denoiser, exciter
        from attentionhand.text_attention import layers_at
        from attentionhand.weights import load_decoder, load_stage
        from core.diffusion.encoding import encode_texts, latent_shape
        from core.diffusion.noise import ddim_scheduler
        from core.diffusion.sampling import ddim, decode, save_picture, start_noise
        from core.diffusion.stable_diffusion import load_stable_diffusion

        device = processes.device
        precision = {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}[args.mixed_precision]
        pipe = load_stable_diffusion(
            args.pretrained_model_name_or_path, original_config=args.original_config, config=args.config
        )
        shape = (args.num_samples, *latent_shape(pipe, args.resolution)[1:])
        stage = load_stage(args.weights, pipe).eval().requires_grad_(False)
        load_decoder(args.weights, pipe)
        if weights_fingerprint(args.weights) != settings["weights"]:
            raise UserError(f"{args.weights}: the weights have changed since this command was started; start it again")
        if args.tas and not layers_at(pipe.unet, level=2):
            raise UserError("--tas: this model has no cross-attention at a quarter of the latents' side")
        prompts = [
            f"{sample.text}, {args.a_prompt}" for sample in samples
        ]  # the comma also before nothing, as released
        negative_embeds = encode_texts(pipe, [args.n_prompt], device, desc=None)
        for model in (pipe.unet, pipe.vae, stage):
            model.to(device)

        noise, scheduler = start_noise(args.seed, shape).to(device), ddim_scheduler(pipe)
        own = missing[processes.process_index :: processes.num_processes]
        with progress(total=len(own) * args.num_inference_steps, desc="Drawing", unit="step") as bar:
            for pair in own:
                mesh = torch.from_numpy(mesh_of(samples[pair])).float().expand(args.num_samples, 3, -1, -1) / 255
                prompt_embeds = encode_texts(pipe, [prompts[pair]], device, desc=None)
                prompt_embeds = prompt_embeds.expand(args.num_samples, -1, -1)
                denoise = controlled_denoiser(
                    pipe.unet,
                    stage,
                    prompt_embeds,
                    negative_embeds,
                    mesh,
                    guidance_scale=args.guidance_scale,
                    strength=args.strength,
                    guess_mode=args.guess_mode,
                    only_mid_control=args.only_mid_control,
                )
                positions = [token_positions(pipe.tokenizer, prompts[pair], args.tas_verbs)] * args.num_samples
                excite = exciter(pipe.unet, prompt_embeds, positions, steps=args.tas_steps)
                with torch.autocast(device.type, precision, enabled=precision is not None):
                    latents = ddim(
                        denoise,
                        scheduler,
                        noise,
                        num_inference_steps=args.num_inference_steps,
                        before_step=excite if args.tas else None,
                        after_step=bar.update,
                    )
                for path, picture in zip(paths[pair], decode(pipe.vae, latents.float())):
                    save_picture(picture, path)
        processes.wait_for_everyone()

        if is_main_process():
            save_png(
                sheet_of(
                    [mesh_of(sample) for sample in samples[:SHEET_ROWS]], paths, [sample.text for sample in samples]
                ),
                args.output_dir / SHEET,
            )
            run.finish(**facts)
        say(f"{args.output_dir}: pictures of {counted(len(samples), 'sample')}, {len(missing)} of them drawn now")


def check_trained_alike(weights: Path, only_mid_control: bool) -> None:
    """Refuse weights of an unfinished training, or of one with another --only_mid_control.

    Raises:
        UserError
    """
    training = finished_training(weights)
    if training and (trained := training.settings.get("only_mid_control", False)) != only_mid_control:
        needed = "pass" if trained else "leave out"
        raise UserError(f"{weights}: trained with --only_mid_control {trained}; {needed} that flag")


def sheet_of(meshes: Sequence[np.ndarray], paths: Sequence[Sequence[Path]], texts: Sequence[str]) -> Image.Image:
    """Mesh and samples of the first pairs, a row each, with the text below."""
    rows = [[Image.fromarray(mesh), *files] for mesh, files in zip(meshes, paths)]
    samples = [f"sample {number + 1}" for number in range(len(paths[0]))]
    return contact_sheet(rows, column_labels=["mesh", *samples], row_labels=texts)


if __name__ == "__main__":
    main()
