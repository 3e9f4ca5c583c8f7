"""Steps of an experiment: each runs once, again where something changed, and the plan's counts add up."""

import json
import sys

import pytest

from core.runs.steps import Step, costs, print_plan, ran_with_these_settings, run_step

SCRIPT = """
import sys
from pathlib import Path
if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    if source.read_text() == "bad":
        print("copy.py: error: bad", file=sys.stderr)
        sys.exit(2)
    target.write_text(source.read_text())
    with open(target.with_suffix(".log"), "a") as log:
        log.write(".")
"""


@pytest.fixture
def copy(tmp_path) -> Step:
    """A step that copies a text by a script."""
    script, source, target = tmp_path / "copy.py", tmp_path / "source.txt", tmp_path / "target.txt"
    script.write_text(SCRIPT)
    source.write_text("one")
    return Step("copy", "a/copy", [source], [target], script=script, arguments=[str(source), str(target)])


def times_run(step: Step) -> int:
    return len(step.outputs[0].with_suffix(".log").read_text())


def test_a_step_runs_once_and_again_where_something_changed(copy, tmp_path, capsys):
    records, before = tmp_path / "steps", list(sys.argv)
    run_step(records, copy)
    assert copy.outputs[0].read_text() == "one" and sys.argv == before
    run_step(records, copy)
    assert times_run(copy) == 1 and "complete: a/copy" in capsys.readouterr().out
    copy.inputs[0].write_text("two")
    assert ran_with_these_settings(records, copy)  # with other inputs
    run_step(records, copy)
    assert times_run(copy) == 2 and copy.outputs[0].read_text() == "two"
    copy.outputs[0].unlink()
    run_step(records, copy)
    other = copy._replace(arguments=[*copy.arguments, "--more"])
    assert not ran_with_these_settings(records, other)
    run_step(records, other)
    assert times_run(copy) == 4
    (cost,) = costs(records, [other])
    assert cost.seconds >= 0 and cost.peak_memory_gb["process"] > 0 and cost.stage == "copy"


def test_a_failed_step_is_not_complete(copy, tmp_path, capsys):
    records = tmp_path / "steps"
    copy.inputs[0].write_text("bad")
    with pytest.raises(SystemExit) as stopped:
        run_step(records, copy)
    assert stopped.value.code == 2 and "copy.py: error: bad" in capsys.readouterr().err
    copy.outputs[0].write_text("made otherwise")
    assert costs(records, [copy]) == []
    with pytest.raises(SystemExit) as stopped:
        run_step(records, copy, launcher=[sys.executable])
    assert stopped.value.code == 2 and f"{sys.executable} ended with status 2" in capsys.readouterr().out


def test_functions_are_steps_and_scratch_is_removed(tmp_path):
    done, scratch = [], tmp_path / "scratch"
    scratch.mkdir()
    step = Step("count", "count", [], [], run=lambda: done.append(1), settings={"a": [1]}, scratch=[scratch])
    run_step(tmp_path / "steps", step)
    run_step(tmp_path / "steps", step)
    run_step(tmp_path / "steps", step._replace(settings={"a": [2]}))
    assert done == [1, 1] and not scratch.exists()


def test_the_plan_counts_every_step(copy, tmp_path, capsys):
    records = tmp_path / "steps"
    other = copy._replace(name="b/copy", outputs=[tmp_path / "b.txt"])
    evaluate = Step("evaluate", "a/evaluate", [], [], run=lambda: None)
    print_plan(records, [copy, other, evaluate])
    output = capsys.readouterr().out
    assert "3 steps, 0 complete, 3 to do: 2 to copy, 1 to evaluate" in output
    assert "time: not known yet for copy, evaluate" in output and "to do     (a/evaluate)" in output
    run_step(records, copy)
    run_step(records, evaluate)
    capsys.readouterr()
    print_plan(records, [copy, other, evaluate])
    output = capsys.readouterr().out
    assert "3 steps, 2 complete, 1 to do: 1 to copy" in output and "time: about 0 minutes" in output
    (records / "a" / "copy.json").write_text(json.dumps({"status": "finished"}))
    print_plan(records, [copy])  # a damaged record counts as none
    assert "1 step, 0 complete, 1 to do: 1 to copy" in capsys.readouterr().out
