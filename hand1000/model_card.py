"""The model card of a run of train.py, from what lies in its folder."""

import shlex
from pathlib import Path

from core.diffusion.model_card import (
    SAMPLES,
    licence_of,
    licence_text,
    loader_of,
    loss_table,
    model_card,
    plain,
    settings_table,
    software_line,
)
from core.runs.command_line import printable
from core.runs.run import read_losses, read_record
from hand1000.gestures import PHRASES
from hand1000.hyperparameters import LOSS_COLUMNS
from hand1000.trained import FEATURE_FILE, RECORD, trained_model

STAGES = {"embedding": "Stage II: text embeddings", "finetune": "Stage III: fine-tuning"}  # as losses.csv names them
LOAD = """\
With diffusers, from the text alone (mu = 1):

```python
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained({name!r}, safety_checker=None)
picture = pipe({prompt!r}, guidance_scale=3).images[0]
```

With the fusion of text and gesture, whose layer and feature lie beside the weights, by the code that trained it:

```bash
python image_generation.py --ckpt {ckpt} --mu {mu} --resolution {resolution} --img_save_path pictures \\
    --prompt {argument}
```
"""
LOAD_LORA = """\
The weights are a LoRA for the base model's UNet. With diffusers, from the text alone (mu = 1):

```python
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.{load}({base!r}{revision}, safety_checker=None)
pipe.load_lora_weights({name!r})
"""


def card_of_run(folder: Path, name: str) -> str:
    """The card of a finished run; `name`: what it is loaded by, its folder or its hub id.

    Raises:
        UserError: no finished run is there, or it is damaged.
    """
    trained, record = trained_model(folder), read_record(folder / RECORD)
    facts, settings = record.facts if record else {}, trained.settings
    gesture, base = str(settings.get("gesture")), str(facts.get("base_model"))
    phrase, licence = PHRASES.get(gesture), licence_of(base)
    prompt = f"a person {phrase or gesture}"
    losses: dict[str, list[float]] = {}
    trained_part = "a LoRA of the UNet" if settings.get("lora_rank") else "the UNet"
    for _, stage, _, loss in read_losses(folder / "losses.csv", LOSS_COLUMNS):
        losses.setdefault(STAGES.get(stage, stage), []).append(float(loss))
    named = f" ({phrase})" if phrase else ""
    load = LOAD
    if settings.get("lora_rank"):
        load = LOAD_LORA + LOAD[LOAD.index("picture = ") :]
    sections = [
        (
            "What it is",
            f"Stable Diffusion, fine-tuned for one hand gesture, **{plain(gesture)}**{named}, by the method of "
            "[Hand1000](https://arxiv.org/abs/2408.15461) (Zhang et al., AAAI 2025): text embeddings that are fused "
            f"with the mean hand landmarks of the gesture, and {trained_part} fine-tuned with them. A reproduction, "
            "not the authors' weights. It was trained for this gesture only, and nothing here says how well it draws "
            "it: measure that with `cal_fid.py` and `hand_confidence.py`.",
        ),
        (
            "Training",
            f"- base model: {plain(base)}\n- data: {plain(settings.get('photos'))} photos of the gesture at "
            f"{trained.resolution} × {trained.resolution} pixels, captions by {plain(settings.get('captioner'))}, "
            f"gesture feature in `{FEATURE_FILE}`\n"
            f"- software: {software_line(facts.get('software', {}))}\n\n{settings_table(settings)}",
        ),
        ("Losses", loss_table(losses)),
        ("Sample pictures", sample_text(folder, settings.get("Lambda"))),
        (
            "How to load it",
            load.format(
                base=base,
                load=loader_of(base),
                revision="".join(
                    f", {part}={settings[part]!r}" for part in ("revision", "variant") if settings.get(part)
                ),
                name=name,
                prompt=prompt,
                ckpt=shlex.quote(printable(name)),
                mu=settings.get("Lambda"),
                resolution=trained.resolution,
                argument=shlex.quote(printable(prompt)),
            ),
        ),
        ("Licence", licence_text(base, licence)),
    ]
    tags = ["hand1000", *(["lora"] if settings.get("lora_rank") else [])]
    return model_card(f"Hand1000: {gesture}", sections, base_model=base, licence=licence, tags=tags)


def sample_text(folder: Path, mu: object) -> str:
    """The pictures, if there are some."""
    if not (folder / SAMPLES).is_file():
        return ""
    return (
        f"Drawn after training, not selected: a row for each prompt, other start noises from left to right, mu = {mu}."
        f"\n\n![Sample pictures]({SAMPLES})"
    )
