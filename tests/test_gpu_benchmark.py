"""benchmarks/gpu.py, which is written for a GPU, on tiny models: it measures, saves, continues and refuses."""

import json

import pytest
from conftest import error_of

from benchmarks import gpu


def test_parts_are_saved_and_not_measured_twice(tmp_path, capsys, fresh_accelerate):
    output = tmp_path / "gpu.json"
    gpu.main(["--output", str(output), "--dry_run", "--parts", "card", "equality"])
    first = json.loads(output.read_text())
    assert list(first["parts"]) == ["card", "equality"] and all(part["complete"] for part in first["parts"].values())
    assert [row["arithmetic"] for row in first["parts"]["card"]["rows"]] == ["bfloat16", "float32", "TensorFloat-32"]
    assert first["parts"]["equality"]["rows"][0]["losses"] == 30
    assert first["parts"]["equality"]["rows"][0]["largest difference to the CPU"] < 1e-4
    assert "| arithmetic | TFLOP/s |" in capsys.readouterr().out

    gpu.main(["--output", str(output), "--dry_run", "--parts", "card", "training"])
    second = json.loads(output.read_text())
    assert second["parts"]["card"] == first["parts"]["card"]
    assert second["parts"]["training"]["rows"][0]["photos a minute"] > 0

    output.write_text(json.dumps({**second, "machine": "another"}))
    arguments = ["--output", str(output), "--dry_run"]
    assert error_of(gpu.main, arguments, capsys) == (
        f"{output}: measured on another machine or commit; choose another --output"
    )


def test_a_row_that_fails_leaves_the_others(tmp_path, monkeypatch):
    def too_large(size, device):
        yield {"batch": 1}
        raise RuntimeError("out of memory")

    monkeypatch.setitem(gpu.PARTS, "card", too_large)
    gpu.main(["--output", str(tmp_path / "gpu.json"), "--dry_run", "--parts", "card", "fusion"])
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert parts["card"]["rows"] == [{"batch": 1}, {"failed": "RuntimeError: out of memory"}]
    assert not parts["card"]["complete"] and parts["fusion"]["complete"]


@pytest.mark.slow
def test_every_part_on_tiny_models(tmp_path, fresh_accelerate):
    gpu.main(["--output", str(tmp_path / "gpu.json"), "--dry_run", "--budget", "3600"])
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert list(parts) == list(gpu.PARTS) and all(part["complete"] for part in parts.values())
    assert not [row for part in parts.values() for row in part["rows"] if "failed" in row]
    assert parts["resuming"]["rows"][0]["largest difference of weights"] == 0
    assert " passed" in parts["tests"]["rows"][0]["result"]
