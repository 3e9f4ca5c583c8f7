"""Damaged files, hostile files and impossible options, for every script: what each ends with.

As a script it tries all of them on one or several checkouts of the repository and prints a table by class:

  python tests/hostile.py                      this checkout
  python tests/hostile.py --roots ../old .     before and after

tests/test_hostile.py lets the same cases run as tests.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
REFUSED, TAKEN, CRASHED, HUNG = "one line, status 2", "taken", "traceback", "hung"
OTHERWISE = "refused for another reason"
SECONDS, MEMORY = 30, 8 * 10**9  # after which a script counts as hung; bytes that it may ask for
Change = Callable[[Path], object]


class Case(NamedTuple):
    """One mistake: what is done to a copy of the files, and the command that then meets it."""

    name: str
    script: str  # its module
    arguments: list[str]  # "{}" stands for the folder of the copied files
    change: Change = lambda folder: None
    harmless: bool = False  # it may as well be taken: whatever is damaged need not be read
    about: str = ""  # what the message has to name: not every refusal is one of this mistake


# The files that all cases start from


def make_models(folder: Path) -> None:
    """Random models in miniature, which all checkouts share."""
    from attentionhand_helpers import save_attention_model

    from synthetic_hands.tiny_model import save_tiny_model

    save_tiny_model(folder / "model")
    save_attention_model(folder / "attention_model")


def make_files(folder: Path, models: Path) -> None:
    """Photos, lists, and what the scripts of this checkout make of them: a finished run of each kind."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    (folder / "palm").mkdir(parents=True)
    names = [f"photo{number}.png" for number in range(4)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / "palm" / name)
    write(folder / "palm_BLIP2_file_name.txt", "\n".join(names) + "\n")
    write(folder / "palm_BLIP2.txt", "a man\na woman\na boy\na girl\n")
    np.save(folder / "palm.npy", rng.normal(0.5, 0.2, 63))
    features = {"features": rng.normal(size=(12, 5)).astype(np.float32), "source": "photos", "images": 12}
    features |= {"without_hand": 0, "protocol": "released", "crop": "whole", "extractor": "Inception"}
    for name in ("real.npz", "fake.npz"):
        np.savez(folder / name, **features)
    (folder / "models").symlink_to(models)
    made = [
        ("synthetic_hands.make_dataset", HANDS),
        ("captioning.enrich", ENRICH),
        ("select_images", SELECT),
        ("train", TRAIN),
        ("image_generation", GENERATE),
        ("attentionhand.train", TRAIN_ATTENTION),
        ("attentionhand.inference", INFER),
        ("train", LORA),
        ("image_generation", GENERATE_LORA),
        ("hand1000.imagic", IMAGIC),
        ("attentionhand.reconstruction.train", RECONSTRUCT),
    ]
    for script, arguments in made:
        verdict, message = outcome(Case("", script, arguments), folder)
        assert verdict == TAKEN, (script, message)


