"""Imagic (Kawar et al. 2023), which the paper compares with: a photo and a text become an edited picture of the photo.

For every picture: the embedding of the text is optimised until it describes the photo, the UNet is fine-tuned with that
embedding, and the picture is drawn from mu * text + (1 - mu) * optimised embedding. Then the next picture starts from
the model as it was. Each line of --prompts_file becomes one picture, under the name on the same line of
--image_filenames_file; the first edits the first photo of --image_folder, the second the second, and so on, over again
where there are fewer photos. No gesture feature takes part.

Steps, learning rates and guidance are those of the notebook that Hand1000's code builds on, "Imagic Stable Diffusion"
by Justin Pinkney. The default mu is Hand1000's; the notebook tries 0.8 to 1.1. At 50 TFLOP/s a picture takes a minute
and a half (calculated). The same command again, after a kill, draws what is missing.

Examples:
  python -m hand1000.imagic --image_folder call --image_filenames_file call_test_BLIP2_file_name.txt \\
      --prompts_file call_test_BLIP2_modified.txt --ckpt CompVis/stable-diffusion-v1-4 --img_save_path generated/imagic
  python -m hand1000.imagic --image_folder call --image_filenames_file call_test_BLIP2_file_name.txt \\
      --prompts_file call_test_BLIP2_modified.txt --ckpt output/call --img_save_path generated/imagic \\
      --mixed_precision bf16 --gradient_checkpointing
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python hand1000/imagic.py`

from core.diffusion.options import add_memory_options, check_8bit_adam
from core.runs.command_line import (
    argument_parser,
    command_line,
    fraction,
    learning_rate,
    natural_int,
    plain_arguments,
    positive_int,
)
from core.runs.files import check_writable, fingerprint_if_local, model_identity, sha256_of_files
from core.runs.photos import list_photos, unreadable_photos
from core.runs.processes import counted, is_main_process, progress, say, start_accelerator
from core.runs.run import Run
from hand1000.hyperparameters import Hyperparameters
from hand1000.options import add_picture_options
from hand1000.prompts import RECORD, listed_prompts, with_recorded_prompts
from hand1000.trained import StoredModel, local_run, model_to_load, read_trained_model

if TYPE_CHECKING:
    import torch

    from hand1000.draws import PhotoDraws
    from hand1000.stages import Denoiser, Photos

# torch and diffusers are imported inside functions: --help and a wrong path answer at once.

EMBEDDING_STEPS, FINETUNE_STEPS = 500, 1000  # for each picture, as in the notebook


def parse_args(argv=None) -> argparse.Namespace:
    parser, released = argument_parser(__doc__), Hyperparameters()
    add = parser.add_argument
    add("--image_folder", type=Path, required=True, help="photos to edit, such as those that Hand1000 is trained on")
    add_picture_options(parser, required=True)
    add("--mu", type=fraction, default=0.7, help="share of the text, 0 to 1; the rest is the optimised embedding")
    add("--num_images", type=positive_int, help="only the first N prompts (default: all)")
    add("--embedding_steps", type=natural_int, default=EMBEDDING_STEPS, help="steps on the embedding for each picture")
    add("--embedding_lr", type=learning_rate, default=released.embedding_lr, help="their learning rate")
    add("--finetune_steps", type=natural_int, default=FINETUNE_STEPS, help="steps on the UNet for each picture")
    add("--finetune_lr", type=learning_rate, default=released.finetune_lr, help="their learning rate")
    add("--noise_offset", type=fraction, help="of both trainings, as train.py's")
    add_memory_options(parser)
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace) -> None:
    """Refuse what can't work before anything is read."""
    check_8bit_adam(args.use_8bit_adam)
    check_writable(args.img_save_path)


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    check_args(args)
    names, prompts = listed_prompts(args.image_filenames_file, args.prompts_file, args.num_images)
    photos = photos_to_edit(args.image_folder, len(names))
    ckpt = str(local_run(args.ckpt, args.revision))
    trained = read_trained_model(Path(ckpt))
    configs = {name: getattr(args, name) for name in StoredModel._fields[1:]}
    model = model_to_load(ckpt, trained, args.pretrained_model_name_or_path, **configs)
    resolution = args.resolution or (trained.resolution if trained else 512)
    params = Hyperparameters(
        **{name: value for name, value in vars(args).items() if name in Hyperparameters._fields and value is not None}
    )._replace(resolution=resolution)

    not_settings = {"img_save_path", "image_folder", "image_filenames_file", "prompts_file", "num_images"}
    not_settings |= {"pretrained_model_name_or_path", "gradient_checkpointing"}
    settings = {
        **plain_arguments(args, without=not_settings),
        "model": trained.settings if trained else fingerprint_if_local(args.ckpt),
        "base_model": model_identity(model.path) if trained and trained.lora_base else None,
        "photos_sha256": sha256_of_files(list_photos(args.image_folder)),  # more pictures may follow, of other photos
        "resolution": resolution,
    }
    run = Run(args.img_save_path / RECORD, settings, what="set of pictures", flag="--img_save_path")
    with run.hold():
        all_prompts = with_recorded_prompts(run, names, prompts)
        missing = [place for place, name in enumerate(names) if not (run.folder / name).is_file()]
        if missing:
            from core.diffusion.encoding import encode_photos, encode_texts, latent_shape
            from core.diffusion.noise import ddim_scheduler, derived_seed, training_scheduler
            from core.diffusion.sampling import decode, save_picture, start_noise
            from hand1000.draws import IMAGIC, photo_draws
            from hand1000.generation import load_model, sample
            from hand1000.schedules import denoiser_of, first_state, unet_optimizer
            from hand1000.stages import Photos

            accelerator = start_accelerator(mixed_precision=args.mixed_precision, allow_tf32=args.allow_tf32)
            device = accelerator.device
            pipe = load_model(ckpt, model)
            shape = latent_shape(pipe, resolution)
            embeds = encode_texts(pipe, [*prompts, ""], device)
            accelerator.wait_for_everyone()  # every process has looked at the folder before it changes
            run.begin(prompts=all_prompts)
            pipe.unet.to(device).train()
            if args.gradient_checkpointing:
                pipe.unet.enable_gradient_checkpointing()
            noise_scheduler, as_it_was = training_scheduler(pipe), cpu_copy(pipe.unet)
            optimizer = unet_optimizer(list(pipe.unet.parameters()), params)
            mine = missing[accelerator.process_index :: accelerator.num_processes]
            each = args.embedding_steps + args.finetune_steps + args.num_inference_steps
            with progress(total=len(mine) * each, desc=counted(len(mine), "picture"), unit="step") as bar:
                for place in mine:
                    draws = photo_draws(
                        derived_seed(args.seed, IMAGIC, place),
                        shape,
                        embedding_steps=args.embedding_steps,
                        finetune_steps=args.finetune_steps,
                        noise_offset=params.noise_offset,
                    )
                    latents = encode_photos(pipe.vae, [photos[place]], resolution, [draws.posterior_noise], device)
                    photo = Photos([names[place]], latents, embeds[place : place + 1]).to(device)
                    denoiser = denoiser_of(pipe.unet, noise_scheduler, accelerator, params, first_state(params))
                    edited = edited_embedding(denoiser, optimizer, photo, draws, params, args.mu, bar.update)
                    with accelerator.autocast():
                        final_latents = sample(
                            pipe.unet,
                            ddim_scheduler(pipe),
                            start_noise(args.seed + place * args.vary_seed, shape),
                            edited,
                            embeds[-1:],
                            guidance_scale=args.guidance_scale,
                            num_inference_steps=args.num_inference_steps,
                            after_step=bar.update,
                        )
                    pipe.vae.to(device)
                    save_picture(decode(pipe.vae, final_latents)[0], run.folder / names[place], args.image_size)
                    pipe.unet.load_state_dict(as_it_was)
            accelerator.wait_for_everyone()
        if not is_main_process():
            return
        if all((run.folder / name).is_file() for name, _ in all_prompts):
            run.finish(prompts=all_prompts)
    say(f"{run.folder}: {counted(len(names), 'picture')} by Imagic, mu {args.mu:g}; {len(missing)} drawn now")


