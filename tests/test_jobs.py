"""Steps side by side: they wait for what they read, fail in one line, and leave no process behind."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, error_of
from test_files import alive, descendants

from core.runs.command_line import command_line
from core.runs.errors import UserError
from core.runs.experiments import check_experiment, run_steps
from core.runs.jobs import prerequisites
from core.runs.processes import cpu_count
from core.runs.steps import Step, costs

# Says that it is there, waits for the others, then writes what it has read.
SCRIPT = """
import sys, time
from pathlib import Path

if __name__ == "__main__":
    target, sources, others = Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3].split()
    target.with_suffix(".here").touch()
    print(f"I write {target.name}")
    deadline = time.monotonic() + 60
    while not all(Path(other).exists() for other in others):
        if time.monotonic() > deadline:
            sys.exit("waited for the others in vain")
        time.sleep(0.01)
    if any("bad" in source for source in sources):
        print("script.py: error: no good", file=sys.stderr)
        sys.exit(2)
    target.write_text(" ".join(Path(source).read_text() for source in sources) or target.stem)
"""


@pytest.fixture
def step_of(tmp_path):
    """Makes a step that writes {name}.txt, from these files, once these files are there."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def make(name: str, sources: tuple[str, ...] = (), others: tuple[str, ...] = ()) -> Step:
        texts = [" ".join(str(tmp_path / other) for other in part) for part in (sources, others)]
        inputs, output = [tmp_path / source for source in sources], tmp_path / f"{name}.txt"
        return Step("copy", f"{name}/copy", inputs, [output], script=script, arguments=[str(output), *texts])

    return make


def run(steps, tmp_path, stages=("copy",)):
    run_steps(tmp_path / "steps", steps, lambda: None, (), stages=stages, jobs=2)


def test_steps_run_at_the_same_time_unless_one_reads_what_another_writes(step_of, tmp_path, capsys):
    steps = [
        step_of("a", others=["b.here"]),  # these two end only if they run at the same time
        step_of("b", others=["a.here"]),
        step_of("c", sources=["a.txt", "b.txt"]),
        step_of("d", sources=["c.txt"]),
    ]
    run(steps, tmp_path)
    assert (tmp_path / "d.txt").read_text() == "a b"
    assert [cost.name for cost in costs(tmp_path / "steps", steps)] == ["a/copy", "b/copy", "c/copy", "d/copy"]
    assert (tmp_path / "steps" / "c" / "copy.log").read_text().splitlines()[-1] == "I write c.txt"
    output = capsys.readouterr().out
    assert "I write" not in output and "c/copy\n$ python" in output
    (tmp_path / "a.txt").write_text("A")
    run(steps, tmp_path)  # a's output is there, whoever wrote it
    assert "complete: a/copy" in capsys.readouterr().out and (tmp_path / "d.txt").read_text() == "A b"


def test_a_folder_and_the_files_in_it_belong_together(tmp_path):
    def step(name, inputs, outputs):
        return Step("any", name, [tmp_path / path for path in inputs], [tmp_path / path for path in outputs])

    steps = [
        step("train", ["photos"], ["run/model", "run/losses.csv"]),
        step("other", ["photos"], ["run2/model"]),
        step("draw", ["run/losses.csv"], ["pictures/1.png"]),
        step("measure", ["pictures"], ["scores.json"]),
        step("look", ["pictures/1.png/part"], ["look.json"]),
    ]
    assert prerequisites(steps) == [set(), set(), {0}, {0, 2}, {0, 2}]


def test_a_failed_step_ends_all_in_one_line(step_of, tmp_path, capsys):
    (tmp_path / "bad.txt").write_text("")
    steps = [step_of("a", others=["never"]), step_of("b", sources=["bad.txt"], others=["a.here"])]
    main = command_line(lambda argv: run(steps, tmp_path))
    log = tmp_path / "steps" / "b" / "copy.log"
    started = time.monotonic()
    assert error_of(main, [], capsys) == f"b/copy: no good (what it printed: {log})"
    assert time.monotonic() - started < 50  # a was not waited for
    assert costs(tmp_path / "steps", steps) == []
    assert json.loads((tmp_path / "steps" / "a" / "copy.json").read_text())["status"] == "unfinished"