HANDS = "--output_dir {}/hands --layout attentionhand --gestures palm --num 2 --num_workers 1".split()
ENRICH = "--gesture palm --data_root {} --backend rule".split()
SELECT = "--source {}/palm --gesture wave --num 2 --num_test 1 --data_root {}".split()
TRAIN = (
    "--gesture palm --data_root {} --pretrained_model_name_or_path {}/models/model --resolution 64 --output_dir {}/run "
    "--embedding_steps 1 --finetune_steps 1 --checkpointing_images 2"
).split()
GENERATE = (
    "--image_filenames_file {}/palm_BLIP2_file_name.txt --prompts_file {}/palm_BLIP2_modified.txt --resolution 64 "
    "--feature_npy_path {}/palm.npy --ckpt {}/run --img_save_path {}/pictures --num_images 1 --num_inference_steps 1"
).split()
TRAIN_ATTENTION = (
    "--data_dir {}/hands --pretrained_model_name_or_path {}/models/attention_model --tas_model shared --resolution 64 "
    "--output_dir {}/attention --tas_steps 1 --max_train_steps 1 --num_workers 0 --validation_steps 0"
).split()
INFER = (
    "--weights {}/attention --sample_path {}/hands/modalities.json --output_dir {}/drawn --resolution 64 "
    "--pretrained_model_name_or_path {}/models/attention_model --num_inference_steps 1 --num_samples 1"
).split()
LORA = [*TRAIN, "--output_dir", "{}/lora", "--lora_rank", "2"]
GENERATE_LORA = [*GENERATE, "--ckpt", "{}/lora", "--img_save_path", "{}/lora_pictures"]
IMAGIC = (
    "--image_folder {}/palm --image_filenames_file {}/palm_BLIP2_file_name.txt --resolution 64 --num_images 1 "
    "--prompts_file {}/palm_BLIP2_modified.txt --ckpt {}/models/model --img_save_path {}/imagic "
    "--embedding_steps 1 --finetune_steps 1 --num_inference_steps 1"
).split()
RECONSTRUCT = (
    "--data {}/hands --output_dir {}/network --backbone resnet10 --image_size 32 --max_train_steps 2 --num_workers 0 "
    "--train_batch_size 1 --checkpointing_steps 1"
).split()
MEASURE_NETWORK = "--weights {}/network --data {}/hands --num_workers 1 --bootstrap 100".split()
EVALUATE = "--labels {}/hands/joints.npz --image_size 64 --image_folder {}/drawn --num_workers 1".split()
FID = "--real_images {}/real.npz --fake_images {}/fake.npz".split()
RESUME = ["--resume_from_checkpoint", "latest"]
REPRODUCE_ATTENTION = (
    "--data_dir {}/hands --test_dir {}/hands_test --output_dir {}/results --resolution 64 "
    "--pretrained_model_name_or_path {}/models/attention_model"
).split()
REPRODUCE_NETWORKS = (
    "--lab {}/hands --wild {}/hands_test --test wild={}/hands_test --output_dir {}/results --resolution 64 "
    "--pretrained_model_name_or_path {}/models/attention_model"
).split()
REPRODUCE = (
    "--gestures palm --data_root {} --output_dir {}/results --captioner BLIP2 "
    "--pretrained_model_name_or_path {}/models/model"
).split()


# What is done to files


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def put(name: str, content: str | bytes) -> Change:
    return lambda folder: write(folder / name, content)


def edit(name: str, change: Callable[[Any], Any]) -> Change:
    """Change the JSON in a file."""

    def apply(folder: Path) -> None:
        write(folder / name, json.dumps(change(json.loads((folder / name).read_text()))))

    return apply


def replaced(key: str, value: Any) -> Callable[[dict], dict]:
    """For `edit`: another value of a key that is there."""

    def change(content: dict) -> dict:
        if key not in content:
            raise KeyError(key)
        return {**content, key: value}

    return change


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def remove(name: str) -> Change:
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def arrays(name: str, **changes: Any) -> Change:
    """Change arrays of an .npz file."""

    def apply(folder: Path) -> None:
        import numpy as np

        with np.load(folder / name) as file:
            content = dict(file)
        np.savez(folder / name, **{**content, **{key: change(content[key]) for key, change in changes.items()}})

    return apply


def picture(name: str, width: int, height: int) -> Change:
    def apply(folder: Path) -> None:
        from PIL import Image

        Image.new("RGB", (width, height), "grey").save(folder / name, format="PNG")

    return apply


def tensors(name: str, content: Any) -> Change:
    def apply(folder: Path) -> None:
        import torch

        with open(folder / name, "wb") as file:
            torch.save(content, file)

    return apply


def own_model(*changes: Change) -> Change:
    """A copy of the model to damage, as {}/model."""
    return both(lambda folder: shutil.copytree(folder / "models" / "model", folder / "model"), *changes)


# The cases

