"""The script for a GPU: its parts fit their time by count, and it names what is there."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/gpu.sh"
LIMIT = 570  # seconds of a part


def steps(part: str) -> list[tuple[str, int]]:
    """The steps of a part on a GPU, with their seconds."""
    text = SCRIPT.read_text()
    body = re.search(rf"^{part}\(\) {{\n(.*?)^}}", text, re.M | re.S)
    assert body is not None
    kept = re.sub(r'if \[ "\$dry" \]; then.*?else', "if true; then", body[1], flags=re.S)
    return [(name, int(time)) for name, time in re.findall(r'step ("[^"]+"|\S+) (\d+)', kept)]


@pytest.mark.parametrize("part", ["first", "ops", "steps"])
def test_a_part_fits_its_time(part: str) -> None:
    """All steps have their time but for torch.compile's, which takes what is left."""
    times = [time for name, time in steps(part) if name != '"with torch.compile"']
    if part == "first":  # where no build is carried; and a second tool in one line
        times += [200, 45]
    assert len(times) >= 3 and sum(times) <= LIMIT


def test_the_constants_are_measured_before_the_tests() -> None:
    names = [name for name, _ in steps("first")]
    assert names.index("constants") < names.index('"GPU tests"')
    assert names[0] == "versions"


def test_its_programs_exist() -> None:
    for module in re.findall(r"-m (benchmarks\.[\w.]+)", SCRIPT.read_text()):
        assert importlib.util.find_spec(module) is not None, module
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
