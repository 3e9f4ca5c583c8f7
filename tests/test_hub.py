"""Models of the hub: without it a missing one fails at once and a cached one loads; a model's own code never runs."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, error_of, run_script

from captioning import enrich
from synthetic_hands import tiny_captioners

# Every kind of model, by every loader of the project, with the time that each takes.
LOAD_ALL = """
import sys, time
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPModel, CLIPProcessor
from core.diffusion.pretrained import load_pretrained
from core.diffusion.stable_diffusion import load_stable_diffusion
from core.runs.errors import UserError

def attempt(name, load):
    started = time.monotonic()
    try:
        load(name)
        print("loaded", flush=True)
    except UserError as error:
        print(f"{time.monotonic() - started:.0f} s: {error}", flush=True)

models, pipelines = sys.argv[1].split(","), sys.argv[2].split(",")
for name in models:
    for kind in (AutoTokenizer, AutoModelForCausalLM, CLIPProcessor, CLIPModel):
        if not (name.endswith("llama") and "CLIP" in kind.__name__):
            attempt(name, lambda name: load_pretrained(kind, name))
for name in pipelines:
    attempt(name, load_stable_diffusion)
"""


def load_all(models: str, pipelines: str, **environment: str) -> subprocess.CompletedProcess:
    without = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME", "HF_HUB_CACHE"}
    kept = {name: value for name, value in os.environ.items() if name not in without}
    command = [sys.executable, "-c", LOAD_ALL, models, pipelines]
    return subprocess.run(command, cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True, timeout=120)


def put_into_cache(model: Path, cache: Path, name: str) -> None:
    """What the hub client leaves of a downloaded model."""
    folder = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(model, folder / "snapshots" / "0123")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123")


@pytest.fixture
def unreachable() -> str:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_without_the_hub_a_missing_model_fails_at_once_and_a_cached_one_loads(tmp_path, tiny_model, unreachable):
    put_into_cache(tiny_captioners.save_llama(tmp_path / "llama"), tmp_path / "cache", "nobody/llama")
    put_into_cache(tiny_model, tmp_path / "cache", "nobody/pipeline")
    done = load_all(
        "nobody/llama,nobody/nothing",
        "nobody/pipeline,nobody/nothing",
        HF_ENDPOINT=unreachable,
        HF_HUB_CACHE=str(tmp_path / "cache"),
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()  # 2 kinds of the Llama, 4 of a missing model, 2 pipelines
    assert [line == "loaded" for line in lines] == [True] * 2 + [False] * 4 + [True, False], lines
    missing = [*lines[2:6], lines[7]]
    for line in missing:
        assert line.startswith("0 s: nobody/nothing: no such folder here, and the hub cannot be reached"), line
        assert unreachable in line and "HF_HUB_OFFLINE=1" in line
    assert all("pass the folder of a downloaded model as --model" in line for line in missing[:4])
    assert "pass the folder or the .ckpt of a downloaded model" in missing[4]
    assert not any(word in done.stderr for word in ("Retry", "retry", "thrown while", "Traceback")), done.stderr


def test_a_hub_that_never_answers_is_given_up(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = load_all("nobody/llama", "nobody/pipeline", HF_ENDPOINT=endpoint, HF_HUB_CACHE=str(tmp_path))
    lines = done.stdout.splitlines()
    assert [int(line.partition(" s: ")[0]) < 10 for line in lines] == [
        True
    ] * 3 and "the hub cannot be reached" in lines[0]
    assert not any(word in done.stderr for word in ("Retry", "retry", "thrown while", "Traceback")), done.stderr


def test_offline_by_choice(photos, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    started = time.monotonic()
    done = run_script("captioning/vitgpt2.py", "--gesture", "call", "--data_root", photos, "--model", "nobody/nothing")
    assert time.monotonic() - started < 60 and done.returncode == 2 and "Traceback" not in done.stderr
    message = "vitgpt2.py: error: nobody/nothing: no such folder here and not in the hub's cache, and HF_HUB_OFFLINE=1"
    assert message in done.stderr and "pass the folder of a downloaded model as --model" in done.stderr


def test_code_that_comes_with_a_model_never_runs(tmp_path, capsys, monkeypatch):
    (tmp_path / "call_BLIP2.txt").write_text("a man\n")
    (tmp_path / "call_BLIP2_file_name.txt").write_text("0.jpg\n")
    model = tiny_captioners.save_llama(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda _: "y")  # transformers asks
    arguments = ["--gesture", "call", "--data_root", tmp_path, "--model", model]
    message = error_of(enrich.main, arguments, capsys)
    assert message == f"{model}: asks to run code that comes with it, which is refused; use another model"
    assert not (tmp_path / "ran").exists()