NOT_RECORDS: dict[str, str | bytes] = {
    "empty": "",
    "a list": "[]",
    "null": "null",
    "a text": '"text"',
    "a number": "3",
    "no keys": "{}",
    "nested 100,000 times": "[" * 100_000,
    "nested objects": '{"settings": ' * 50_000,
    "not UTF-8": b'{"status": "\xff\xfe"}',
    "cut": '{"status": "finished", "sett',
}
RECORDS: dict[str, list[tuple[str, list[str]]]] = {
    "run/hand1000.json": [("image_generation", GENERATE), ("train", TRAIN)],
    "pictures/generation.json": [("image_generation", GENERATE)],
    "attention/attentionhand.json": [("attentionhand.inference", INFER), ("attentionhand.train", TRAIN_ATTENTION)],
    "drawn/inference.json": [("attentionhand.inference", INFER), ("attentionhand.evaluate", EVALUATE)],
    "lora/hand1000.json": [("image_generation", GENERATE_LORA), ("train", LORA)],
    "imagic/generation.json": [("hand1000.imagic", IMAGIC)],
    "network/reconstruction.json": [
        ("attentionhand.reconstruction.train", RECONSTRUCT),
        ("attentionhand.reconstruction.evaluate", MEASURE_NETWORK),
    ],
    "palm_BLIP2_modified.json": [("captioning.enrich", ENRICH)],
    "wave_selection.json": [("select_images", SELECT)],
    "hands/dataset.json": [("synthetic_hands.make_dataset", HANDS)],
}
WRONG_VALUES: list[Any] = [None, -1, 10**30, "text", [], {}, [[1]], True]
UNET = "run/checkpoints/checkpoint-4/unet/diffusion_pytorch_model.safetensors"
STATES = {
    "run/checkpoints/checkpoint-4": (
        "train",
        [*TRAIN, *RESUME],
        edit("run/hand1000.json", lambda record: {**record, "status": "unfinished"}),
    ),
    "attention/checkpoints/checkpoint-1": (
        "attentionhand.train",
        [*TRAIN_ATTENTION, "--max_train_steps", "2", *RESUME],
        lambda folder: None,
    ),
    "lora/checkpoints/checkpoint-4": (
        "train",
        [*LORA, *RESUME],
        edit("lora/hand1000.json", lambda record: {**record, "status": "unfinished"}),
    ),
    "network/checkpoints/checkpoint-2": (
        "attentionhand.reconstruction.train",
        [*RECONSTRUCT, *RESUME],
        edit("network/reconstruction.json", lambda record: {**record, "status": "unfinished"}),
    ),
}

PARTS = {  # what a checkpoint may not lack
    "run": ["unet", "losses.csv", "state.json"],
    "lora": ["lora.safetensors", "losses.csv", "state.json"],
    "attention": ["optimizer.pt", "losses.csv", "diffusion_pytorch_model.safetensors", "state.json"],
    "network": ["optimizer.pt", "losses.csv", "model.safetensors", "state.json"],
}


def records() -> Iterator[Case]:
    for path, readers in RECORDS.items():
        for script, arguments in readers:
            for name, content in NOT_RECORDS.items():
                yield Case(f"{path}: {name}", script, arguments, put(path, content), about=Path(path).name)
            for key in ("status", "settings", "finished", "fusion", "prompts", "steps", "weights", "lists"):
                for value in WRONG_VALUES:
                    change = edit(path, replaced(key, value))
                    yield Case(f"{path}: {key} {value!r}", script, arguments, change, harmless=True)


def checkpoints() -> Iterator[Case]:
    for folder, (script, arguments, prepare) in STATES.items():

        def case(name: str, change: Change, folder=folder, script=script, arguments=arguments, prepare=prepare) -> Case:
            return Case(f"{folder}: {name}", script, arguments, both(prepare, change), about="checkpoint-")

        for name, content in NOT_RECORDS.items():
            yield case(f"state.json {name}", put(f"{folder}/state.json", content))
        for part in PARTS[folder.partition("/")[0]]:
            yield case(f"no {part}", remove(f"{folder}/{part}"))
        for key in ("done", "step", "stage", "photos", "moments"):
            for value in (None, -1, 10**9, "text", []):
                change = edit(f"{folder}/state.json", replaced(key, value))
                yield case(f"{key} {value!r}", change)._replace(harmless=(script, key) == ("train", "moments"))
        yield case("a folder checkpoint-²", lambda d, f=folder: ((d / f).parent / "checkpoint-²").mkdir())._replace(
            harmless=True
        )
    script, arguments, prepare = STATES["attention/checkpoints/checkpoint-1"]
    empty = tensors(
        "attention/checkpoints/checkpoint-1/optimizer.pt",
        None,
    )
    yield Case("attention: no moments", script, arguments, both(prepare, forget_moments))
    yield Case("attention: optimizer None", script, arguments, both(prepare, empty))


def forget_moments(folder: Path) -> None:
    import torch

    path = folder / "attention/checkpoints/checkpoint-1/optimizer.pt"
    torch.save({**torch.load(path, weights_only=True), "state": {}}, path)


