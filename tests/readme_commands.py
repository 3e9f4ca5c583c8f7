"""Run every command of README.md and docs/ on a fresh clone, as a stranger would: what `make readme-test` runs.

Notebooks in docs/ are executed, too. A block of commands with `<!-- not run: why -->` on the line above it is skipped,
and the reason is printed.

Examples:
  python tests/readme_commands.py
  python tests/readme_commands.py --environment .venv --only synthetic   (no new installation; some blocks)
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.runs.command_line import argument_parser, command_line
from core.runs.errors import UserError
from core.runs.processes import say

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK_PACKAGES = ("nbclient", "ipykernel")  # not in requirements.txt
WITHOUT_PACKAGES = f"the environment lacks them: pip install {' '.join(NOTEBOOK_PACKAGES)}"
BLOCK = re.compile(r"(?:<!-- not run: (?P<why>.*?) -->\n)?```bash\n(?P<text>.*?)```", re.DOTALL)


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--environment", type=Path, help="use this virtual environment (default: a new one)")
    parser.add_argument("--only", default="", help="only blocks with this text")
    args = parser.parse_args(argv)
    lines, failed = [], 0
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(temporary) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        if args.environment:
            if not (args.environment / "bin" / "python").exists():
                raise UserError(f"{args.environment}: no virtual environment")
            (clone / ".venv").symlink_to(args.environment.resolve())
            (clone / ".venv" / "installed").touch()  # or make would install into it
        else:
            subprocess.run(["make", ".venv/installed"], cwd=clone, check=True)
            pip = [clone / ".venv" / "bin" / "pip", "install", "--disable-pip-version-check", "--quiet"]
            subprocess.run([*pip, *NOTEBOOK_PACKAGES], cwd=clone, check=True)
        pages = [clone / "README.md", *sorted((clone / "docs").glob("*.md"))]
        found = [pair for page in pages for pair in commands(page.read_text(encoding="utf-8"), args.only)]
        notebooks = [f"jupyter execute docs/{page.name}" for page in sorted((clone / "docs").glob("*.ipynb"))]
        why = None if can_execute(clone) else WITHOUT_PACKAGES
        found += [(command, why) for command in notebooks if args.only in command]
        if not found:
            raise UserError(f"no block of commands in README.md or docs/ has '{args.only}'")
        for command, why in found:
            if why:
                lines.append(f"not run ({why}): {command}")
                continue
            say(f"$ {command}")
            started = time.monotonic()
            status = run(command, clone)
            failed += status != 0
            outcome = f"FAILED ({status})" if status else "ok"
            lines.append(f"{outcome}, {time.monotonic() - started:.0f} s: {command}")
    say("\n" + "\n".join(lines))
    if failed:
        sys.exit(1)


def can_execute(clone: Path) -> bool:
    """Whether the clone's environment has the packages that notebooks need."""
    return run(f"python -c 'import {', '.join(NOTEBOOK_PACKAGES)}' 2> /dev/null", clone) == 0


def commands(page: str, only: str) -> list[tuple[str, str | None]]:
    """Each command on one line, with the reason why it is not run."""
    found = []
    for block in BLOCK.finditer(page):
        if only in block["text"]:
            joined = block["text"].replace("\\\n", " ")
            stripped = [re.sub(r"\s+", " ", line.partition(" #")[0]).strip() for line in joined.splitlines()]
            found += [(line, block["why"]) for line in stripped if line]
    return found


def run(command: str, clone: Path) -> int:
    """The exit status of a command run in the clone, with its virtual environment first on the PATH."""
    path = os.pathsep.join([str(clone / ".venv" / "bin"), os.environ["PATH"]])
    return subprocess.run(["bash", "-c", command], cwd=clone, env=os.environ | {"PATH": path}).returncode


if __name__ == "__main__":
    main()
