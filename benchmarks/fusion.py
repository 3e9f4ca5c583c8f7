"""Time and peak memory of the fusion: weights made in row blocks against a stored `nn.Linear` of the same size.

Each case runs in a process of its own, so that its peak memory is its own. "Extra" is the peak above what the process
held before fusing, prompts included; the result (1,000 prompts: 0.24 GB) and a copy of the input are part of it.

Example:
  python -m benchmarks.fusion --hidden_size 768 --prompts 1 1000
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from core.runs.command_line import argument_parser, command_line, positive_int


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--hidden_size", type=positive_int, default=768, help="width of the text encoder; 768 is SD 1.4"
    )
    parser.add_argument("--prompts", type=positive_int, nargs="+", default=[1, 1000], help="how many prompts at a time")
    parser.add_argument("--with_file", action="store_true", help="also stream the weights from a file (14 GB at 768)")
    parser.add_argument("--case", nargs=2, help="run one case in this process and print its figures (used by itself)")
    parser.add_argument("--weights_file", type=Path, help="of --case file")
    args = parser.parse_args(argv)
    if args.case:
        print(json.dumps(run_case(args.case[0], int(args.case[1]), args.hidden_size, args.weights_file)))
        return

    out_features = 77 * args.hidden_size
    print(f"Fusion {out_features + 63:,} -> {out_features:,}, {4 * out_features**2 / 1e9:.1f} GB of weights")
    print("| weights | prompts | seconds | extra peak memory |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        cases = ["row blocks from a seed", "stored nn.Linear"]
        if args.with_file:
            cases.insert(1, "row blocks from a file")
            weights_file = write_weights(Path(folder), args.hidden_size)
        for case in cases:
            for prompts in args.prompts:
                command = [sys.executable, "-m", "benchmarks.fusion", "--hidden_size", str(args.hidden_size)]
                if "file" in case:
                    command += ["--weights_file", str(weights_file)]
                done = subprocess.run([*command, "--case", case, str(prompts)], stdout=subprocess.PIPE, check=True)
                seconds, gigabytes = json.loads(done.stdout)
                print(f"| {case} | {prompts:,} | {seconds:.1f} | {gigabytes:.2f} GB |", flush=True)


def run_case(case: str, prompts: int, hidden_size: int, weights_file: Path | None) -> tuple[float, float]:
    """Seconds, and GB of peak memory beyond the inputs."""
    import torch

    from hand1000.fusion import fuse

    torch.nn.functional.linear(torch.ones(64, 64), torch.ones(64, 64))  # load the libraries
    prompt_embeds, feature = torch.randn(prompts, 77, hidden_size), torch.rand(63)
    before = peak_bytes()
    started = time.perf_counter()
    if case == "stored nn.Linear":
        torch.manual_seed(0)
        layer = torch.nn.Linear(77 * hidden_size + 63, 77 * hidden_size)
        with torch.no_grad():
            layer(torch.cat([prompt_embeds.flatten(1), feature.expand(prompts, -1)], dim=1))
    else:
        fuse(prompt_embeds, feature, weights_file=weights_file)
    return time.perf_counter() - started, (peak_bytes() - before) / 1e9


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def write_weights(folder: Path, hidden_size: int) -> Path:
    """Fusion weights of the given size as a file; their values do not matter."""
    import torch

    from hand1000.fusion import seeded_blocks
    from hand1000.fusion_weights import write_safetensors

    out_features = 77 * hidden_size
    with torch.no_grad():
        blocks = seeded_blocks(0, out_features + 63, out_features, 256)
        write_safetensors(folder / "fusion.safetensors", out_features + 63, out_features, blocks)
    return folder / "fusion.safetensors"


if __name__ == "__main__":
    main()
