"""`Run`: work that may be killed, resumed, refused or finished, and its records and checkpoints."""

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from conftest import ROOT

from core.runs import run as runs
from core.runs.errors import UserError
from core.runs.run import Run, differing_settings, read_losses, write_losses

SETTINGS = {"Lambda": 0.7, "photos": 3}


def training(folder: Path, **changes) -> Run:
    return Run(folder / "hand1000.json", {**SETTINGS, **changes}, what="training")


def refusal(function, *arguments, **options) -> str:
    with pytest.raises(UserError) as refused:
        function(*arguments, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def save(run: Run, number: int, keep: int = 1, **more) -> None:
    write = more.pop("write", lambda folder: (folder / "weights").write_text(str(number)))
    run.save_checkpoint(number, write, state={"done": number}, size=10, keep=keep, **more)


def test_begin_finish_and_other_settings(tmp_path):
    run = training(tmp_path / "run")
    with run.hold():
        assert run.record() is None and not run.is_finished()
        run.begin(base_model="base")
        assert run.record() == ("unfinished", SETTINGS, {"base_model": "base"}) and not run.is_finished()
        run.finish(base_model="base", losses=4)
    assert training(tmp_path / "run").is_finished()
    message = refusal(training(tmp_path / "run", Lambda=0.5).record)
    assert message == (
        f"{tmp_path / 'run'}: holds a finished training of other settings (Lambda was 0.7, is now 0.5); "
        "choose another --output_dir, or remove it"
    )
    long = differing_settings({"hash": "a" * 64}, {"hash": "b" * 64, "new": None, "other": 1})
    assert long == "hash was aaaaaaaaaaaa…, is now bbbbbbbbbbbb…; other was None, is now 1"


def test_a_run_that_has_left_nothing_makes_room_for_another(tmp_path):
    """The advice to choose another learning rate can be followed in the same folder."""
    training(tmp_path / "run").begin()
    (tmp_path / "run" / "checkpoints").mkdir()
    other = training(tmp_path / "run", Lambda=0.5)
    assert other.record() is None
    save(training(tmp_path / "run"), 2)
    assert "holds an unfinished training of other settings" in refusal(other.record)
    with training(tmp_path / "new").hold():
        pass
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        '"text"',
        "{}",
        '{"status": "finished"}',
        '{"status": "done", "settings": {}}',
        '{"status": "finished", "settings": []}',
        '{"status": ["finished"], "settings": {}}',
        "[" * 100_000,
        b'{"status": "\xff"}',
    ],
)
def test_damaged_records_end_in_one_line(content, tmp_path):
    path = tmp_path / "hand1000.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refusal(training(tmp_path).record)
    assert message.startswith(f"{path}: damaged (")
    assert message.endswith("; remove it or choose another folder")


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError) as refused, training(tmp_path).hold():
        pass
    assert "holds 'note.txt' but no hand1000.json, so it is not a training; choose another --output_dir" in str(
        refused.value
    )
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


HOLDER = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from core.runs.files import atomic_file, atomic_folder
from core.runs.run import Run
with Run(Path({folder!r}) / "hand1000.json", {{}}, what="training").hold():
    with atomic_folder(Path({folder!r}) / "half"), atomic_file(Path({folder!r}) / "half.txt") as file:
        file.write_text("half")
        print("held", flush=True)
        time.sleep(60)
