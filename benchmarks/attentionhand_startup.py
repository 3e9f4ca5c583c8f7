"""How long attentionhand.train takes until its first step, and how much memory, at the size of a real label set.

Makes a data set of many samples (a few distinct pictures, linked again and again; every text once or several times),
and trains one step on it with the miniature model. Compare with a row of few samples: what is left is imports, model
and checkpoint.

Example:
  python -m benchmarks.attentionhand_startup --output_dir results/startup --num 100 100000
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from core.runs.command_line import argument_parser, command_line, positive_int
from core.runs.errors import UserError
from core.runs.files import atomic_folder, write_text
from core.runs.processes import progress
from synthetic_hands.demo import MINI

DISTINCT = 2  # pictures of each of 18 gestures; a file system allows 65,000 links to a file
SECONDS = 0.2  # between two looks at the memory
TRAINING = ["--pretrained_model_name_or_path", str(MINI / "model"), "--resolution", "64", "--no_tas"]
TRAINING += ["--max_train_steps", "1", "--validation_steps", "0"]
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--main_process_port", "0", "--num_processes"]


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, help="folder for the data sets; runs are removed at the end")
    add("--num", type=positive_int, nargs="+", default=[100, 100_000], help="samples of each data set")
    add("--texts", type=positive_int, default=1000, help="distinct texts, at most")
    add("--size", type=positive_int, default=128, help="pixels per side of the pictures")
    add("--num_processes", type=positive_int, default=1, help="training processes")
    args = parser.parse_args(argv)
    lines = [
        "| samples | distinct texts | seconds | memory of all processes, GB | of the largest, GB | embeddings, MB |"
    ]
    lines.append("| --- " * 6 + "|")
    for num in args.num:
        texts = min(num, args.texts)
        folder = args.output_dir / f"{num}_{texts}_{args.size}"
        make_data(folder, num, texts, args.size)
        seconds, together, largest, embeddings = train_one_step(folder, args.output_dir / "run", args.num_processes)
        lines.append(
            f"| {num:,} | {texts:,} | {seconds:.0f} | {together / 1e9:.2f} | {largest / 1e9:.2f} "
            f"| {embeddings / 1e6:.1f} |"
        )
    print("\n".join(["", *lines]))


def make_data(folder: Path, num: int, texts: int, size: int) -> None:
    """`num` samples with names of their own."""
    if folder.exists():
        return
    from synthetic_hands import make_dataset

    drawn = folder.with_name(f"drawn_{size}")
    layout = ["--layout", "attentionhand", "--size", str(size), "--num", str(DISTINCT)]
    make_dataset.main(["--output_dir", str(drawn), *layout])
    with atomic_folder(folder) as temporary:
        samples = [json.loads(line) for line in (drawn / "modalities.json").read_text(encoding="utf-8").splitlines()]
        for name in ("mesh", "rgb", "text"):
            (temporary / name).mkdir()
        lines = []
        for number in progress(range(num), desc="Linking", unit="sample"):
            sample = samples[number % len(samples)]
            line = {}
            for name in ("mesh", "rgb"):
                line[name] = f"{name}/{number:08}{Path(sample[name]).suffix}"
                os.link(drawn / sample[name], temporary / line[name])
            line["text"] = f"text/{number:08}.txt"
            (temporary / line["text"]).write_text(f"a photo of hand number {number % texts}\n", encoding="utf-8")
            lines.append(json.dumps(line) + "\n")
        write_text(temporary / "modalities.json", "".join(lines))


def train_one_step(data: Path, run: Path, num_processes: int) -> tuple[float, int, int, int]:
    """Seconds; the most memory of all processes together and of one, shared pages shared out; bytes of embeddings.

    Raises:
        UserError: the training failed.
    """
    shutil.rmtree(run, ignore_errors=True)
    launch = [*LAUNCH, str(num_processes)] if num_processes > 1 else []
    command = [*launch, "-m", "attentionhand.train", "--data_dir", str(data), "--output_dir", str(run), *TRAINING]
    started, together, largest, embeddings = time.monotonic(), 0, 0, 0
    with subprocess.Popen([sys.executable, *command]) as process:
        while process.poll() is None:
            each = memory_of_all(process.pid)
            together, largest = max(together, sum(each)), max([largest, *each])
            embeddings = max([embeddings, *(path.stat().st_size for path in run.glob(".*.embeddings.npy"))])
            time.sleep(SECONDS)
    if process.returncode:
        raise UserError(f"attentionhand.train ended with status {process.returncode}")
    shutil.rmtree(run)
    return time.monotonic() - started, together, largest, embeddings


def memory_of_all(number: int) -> list[int]:
    """Bytes of a process and of all that it has started; of shared pages each has its part (Linux)."""
    found = []
    with contextlib.suppress(psutil.Error):  # the process has ended
        process = psutil.Process(number)
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                found.append(one.memory_full_info().pss)
    return found


if __name__ == "__main__":
    main()