def lists() -> Iterator[Case]:
    names = "palm_BLIP2_file_name.txt"
    for name, content in {
        "NUL": "a\0.png\n",
        "a newline's half": "a\r.png\n",
        "300 bytes": "a" * 296 + ".png\n",
        "a folder's name": "a.png\na.png/b.png\nc.png\nd.png\n",
        "climbs out": "../a.png\n",
        "absolute": "/tmp/a.png\n",
        "twice": "a.png\na.png\n",
        "not UTF-8": b"\xff.png\n",
        "empty": "",
    }.items():
        texts = "a hand\n" * str(content).count(".png" if isinstance(content, str) else "png")
        change = both(put(names, content), put("palm_BLIP2_modified.txt", texts))
        again = [part.replace("{}/pictures", "{}/new") for part in GENERATE if part not in ("--num_images", "1")]
        arguments = [*again[: again.index("--num_inference_steps")], "--num_inference_steps", "1"]
        yield Case(f"to draw: {name}", "image_generation", arguments, change)
        yield Case(f"to train: {name}", "train", TRAIN, change)
    for name, line in {
        "nested": '{"mesh": ' * 50_000,
        "a number": "3",
        "a list": "[1]",
        "no mesh": '{"text": "text/a.txt"}',
        "mesh is a number": '{"mesh": 1, "rgb": "a", "text": "b"}',
        "box of NaN": '{"mesh": "mesh/00000000.png", "rgb": "rgb/00000000.png", "text": "text/00000000.txt", '
        '"bbox": [NaN, 1, 2, 3]}',
        "box of 1e400": '{"mesh": "mesh/00000000.png", "rgb": "rgb/00000000.png", "text": "text/00000000.txt", '
        '"bbox": [0, 0, 1e400, 3]}',
    }.items():
        change = both(put("hands/modalities.json", line + "\n"), remove("attention"))
        yield Case(f"modalities.json: {name}", "attentionhand.train", TRAIN_ATTENTION, change)
    annotated = [*SELECT, "--gesture", "new", "--annotations", "{}/new.json"]
    for name, content in {**NOT_RECORDS, "a list of labels": '{"photo0": {"user_id": "a", "labels": 3}}'}.items():
        change = put("new.json", content)
        yield Case(f"annotations: {name}", "select_images", annotated, change)


def photos() -> Iterator[Case]:
    feature, plain = ["--gesture", "palm", "--data_root", "{}", "--num_workers", "1"], ["--gesture", "palm"]
    plain += ["--data_root", "{}"]
    for name, change in {
        "a pipe": lambda folder: os.mkfifo(folder / "palm" / "pipe.png"),
        "a newline in its name": picture("palm/a\nb.png", 64, 64),
        "a blank before its name": picture("palm/ a.png", 64, 64),
        "a name that is not UTF-8": lambda folder: write(
            Path(os.fsdecode(os.fsencode(folder) + b"/palm/\xff.png")), b""
        ),
        "a folder": lambda folder: (folder / "palm" / "folder.png").mkdir(),
        "empty": put("palm/a.png", b""),
        "text": put("palm/a.png", "no picture"),
        "a bomb": put("palm/a.png", bomb()),
        "1 x 20,000 pixels": picture("palm/a.png", 1, 20_000),
    }.items():
        yield Case(name, "cal_mean_feature", feature, change)
        if "name" in name or name in ("a pipe", "a folder"):
            yield Case(f"captioned: {name}", "captioning.plain", plain, change)
    strip = both(picture("palm/photo0.png", 1, 20_000), remove("run"))
    yield Case("to train on: 1 x 20,000 pixels", "train", [*TRAIN, "--resolution", "512"], strip)


