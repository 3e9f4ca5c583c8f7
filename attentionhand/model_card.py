"""The model card of a run of attentionhand.train, from what lies in its folder."""

import shlex
from pathlib import Path
from typing import Any

from attentionhand.runs import LOSS_COLUMNS, TRAINING, finished_training
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
from core.diffusion.model_path import is_hub_id
from core.runs.command_line import printable
from core.runs.errors import UserError
from core.runs.run import read_losses

MODELS = ("pretrained_model_name_or_path", "original_config", "config", "tas_model", "resume_path")
LOAD = """\
```python
from diffusers import {kind}, StableDiffusion{pipeline}Pipeline{unet_class}

control = {kind}.from_pretrained({name!r})
pipe = StableDiffusion{pipeline}Pipeline.{load}({base!r}, {argument}=control, safety_checker=None)
{unet}picture = pipe("a man holding a cup in his hand", image=mesh_image).images[0]  # light grey hand on black, PIL
```

Or with the sampling of the released code, by the code that trained it:

```bash
python -m attentionhand.inference --weights {weights} --pretrained_model_name_or_path {base_argument}{flags}
```
"""


def card_of_run(folder: Path, name: str) -> str:
    """The card of a finished run; `name`: what it is loaded by, its folder or its hub id.

    Raises:
        UserError: no finished run is there, or it is damaged.
    """
    record = finished_training(folder)
    if record is None:
        raise UserError(f"{folder}: not a run folder of attentionhand.train (no {TRAINING} in it)")
    arguments: dict[str, Any] = record.facts.get("arguments", {})
    base, control = str(record.facts.get("base_model")), record.settings.get("control", "controlnet")
    is_adapter, unlocked = control == "t2i_adapter", bool(record.settings.get("sd_unlocked"))
    licence, losses = licence_of(base), read_losses(folder / "losses.csv", LOSS_COLUMNS)
    kind, pipeline, argument = "ControlNetModel", "ControlNet", "controlnet"
    if is_adapter:
        kind, pipeline, argument = "T2IAdapter", "Adapter", "adapter"
    by_name = {name: arguments.get(name) for name in MODELS}  # settings know them by their hashes
    sections = [
        (
            "What it is",
            f"{'A T2I-Adapter (a baseline)' if is_adapter else 'A ControlNet'} that lets Stable Diffusion draw hands "
            "along the image of a hand's mesh, trained by the code of a reproduction of "
            "[AttentionHand](https://arxiv.org/abs/2407.18034) (Park et al., ECCV 2024); not the authors' weights. "
            "Nothing here says how well its pictures follow the mesh: measure that with "
            "`python -m attentionhand.evaluate`."
            + (" With it goes a UNet whose decoder was trained, too, in `unet/`." if unlocked else ""),
        ),
        (
            "Training",
            f"- base model: {plain(base)}\n- data: {plain(record.settings.get('samples'))} samples (mesh image, "
            f"photo, text), {plain(record.facts.get('steps'))} steps of "
            f"{plain(record.settings.get('global_batch_size'))}\n"
            f"- software: {software_line(record.facts.get('software', {}))}\n\n"
            f"{settings_table({**record.settings, **by_name})}",
        ),
        (
            "Losses",
            loss_table(
                {
                    column.replace("_", " "): [float(row[place]) for row in losses if row[place] != ""]
                    for place, column in enumerate(LOSS_COLUMNS)
                    if column != "step"
                }
            ),
        ),
        (
            "Sample pictures",
            "Drawn at the end of training, not selected, for meshes and texts that it was trained on.\n\n"
            f"![Mesh images and pictures]({SAMPLES})"
            if (folder / SAMPLES).is_file()
            else "",
        ),
        (
            "How to load it",
            LOAD.format(
                kind=kind,
                load=loader_of(base),
                unet_class=", UNet2DConditionModel" if unlocked else "",
                unet=f'pipe.unet = UNet2DConditionModel.from_pretrained({name!r}, subfolder="unet")\n'
                if unlocked
                else "",
                flags=" --only_mid_control" if record.settings.get("only_mid_control") else "",
                pipeline=pipeline,
                argument=argument,
                name=name,
                base=base,
                weights=shlex.quote(printable(name)),
                base_argument=shlex.quote(printable(base)),
            ),
        ),
        ("Licence", licence_text(base, licence) + " The photos that it was trained on have licences of their own."),
    ]
    tags = ["attentionhand", "t2i-adapter" if is_adapter else "controlnet"]
    title = f"AttentionHand for {base if is_hub_id(base) else Path(base).name}"
    return model_card(title, sections, base_model=base, licence=licence, tags=tags)