def count_cores(target: Path) -> None:
    """Writes how many cores, and threads of torch, a step has."""
    import torch

    target.write_text(f"{cpu_count()} {torch.get_num_threads()}")


def end_at_once(how: str) -> None:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise UserError("not like this") if how == "mistake" else ValueError("a bug")


@pytest.mark.parametrize(
    "how, message",
    [
        ("mistake", "a: not like this (what it printed: {log})"),
        ("bug", "a: ValueError: a bug (what it printed: {log})"),
        (
            "killed",
            "the process of a was killed, for want of memory perhaps; run the same command again with fewer --jobs",
        ),
    ],
)
def test_functions_fail_in_one_line_too(how, message, tmp_path, capsys):
    step = Step("copy", "a", [], [], run=functools.partial(end_at_once, how))
    log = tmp_path / "steps" / "a.log"
    assert error_of(command_line(lambda argv: run([step], tmp_path)), [], capsys).startswith(message.format(log=log))
    if how == "bug":
        assert "in end_at_once" in log.read_text()


def test_each_has_its_share_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before, share = dict(os.environ), max(1, cpu_count() // 2)
    run([Step("copy", "a", [], [tmp_path / "a"], run=functools.partial(count_cores, tmp_path / "a"))], tmp_path)
    assert (tmp_path / "a").read_text() == f"{share} {share}" and dict(os.environ) == before


def test_steps_of_other_stages_are_left_out_but_waited_through(step_of, tmp_path):
    """As with --stages train,evaluate: a picture is measured once the model that drew it has been trained."""
    steps = [step_of("a"), step_of("b", sources=["a.txt"]), step_of("c", sources=["b.txt"])]
    steps[1] = steps[1]._replace(stage="draw")
    (tmp_path / "b.txt").write_text("drawn before")

    def check() -> None:
        assert (tmp_path / "a.txt").exists()

    run([*steps[:2], steps[2]._replace(check=check)], tmp_path)
    assert (tmp_path / "c.txt").read_text() == "drawn before"


def test_a_launcher_starts_one_step_at_a_time():
    with pytest.raises(UserError, match="--jobs runs several steps at a time, --launcher several processes of one"):
        check_experiment({}, {}, {}, jobs=2, launcher=["accelerate", "launch"])


EXPERIMENT = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}]
from core.runs.command_line import command_line
from core.runs.experiments import run_steps
from core.runs.steps import Step

@command_line
def main(argv=None):
    folder = Path({folder!r})
    script, outputs = folder / "script.py", [folder / "a", folder / "b"]
    steps = [Step("copy", path.name, [], [path], script=script, arguments=[str(path), "", "never"]) for path in outputs]
    run_steps(folder / "steps", steps, None, (), stages=["copy"], jobs=2)

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("sent, status", [(signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGTERM, -15)])
def test_killed_it_leaves_no_process_behind(sent, status, step_of, tmp_path):
    step_of("a")  # writes the script
    (tmp_path / "experiment.py").write_text(EXPERIMENT.format(root=str(ROOT), folder=str(tmp_path)))
    process = subprocess.Popen(
        [sys.executable, tmp_path / "experiment.py"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not all((tmp_path / f"{name}.here").exists() for name in "ab"):
        assert process.poll() is None
        time.sleep(0.05)
    workers = descendants(process.pid)
    assert len(workers) >= 2
    process.send_signal(sent)
    assert process.wait(timeout=10) == status
    deadline = time.monotonic() + 5
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [worker for worker in workers if alive(worker)] == []
