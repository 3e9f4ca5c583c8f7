"""select_images.py: the same choice everywhere, nobody in both sets, kills, and mistakes."""

import json
import shutil
import signal
from pathlib import Path

import pytest
from conftest import error_of, files_under, run_script, start_script, wait_for

import select_images
from core.runs.files import hold_lock
from core.runs.run import read_record


@pytest.fixture
def hagrid(tmp_path) -> Path:
    """A miniature HaGRID: 60 photos of 20 people, some of another label, and their annotations."""
    source = tmp_path / "hagrid"
    (source / "call").mkdir(parents=True)
    entries = {}
    for number in range(60):
        name = f"{number * 7919 % 10007:05}"
        (source / "call" / f"{name}.jpg").write_bytes(f"photo {number}".encode())
        (source / "call" / f"{name}.jpg").chmod(0o600)
        labels = ["peace"] if number % 10 == 0 else ["call", "no_gesture"]
        entries[name] = {"user_id": f"u{number % 20}", "labels": labels, "bboxes": [[0, 0, 1, 1]]}
    entries["unknown"] = {"user_id": "u0", "labels": ["call"], "bboxes": []}
    (source / "call.json").write_text(json.dumps(entries))
    return source


def select(hagrid: Path, root: Path, *more) -> dict:
    options = ["--source", hagrid, "--gesture", "call", "--num", 20, "--num_test", 15, "--data_root", root, *more]
    select_images.main(list(map(str, options)))
    return json.loads((root / "call_selection.json").read_text())


def test_selection(hagrid, tmp_path, capsys):
    root, annotations = tmp_path / "data", hagrid / "call.json"
    selection = select(hagrid, root, "--annotations", annotations)
    entries = json.loads(annotations.read_text())
    train, test = (sorted(path.name for path in (root / name).iterdir()) for name in ("call", "call_test"))
    assert (train, test) == (selection["train"], selection["test"]) and (len(train), len(test)) == (20, 15)
    people = [{entries[name[:5]]["user_id"] for name in names} for names in (train, test)]
    assert not people[0] & people[1]
    assert all("call" in entries[name[:5]]["labels"] for name in train + test)
    assert (root / "call" / train[0]).read_bytes() == (hagrid / "call" / train[0]).read_bytes()
    # The same choice on every machine: this list is the promise.
    assert train[:4] == EXPECTED_TRAIN and test[:4] == EXPECTED_TEST
    assert select(hagrid, tmp_path / "other", "--annotations", annotations, "--seed", "1")["train"] != train
    linked = select(hagrid, tmp_path / "linked", "--annotations", annotations, "--link")
    assert linked["train"] == train and (tmp_path / "linked" / "call" / train[0]).is_symlink()
    assert (hagrid / "call" / train[0]).stat().st_mode & 0o777 == 0o600  # of a source that is not ours

    # Again: finished. A folder lost on the way: made again. Another choice: refused.
    select(hagrid, root, "--annotations", annotations)
    assert "already finished, 20 photos to train on, 15 to test on" in capsys.readouterr().out
    (root / "call" / train[0]).rename(root / train[0])
    with pytest.raises(SystemExit):
        select(hagrid, root, "--annotations", annotations)
    assert "call: does not hold the 20 photos that call_selection.json lists" in capsys.readouterr().err
    (root / train[0]).rename(root / "call" / train[0])
    shutil.rmtree(root / "call_test")
    select(hagrid, root, "--annotations", annotations)
    assert sorted(path.name for path in (root / "call_test").iterdir()) == test
    with pytest.raises(SystemExit):
        select(hagrid, root, "--annotations", annotations, "--seed", "1")
    message = "call_selection.json: holds a finished selection of other settings (seed was 0, is now 1)"
    assert message in capsys.readouterr().err


EXPECTED_TRAIN = ["00356.jpg", "01501.jpg", "01578.jpg", "01934.jpg"]
EXPECTED_TEST = ["00789.jpg", "01068.jpg", "01145.jpg", "02444.jpg"]


def test_people_with_many_photos_find_their_side():
    people = {"a": "A", "b": "B", **{f"c{number}": "C" for number in range(10)}}
    for seed in range(10):
        train, test = select_images.choose(people, 2, 5, seed)
        assert train == ["a", "b"] and {people[name] for name in test} == {"C"}


def test_selection_killed_while_copying(hagrid, tmp_path):
    for number in range(3000):
        (hagrid / "call" / f"more{number}.jpg").write_bytes(b"photo" * 2000)
    arguments = ["select_images.py", "--source", hagrid, "--gesture", "call", "--num", 2000, "--num_test", 1000]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    select_images.main([*map(str, arguments[1:]), "--data_root", str(whole)])
    process = start_script(*arguments, "--data_root", killed)
    wait_for(lambda: any(killed.glob(".call.*.unfinished/more*")), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "call_test").exists()
    assert read_record(killed / "call_selection.json").status == "unfinished"
    (killed / ".other.abc.unfinished").mkdir()  # of a selection of another gesture, which may be in progress
    assert run_script(*arguments, "--data_root", killed).returncode == 0
    assert files_under(whole) == files_under(killed)
    assert [path.name for path in killed.glob(".*.unfinished")] == [".other.abc.unfinished"]


def test_two_selections_at_once(hagrid, tmp_path, capsys):
    options = ["--source", hagrid, "--gesture", "call", "--num", 5, "--num_test", 5, "--data_root", tmp_path]
    with hold_lock(tmp_path / ".call_selection.lock", "taken"):
        message = error_of(select_images.main, options, capsys)
    assert "call_selection.json: another selection is in progress there" in message and not (tmp_path / "call").exists()


def test_selection_mistakes(hagrid, tmp_path, capsys):
    def error(*more) -> str:
        options = ["--source", hagrid, "--gesture", "call", "--data_root", tmp_path / "data", *more]
        return error_of(select_images.main, options, capsys)

    message = error()
    assert "60 photos of 60 people can't give 1000 to train on and 1000 of others to test on; lower --num" in message
    assert "none.json: no such file" in error("--annotations", tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"00000": {"user": 1}}')
    assert "bad.json: not HaGRID's JSON" in error("--annotations", tmp_path / "bad.json")
    folder = error("--annotations", hagrid)
    assert folder == f"{hagrid}: is a folder; give its call.json (--annotations {hagrid / 'call.json'})"
    assert "is a folder; give its call.json (it is not in " in error("--annotations", hagrid / "call")
    (tmp_path / "v2" / "train").mkdir(parents=True)
    shutil.copy(hagrid / "call.json", tmp_path / "v2" / "train")
    assert "train/call.json)" in error("--annotations", tmp_path / "v2")
    assert "gives the label 'fist' to none" in error(
        "--annotations", hagrid / "call.json", "--gesture", "fist", "--source", hagrid / "call"
    )
    assert not (tmp_path / "data").exists()
    (tmp_path / "data" / "call").mkdir(parents=True)
    assert "call: exists already, without a call_selection.json beside it" in error("--num", 10, "--num_test", 10)
