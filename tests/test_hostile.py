"""Nothing breaks the scripts: mistakes in every class (tests/hostile.py), files that run code, values of any kind."""

import contextlib
import json
import random
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, copy_model
from hostile import CLASSES, is_good, make_files, outcome, restore
from trainings import finish_run

from core.runs.errors import UserError

# The table of mistakes, script by script


@pytest.fixture(scope="module")
def files(tiny_model, attention_model, tmp_path_factory) -> Path:
    """What the cases start from; a copy of it is beside it, under files.saved."""
    work = tmp_path_factory.mktemp("hostile")
    (work / "models").mkdir()
    (work / "models" / "model").symlink_to(tiny_model)
    (work / "models" / "attention_model").symlink_to(attention_model)
    make_files(work / "files", work / "models")
    shutil.copytree(work / "files", work / "files.saved", symlinks=True)
    return work / "files"


SCRIPTS = sorted({case.script for cases in CLASSES.values() for case in cases()})


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_mistake_ends_in_one_line(script, files):
    """With exit status 2, whatever is damaged, hostile or impossible."""
    wrong = []
    for kind, cases in CLASSES.items():
        for case in cases():
            if case.script != script:
                continue
            restore(files.with_suffix(".saved"), files)
            with contextlib.suppress(KeyError):  # there is no such thing to damage
                case.change(files)
                verdict, message = outcome(case, files)
                if not is_good(case, verdict):
                    wrong.append((kind, case.name, verdict, message))
    assert wrong == []


# Opening a file runs no code


class Bomb:
    """Pickled, it writes a file wherever it is opened without care."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return exec, (f"open({str(self.canary)!r}, 'w')",)


@pytest.fixture
def canary(tmp_path):
    """A file that must not exist after the test."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code of the file was run"


