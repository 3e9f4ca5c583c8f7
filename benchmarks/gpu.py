"""Everything that only a GPU can tell, in one command: speeds, memory, equality with the CPU, kill and resume.

The parts run one after the other, the most important first, with random weights of the true sizes. Each row is saved
as soon as it is measured, and no row begins once the budget is spent. The same command again continues with the parts
that are missing; a file of another machine or commit is refused. At the end it prints tables in Markdown.

Examples:
  python -m benchmarks.gpu --output gpu.json
  python -m benchmarks.gpu --output gpu.json --budget 240 --parts card training
  python -m benchmarks.gpu --output dry.json --dry_run
"""

import functools
import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from core.runs.command_line import argument_parser, command_line, positive_int
from core.runs.errors import UserError
from core.runs.files import check_writable, write_json
from core.runs.processes import set_tf32
from core.runs.run import read_json
from core.runs.software import git_commit, machine, software
from hand1000.hyperparameters import Hyperparameters

ROOT = Path(__file__).resolve().parents[1]
STEPS_OF_PHOTO = 10, 20  # Stage II and Stage III, as released

Row = dict[str, Any]


class Size(NamedTuple):
    """How large everything is."""

    unet: str
    stage: str  # AttentionHand's
    resolution: int
    steps: int  # timed, after one to warm up
    matrix: int  # rows of the matrices of the card's own speed
    pictures: int
    hidden_size: int  # of the text encoder
    batch_sizes: tuple[int, ...]
    tests: tuple[str, ...]