def bomb() -> bytes:
    """The beginning of a PNG that says 60,000 x 60,000 pixels."""
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def numbers() -> Iterator[Case]:
    def case(script: str, arguments: list[str], *options: str, change: Change = lambda folder: None) -> Case:
        return Case(f"{script} {' '.join(options)}", script, [*arguments, *options], change)

    fresh = remove("run")
    for value in ("nan", "inf", "-inf", "1e400", "text", ""):
        yield case("train", TRAIN, f"--Lambda={value}", change=fresh)
        yield case("train", TRAIN, f"--finetune_lr={value}", change=fresh)
        yield case("image_generation", GENERATE, f"--guidance_scale={value}", change=remove("pictures"))
        yield case("image_generation", GENERATE, f"--mu={value}", change=remove("pictures"))
        yield case("attentionhand.evaluate", EVALUATE, f"--threshold={value}")
        yield case("attentionhand.inference", INFER, f"--strength={value}", change=remove("drawn"))
        yield case("hand1000.imagic", IMAGIC, f"--finetune_lr={value}", change=remove("imagic"))
        yield case("attentionhand.reconstruction.train", RECONSTRUCT, "--shares", value, change=remove("network"))
        yield case("attentionhand.reconstruction.train", RECONSTRUCT, f"--learning_rate={value}")
        yield case("attentionhand.reconstruction.reproduce", REPRODUCE_NETWORKS, f"--threshold={value}")
        yield case("attentionhand.reconstruction.reproduce", REPRODUCE_NETWORKS, f"--added_share={value}")
    for value in ("0", "-1", "1.5", "4294967296", "text"):
        yield case("train", LORA, f"--lora_rank={value}", change=remove("lora"))
    yield case("train", TRAIN, "--finetune_lr=1e300", change=fresh)
    yield case("attentionhand.train", TRAIN_ATTENTION, "--learning_rate=1e300", change=remove("attention"))
    yield case("image_generation", GENERATE, "--guidance_scale=1e300", change=remove("pictures"))
    yield case("attentionhand.inference", INFER, "--strength=1e300", change=remove("drawn"))
    yield case("image_generation", GENERATE, "--mu", "0.1", "0.1000000000000001", change=remove("pictures"))
    yield case("image_generation", GENERATE, f"--seed={2**40}", change=remove("pictures"))
    seed = edit("run/hand1000.json", lambda record: {**record, "fusion": {"seed": -1}})
    yield case("image_generation", GENERATE, change=both(seed, remove("pictures")))
    yield case("cal_fid", FID, change=arrays("real.npz", features=lambda f: f * 1e60))
    yield case("cal_kid", FID, change=arrays("real.npz", features=lambda f: f.astype(float) * 1e60))
    yield case(
        "cal_fid", FID, change=both(*(arrays(f"{n}.npz", features=lambda f: f[:, :0]) for n in ("real", "fake")))
    )
    yield case("cal_fid", FID, change=arrays("real.npz", features=lambda f: f.astype("U5")))
    yield case("cal_fid", FID, "--bootstrap", "1")


def sizes() -> Iterator[Case]:
    def case(script: str, arguments: list[str], *options: str, change: Change = lambda folder: None) -> Case:
        return Case(f"{script} {' '.join(options)}", script, [*arguments, *options], change)

    yield case("train", TRAIN, "--resolution", "12800000", change=remove("run"))
    yield case("image_generation", GENERATE, "--resolution", "12800000", change=remove("pictures"))
    yield case("image_generation", GENERATE, "--image_size", "1000000", change=remove("pictures"))
    yield case("attentionhand.train", TRAIN_ATTENTION, "--resolution", "12800000", change=remove("attention"))
    yield case("attentionhand.inference", INFER, "--resolution", "12800000", change=remove("drawn"))
    yield case("hand1000.imagic", IMAGIC, "--resolution", "12800000", change=remove("imagic"))
    yield case("attentionhand.reconstruction.train", RECONSTRUCT, "--image_size", "10000000", change=remove("network"))
    yield case("synthetic_hands.make_dataset", HANDS, "--size", "1000000", change=remove("hands"))


def models() -> Iterator[Case]:
    base = [part.replace("{}/models/model", "{}/model") for part in TRAIN]
    index = "model/model_index.json"
    evil = "import pathlib\npathlib.Path(__file__).with_name('ran').write_text('')\nclass Evil: pass\n"
    scheduler = "model/scheduler/scheduler_config.json"
    for name, change in {
        "ten timesteps": edit(scheduler, lambda c: {**c, "num_train_timesteps": 10}),
        "no tokenizer": remove("model/tokenizer"),
        "tokenizer null": edit(index, lambda c: {**c, "tokenizer": [None, None]}),
        "no unet": remove("model/unet"),
        "index is a list": put(index, "[]"),
        "index is nested": put(index, "[" * 100_000),
        "a class of its own": both(
            put("model/evil.py", evil), edit(index, lambda c: {**c, "_class_name": ["evil", "Evil"]})
        ),
        "a part of its own": both(
            put("model/unet/evil.py", evil), edit(index, lambda c: {**c, "unet": ["evil", "Evil"]})
        ),
        "a part of Python": edit(index, lambda c: {**c, "unet": ["subprocess", "Popen"]}),
        "predicts v": edit(scheduler, lambda c: {**c, "prediction_type": "v_prediction"}),
        "cut weights": put("model/unet/diffusion_pytorch_model.safetensors", b"cut"),
    }.items():
        yield Case(name, "train", base, both(remove("run"), own_model(change)))
    fusion = [*TRAIN, "--fusion_checkpoint", "{}/fusion.ckpt"]
    released = [part.replace("{}/attention", "{}/stage.ckpt") if "weights" not in part else part for part in INFER]
    for name, content in {"a number": 3, "a list": [1], "numbers": {"a": 1}, "keys of numbers": {1: 2}}.items():
        change = both(remove("run"), tensors("fusion.ckpt", content))
        yield Case(f"fusion weights: {name}", "train", fusion, change)
        change = both(remove("run"), tensors("fusion.ckpt", {"fusion_model_state_dict": content}))
        yield Case(f"fusion weights within: {name}", "train", fusion, change)
        change = both(remove("drawn"), tensors("stage.ckpt", {"state_dict": content}))
        yield Case(f"stage: {name}", "attentionhand.inference", released, change)


