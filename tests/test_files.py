"""Safe writing, list files, and passes over photos in worker processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from core.runs.errors import UserError
from core.runs.files import atomic_file, atomic_folder, atomic_parts, check_outputs, read_paired_lines, write_lines
from core.runs.photos import map_photos
from core.runs.sheets import contact_sheet, side_by_side


def test_nothing_half_written_looks_whole(tmp_path):
    target = tmp_path / "sub" / "result.txt"
    with pytest.raises(KeyError), atomic_file(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    with pytest.raises(KeyError), atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("half")
        raise KeyError
    assert list(target.parent.iterdir()) == [] and not (tmp_path / "folder").exists()
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("whole")
    assert [path.name for path in tmp_path.iterdir() if path.name != "sub"] == ["folder"]
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask
    assert (tmp_path / "folder" / "a").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_planted_link_at_an_old_temporary_name_is_not_followed(tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in (".call.npy.tmp", ".call.npy.unfinished"):
        (folder / name).symlink_to(outside)
    with atomic_file(folder / "call.npy") as temporary:
        temporary.write_text("new")
    assert outside.read_text() == "precious" and (folder / "call.npy").read_text() == "new"


def test_parts_of_a_folder_are_replaced_the_last_one_last(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "old").write_text("old")
    (tmp_path / "losses.csv").write_text("kept")
    with pytest.raises(KeyError), atomic_parts(tmp_path, last="index.json") as temporary:
        (temporary / "index.json").write_text("half")
        raise KeyError
    assert not (tmp_path / "index.json").exists() and (tmp_path / "unet" / "old").exists()
    with atomic_parts(tmp_path, last="index.json") as temporary:
        (temporary / "unet").mkdir()
        (temporary / "unet" / "new").write_text("new")
        (temporary / "index.json").write_text("whole")
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"unet/new", "index.json", "losses.csv"}


def test_outputs_are_checked_before_anything_is_written(tmp_path):
    same = tmp_path / "a.json"
    with pytest.raises(UserError, match="two outputs can't go to the same file"):
        check_outputs(same, None, tmp_path / "sub" / ".." / "a.json")
    with pytest.raises(UserError, match="is a folder; give a file"):
        check_outputs(tmp_path)
    check_outputs(None, same)
    assert list(tmp_path.iterdir()) == []


def test_paired_lists(tmp_path):
    names, texts = tmp_path / "names.txt", tmp_path / "texts.txt"
    write_lines(names, ["a.png", "b.png"])
    write_lines(texts, ["one\u2028line", "two"])
    assert read_paired_lines(names, texts) == (["a.png", "b.png"], ["one\u2028line", "two"])
    for content, message in (
        ("a.png\n../b.png\n", "line 2: '../b.png' leaves its folder"),
        ("a.png\nC:\\b.png\n", "leaves its folder"),
        ("a.png\n./a.png\n", "line 2: './a.png' is already on line 1"),
        ("a.png\n", "has 1 lines but"),
        ("a.png\n\nb.png\n", "line 2 is empty"),
    ):
        names.write_text(content)
        with pytest.raises(UserError) as refused:
            read_paired_lines(names, texts)
        assert message in str(refused.value)


@pytest.fixture
def photos(tmp_path) -> list[Path]:
    """Five pictures of sides 8 to 12, the third of which is damaged."""
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.new("RGB", (8 + number, 8 + number)).save(path)
    paths[2].write_bytes(b"no picture")
    return paths


def side(photo: Image.Image) -> int:
    return photo.width


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_pass_over_photos_raises_or_counts_bad_ones(photos, num_workers):
    found = []
    with pytest.raises(UserError, match="2.png: not a readable image"):
        for value in map_photos(side, photos, num_workers=num_workers):
            found.append(value)
    assert found == [8, 9]
    bad: list[UserError] = []
    assert list(map_photos(side, photos, num_workers=num_workers, bad=bad, desc="Measuring")) == [8, 9, 11, 12]
    assert len(bad) == 1 and "2.png" in str(bad[0])


SLOW_PASS = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from core.runs.photos import map_photos
from core.runs import photos

if __name__ == "__main__":
    for _ in map_photos(photos.unchanged, [Path({photo!r})] * 100_000, num_workers=2):
        print("working", flush=True)
        time.sleep(0.5)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_end_when_their_parent_is_killed(photos, tmp_path):
    script = tmp_path / "slow_pass.py"
    script.write_text(SLOW_PASS.format(root=str(ROOT), photo=str(photos[0])))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdout.readline() == "working\n"
    workers = descendants(parent.pid)
    assert len(workers) >= 2
    parent.kill()
    parent.wait()
    until = time.monotonic() + 5
    while any(alive(worker) for worker in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert [worker for worker in workers if alive(worker)] == []


def descendants(pid: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_contact_sheets_place_pictures_under_labels(tmp_path):
    red, blue = (Image.new("RGB", (10, 10), colour) for colour in ("red", "blue"))
    blue.save(tmp_path / "blue.png")
    plain = np.asarray(contact_sheet([[red, tmp_path / "blue.png"], [blue]], cell=20))
    assert plain.shape == (40, 40, 3)
    assert (plain[:20, :20] == (255, 0, 0)).all() and (plain[:20, 20:] == (0, 0, 255)).all()
    assert (plain[20:, 20:] == 255).all()  # the second row has one picture
    labelled = contact_sheet([[red, blue]], column_labels=["a", "b"], row_labels=["word " * 40], cell=40)
    assert labelled.size == (80, 24 + 40 + 20)
    pixels = np.asarray(labelled)
    assert (pixels[24:64, :40] == (255, 0, 0)).all()
    assert (pixels[64:] < 128).any() and (pixels[:, -1] != 0).any() and (pixels[64:, -4:] == 255).all()  # cut to fit
    grid = side_by_side([red, blue, red], across=2)
    assert grid.size == (20, 20) and np.asarray(grid)[15, 15].tolist() == [255, 255, 255]
