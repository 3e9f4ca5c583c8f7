"""Train the miniature Stable Diffusion, from scratch or further, on hands of all gestures with captions that name none.

The real classes (CLIP text model and tokenizer, AutoencoderKL, UNet2DConditionModel, DDIM) at 64x64 pixels. Like the
real base model it draws hands, but not the gesture that is asked for. A killed run can be started again: it continues
from its last checkpoint.

Examples:
  python -m synthetic_hands.train_mini --output_dir results/mini
  python -m synthetic_hands.train_mini --output_dir results/longer --seed 1 --autoencoder_steps 0 \\
    --unet_steps 1200 --unet_lr 2e-4 --min_detection_confidence 0.7 --pretrained_model_name_or_path results/mini/model
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core.diffusion.model_path import check_model_path
from core.runs.command_line import (
    argument_parser,
    command_line,
    fraction,
    learning_rate,
    natural_int,
    plain_arguments,
    positive_int,
    seed_int,
)
from core.runs.errors import UserError, reason_of
from core.runs.files import atomic_file, atomic_folder, check_writable, model_identity, write_json
from core.runs.processes import cpu_count, progress, say, start_processes
from core.runs.run import Run, read_json

SIZE, FACTOR = 64, 4  # pixels per side; pixels of a latent's side
LATENT_CHANNELS = 8  # four smear the fingers
VOCABULARY = 640  # tokens: 512 bytes, and the captions' words
HAND_WEIGHT = 4  # of a pixel of the hand in both losses; of another: 1
KL_WEIGHT = 1e-6
CAPTION_DROPOUT = 0.1
# The last timestep leaves 7 % of a picture's mean colour in the noise. Unless the mean of the noise varies more than
# that, the model reads a wall's colour from there and not from the caption; when it draws, from the start noise.
NOISE_OFFSET = 0.1
LETTERS = list("abcdefghijklmnopqrstuvwxyz")
SAVE_EVERY = 250  # steps
STATE = "state.pt"  # of a checkpoint: weights and optimiser
AUTOENCODER, UNET = "autoencoder", "unet"  # the two phases of the training
POSTERIOR, NOISE, MALFORMED = range(3)  # purposes of the seeds that are derived from --seed


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the model and the unfinished run")
    parser.add_argument(
        "--pretrained_model_name_or_path",
        type=Path,
        metavar="FOLDER",
        help="a miniature to train further: its tokenizer and its encoder stay (default: random weights)",
    )
    parser.add_argument("--num", type=positive_int, default=450, help="pictures of each of the 18 gestures")
    parser.add_argument(
        "--malformed",
        type=fraction,
        default=0.0,
        help="share of the pictures whose hands have fingers missing, doubled, melted or of a wrong length",
    )
    parser.add_argument(
        "--autoencoder_steps",
        type=natural_int,
        default=8000,
        help="steps of 16 pictures; 0 takes a pretrained miniature's as it is",
    )
    parser.add_argument("--unet_steps", type=positive_int, default=8000, help="steps of 32 pictures")
    parser.add_argument("--unet_lr", type=learning_rate, default=4e-4, help="highest rate of text encoder and UNet")
    parser.add_argument(
        "--min_detection_confidence",
        type=fraction,
        help="train text encoder and UNet with those pictures only in which MediaPipe is so sure of the hand, 0 to 1, "
        "after the autoencoder (default: all)",
    )
    parser.add_argument("--seed", type=seed_int, default=0, help="of the data and the training")
    args = parser.parse_args(argv)
    base = args.pretrained_model_name_or_path
    if base:
        check_miniature(base)
    elif args.autoencoder_steps == 0:
        raise UserError(
            "--autoencoder_steps 0 takes a miniature's autoencoder: name it by --pretrained_model_name_or_path"
        )
    check_writable(args.output_dir)
    settings = {
        **plain_arguments(args, without=["output_dir", "pretrained_model_name_or_path"]),
        "base_model": model_identity(str(base)) if base else None,
        "noise_offset": NOISE_OFFSET,
        "hand_weight": HAND_WEIGHT,
    }
    run = Run(args.output_dir / "mini.json", settings, what="training")
    with run.hold():
        if run.is_finished():
            say(f"{args.output_dir / 'model'}: already finished")
            return
        run.begin()
        data = training_data(args.output_dir / "data.npz", args.num, args.seed, args.malformed)
        train_model(
            run,
            base,
            data,
            autoencoder_steps=args.autoencoder_steps,
            unet_steps=args.unet_steps,
            unet_lr=args.unet_lr,
            confidence=args.min_detection_confidence,
            seed=args.seed,
        )
        run.finish()
    say(f"{args.output_dir / 'model'}: a Stable Diffusion of {SIZE}x{SIZE} pixels")


def check_miniature(folder: Path) -> None:
    """Refuse a model whose latents have another size than the miniature's.

    Raises:
        UserError
    """
    check_model_path(str(folder), None, None)
    config = folder / "vae" / "config.json"
    shrink = 2 ** (len(read_json(config, f"{folder}: not a miniature").get("block_out_channels", [])) - 1)
    if shrink != FACTOR:
        raise UserError(
            f"{folder}: not a miniature; the side of its latents is 1/{shrink:g} of a picture's, not 1/{FACTOR}"
        )


def train_model(
    run: Run,
    pretrained: Path | None,
    data: dict[str, np.ndarray],
    *,
    autoencoder_steps: int,
    unet_steps: int,
    unet_lr: float,
    confidence: float | None,
    seed: int,
) -> None:
    """Train the autoencoder, then text encoder and UNet, and write the model into {run.folder}/model."""
    import torch

    from core.diffusion.stable_diffusion import load_stable_diffusion
    from synthetic_hands.tiny_model import pipeline

    device = start_processes().device
    base = load_stable_diffusion(str(pretrained)) if pretrained else None
    torch.manual_seed(seed)
    vae = train_autoencoder(run, base.vae if base else None, data, autoencoder_steps, seed, device)
    torch.manual_seed(seed)
    if base:
        pipe = pipeline(vae, base.tokenizer, base.text_encoder, base.unet)
    else:
        tokenizer = caption_tokenizer(data["captions"].tolist())
        pipe = pipeline(vae, tokenizer, tiny_text_encoder(tokenizer), tiny_unet())
    data = data | {"latents": encode(vae, data["pictures"], device).numpy()}
    if confidence is not None:
        rows = rows_with_a_hand(run.folder / "rows_with_a_hand.npy", vae, data["latents"], confidence, device)
        data = {name: values[rows] for name, values in data.items()}
    train_unet(run, pipe, data, autoencoder_steps, unet_steps, unet_lr, seed, device)
    with atomic_folder(run.folder / "model") as folder:
        pipe.to(torch.float16).save_pretrained(folder)
        load_as_float32(folder)


def load_as_float32(model: Path) -> None:
    """Let a diffusers folder with half-precision weights load in float32: transformers loads what `dtype` says."""
    config = model / "text_encoder" / "config.json"
    write_json(config, {**read_json(config, f"{config}: damaged"), "dtype": "float32"})


# Data


def training_data(path: Path, num: int, seed: int, malformed: float = 0) -> dict[str, np.ndarray]:
    """`pictures` (N, 64, 64, 3) uint8, `masks` (N, 64, 64) bool, `captions` and `gestures`; drawn once.

    Args:
        malformed: share of malformed hands, 0 to 1.
    """
    from synthetic_hands.hand import POSES
    from synthetic_hands.make_dataset import draw_all

    if not path.is_file():
        kinds = np.random.default_rng([seed, MALFORMED]).random((num, len(POSES))) < malformed
        jobs = [
            (gesture, [seed, 2**30 + number], bool(is_malformed))
            for number, row in enumerate(kinds)
            for gesture, is_malformed in zip(POSES, row)
        ]
        pictures, masks, captions = zip(*draw_all(draw, jobs, cpu_count()))
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            arrays = {"pictures": np.stack(pictures), "masks": np.stack(masks), "captions": np.array(captions)}
            np.savez(file, **arrays, gestures=np.array([gesture for gesture, *_ in jobs]))
    with np.load(path) as file:
        return dict(file)


def draw(gesture: str, seed: list[int], is_malformed: bool = False) -> tuple[np.ndarray, np.ndarray, str]:
    """One picture (64, 64, 3), its mask (64, 64) and its caption."""
    from synthetic_hands.sample import draw_sample

    sample = draw_sample(gesture, seed, size=SIZE, is_malformed=is_malformed)
    return sample.rgb, sample.mask, sample.caption


def hand_weights(masks: np.ndarray):
    """What each pixel counts in the losses, (N, 1, 64, 64) uint8, of masks (N, 64, 64) bool of hands."""
    import torch

    return 1 + (HAND_WEIGHT - 1) * torch.from_numpy(masks)[:, None].to(torch.uint8)


def batches(count: int, size: int, seed: int, start: int) -> Iterator[np.ndarray]:
    """Random batches of indices without an end, from step `start`: the same ones after a run is resumed."""
    step = start
    while True:
        yield np.random.default_rng([seed, step]).integers(count, size=size)
        step += 1


# Autoencoder


def tiny_vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=SIZE,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )


def train_autoencoder(run: Run, pretrained, data: dict[str, np.ndarray], steps: int, seed: int, device):
    """An AutoencoderKL whose loss weighs the hand and its edges; its scaling factor makes latents of unit variance.

    Of a `pretrained` one only the decoder is trained: its latents stay what its UNet has learned.
    """
    import torch
    from diffusers import AutoencoderKL

    from core.diffusion.noise import derived_seed

    finished = run.folder / "autoencoder"
    if finished.is_dir():
        vae = AutoencoderKL.from_pretrained(finished).to(device, memory_format=torch.channels_last)
        return vae.eval().requires_grad_(False)
    vae = (pretrained or tiny_vae()).to(device, memory_format=torch.channels_last).train().requires_grad_(True)
    if pretrained:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    weights_to_train = [weight for weight in vae.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights_to_train, lr=1e-3, weight_decay=0)
    start = restore(run, AUTOENCODER, vae, optimiser)
    pictures, weights = torch.from_numpy(data["pictures"]), hand_weights(data["masks"])
    bar = progress(batches(len(pictures), 16, seed, start), total=steps, initial=start, desc="Autoencoder", unit="step")
    for step, rows in enumerate(bar, start=start):
        if step >= steps:
            break
        set_rate(optimiser, 1e-3, step, steps)
        generator = torch.Generator().manual_seed(derived_seed(seed, POSTERIOR, step))
        x = (pictures[rows].to(device).permute(0, 3, 1, 2) / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        weight = weights[rows].to(device).float()
        posterior = vae.encode(x).latent_dist
        made = vae.decode(posterior.sample(generator)).sample
        loss = picture_loss(made, x, weight) + KL_WEIGHT * posterior.kl().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights_to_train, 1.0)
        optimiser.step()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            save(run, AUTOENCODER, step + 1, step + 1, vae, optimiser)
            bar.set_postfix(loss=f"{loss.item():.4f}")
    vae.eval().requires_grad_(False)
    if not pretrained:
        sample = encode(vae, data["pictures"][:512], device, scaled=False)
        vae.register_to_config(scaling_factor=round(float(1 / sample.std()), 5))
    with atomic_folder(finished) as folder:
        vae.save_pretrained(folder)
    return vae


def picture_loss(made, real, weight):
    """Weighted L1 distance of pictures and of their edges at three scales, which keeps fingers apart.

    Args:
        made, real: (B, 3, H, W) in [-1, 1].
        weight: (B, 1, H, W), of each pixel.
    """
    import torch.nn.functional as F

    loss = 0
    for _ in range(3):
        difference = made - real
        edges = (difference.diff(dim=-1).abs() * weight[..., 1:]).mean()
        edges = edges + (difference.diff(dim=-2).abs() * weight[..., 1:, :]).mean()
        loss = loss + (difference.abs() * weight).mean() + edges
        made, real, weight = (F.avg_pool2d(tensor, 2) for tensor in (made, real, weight))
    return loss


def encode(vae, pictures: np.ndarray, device, *, scaled: bool = True):
    """Means of the posteriors (N, 8, 16, 16), times the scaling factor if `scaled`."""
    import torch

    factor = vae.config.scaling_factor if scaled else 1
    made = []
    with torch.inference_mode():
        for start in range(0, len(pictures), 64):
            x = torch.from_numpy(pictures[start : start + 64]).to(device).permute(0, 3, 1, 2) / 127.5 - 1
            made.append(vae.encode(x).latent_dist.mean.cpu() * factor)
    return torch.cat(made)


def rows_with_a_hand(path: Path, vae, latents: np.ndarray, confidence: float, device) -> np.ndarray:
    """Those of the latents (N, 8, 16, 16) in whose pictures MediaPipe finds a hand, as indices; looked for once.

    Raises:
        UserError: there is none.
    """
    import torch

    from core.diffusion.sampling import decode
    from core.hands.detection import find_hands

    if not path.is_file():
        rows = []
        for row, latent in enumerate(progress(torch.from_numpy(latents), desc="Finding hands", unit="picture")):
            (picture,) = decode(vae, latent[None].to(device))
            if find_hands(picture, min_detection_confidence=confidence):
                rows.append(row)
        if not rows:
            raise UserError(f"no hand is found at confidence {confidence:g}; train the autoencoder for longer")
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.save(file, np.array(rows))
    return np.load(path)


# Text and UNet


def caption_tokenizer(captions: list[str]):
    """A CLIP tokenizer whose merges come from the captions; other words fall into their bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    model = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    model.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    model.train_from_iterator(sorted(set(captions)), trainer)
    merges = [tuple(merge) for merge in json.loads(model.to_str())["model"]["merges"]]
    characters = sorted(alphabet)
    tokens = [*characters, *(f"{character}</w>" for character in characters), *("".join(merge) for merge in merges)]
    tokens = list(dict.fromkeys(tokens)) + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer({token: number for number, token in enumerate(tokens)}, merges, model_max_length=77)


