"""The notebook docs/tour.ipynb as it lies in the repository; `make readme-test` executes it."""

import json
import re

from conftest import ROOT

TOUR = ROOT / "docs" / "tour.ipynb"


def test_the_tour_lies_here_executed_with_its_pictures():
    text = TOUR.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)) and len(cells) >= 10
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}  # no error, no forgotten value
    assert sum(any(kind.startswith("image/") for kind in output.get("data", {})) for output in outputs) >= 7
    assert len(text) < 1_000_000 and not re.search(r"/(work|root|home|tmp)/", text)
    scripts = re.findall(r"\$ python (\S+\.py)", text)
    assert len(set(scripts)) >= 7 and all((ROOT / script).is_file() for script in scripts)