def refused(function: Callable, *arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        function(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def pickled_instead(folder: Path, name: str, bomb: Bomb) -> None:
    """Weights as a pickle in place of safetensors."""
    for path in folder.glob("*.safetensors"):
        path.unlink()
    torch.save({"weight": bomb}, folder / name)


def test_a_bomb_goes_off_where_it_is_opened_without_care(tmp_path):
    torch.save(Bomb(tmp_path / "gone off"), tmp_path / "bomb.pt")
    torch.load(tmp_path / "bomb.pt", weights_only=False)
    assert (tmp_path / "gone off").exists()


def test_pickled_files_run_nothing(canary, attention_pipe, inception_weights, tmp_path):
    from attentionhand.evaluate import load_labels
    from attentionhand.weights import load_decoder, load_stage
    from core.diffusion.stable_diffusion import load_stable_diffusion
    from core.diffusion.unpickling import load_optimizer_state
    from core.metrics.extractors import load_inception
    from core.metrics.saved_features import load_features
    from hand1000.fusion_weights import open_weights
    from hand1000.gesture_feature import load_gesture_feature

    bomb, cpu = Bomb(canary), torch.device("cpu")
    ckpt, pt, npy, npz = (tmp_path / f"bomb.{ending}" for ending in ("ckpt", "pt", "npy", "npz"))
    for path in (ckpt, pt):
        torch.save({"state_dict": {"VAS.a": bomb}, "state": bomb}, path)
    np.save(npy, np.array([bomb], dtype=object), allow_pickle=True)
    np.savez(npz, features=np.array([bomb], dtype=object), joints_2d=np.array([bomb], dtype=object))
    refused(load_stable_diffusion, str(ckpt))
    refused(open_weights, ckpt, 3, 2)
    refused(load_stage, ckpt, attention_pipe)
    refused(load_decoder, ckpt, attention_pipe)
    for protocol in inception_weights:
        refused(load_inception, protocol, pt, cpu)
    with pytest.raises(Exception, match="weights_only|Weights only"):
        load_optimizer_state(pt, [], 0)
    refused(load_gesture_feature, npy)
    refused(load_features, npz)
    refused(load_labels, npz, None)
    stage = tmp_path / "stage"
    stage.mkdir()
    (stage / "config.json").write_text("{}")
    torch.save({"weight": bomb}, stage / "diffusion_pytorch_model.bin")
    refused(load_stage, stage, attention_pipe)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_pickled_parts_of_stable_diffusion_run_nothing(part, canary, tiny_model, tmp_path):
    from core.diffusion.stable_diffusion import load_stable_diffusion

    model = copy_model(tiny_model, tmp_path / "model")
    name = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
    pickled_instead(model / part, name, Bomb(canary))
    refused(load_stable_diffusion, str(model))


EVIL = "open({canary!r}, 'w')\nclass Evil:\n    from_pretrained = classmethod(lambda cls, *a, **k: cls())\n"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"_class_name": ["evil", "Evil"]}, "evil.py"),
        ({"_class_name": ["pipeline", "Evil"]}, "pipeline.py"),
        ({"unet": ["evil", "Evil"]}, "unet/evil.py"),
        ({"scheduler": ["evil", "Evil"]}, "scheduler/evil.py"),
        ({"tokenizer": ["transformers", "AutoTokenizer"]}, "tokenizer/evil.py"),
        ({"image_encoder": ["evil", "Evil"]}, "image_encoder/evil.py"),
        ({"unet": ["os", "system"]}, "unet/os.py"),
    ],
)
def test_code_beside_stable_diffusion_is_not_run(change, place, canary, tiny_model, tmp_path, monkeypatch):
    from core.diffusion.stable_diffusion import load_stable_diffusion

    model = copy_model(tiny_model, tmp_path / "model")
    index = model / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), **change}))
    for path in (model / place, model / "evil.py"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(EVIL.format(canary=str(canary)))
    monkeypatch.syspath_prepend(str(model))  # as if it were started in the model's folder
    message = refused(load_stable_diffusion, str(model))
    assert f"model_index.json: {next(iter(change))} is" in message
    assert "code that comes with a model is never run" in message


def test_an_adapter_does_not_lead_elsewhere(captioners, tiny_model, tmp_path):
    """Where peft is installed, transformers would load the model that adapter_config.json names."""
    from core.diffusion.pretrained import load_clip
    from core.diffusion.stable_diffusion import load_stable_diffusion

    clip, model = shutil.copytree(captioners / "clip", tmp_path / "clip"), copy_model(tiny_model, tmp_path / "model")
    for folder in (clip, model / "text_encoder"):
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/elsewhere"}))
    expected = "an adapter of another model (adapter_config.json), not a whole one; merge the two"
    assert refused(load_clip, str(clip)) == f"{clip}: {expected}"
    assert refused(load_stable_diffusion, str(model)) == f"{model / 'text_encoder'}: {expected}"


@pytest.mark.parametrize("name", ["blip2", "paligemma", "vitgpt2", "clip", "llama"])
def test_captioners_clip_and_language_models_run_nothing(name, canary, captioners, tmp_path, monkeypatch):
    """Pickled weights are refused; classes of the model's own are not asked for, or refused."""
    import captioning.blip2
    import captioning.paligemma
    import captioning.vitgpt2
    from captioning.language_models import ask_transformers
    from core.diffusion.pretrained import load_clip
    from synthetic_hands import tiny_captioners

    loads = {
        "blip2": lambda path: captioning.blip2.load(path, torch.device("cpu")),
        "paligemma": lambda path: captioning.paligemma.load(path, torch.device("cpu")),
        "vitgpt2": lambda path: captioning.vitgpt2.load(path, torch.device("cpu")),
        "clip": load_clip,
        "llama": ask_transformers,
    }
    folder = tmp_path / name
    if name == "llama":
        tiny_captioners.save_llama(folder)
    else:
        shutil.copytree(captioners / name, folder)
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever asks the person whether to trust gets a yes
    (folder / "evil.py").write_text(EVIL.format(canary=str(canary)))
    classes = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer", "AutoProcessor")
    own = {"auto_map": dict.fromkeys(classes, "evil.Evil")}
    for path in folder.glob("*config.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), **own}))
    with contextlib.suppress(UserError):
        loads[name](str(folder))
    pickled_instead(folder, "pytorch_model.bin", Bomb(canary))
    refused(loads[name], str(folder))
    for path in folder.glob("config.json"):  # a kind of model that only its own code knows
        path.write_text(json.dumps({"model_type": "evil", **own}))
    refused(loads[name], str(folder))


class Saving(torch.nn.Module):
    """Writes a file when it is called."""

    def __init__(self, canary: str) -> None:
        super().__init__()
        self.canary = canary

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        torch.save(pictures, self.canary)
        return pictures.flatten(1).float()


class SavingAtOnce(Saving):
    """Writes a file when it is loaded."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.flatten(1).float()

    @torch.jit.export
    def __getstate__(self):
        return self.canary

    @torch.jit.export
    def __setstate__(self, state: str):
        torch.save(torch.zeros(1), state)
        self.canary = state
        self.training = False


@pytest.mark.parametrize("kind", [Saving, SavingAtOnce])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_extractors_write_no_files(kind, canary, tmp_path):
    from core.metrics.extractors import load_torchscript

    torch.jit.script(kind(str(canary))).save(str(tmp_path / "evil.pt"))
    message = refused(load_torchscript, tmp_path / "evil.pt", torch.device("cpu"))
    assert "evil.pt: this module reads or writes files by itself" in message
    with zipfile.ZipFile(tmp_path / "not.pt", "w") as archive:
        archive.writestr("a", "b")
    assert "not a TorchScript module" in refused(load_torchscript, tmp_path / "not.pt", torch.device("cpu"))


# Values of any kind in everything that is read again


def any_value(rng: random.Random, depth: int = 3) -> Any:
    """A random JSON value."""
    kinds = [
        lambda: None,
        lambda: rng.random() < 0.5,
        lambda: rng.choice([0, 1, -1, 10**9, -(10**30), 2**63]),
        lambda: rng.choice([0.5, -0.0, 1e308, float("nan"), float("inf")]),
        lambda: rng.choice(["", "text", "\0", "\ud800", "é" * 300, "../up", "finished", "1"]),
        lambda: [any_value(rng, depth - 1) for _ in range(rng.randrange(3))] if depth else [],
        lambda: {rng.choice("abc"): any_value(rng, depth - 1) for _ in range(rng.randrange(3))} if depth else {},
    ]
    return rng.choice(kinds)()


def altered(rng: random.Random, value: Any) -> Any:
    """The value with one part of it replaced, left out or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        if rng.random() < 0.2:
            return {name: part for name, part in value.items() if name != key}
        return {**value, key: altered(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        if rng.random() < 0.2:
            return value[:place] + value[place + 1 :]
        return [*value[:place], altered(rng, value[place]), *value[place:]]
    return any_value(rng)


def damaged(rng: random.Random, content: bytes) -> bytes:
    """The bytes with some of them changed, cut off, or repeated."""
    place, change = rng.randrange(len(content)), rng.randrange(4)
    if change == 0:
        return content[:place]
    if change == 1:
        return content[:place] + content[place // 2 :]
    return content[:place] + rng.randbytes(rng.randrange(4)) + content[place + 1 :]


RECORD = {
    "status": "finished",
    "settings": {"resolution": 64, "feature_sha256": "abc", "phrase": "a hand", "inputs": {}},
    "fusion": {"seed": 3},
    "prompts": [["a.png", "a hand"], ["b.png", "two hands"]],
    "steps": 4,
    "weights": ["run"],
    "lists": {"a.txt": "abc"},
    "seconds": 3.5,
    "peak_memory_gb": {"process": 1.0},
    "git_commit": None,
}


def readers_of_records() -> dict[str, Callable[[Path], object]]:
    """All that reads a record, given its path."""
    from attentionhand.evaluate import check_pictures
    from attentionhand.inference import check_weights
    from attentionhand.runs import finished_training, steps_of
    from core.runs.journal import lists_are_finished
    from core.runs.run import Run
    from core.runs.steps import Step, costs, is_complete
    from dataset_evaluate import phrase_of
    from hand1000.prompts import with_recorded_prompts
    from hand1000.trained import trained_model

    def run(path: Path) -> Run:
        return Run(path, RECORD["settings"], what="run", owns_folder=False)

    def finished_steps(path: Path) -> object:
        record = finished_training(path.parent)
        return record and steps_of(path.parent, record)

    def step_costs(path: Path) -> object:
        step = Step("train", path.stem, [], [])
        return costs(path.parent, [step]), is_complete(path.parent, step)

    return {
        "hand1000.json": lambda path: trained_model(path.parent),
        "generation.json": lambda path: with_recorded_prompts(run(path), ["a.png"], ["a hand"]),
        "attentionhand.json": finished_steps,
        "attentionhand.json of a trained stage": lambda path: check_weights(
            [path.parent], no_control=False, only_mid_control=False
        ),
        "inference.json": lambda path: check_pictures(path.parent),
        "lists.json": lambda path: lists_are_finished(run(path), []),
        "train.json": step_costs,
        "captions.json": lambda path: phrase_of(path.with_suffix(".txt")),
    }


def readers_of_files() -> dict[str, tuple[Callable[[Path], object], bytes]]:
    """All that reads other files again, and what such a file may hold."""
    from attentionhand.data import read_modalities
    from captioning.photos import PhotoCaption
    from core.runs.files import read_lines, read_paired_lines
    from core.runs.journal import begin_journal, list_run, read_journal
    from core.runs.run import Run, read_losses
    from hand1000.experiment import read_scores
    from hand1000.hyperparameters import LOSS_COLUMNS
    from select_images import people_of_photos

    def journal(path: Path) -> object:
        run = list_run(path.parent / "list.txt", {}, what="list")
        begin_journal(run, [])
        shutil.copyfile(path, path.parent / ".list.journal.jsonl")
        return read_journal(run, PhotoCaption, ["a.png", "b.png"])

    entries = [{"photo": "a.png", "caption": "a hand"}, {"photo": "b.png", "caption": "two"}]
    samples = [{"mesh": "mesh/1.png", "rgb": "rgb/1.png", "text": "text/1.txt", "bbox": [1, 2, 3, 4]}]
    scores = {name: [1.0, 0.5, 1.5] for name in "FID KID FID-H KID-H HAND-CONF".split()}
    scores |= {"hand found": [1, 1, 1], "gesture accuracy": [float("nan")] * 3}
    people = {"a": {"user_id": "x", "labels": ["call"]}}

    def lines(values: list) -> bytes:
        return "".join(json.dumps(value) + "\n" for value in values).encode()

    def state(path: Path) -> object:
        checkpoint = path.parent / "checkpoint-1"
        checkpoint.mkdir(exist_ok=True)
        shutil.copyfile(path, checkpoint / "state.json")
        return Run(path.parent / "run.json", {}, what="run").state_of(checkpoint)

    return {
        "journal": (journal, lines(entries)),
        "modalities": (read_modalities, lines(samples)),
        "scores": (read_scores, json.dumps({"images": 3, "scores": scores}).encode()),
        "losses": (lambda path: read_losses(path, LOSS_COLUMNS), b"image,stage,step,loss\r\na.png,both,0,1.5\r\n"),
        "lines": (read_lines, "a.png\né\u2028.png\r\nc.png\n".encode()),
        "names": (lambda path: read_paired_lines(path, path), b"a.png\nsub/b.png\n"),
        "people": (lambda path: people_of_photos(path, ["a.png"], "call"), json.dumps(people).encode()),
        "state": (state, json.dumps({"settings": {}, "step": 1}).encode()),
    }


def test_a_record_of_any_content_is_read_or_refused(tmp_path):
    rng = random.Random(0)
    for name, read in readers_of_records().items():
        path, outcomes = tmp_path / name.partition(" of ")[0], set()
        for number in range(150):
            content = altered(rng, RECORD) if number % 3 else any_value(rng)
            path.write_text(json.dumps(content, ensure_ascii=True))
            outcomes.add(read_or_refuse(read, path, content))
        assert outcomes >= {"read"}, name
        path.unlink()


def test_a_file_of_any_content_is_read_or_refused(tmp_path):
    rng = random.Random(1)
    for name, (read, content) in readers_of_files().items():
        path = tmp_path / name
        path.write_bytes(content)
        read_or_refuse(read, path, content)
        for number in range(200):
            new = damaged(rng, content)
            if number % 2 and content[:1] == b"{":
                values = [altered(rng, json.loads(line)) for line in content.splitlines()]
                new = "\n".join(map(json.dumps, values)).encode() + b"\n"
            path.write_bytes(new)
            read_or_refuse(read, path, new)


def read_or_refuse(read: Callable[[Path], object], path: Path, content: Any) -> str:
    try:
        read(path)
    except UserError as error:
        assert "\n" not in str(error).replace(str(content), ""), error
        return "refused"
    except Exception as error:
        raise AssertionError(f"{path.name}: {content!r}") from error
    return "read"


def test_what_fits_a_type_and_what_does_not():
    from typing import Annotated, Literal, TypedDict

    from core.runs.schema import misfit, natural

    class Inner(TypedDict):
        seed: Annotated[int, natural]

    class Outer(TypedDict):
        stage: Literal["one", "two"]
        rate: float
        inner: Inner | None
        pairs: list[tuple[str, int]]
        memory: dict[str, float]

    good = {"stage": "one", "rate": 1, "inner": {"seed": 0}, "pairs": [["a", 1]], "memory": {"gpu": 0.5}, "more": []}
    assert misfit(good, Outer) is None and misfit({**good, "inner": None}, Outer) is None
    for change, problem in [
        ({"stage": "three"}, "stage is 'three'"),
        ({"stage": ["one"]}, "stage is ['one']"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"rate": True}, "rate is True"),
        ({"rate": 10**400}, None),
        ({"inner": {"seed": -1}}, "inner is {'seed': -1}"),
        ({"inner": {"seed": True}}, "inner is {'seed': True}"),
        ({"pairs": [["a", "b"]]}, "pairs is 'b'"),
        ({"pairs": [["a"]]}, "pairs is ['a']"),
        ({"memory": {"gpu": None}}, "gpu is None"),
    ]:
        assert misfit({**good, **change}, Outer) == problem
    assert misfit([], Outer) == "it is []" and misfit({}, Outer) == "it has no inner"


# Small things with large harm


def test_nothing_is_written_through_a_planted_link(data_root, tiny_model, tmp_path, capsys):
    from conftest import error_of, generate_args

    import image_generation

    outside = tmp_path / "outside.png"
    run = finish_run(copy_model(tiny_model, data_root / "run"))
    arguments = generate_args(data_root, run, data_root / "out", "--num_images", 1, "--num_inference_steps", 1)
    image_generation.main(arguments)
    (data_root / "out" / "photo0.png").unlink()
    (data_root / "out" / "photo0.png").symlink_to(outside)
    message = error_of(image_generation.main, arguments, capsys)
    assert "photo0.png: is a link, which a set of pictures does not write through; remove it" in message
    assert not outside.exists()
    (data_root / "out").rename(data_root / "elsewhere")
    (data_root / "out").symlink_to(data_root / "elsewhere")  # the folder as a whole may be one
    (data_root / "elsewhere" / "photo0.png").unlink()
    image_generation.main(arguments)


def test_a_fingerprint_sees_every_byte(tmp_path):
    from core.runs.files import fingerprint

    path = tmp_path / "weights"
    content = bytearray(5 * 2**20)
    path.write_bytes(content)
    before = fingerprint(path)
    content[len(content) // 2] = 1
    path.write_bytes(content)
    assert fingerprint(path) != before
    other = Path(shutil.copy(path, tmp_path / "moved"))
    assert fingerprint(other) == fingerprint(path)


def test_embeddings_of_another_model_are_not_taken(attention_pipe, tmp_path):
    from attentionhand.embeddings import open_embeddings, write_embeddings

    one, other = (write_embeddings(attention_pipe, ["a", "b"], tmp_path, "cpu", model=name) for name in "ab")
    assert one != other and open_embeddings(one, ["b", "a", "b"])[[0, 2]].shape == (2, 77, 32)
    assert "damaged (float32 (2, 77, 32)); remove it" in refused(open_embeddings, one, ["a"])
    one.write_bytes(b"cut")
    assert "damaged" in refused(open_embeddings, one, ["a", "b"])


def test_too_little_memory_and_odd_terminals_end_in_one_line(monkeypatch, capsys):
    from core.runs.command_line import command_line

    def ends_with(error: BaseException) -> str:
        @command_line
        def main(argv=None) -> None:
            raise error

        with pytest.raises(SystemExit) as stopped:
            main()
        (line,) = capsys.readouterr().err.splitlines()
        assert stopped.value.code == 2
        return line.partition("error: ")[2]

    class BrokenProcessPool(RuntimeError):
        pass

    assert ends_with(MemoryError()) == "there is not enough memory (MemoryError)"
    assert ends_with(BrokenProcessPool("gone")).startswith("a worker process was killed, perhaps for want of memory")
    assert ends_with(UserError("a\nb\x1b[31m: no such file")) == r"a\nb\x1b[31m: no such file"
    assert ends_with(UserError("\udcff: no such file")).endswith(": no such file")


def test_sys_argv_of_bytes_is_refused(capsys, monkeypatch):
    from core.runs.command_line import argument_parser

    monkeypatch.setattr(sys, "argv", ["a.py", "--gesture", "\udcff"])
    with pytest.raises(SystemExit) as stopped:
        argument_parser("").parse_args()
    assert stopped.value.code == 2 and "is not UTF-8" in capsys.readouterr().err
    assert ROOT.is_dir()