def photos_to_edit(folder: Path, count: int) -> list[Path]:
    """`count` photos of the folder, by name, over again where there are fewer.

    Raises:
        UserError: as `list_photos`, or one can't be read.
    """
    photos = list_photos(folder)
    for error in unreadable_photos(photos[:count]):
        if error:
            raise error
    return [photos[place % len(photos)] for place in range(count)]


def edited_embedding(
    denoiser: "Denoiser",
    optimizer: "torch.optim.Optimizer",
    photo: "Photos",
    draws: "PhotoDraws",
    params: Hyperparameters,
    mu: float,
    after_step: Callable[[], object],
) -> "torch.Tensor":
    """Steps A and B of Imagic for one photo, and the embedding of step C: μ e_tgt + (1 - μ) e_opt, (1, 77, hidden).

    A: e_opt = argmin over e of ||ε - ε_θ(z_t, t, e)||², beginning with the text's embedding e_tgt. B: the same over θ,
    with e_opt; changes the denoiser's UNet, by a new Adam.

    Args:
        photo: its `prompt_embeds` are e_tgt.
    """
    from hand1000.fusion import double_fusion
    from hand1000.schedules import begin_anew
    from hand1000.stages import finetune_stable_diffusion, optimise_text_embedding

    def on_device(steps):
        for draw in steps:
            yield draw.to(photo.latents.device)
            after_step()

    optimised, _ = optimise_text_embedding(denoiser, photo, on_device(draws.stage_two), params.embedding_lr)
    begin_anew(optimizer, params)
    finetune_stable_diffusion(
        denoiser, optimizer, photo._replace(prompt_embeds=optimised), on_device(draws.stage_three)
    )
    return double_fusion(photo.prompt_embeds, optimised, mu)


def cpu_copy(unet: "torch.nn.Module") -> dict[str, "torch.Tensor"]:
    """The weights, beside those that training changes."""
    return {name: value.to("cpu", copy=True) for name, value in unet.state_dict().items()}


if __name__ == "__main__":
    main()