def outputs() -> Iterator[Case]:
    def case(name: str, script: str, arguments: list[str], change: Change = lambda folder: None) -> Case:
        return Case(name, script, arguments, change)

    def link(name: str, target: str) -> Change:
        """A planted link at `name` to the folder or file `target`."""

        def apply(folder: Path) -> None:
            (folder / target).mkdir(parents=True, exist_ok=True)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(folder / target)

        return apply

    yield case("features overwritten", "cal_fid", [*FID, "--json", "{}/real.npz"])
    yield case("labels overwritten", "attentionhand.evaluate", [*EVALUATE, "--json", "{}/hands/joints.npz"])
    yield case("pictures overwritten", "attentionhand.evaluate", [*EVALUATE, "--json", "{}/drawn/result_000_0.png"])
    yield case(
        "own weights overwritten",
        "attentionhand.train",
        [*TRAIN_ATTENTION, "--save_single_file", "{}/attention/diffusion_pytorch_model.safetensors"],
    )
    unfinished = STATES["run/checkpoints/checkpoint-4"][2]
    moved = both(
        unfinished, lambda d: (d / "run/checkpoints").rename(d / "outside"), link("run/checkpoints", "outside")
    )
    yield case("checkpoints/ leads out", "train", [*TRAIN, *RESUME], moved)
    planted = both(remove("pictures/photo0.png"), lambda d: (d / "pictures/photo0.png").symlink_to(d / "outside.png"))
    yield case("a picture leads out", "image_generation", GENERATE, planted)
    yield case(
        "mesh/ leads out", "synthetic_hands.make_dataset", HANDS, both(remove("hands"), link("hands/mesh", "outside"))
    )
    yield case("a file for a folder", "train", TRAIN, both(remove("run"), put("run", "mine")))
    yield case("a folder for a file", "cal_fid", [*FID, "--json", "{}/palm"])


def texts() -> Iterator[Case]:
    broken = os.fsdecode(b"\xff")
    for script, arguments, option in [
        ("train", TRAIN, "--output_dir"),
        ("train", TRAIN, "--captioner"),
        ("train", TRAIN, "--revision"),
        ("image_generation", GENERATE, "--img_save_path"),
        ("image_generation", GENERATE, "--ckpt"),
        ("captioning.enrich", ENRICH, "--phrase"),
        ("captioning.plain", ["--gesture", "palm", "--data_root", "{}"], "--caption"),
        ("select_images", SELECT, "--gesture"),
        ("attentionhand.train", TRAIN_ATTENTION, "--output_dir"),
        ("attentionhand.inference", INFER, "--a_prompt"),
        ("attentionhand.evaluate", EVALUATE, "--json"),
        ("cal_fid", FID, "--json"),
        ("synthetic_hands.make_dataset", HANDS, "--output_dir"),
    ]:
        value = f"{{}}/{broken}" if option in ("--output_dir", "--img_save_path", "--json") else broken
        yield Case(f"{script} {option}: not UTF-8", script, [*arguments, option, value])
        long = "{}/" + "a" * 300 if value.startswith("{}") else "a" * 300
        if option not in ("--phrase", "--caption", "--a_prompt"):
            yield Case(f"{script} {option}: 300 bytes", script, [*arguments, option, long])
    ones = both(
        put("palm_BLIP2.txt", "a man " + "one " * 60 + "\n" + "a\n" * 3),
        remove("palm_BLIP2_modified.txt"),
        remove("palm_BLIP2_modified.json"),
    )
    yield Case("60 times one in a caption", "captioning.enrich", ENRICH, ones, harmless=True)