"""


def test_one_at_a_time_and_a_killed_one_leaves_nothing(tmp_path):
    folder = tmp_path / "run"
    code = HOLDER.format(root=str(ROOT), folder=str(folder))
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(UserError) as refused, training(folder).hold():
        pass
    assert "another training is in progress there; wait for it, or choose another --output_dir" in str(refused.value)
    assert len(list(folder.glob(".*.unfinished"))) == 2
    holder.kill()
    holder.wait()
    with training(folder).hold():
        assert [path.name for path in folder.iterdir()] == [".hand1000.lock"]


def test_checkpoints_are_kept_by_number_and_removed_by_limit(tmp_path):
    run = training(tmp_path)
    for name in ("checkpoint-2-backup", "checkpoint-²", "checkpoint-", "notes", f"checkpoint-{'9' * 20}"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    for number in (2, 4, 10):
        save(run, number, keep=3)
    assert [path.name for path in run.checkpoints()] == ["checkpoint-2", "checkpoint-4", "checkpoint-10"]
    save(run, 12, keep=4)
    assert len(run.checkpoints()) == 4
    save(run, 14, keep=2)
    assert [path.name for path in run.checkpoints()] == ["checkpoint-12", "checkpoint-14"]
    save(run, 16, keep=1)
    assert [path.name for path in run.checkpoints()] == ["checkpoint-16"]
    assert (tmp_path / "checkpoints" / "checkpoint-2-backup").is_dir()
    assert run.state_of(run.checkpoints()[0]) == {"done": 16}


def test_which_checkpoint_to_resume(tmp_path):
    run = training(tmp_path)
    assert run.checkpoint_to_resume(None) is None and run.checkpoint_to_resume("latest") is None
    for number in (2, 4):
        save(run, number, keep=2)
    folder = tmp_path / "checkpoints"
    assert run.checkpoint_to_resume("latest") == folder / "checkpoint-4"
    assert run.checkpoint_to_resume("checkpoint-2") == folder / "checkpoint-2"
    assert run.checkpoint_to_resume(str(folder / "checkpoint-2")) == folder / "checkpoint-2"
    message = refusal(run.checkpoint_to_resume, None)
    assert "holds an unfinished training (checkpoint-4); resume it with --resume_from_checkpoint latest" in message
    assert "no such checkpoint" in refusal(run.checkpoint_to_resume, "checkpoint-3")
    message = refusal(training(tmp_path, Lambda=0.1).checkpoint_to_resume, "latest")
    assert "belongs to a training of other settings (Lambda was 0.7, is now 0.1)" in message
    (folder / "checkpoint-4" / "state.json").write_text("[1]")
    assert "not a checkpoint of a training (state.json: a list, not an object)" in refusal(
        run.checkpoint_to_resume, "latest"
    )
    (folder / "checkpoint-4" / "state.json").write_text("{}")
    assert "damaged checkpoint (state.json has no settings); remove it" in refusal(run.checkpoint_to_resume, "latest")


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(tmp_path, monkeypatch, capsys):
    run = training(tmp_path)
    save(run, 2)

    def full(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise OSError(28, "No space left on device")

    save(run, 4, write=full)
    assert "disk too full ([Errno 28] No space left on device); the last good one is checkpoint-2" in (
        capsys.readouterr().out
    )
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10, 5, 5))
    save(run, 6)
    assert "needs 0.0 GB, 0.0 GB is free); the last good one is checkpoint-2" in capsys.readouterr().out
    assert [path.name for path in run.checkpoints()] == ["checkpoint-2"]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-2"]

    def mistake(folder: Path) -> None:
        raise KeyError("a bug")

    monkeypatch.undo()
    with pytest.raises(KeyError):
        save(run, 8, write=mistake)


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    run = training(tmp_path)
    with run.hold():
        run.begin()
        save(run, 2)
        run.finish()
    assert list(tmp_path.iterdir()) == []


def test_losses_round_trip(tmp_path):
    path, columns = tmp_path / "losses.csv", ("image", "stage", "step", "loss")
    rows = [("a,b.png", "embedding", 0, 0.1 + 0.2), ("ü.png", "finetune", 1, 1e-9)]
    write_losses(path, columns, rows)
    read = [(image, stage, int(step), float(loss)) for image, stage, step, loss in read_losses(path, columns)]
    assert read == rows
    path.write_text("image,loss\na,1\n")
    assert refusal(read_losses, path, columns) == f"{path}: damaged (its columns are not image,stage,step,loss)"
    path.write_text("")
    assert refusal(read_losses, path, columns).startswith(f"{path}: damaged (")


def test_a_record_is_plain_json(tmp_path):
    run = training(tmp_path, names=("a", "b"))
    run.begin()
    content = json.loads((tmp_path / "hand1000.json").read_text())
    assert content == {"status": runs.UNFINISHED, "settings": {**SETTINGS, "names": ["a", "b"]}}
    assert run.record() is not None  # tuples and lists are the same setting