def tiny_text_encoder(tokenizer):
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            projection_dim=96,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def tiny_unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIZE // FACTOR,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=96,
        attention_head_dim=4,
    )


def train_unet(
    run: Run,
    pipe,
    data: dict[str, np.ndarray],
    autoencoder_steps: int,
    steps: int,
    rate: float,
    seed: int,
    device,
) -> None:
    """Train the pipeline's UNet and text encoder together, under the denoising loss that weighs the hand.

    They end as the averages of their weights over the last steps (EMA), which draw better than the last ones.
    """
    import torch
    from diffusers.training_utils import EMAModel

    from core.diffusion.noise import derived_seed, with_offset
    from synthetic_hands.tiny_model import noise_scheduler

    # One set of parameters for the optimiser, the average and the file.
    model = torch.nn.ModuleDict({"text_encoder": pipe.text_encoder, "unet": pipe.unet})
    model.to(device).train().requires_grad_(True)
    average = EMAModel(model.parameters(), decay=0.999)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-3)
    start = restore(run, UNET, model, optimiser, average)
    scheduler, latents, captions = noise_scheduler(), torch.from_numpy(data["latents"]), data["captions"].tolist()
    weights = torch.nn.functional.avg_pool2d(hand_weights(data["masks"]).float(), FACTOR)  # of the latents' places
    bar = progress(batches(len(latents), 32, seed + 1, start), total=steps, initial=start, desc="UNet", unit="step")
    for step, rows in enumerate(bar, start=start):
        if step >= steps:
            break
        set_rate(optimiser, rate, step, steps)
        generator = torch.Generator().manual_seed(derived_seed(seed, NOISE, step))
        clean = latents[rows]
        noise = with_offset(torch.randn(clean.shape, generator=generator), NOISE_OFFSET, generator)
        timesteps = torch.randint(1000, (len(rows),), generator=generator)
        texts = [training_text(captions[row], [seed, step, place]) for place, row in enumerate(rows)]
        tokens = pipe.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(device)
        noisy = scheduler.add_noise(clean, noise, timesteps).to(device)
        embeds = pipe.text_encoder(tokens).last_hidden_state
        noise_pred = pipe.unet(noisy, timesteps.to(device), encoder_hidden_states=embeds).sample
        loss = weighted_loss(noise_pred, noise.to(device), weights[rows].to(device))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.step(model.parameters())
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            save(run, UNET, step + 1, autoencoder_steps + step + 1, model, optimiser, average)
            bar.set_postfix(loss=f"{loss.item():.4f}")
    average.copy_to(model.parameters())
    model.eval().requires_grad_(False)