FULL = Size(
    "sd14", "sd15", 512, 5, 8192, 256, 768, (1, 2, 4, 8), ("tests/test_training_parity.py", "tests/test_generation.py")
)
DRY = Size("tiny", "mini", 64, 1, 128, 8, 32, (1, 2), ("tests/test_arrows.py",))


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="JSON file for the figures")
    add("--budget", type=positive_int, default=540, help="seconds after which no further row begins")
    add("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    add("--dry_run", action="store_true", help="tiny models, to try the command itself; also without a GPU")
    args = parser.parse_args(argv)
    check_writable(args.output.parent)

    import torch

    if not args.dry_run and not torch.cuda.is_available():
        raise UserError("no CUDA device found; --dry_run tries the command on tiny models without one")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = {"machine": machine(), "commit": git_commit(), "dry_run": args.dry_run}
    figures = {**facts, "software": software(), "parts": {}}
    if args.output.is_file():
        figures = read_json(args.output, "not figures of this command; choose another --output")
        if any(figures.get(name) != value for name, value in facts.items()):
            raise UserError(f"{args.output}: measured on another machine or commit; choose another --output")
    measure(figures, args.parts, DRY if args.dry_run else FULL, device, args.output, args.budget)
    for name, part in figures["parts"].items():
        print(
            f"\n{name}{'' if part['complete'] else ' (not complete)'}, {part['seconds']:.0f} s\n\n{table(part['rows'])}"
        )


def measure(figures: dict, names: list[str], size: Size, device, output: Path, budget: float) -> None:
    """Run the parts that are not complete, and save after every row."""
    import torch

    began = time.perf_counter()
    for name in names:
        if figures["parts"].get(name, {}).get("complete"):
            continue
        if time.perf_counter() - began >= budget:
            break  # what an earlier call has measured of this part stays
        part: dict[str, Any] = {"rows": [], "complete": False, "seconds": 0.0}
        figures["parts"][name] = part
        started = time.perf_counter()
        rows = PARTS[name](size, device)
        while time.perf_counter() - began < budget:
            row = attempted(lambda rows=rows: next(rows, None))  # type: ignore[misc]
            if row is None:
                part["complete"] = True
                break
            part["rows"].append(row)
            part["seconds"] = time.perf_counter() - started
            write_json(output, figures)
            print(f"{name}: {row}", flush=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()
            if row.keys() == {"failed"}:
                break
        write_json(output, figures)


def attempted(row: Callable[[], Any]) -> Any:
    """The row, or why there is none: what needs less memory may still be measured."""
    try:
        return row()
    except Exception as error:
        return {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:200]}


def table(rows: list[Row]) -> str:
    """Markdown; a row that lacks a column has a dash there."""
    columns = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    lines += [f"| {' | '.join(cell(row.get(column)) for column in columns)} |" for row in rows]
    return "\n".join(lines)


def cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def timed(function: Callable[[], object], device, repeats: int = 1) -> float:
    """Seconds a call, on the device, after one to warm up."""
    from benchmarks.train_step import synchronize

    function()
    synchronize(device)
    started = time.perf_counter()
    for _ in range(repeats):
        function()
    synchronize(device)
    return (time.perf_counter() - started) / repeats


# The parts. Each yields a row as soon as it is measured.


def card(size: Size, device) -> Iterator[Row]:
    """The card's own speed: products of square matrices."""
    import torch

    for name, dtype, tf32 in (
        ("bfloat16", torch.bfloat16, False),
        ("float32", torch.float32, False),
        ("TensorFloat-32", torch.float32, True),
    ):
        set_tf32(tf32)
        matrix = torch.randn(size.matrix, size.matrix, device=device, dtype=dtype)
        seconds = timed(lambda matrix=matrix: matrix @ matrix, device, 5)  # type: ignore[misc]
        yield {"arithmetic": name, "TFLOP/s": 2 * size.matrix**3 / seconds / 1e12}
    set_tf32(False)


def training(size: Size, device) -> Iterator[Row]:
    """Hand1000's photo by photo, in every arithmetic and with every option that saves memory or time."""
    rate = next(card(size, device))["TFLOP/s"]
    variants: dict[str, dict] = {
        "bf16": {"mixed_precision": "bf16"},
        "bf16, checkpointing": {"mixed_precision": "bf16", "gradient_checkpointing": True},
        "float32": {},
        "float32, TF32": {"allow_tf32": True},
        "bf16, channels last": {"mixed_precision": "bf16", "channels_last": True},
    }
    variants["bf16, checkpointing, LoRA of rank 16"] = {**variants["bf16, checkpointing"], "lora_rank": 16}
    if importlib.util.find_spec("bitsandbytes"):
        variants["bf16, checkpointing, 8-bit Adam"] = {**variants["bf16, checkpointing"], "use_8bit_adam": True}
    for name, options in variants.items():
        yield {"training": name, **attempted(functools.partial(photo_figures, size, rate, **options))}


def photo_figures(
    size: Size, rate: float, *, gradient_checkpointing: bool = False, allow_tf32: bool = False, **options: Any
) -> Row:
    """Of the interleaved schedule; `rate` is what the card can do, in TFLOP/s."""
    from benchmarks.train_step import seconds_of_photo, time_stages

    params = Hyperparameters(**options)
    timings = time_stages(
        size.unet,
        size.resolution,
        params,
        steps=size.steps,
        allow_tf32=allow_tf32,
        gradient_checkpointing=gradient_checkpointing,
    )
    seconds = seconds_of_photo(timings, params)
    tflop = sum(steps * timing.tflop for steps, timing in zip(STEPS_OF_PHOTO, timings))
    return {
        "Stage II, s a step": timings[0].seconds,
        "Stage III, s a step": timings[1].seconds,
        "photos a minute": 60 / seconds,
        "share of the bf16 rate": tflop / seconds / rate if tflop else None,
        "peak, GB": max(timing.peak for timing in timings),
        "first steps, s": sum(timing.start for timing in timings),
    }


def batches(size: Size, device) -> Iterator[Row]:
    """The staged schedule's batches, in bf16 with gradient checkpointing."""
    from benchmarks.train_step import seconds_of_photo, time_stages

    params = Hyperparameters(mixed_precision="bf16")

    def figures(batch_size: int) -> Row:
        timings = time_stages(
            size.unet,
            size.resolution,
            params,
            batch_size=batch_size,
            steps=size.steps,
            gradient_checkpointing=True,
        )
        photos = 60 * batch_size / seconds_of_photo(timings, params)
        return {"photos a minute": photos, "peak, GB": max(timing.peak for timing in timings)}

    for batch_size in size.batch_sizes:
        yield {"batch": batch_size, **attempted(functools.partial(figures, batch_size))}


def compiling(size: Size, device) -> Iterator[Row]:
    """torch.compile in bf16, with the time that it takes to start."""
    for mode in ("default", "reduce-overhead"):
        figures = attempted(functools.partial(photo_figures, size, 1, mixed_precision="bf16", compile=mode))
        yield {"compiled": mode, **{name: value for name, value in figures.items() if "share" not in name}}


def drawing(size: Size, device) -> Iterator[Row]:
    """Pictures of Hand1000: 45 DDIM steps with guidance, and the autoencoder, in bf16."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler

    from benchmarks.train_step import build_unet
    from core.diffusion.sampling import decode
    from hand1000.generation import sample
    from synthetic_hands.tiny_model import tiny_stable_diffusion

    unet, factor = build_unet(size.unet, device)
    unet.to(torch.bfloat16)
    if size.unet == "tiny":
        vae = tiny_stable_diffusion().vae.to(device)
    else:
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
        with device:
            vae = AutoencoderKL(
                block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, **blocks
            )
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    side, steps = size.resolution // factor, 45 if size.unet != "tiny" else 2
    for batch_size in size.batch_sizes:
        latents = torch.randn(batch_size, 4, side, side, device=device)
        embeds = torch.randn(batch_size, 77, unet.config.cross_attention_dim, device=device, dtype=torch.bfloat16)

        def draw(latents=latents, embeds=embeds) -> None:
            made = sample(unet, scheduler, latents, embeds, embeds[:1], guidance_scale=7.5, num_inference_steps=steps)
            decode(vae, made)

        yield {"batch": batch_size, "pictures a minute": 60 * batch_size / timed(draw, device)}


def attentionhand(size: Size, device) -> Iterator[Row]:
    """A training step of AttentionHand in float32, with and without the text attention stage (TAS)."""

    from benchmarks.attentionhand_step import training_steps
    from core.runs.steps import peak_memory, reset_peak_memory

    def figures(tas_steps: int, tf32: bool) -> Row:
        set_tf32(tf32)
        ours, _ = training_steps(size.stage, max(size.resolution, 128), 1, device=device, tas_steps=tas_steps)
        reset_peak_memory()
        seconds, peaks = timed(ours, device), peak_memory()
        return {"s a step": seconds, "peak, GB": peaks.get("gpu", peaks["process"])}

    for tas_steps, tf32 in itertools.product((0, 50 if size is FULL else 1), (False, True)):
        case = {"TAS steps": tas_steps, "TF32": "on" if tf32 else "off"}
        yield {**case, **attempted(functools.partial(figures, tas_steps, tf32))}
    set_tf32(False)


def equality(size: Size, device) -> Iterator[Row]:
    """The losses of both stages on the tiny model, here against the CPU, from the same random numbers."""
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from diffusers import DDPMScheduler

    from hand1000.draws import photo_draws
    from hand1000.schedules import denoiser_of, first_state, unet_optimizer
    from hand1000.stages import Photos, finetune_stable_diffusion, optimise_text_embedding
    from synthetic_hands.tiny_model import tiny_stable_diffusion

    params, generator = Hyperparameters(), torch.Generator().manual_seed(1)
    latents = torch.randn(1, 4, 16, 16, generator=generator)
    prompt_embeds = torch.randn(1, 77, 32, generator=generator)
    draws = photo_draws(0, (1, 4, 16, 16), embedding_steps=10, finetune_steps=20)
    losses = []
    set_tf32(False)
    for on in (torch.device("cpu"), device):
        AcceleratorState._reset_state(True)
        accelerator = Accelerator(cpu=on.type == "cpu")
        unet = tiny_stable_diffusion().unet.to(on).train()
        denoiser = denoiser_of(unet, DDPMScheduler(), accelerator, params, first_state(params))
        photos = Photos(["a photo"], latents, prompt_embeds).to(on)
        stage_two, stage_three = ([draw.to(on) for draw in stage] for stage in draws[1:])
        embeds, first = optimise_text_embedding(denoiser, photos, stage_two, params.embedding_lr)
        photos = photos._replace(prompt_embeds=embeds)
        second = finetune_stable_diffusion(denoiser, unet_optimizer(denoiser.weights, params), photos, stage_three)
        losses.append(torch.cat([first, second]).cpu())
    AcceleratorState._reset_state(True)
    yield {"losses": len(losses[0]), "largest difference to the CPU": (losses[0] - losses[1]).abs().max().item()}


def resuming(size: Size, device) -> Iterator[Row]:
    """train.py on the miniature, killed after its first checkpoint and resumed: the same bits as in one go?"""
    import numpy as np
    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        script("-m", "synthetic_hands.make_dataset", "--output_dir", root / "data", "--gestures", "call", "--num", 8)
        data = root / "data"
        (data / "call_synthetic_modified.txt").write_bytes((data / "call_synthetic.txt").read_bytes())
        np.save(data / "call.npy", np.full(63, 0.5, np.float32))  # Stage I is not what is tried
        train = [ROOT / "train.py", "--gesture", "call", "--data_root", data, "--captioner", "synthetic"]
        train += ["--pretrained_model_name_or_path", ROOT / "synthetic_hands" / "mini" / "model", "--resolution", 64]
        train += ["--finetune_lr", "1e-4", "--checkpointing_images", 1, "--resume_from_checkpoint", "latest"]
        script(*train, "--output_dir", root / "whole")
        killed = subprocess.Popen(command(*train, "--output_dir", root / "killed"), cwd=ROOT, stdout=subprocess.DEVNULL)
        while killed.poll() is None and not list((root / "killed" / "checkpoints").glob("checkpoint-*")):
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        script(*train, "--output_dir", root / "killed")
        weights = [load_file(root / run / "unet/diffusion_pytorch_model.safetensors") for run in ("whole", "killed")]
        largest = max(float(np.abs(value - weights[1][name]).max()) for name, value in weights[0].items())
        yield {"run": "killed and resumed", "largest difference of weights": largest}


def features(size: Size, device) -> Iterator[Row]:
    """Inception's features of drawn pictures, read and prepared by worker processes."""
    import numpy as np
    import torch
    from torchvision.models import inception_v3

    from core.metrics.extractors import load_inception
    from core.metrics.features import extract
    from core.runs.photos import list_photos
    from core.runs.processes import cpu_count
    from synthetic_hands.drawn import draw_open_hand

    with tempfile.TemporaryDirectory() as folder:
        weights, rng = Path(folder) / "inception.pth", np.random.default_rng(0)
        torch.save(inception_v3(weights=None, init_weights=False).state_dict(), weights)
        for number in range(size.pictures):
            draw_open_hand(rng)[0].resize((512, 512)).save(Path(folder) / f"{number:04}.jpg", quality=95)
        extractor, photos = load_inception("released", weights, device), list_photos(Path(folder))
        started = time.perf_counter()
        extract(photos, extractor, protocol="released", crop="whole", batch_size=32, num_workers=cpu_count())
        yield {"features": "Inception v3", "pictures a second": len(photos) / (time.perf_counter() - started)}


def captions(size: Size, device) -> Iterator[Row]:
    """ViT-GPT2 in batches of 32."""
    import numpy as np

    from captioning import vitgpt2
    from synthetic_hands.drawn import draw_open_hand
    from synthetic_hands.tiny_captioners import save_vitgpt2

    rng = np.random.default_rng(0)
    photos = [draw_open_hand(rng)[0] for _ in range(min(32, size.pictures))]
    with tempfile.TemporaryDirectory() as folder:
        caption = vitgpt2.load(str(save_vitgpt2(Path(folder) / "model", full_size=size is FULL)), device)
    yield {"captioner": "ViT-GPT2", "captions a second": len(photos) / timed(lambda: caption(photos), device)}


def fusion(size: Size, device) -> Iterator[Row]:
    """The fusion of text and gesture, its weights made in row blocks from a seed."""
    import torch

    from hand1000.fusion import fuse

    for count in (1, 1000):
        prompt_embeds, feature = torch.randn(count, 77, size.hidden_size), torch.rand(63)
        started = time.perf_counter()
        fuse(prompt_embeds, feature, device=device)
        yield {"prompts": count, "s": time.perf_counter() - started}


def tests(size: Size, device) -> Iterator[Row]:
    """Those of the project's tests that compute on the GPU where there is one."""
    done = subprocess.run(command("-m", "pytest", "-q", *size.tests), cwd=ROOT, capture_output=True, text=True)
    yield {"tests": " ".join(size.tests), "result": (done.stdout.strip().splitlines() or ["no output"])[-1]}


def command(*arguments: object) -> list[str]:
    return [sys.executable, *map(str, arguments)]


def script(*arguments: object) -> None:
    """Run a script of the repository.

    Raises:
        UserError: it failed; its last line.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1])


PARTS: dict[str, Callable[[Size, Any], Iterator[Row]]] = {  # the most important first
    "card": card,
    "training": training,
    "drawing": drawing,
    "attentionhand": attentionhand,
    "batches": batches,
    "equality": equality,
    "resuming": resuming,
    "fusion": fusion,
    "captions": captions,
    "features": features,
    "compiling": compiling,
    "tests": tests,
}

if __name__ == "__main__":
    main()