def plans() -> Iterator[Case]:
    for option, value in [
        ("--train_args", "--output_dir elsewhere"),
        ("--train_args", "--output elsewhere"),
        ("--train_args", "--seed 7"),
        ("--train_args", "--max_train_images 2"),
        ("--train_args", "--pretrained_model_name_or_path other/model"),
        ("--train_args", "--unknown"),
        ("--generate_args", "--mu 0.1"),
        ("--generate_args", "--num_images 3"),
        ("--generate_args", "--img_save_path elsewhere"),
        ("--generate_args", "--feature_npy_path other.npy"),
        ("--generate_args", "--img elsewhere"),
        ("--caption_args", "--gesture other"),
        ("--enrich_args", "--phrase other"),
    ]:
        yield Case(
            f"{option} {value}", "reproduce", [*REPRODUCE, f"{option}={value}"], held_out, about=value.split()[0]
        )
    for script, arguments, option, value in [
        ("reproduce", REPRODUCE, "--imagic_args", "--mu 0.1"),
        ("reproduce", REPRODUCE, "--imagic_args", "--unknown"),
        ("attentionhand.reproduce", REPRODUCE_ATTENTION, "--train_args", "--output_dir elsewhere"),
        ("attentionhand.reproduce", REPRODUCE_ATTENTION, "--train_args", "--unknown"),
        ("attentionhand.reproduce", REPRODUCE_ATTENTION, "--draw_args", "--weights elsewhere"),
        ("attentionhand.reproduce", REPRODUCE_ATTENTION, "--rows", "nothing"),
        ("attentionhand.reproduce", REPRODUCE_ATTENTION, "--data_dir", "{}/nowhere"),
        ("attentionhand.reproduce", REPRODUCE_ATTENTION, "--test_dir", "{}/palm"),
        ("attentionhand.reconstruction.reproduce", REPRODUCE_NETWORKS, "--train_args", "--data_dir elsewhere"),
        ("attentionhand.reconstruction.reproduce", REPRODUCE_NETWORKS, "--reconstruction_args", "--seed 3"),
        ("attentionhand.reconstruction.reproduce", REPRODUCE_NETWORKS, "--reconstruction_args", "--unknown"),
        ("attentionhand.reconstruction.reproduce", REPRODUCE_NETWORKS, "--test", "../out={}/hands"),
        ("attentionhand.reconstruction.reproduce", REPRODUCE_NETWORKS, "--generators", "nothing"),
        ("attentionhand.reconstruction.reproduce", REPRODUCE_NETWORKS, "--lab", "{}/palm"),
        ("attentionhand.reconstruction.reproduce", REPRODUCE_NETWORKS, "--texts", "{}/real.npz"),
    ]:
        change = held_out if script == "reproduce" else other_hands
        yield Case(f"{option} {value}", script, [*arguments, f"{option}={value}"], change)
    for ablation in (
        "captioner ../../out",
        "captioner a/b",
        "Lambda nan",
        "mu 2",
        "schedule ..",
        "Lambda 0.1 0.10000000001",
    ):
        arguments = [*REPRODUCE, "--ablate", *ablation.split()]
        yield Case(f"--ablate {ablation}", "reproduce", arguments, held_out, about="--ablate")


def held_out(folder: Path) -> None:
    shutil.copytree(folder / "palm", folder / "palm_test")


def other_hands(folder: Path) -> None:
    """A test set, or wild pictures, that are not those of training."""
    make = [part.replace("{}/hands", "{}/hands_test").replace("palm", "fist") for part in HANDS]
    verdict, message = outcome(Case("", "synthetic_hands.make_dataset", make), folder)
    assert verdict == TAKEN, message


CLASSES = {
    "records": records,
    "checkpoints": checkpoints,
    "lists": lists,
    "photos": photos,
    "numbers": numbers,
    "sizes": sizes,
    "models": models,
    "outputs": outputs,
    "texts": texts,
    "plans": plans,
}


# Trying them


