"""From photographs to evaluated captions: selection, captions, enrichment and dataset_evaluate.py one after another."""

import shutil

import pytest
from conftest import ROOT

import dataset_evaluate
import select_images
from captioning import enrich, vitgpt2
from hand1000.gesture_files import GestureFiles
from hand1000.gestures import PHRASES

HAGRID = ROOT.parent / "shared" / "data" / "hagrid-gestures"


@pytest.mark.skipif(not HAGRID.is_dir(), reason="needs the real photographs of ../shared/data")
def test_the_whole_chain_on_real_photographs(captioners, tmp_path, capsys, one_thread):
    root = ["--data_root", str(tmp_path)]
    (tmp_path / "all").mkdir()
    for photo in HAGRID.glob("*.png"):
        shutil.copy(photo, tmp_path / "all")
    select_images.main(
        ["--source", str(tmp_path / "all"), "--gesture", "call", "--num", "14", "--num_test", "10", *root]
    )
    vitgpt2.main(["--gesture", "call", *root, "--model", str(captioners / "vitgpt2")])
    enrich.main(["--gesture", "call", *root, "--captioner", "VitGpt2", "--backend", "rule"])
    files = GestureFiles(tmp_path, "call", "VitGpt2")
    lists = [str(files.names), str(files.enriched)]
    dataset_evaluate.main(
        ["--image_folder", str(tmp_path / "call"), "--image_filenames_path", lists[0], "--captions_path", lists[1]]
        + ["--model", str(captioners / "clip")]
    )
    assert f"Captions with '{PHRASES['call']}': 100.0% of 14" in capsys.readouterr().out
