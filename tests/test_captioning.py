"""captioning/*: a caption for every photo, in the order of the file names, with and without a model."""

import shutil
import signal

import pytest
import torch
from conftest import TWO_PROCESSES, error_of, run_script, start_script, wait_for
from PIL import Image
from safetensors.torch import load_file, save_file

from captioning import blip2, enrich, paligemma, plain, vitgpt2
from core.runs.errors import UserError
from core.runs.files import hold_lock
from core.runs.photos import load_photo
from hand1000.gesture_files import GestureFiles

CAPTIONERS = [(blip2, "BLIP2"), (paligemma, "PaliGemma"), (vitgpt2, "VitGpt2")]


@pytest.mark.parametrize("script, name", CAPTIONERS, ids=[name for _, name in CAPTIONERS])
def test_captions_in_the_order_of_file_names(script, name, photos, captioners, capsys, monkeypatch, one_thread):
    if name == "PaliGemma":  # whose random weights never end a caption
        monkeypatch.setattr(paligemma, "MAX_NEW_TOKENS", 10)
    model = str(captioners / name.lower())
    arguments = ["--gesture", "call", "--data_root", str(photos), "--model", model, "--num_workers", "0"]
    script.main([*arguments, "--batch_size", "4"])
    names = (photos / f"call_{name}_file_name.txt").read_text().splitlines()
    captions = (photos / f"call_{name}.txt").read_text(encoding="utf-8").split("\n")
    assert names == sorted(path.name for path in (photos / "call").iterdir())
    assert captions.pop() == "" and len(captions) == 11
    alone = script.load(model, torch.device("cpu"))
    for photo, caption in zip(names, captions):
        (text,) = alone([load_photo(photos / "call" / photo)])
        assert caption == (" ".join(text.split()) or "a photo")
    assert len(set(captions)) > 1 or name == "PaliGemma"  # whose random copy writes newlines only
    assert f"call_{name}.txt: 11 captions" in capsys.readouterr().out
    script.main(arguments)
    assert "already finished, 11 captions" in capsys.readouterr().out
    message = error_of(script.main, [*arguments, "--limit", "3"], capsys)
    assert "holds a finished captioning of other settings (photos was 11, is now 3; contents was " in message
    (photos / f"call_{name}_file_name.txt").unlink()
    assert "_file_name.txt: changed or lost since it was made" in error_of(script.main, arguments, capsys)
    for path in photos.glob("call_*"):
        path.unlink()
    (photos / f"call_{name}_file_name.txt").write_text("my own list\n")
    assert "_file_name.txt: exists already, made otherwise" in error_of(script.main, arguments, capsys)


def test_other_photos_under_the_same_names_are_other_settings(photos, captioners, capsys, one_thread):
    arguments = [
        "--gesture",
        "call",
        "--data_root",
        str(photos),
        "--model",
        str(captioners / "vitgpt2"),
        "--limit",
        "2",
    ]
    vitgpt2.main(arguments)
    Image.new("RGB", (60, 50)).save(photos / "call" / "0.png")
    message = error_of(vitgpt2.main, arguments, capsys)
    assert "call_VitGpt2.json: holds a finished captioning of other settings (contents was " in message


def test_two_at_once(photos, captioners, capsys):
    arguments = ["--gesture", "call", "--data_root", photos, "--model", captioners / "vitgpt2"]
    with hold_lock(photos / ".call_VitGpt2.lock", "taken"):
        message = error_of(vitgpt2.main, arguments, capsys)
    assert "call_VitGpt2.json: another captioning is in progress there" in message