def outcome(case: Case, folder: Path, seconds: int = SECONDS) -> tuple[str, str]:
    """How the script ends, and what it says, when it is started in this process on the files in `folder`."""

    def too_long(*_) -> None:
        raise TimeoutError("too long")

    arguments = [argument.replace("{}", str(folder)) for argument in case.arguments]
    said = io.StringIO()
    before, argv = signal.signal(signal.SIGALRM, too_long), sys.argv
    sys.argv = [case.script]
    signal.alarm(seconds)
    started = time.monotonic()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            importlib.import_module(case.script).main(arguments)
        return TAKEN, ""
    except SystemExit as stopped:
        lines = [line for line in said.getvalue().splitlines() if "error: " in line]
        if time.monotonic() - started >= seconds - 1:
            return HUNG, "".join(lines)
        is_line = stopped.code == 2 and len(lines) == 1 and said.getvalue().endswith(f"{lines[0]}\n")
        message = "\n".join(lines) or f"status {stopped.code}"
        return (CRASHED if not is_line else REFUSED if case.about in message else OTHERWISE), message
    except BaseException as error:
        if time.monotonic() - started >= seconds - 1:
            return HUNG, ""
        return CRASHED, f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        sys.argv = argv
        forget_accelerate()


def forget_accelerate() -> None:
    """accelerate keeps precision and device for a whole process."""
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)


def is_good(case: Case, verdict: str) -> bool:
    return verdict == REFUSED or (verdict == TAKEN and case.harmless)


def restore(saved: Path, folder: Path) -> None:
    """Files as they were, at the path where they were made, which some settings name."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder, symlinks=True)


def try_all(work: Path, kinds: list[str], scripts: list[str] | None, results: Path) -> None:
    """Try the cases of some classes on the checkout in the current folder; adds what happened to a JSON file.

    Args:
        scripts: whose cases; all where it is None.
        work: holds the models, and files that all cases start from once they are made.
    """
    original = results.with_suffix("")
    if not original.exists():
        make_files(original, work / "models")
    found = json.loads(results.read_text()) if results.exists() else {}
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    saved = original.with_suffix(".saved")
    if not saved.exists():
        shutil.copytree(original, saved, symlinks=True)
    for kind in kinds:
        found[kind] = []
        for case in CLASSES[kind]():
            if scripts and case.script not in scripts:
                continue
            restore(saved, original)
            try:
                case.change(original)
                importlib.import_module(case.script)
            except (KeyError, OSError, ModuleNotFoundError):  # this checkout has nothing of the kind
                continue
            verdict, message = outcome(case, original)
            found[kind].append([verdict, is_good(case, verdict)])
            if not is_good(case, verdict):
                print(f"{verdict}: {kind}: {case.script}: {case.name}: {message[:300]}", flush=True)
        results.write_text(json.dumps(found))


def table(roots: dict[str, dict[str, list]]) -> str:
    """A Markdown table: classes of mistakes, and for each checkout how many ended well of how many."""
    lines = [f"| class | {' | '.join(roots)} |", "| --- |" + " ---: |" * len(roots)]
    for kind in [*next(iter(roots.values())), "all"]:
        cells = []
        for found in roots.values():
            rows = [row for name, rows in found.items() for row in rows if kind in (name, "all")]
            wrong = Counter(verdict for verdict, is_good in rows if not is_good)
            causes = ", ".join(f"{count} {verdict}" for verdict, count in wrong.most_common())
            cells.append(f"{len(rows) - wrong.total()} of {len(rows)}" + (f" ({causes})" if causes else ""))
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--roots", type=Path, nargs="+", default=[ROOT], help="checkouts to try")
    parser.add_argument("--classes", nargs="+", choices=list(CLASSES), default=list(CLASSES), help="of mistakes")
    parser.add_argument("--scripts", nargs="+", help="only the cases of these")
    parser.add_argument("--work", type=Path, help="folder to keep files and results in, for a later call to add to")
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)  # for the processes that it starts
    args = parser.parse_args(argv)
    if args.results:
        sys.path[0] = str(Path.cwd())
        try_all(args.work, args.classes, args.scripts, args.results)
        return
    sys.path.insert(0, str(ROOT))
    with contextlib.ExitStack() as stack:
        work = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (work / "models").exists():
            make_models(work / "models")
        found = {}
        for root in args.roots:
            results = work / f"{root.resolve().name}.json"
            command = [sys.executable, __file__, "--work", str(work), "--results", str(results), "--classes"]
            only = ["--scripts", *args.scripts] if args.scripts else []
            subprocess.run([*command, *args.classes, *only], cwd=root, check=True)
            found[root.resolve().name] = json.loads(results.read_text())
    print(table(found))


if __name__ == "__main__":
    main()