def weighted_loss(noise_pred, noise, weight):
    """||noise - noise_pred||² of (B, C, h, w), the mean over all values weighted by (B, 1, h, w)."""
    return (weight * (noise - noise_pred) ** 2).sum() / (weight.sum() * noise.shape[1])


def training_text(caption: str, seed: list[int]) -> str:
    """The caption, or nothing (a tenth of the times, for guidance); half of the captions get words without a meaning.

    So the model learns, as a large one does, that words it does not know change nothing about the others. The name of a
    gesture consists of such words.
    """
    rng = np.random.default_rng(seed)
    if rng.random() < CAPTION_DROPOUT:
        return ""
    words = ["".join(rng.choice(LETTERS, rng.integers(2, 9))) for _ in range(rng.integers(1, 6) * (rng.random() < 0.5))]
    return " ".join([caption, *words])


# Steps and checkpoints


def set_rate(optimiser, highest: float, step: int, steps: int) -> None:
    """Warm up over 200 steps, then a cosine down to a twentieth."""
    warm = min(1, (step + 1) / 200)
    for group in optimiser.param_groups:
        group["lr"] = highest * warm * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)


def save(run: Run, phase: str, step: int, number: int, model, optimiser, average=None) -> None:
    """Save a checkpoint after `step` steps of a phase; `number` counts the steps of both phases."""
    import torch

    from core.diffusion.stable_diffusion import model_bytes

    state = {"step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict()}
    if average:
        state["average"] = average.state_dict()

    def write(folder: Path) -> None:
        torch.save(state, folder / STATE)

    run.save_checkpoint(number, write, state={"phase": phase}, size=4 * model_bytes(model), keep=1)


def restore(run: Run, phase: str, model, optimiser, average=None) -> int:
    """Load the last checkpoint, if it is of this phase; returns the step to continue with.

    Raises:
        UserError: it is damaged or has other settings.
    """
    import torch

    checkpoint = run.checkpoint_to_resume("latest")
    if checkpoint is None or run.state_of(checkpoint).get("phase") != phase:
        return 0
    try:
        state = torch.load(checkpoint / STATE, map_location=next(model.parameters()).device, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        if average:
            average.load_state_dict(state["average"])
        return int(state["step"])
    except Exception as error:  # torch and pickle raise a dozen kinds
        raise UserError(f"{checkpoint}: damaged checkpoint ({reason_of(error)}); remove it") from None


if __name__ == "__main__":
    main()
