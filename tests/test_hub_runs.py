"""Model cards, and runs that go to the hub and come back. The hub is a stand-in on the loopback (hub_stand_in.py)."""

import json
import shutil

import pytest
import yaml
from attentionhand_helpers import inference_args
from attentionhand_helpers import train_args as attention_args
from conftest import error_of, files_under, generate_args, pixels, run_script, train_args
from hub_stand_in import TOKEN, Hub, stand_in
from huggingface_hub import constants
from PIL import Image
from trainings import SHORT, finish_run

import attentionhand.inference
import attentionhand.train
import image_generation
import train
from attentionhand.model_card import card_of_run as attention_card
from core.diffusion.hub import hub_answers
from core.diffusion.model_card import plain, table
from hand1000.generation import fused_prompt_embeds
from hand1000.model_card import card_of_run
from hand1000.trained import local_run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The stand-in, with a login and an empty cache of the client."""
    with stand_in() as served:
        use_endpoint(monkeypatch, served.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served
    hub_answers.cache_clear()


def use_endpoint(monkeypatch, endpoint: str) -> None:
    """What HF_ENDPOINT does for a new process."""
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    hub_answers.cache_clear()


def header_of(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_a_run_goes_to_the_hub_and_draws_from_there(data_root, tiny_model, hub: Hub, monkeypatch, capsys):
    """The push fails at first; the run is finished all the same, and the same command pushes it."""
    run, push = data_root / "run", ("--push_to_hub", "--hub_model_id", "us/palm", "--hub_private_repo")
    arguments = train_args(
        data_root, tiny_model, *SHORT, "--validation_prompts", "a hand", "--report_to", "tensorboard"
    )
    hub.broken = True
    message = error_of(train.main, [*arguments, "--num_validation_images", 1, *push], capsys)
    assert message.startswith(f"{run}: the run is finished, but not on the hub (") and "pushes it again" in message
    assert json.loads((run / "hand1000.json").read_text())["status"] == "finished"
    before = {path: (run / path).read_bytes() for path in files_under(run)}
    assert Image.open(run / "samples.png").size[0] == 200 and (run / "logs").is_dir()
    hub.broken = False
    with monkeypatch.context() as patched:
        use_endpoint(patched, "http://127.0.0.1:9")  # nobody listens there
        message = error_of(train.main, [*arguments, *push], capsys)
        assert "the run is finished, but not on the hub ([Errno" in message
    use_endpoint(monkeypatch, hub.endpoint)
    train.main([*arguments, *push])
    assert "already finished" in capsys.readouterr().out
    assert {path: (run / path).read_bytes() for path in files_under(run)} == before  # a push leaves the folder alone

    stored = hub.files("us/palm")
    sent = {path for path in before if not path.startswith(("checkpoints/", "logs/", "."))}
    assert stored.keys() == sent >= {"hand1000.json", "feature.npy", "README.md", "samples.png", "losses.csv"}
    assert all(stored[path] == before[path] for path in sent - {"README.md"}) and hub.private == {"us/palm"}
    card = stored["README.md"].decode()
    assert card == card_of_run(run, "us/palm") and "from_pretrained('us/palm'" in card
    assert f"from_pretrained({str(run)!r}" in (run / "README.md").read_text()

    (run / "validation").mkdir()
    hub.commit(
        "us/palm", {**stored, "evil.py": b"", "unet/extra.bin": b"", "pickle.ckpt": b"", "checkpoints/a.json": b""}
    )
    options = ("--num_inference_steps", 3, "--mu", 0.5, "--num_images", 2)
    image_generation.main(generate_args(data_root, run, data_root / "here", *options))
    without_feature = generate_args(data_root, "us/palm", data_root / "there", *options)
    place = without_feature.index("--feature_npy_path")
    del without_feature[place : place + 2]  # the run brings its own
    image_generation.main(without_feature)
    for name in ("photo0.png", "photo1.png"):
        assert (pixels(data_root / "here" / name) == pixels(data_root / "there" / name)).all()
    assert len(hub.fetched) == len(set(hub.fetched)) and set(hub.fetched) == sent - {
        "README.md",
        "samples.png",
        "losses.csv",
    }


def test_a_run_of_the_hub_with_fusion_weights_and_revisions(run_folder, tmp_path, hub: Hub, capsys, monkeypatch):
    """A file of fusion weights comes along; a revision is that commit; a base model stays a base model."""
    run = finish_run(shutil.copytree(run_folder, tmp_path / "run"))
    record = json.loads((run / "hand1000.json").read_text())
    (run / "hand1000.json").write_text(json.dumps({**record, "fusion": {"file": "fusion.safetensors"}}))
    files = {path: (run / path).read_bytes() for path in files_under(run)}
    old = hub.commit("us/run", {**files, "fusion.safetensors": b"old"})
    hub.commit("us/run", {**files, "fusion.safetensors": b"new"})
    hub.commit("us/base", {path: content for path, content in files.items() if path != "hand1000.json"})
    assert (local_run("us/run") / "fusion.safetensors").read_bytes() == b"new"
    assert (local_run("us/run", old) / "fusion.safetensors").read_bytes() == b"old"
    assert str(local_run("us/base")) == "us/base"
    prompts = ["--prompt", "a hand", "--img_save_path", tmp_path / "out", "--num_inference_steps", 2]
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "its_cache"))  # a process of its own, as a user would
    done = run_script("image_generation.py", *prompts, "--ckpt", "us/base", "--mu", "1", "--resolution", "64")
    assert done.returncode == 0 and (tmp_path / "out" / "prompt_000.png").is_file(), done.stderr
    of = {
        ("us/base",): "a model of the hub has no fusion, so --mu must be 1",
        ("us/nothing",): "us/nothing: no such folder here, and no such model on the hub",
        ("us/run", "--revision", "v2"): "us/run: has no revision 'v2'",
    }
    for ckpt, expected in of.items():
        assert expected in error_of(image_generation.main, [*prompts, "--ckpt", *ckpt], capsys)
    hub.commit("us/run", {"hand1000.json": b"{"})
    assert "hand1000.json: damaged" in error_of(image_generation.main, [*prompts, "--ckpt", "us/run"], capsys)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub_answers.cache_clear()
    assert (local_run("us/run", old) / "fusion.safetensors").read_bytes() == b"old"  # from the cache
    missing = error_of(image_generation.main, [*prompts, "--ckpt", "us/nothing"], capsys)
    assert "not in the hub's cache, and HF_HUB_OFFLINE=1 forbids asking the hub" in missing


def test_attentionhand_goes_to_the_hub_and_draws_from_there(tmp_path, attention_model, attention_samples, hub, capsys):
    run = tmp_path / "run"
    arguments = attention_args(attention_samples, attention_model, run, "--validation_steps", 2, "--no_tas")
    attentionhand.train.main([*arguments, "--push_to_hub"])
    assert "run: pushed to http" in capsys.readouterr().out
    stored = hub.files("me/run")
    sheets = [Image.open(path).size for path in (run / "validation/step_000004.png", run / "samples.png")]
    assert sheets[0][0] == 600 and sheets[1] == (400, sheets[0][1])  # the photos' column is left out
    sent = {"README.md", "attentionhand.json", "config.json", "diffusion_pytorch_model.safetensors"}
    assert stored.keys() == sent | {"losses.csv", "samples.png"}
    card = stored["README.md"].decode()
    assert card == attention_card(run, "me/run") and "ControlNetModel.from_pretrained('me/run')" in card
    assert "4 steps of 2" in card and "| local loss | 4 |" in card and "controlnet" in header_of(card)["tags"]
    for weights, name in ((run, "here"), ("me/run", "there")):
        attentionhand.inference.main(inference_args(weights, attention_samples, attention_model, tmp_path / name))
    for path in (tmp_path / "here").glob("result_*.png"):
        assert (pixels(path) == pixels(tmp_path / "there" / path.name)).all()
    assert set(hub.fetched) == sent - {"README.md"}
    hub.commit("me/other", {"config.json": stored["config.json"]})
    for weights, expected in {"me/other": "on the hub no run of attentionhand.train", "me/no": "no such model"}.items():
        given = inference_args(weights, attention_samples, attention_model, tmp_path / "no")
        assert expected in error_of(attentionhand.inference.main, given, capsys)


def test_what_can_not_be_pushed_is_refused_at_once(data_root, tiny_model, hub, monkeypatch, tmp_path, capsys):
    arguments = train_args(data_root, tiny_model, *SHORT)
    samples = attention_args(data_root, tiny_model, data_root / "run")
    for main, given in ((train.main, arguments), (attentionhand.train.main, samples)):
        assert "--hub_model_id is for --push_to_hub" in error_of(main, [*given, "--hub_model_id", "us/palm"], capsys)
        bad = error_of(main, [*given, "--push_to_hub", "--hub_model_id", "us/a palm"], capsys)
        assert bad.startswith("--push_to_hub: 'us/a palm' can't be a hub id; pass --hub_model_id (")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    for main, given in ((train.main, arguments), (attentionhand.train.main, samples)):
        message = error_of(main, [*given, "--push_to_hub"], capsys)
        assert message == "--push_to_hub: no login for the hub; run `hf auth login` first, or set HF_TOKEN"
    assert not (data_root / "run").exists() and hub.repos == {}


def test_a_card_takes_any_name_for_a_text(data_root, tiny_model):
    """A gesture whose name is markup in YAML, Markdown, HTML and the shell."""
    gesture = 'wave: "x" | `rm`\n---\n# <b>*'
    for path in sorted(data_root.glob("palm*")):
        path.rename(data_root / path.name.replace("palm", gesture))
    arguments = train_args(data_root, tiny_model, *SHORT, "--max_train_images", 1)
    train.main([*arguments, "--gesture", gesture])
    card = (data_root / "run" / "README.md").read_text()
    assert header_of(card) == {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["diffusers", "stable-diffusion", "stable-diffusion-diffusers", "text-to-image", "diffusers-training"]
        + ["hand1000"],
    }
    shown = 'wave: "x" \\| \\`rm\\` --- \\# \\<b\\>\\*'
    assert f"\n# Hand1000: {shown}\n" in card and f"| gesture | {shown} |" in card
    assert card.count("\n# ") == 1 and "<b>" not in card.partition("## How to load it")[0]
    assert "| photos | 1 |" in card and "| Stage III: fine-tuning | 3 |" in card and "sha256" not in card
    assert plain("a_b _c_") == "a_b \\_c\\_" and table(("a",), [("x|y",)]) == "| a |\n| --- |\n| x\\|y |"


def test_the_card_names_base_model_and_licence(run_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    (run / "losses.csv").write_text("image,stage,step,loss\n")
    record = json.loads((run / "hand1000.json").read_text())

    def card_with(base: str) -> str:
        (run / "hand1000.json").write_text(json.dumps({**record, "base_model": base}))
        return card_of_run(run, "us/run")

    known = header_of(card_with("CompVis/stable-diffusion-v1-4"))
    assert (known["base_model"], known["license"]) == ("CompVis/stable-diffusion-v1-4", "creativeml-openrail-m")
    local = tmp_path / "base"
    local.mkdir()
    (local / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    header = header_of(card_with(str(local)))
    assert header["license"] == "apache-2.0" and "base_model" not in header
    (local / "README.md").write_text("---\n: [\n---\n")
    assert "license" not in header_of(card_with(str(local)))
    assert "look it up before you pass the weights on" in card_with("someone/model.ckpt")


def test_fused_embeddings_of_a_run_on_the_hub(run_folder, data_root, hub):
    from core.diffusion.stable_diffusion import load_stable_diffusion

    files = {path: (run_folder / path).read_bytes() for path in files_under(run_folder)}
    hub.commit("us/run", {**files, "feature.npy": (data_root / "palm.npy").read_bytes()})
    pipe = load_stable_diffusion(str(run_folder))
    here = fused_prompt_embeds(pipe, ["a hand"], run=run_folder, feature=data_root / "palm.npy", mu=0.5)
    there = fused_prompt_embeds(pipe, ["a hand"], run="us/run", mu=0.5)
    assert all((a == b).all() for a, b in zip(here, there))