def test_plain_captions_need_no_model(photos, capsys):
    arguments = ["--gesture", "call", "--data_root", str(photos)]
    plain.main(arguments)
    names, captions = GestureFiles(photos, "call", "plain").read(photos / "call_plain.txt")
    assert names == sorted(path.name for path in (photos / "call").iterdir()) and captions == ["a person"] * 11
    assert "call_plain.txt: 11 captions" in capsys.readouterr().out
    plain.main(arguments)
    assert "already finished, 11 captions" in capsys.readouterr().out
    message = error_of(plain.main, [*arguments, "--caption", "a child"], capsys)
    assert "holds a finished captioning of other settings (caption was a person, is now a child)" in message
    assert "has blanks at its ends" in error_of(plain.main, [*arguments, "--caption", "a child "], capsys)
    enrich.main([*arguments, "--captioner", "plain", "--backend", "rule"])
    assert (photos / "call_plain_modified.txt").read_text() == 11 * "a person making phone call hand gesture\n"
    message = error_of(enrich.main, [*arguments, "--backend", "rule"], capsys)
    assert "call_BLIP2_file_name.txt: no such file; there are lists of plain: pass --captioner plain" in message
    for end in ("_file_name.txt", ".txt"):  # another captioner's lists, which only lack the enrichment
        shutil.copy(photos / f"call_plain{end}", photos / f"call_own{end}")
    own = GestureFiles(photos, "call", "own")
    with pytest.raises(UserError, match="call_own_modified.txt: no such file; captioning/enrich.py makes it"):
        own.read(own.enriched)
    for path in photos.glob("call_plain*"):
        path.unlink()
    (photos / "call_plain.txt").write_text("my own caption\n")
    assert "call_plain.txt: exists already, made otherwise" in error_of(plain.main, arguments, capsys)
    (photos / "call" / "0.png").unlink()
    assert "nothing: no such folder" in error_of(plain.main, ["--gesture", "nothing", *arguments[2:]], capsys)


def test_paligemma_sees_the_released_prompt(captioners):
    from transformers import PaliGemmaProcessor

    processor = PaliGemmaProcessor.from_pretrained(captioners / "paligemma")
    picture = Image.new("RGB", (32, 32))
    ours, released = (processor(text=text, images=picture).input_ids for text in (paligemma.PROMPT, "caption"))
    assert list(ours[0]) == list(released[0])


def test_captions_killed_and_by_two_processes(photos, captioners, one_thread):
    arguments = ["captioning/vitgpt2.py", "--gesture", "call", "--model", captioners / "vitgpt2", "--num_workers", "0"]
    arguments += ["--batch_size", "2", "--data_root"]
    for number in range(11, 200):
        shutil.copy(photos / "call" / f"{number % 11}.png", photos / "call" / f"{number}.png")
    whole, killed, two = (photos / name for name in ("whole", "killed", "two"))
    for folder in (whole, killed, two):
        folder.mkdir()
        (folder / "call").symlink_to(photos / "call")
    vitgpt2.main([*map(str, arguments[1:]), str(whole)])
    done = run_script(*arguments, two, launcher=TWO_PROCESSES)
    assert done.returncode == 0, done.stderr
    process, journal = start_script(*arguments, killed), killed / ".call_VitGpt2.journal.jsonl"
    wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 20, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "call_VitGpt2.txt").exists()
    with open(journal, "ab") as file:
        file.write(b'{"photo": "torn')  # as a kill in the middle of a write leaves it
    done = run_script("-m", "captioning.vitgpt2", *arguments[1:], killed)
    assert done.returncode == 0 and not journal.exists(), done.stderr
    for folder in (killed, two):
        for name in ("call_VitGpt2.txt", "call_VitGpt2_file_name.txt"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_captioner_mistakes(photos, captioners, capsys, one_thread):
    def error(*more) -> str:
        arguments = ["--gesture", "call", "--data_root", photos, "--num_workers", 0, "--model", *more]
        return error_of(vitgpt2.main, arguments, capsys)

    assert "nowhere: no such folder, and not a hub id" in error("nowhere")
    assert "can't load" in error(captioners / "clip")
    message = error_of(
        blip2.main, ["--gesture", "call", "--data_root", photos, "--model", captioners / "paligemma"], capsys
    )
    assert "paligemma: not a whole Blip2ForConditionalGeneration; " in message or "can't load Blip2" in message
    shutil.copytree(captioners / "vitgpt2", photos / "half")
    tensors = load_file(photos / "half" / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "encoder" not in k}, photos / "half" / "model.safetensors")
    assert "tensors of such a model are missing" in error(photos / "half")
    (photos / "call" / "5.png").write_bytes(b"nothing")
    message = error(captioners / "vitgpt2", "--batch_size", 2)
    assert "5.png: not a readable image" in message and "captions so far are kept" in message
    message = error(captioners / "vitgpt2", "--limit", 3)
    assert "holds an unfinished captioning of other settings (photos was 11, is now 3" in message
