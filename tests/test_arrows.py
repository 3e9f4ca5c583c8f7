"""The architecture: imports point down only, go round in no circle, and nothing imports a root script."""

import ast
import functools
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

# From the top to the ground; a package may import those below it. Packages of one floor do not know each other.
FLOORS = [
    ["tests"],
    ["benchmarks"],
    ["scripts"],
    ["studio"],
    ["captioning", "synthetic_hands"],
    ["hand1000", "attentionhand"],
    ["core.metrics", "core.diffusion"],
    ["core.hands"],
    ["core.runs"],
]
NOT_BELOW = {("core.diffusion", "core.hands")}  # Stable Diffusion knows nothing of hands
OPTIONAL = {  # modules that import a library which requirements.txt does not have
    "core.hands.mediapipe_solutions": "mediapipe",
    "studio.page": "gradio",
    "studio.parts": "gradio",
    "studio.tabs": "gradio",
}
PACKAGES = ["core", "hand1000", "attentionhand", "captioning", "synthetic_hands", "studio"]


def room_of(module: str) -> str:
    """The package that a module belongs to; "scripts" for the scripts of the root folder."""
    parts = module.split(".")
    if len(parts) == 1 and parts[0] not in PACKAGES:
        return "scripts"
    return ".".join(parts[:2]) if parts[0] == "core" and len(parts) > 1 else parts[0]


def modules() -> dict[str, Path]:
    """The project's modules by name."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split() if (ROOT / name).is_file()]
    return {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): ROOT / name for name in names}


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    return [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def imports_of(path: Path, name: str, known: set[str]) -> set[str]:
    """The project's modules that a file imports, also inside functions and for type checking."""
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
        else:
            continue
        found |= {one for one in names if one in known}
    return found - {name}


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    files = modules()
    return {name: imports_of(path, name, set(files)) for name, path in files.items()}


def floor_of(room: str) -> int:
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), -1)


def test_every_arrow_points_down(arrows):
    assert len(arrows) > 60 and sum(map(len, arrows.values())) > 200  # the test sees the project
    wrong = []
    for module, targets in arrows.items():
        for target in targets:
            a, b = room_of(module), room_of(target)
            if a == b or b == "core":
                continue
            down = floor_of(a) < floor_of(b) and (a, b) not in NOT_BELOW
            if not down:
                wrong.append(f"{module} -> {target}")
    assert wrong == []


def test_nothing_imports_a_root_script(arrows):
    scripts = {module for module in arrows if room_of(module) == "scripts"}
    assert "train" in scripts and "reproduce" in scripts
    wrong = [
        f"{module} -> {target}"
        for module, targets in arrows.items()
        for target in targets & scripts
        if not module.startswith(("tests.", "benchmarks."))
    ]
    assert wrong == []


def test_there_is_no_circle(arrows):
    """Taking away modules that import nothing that is left must take away all."""
    left = {module: set(targets) for module, targets in arrows.items() if not module.startswith("tests.")}
    while ends := {module for module, targets in left.items() if not targets & left.keys()}:
        left = {module: targets for module, targets in left.items() if module not in ends}
    assert sorted(left) == []


def test_optional_libraries_stay_where_they_are():
    for library in set(OPTIONAL.values()):
        users = {name for name, path in modules().items() if imports_library(path, library)}
        allowed = {name for name, needed in OPTIONAL.items() if needed == library}
        assert {name for name in users if not name.startswith(("tests.", "benchmarks."))} == allowed


def imports_library(path: Path, library: str) -> bool:
    nodes = nodes_of(path)
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return any(name.partition(".")[0] == library for name in names)


def test_a_wheel_holds_every_package(tmp_path):
    """Built from the repository and imported outside the checkout, without torch being needed for the import."""
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(copy)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    names = [module for module in modules() if module.partition(".")[0] in PACKAGES and module not in OPTIONAL]
    lines = [f"import sys; sys.path.insert(0, {str(site)!r})", *(f"import {name}" for name in names)]
    lines.append(f"assert core.__file__.startswith({str(site)!r})")
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("core/hands/models", "synthetic_hands/mini/model", "attentionhand/samples"):
        assert any((site / name).rglob("*.*")), f"{name} is not in the wheel"
