"""macOS and Windows, simulated: see `tests/helpers/other_system.py`."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools
from other_system import SYSTEMS

ROOT = Path(__file__).parents[2]
LINES = """
doctor
prepare synthetic --poses 80 --fps 5 --test-subjects 1 -o s.h5
train --data s.h5 --out run --steps 2 --set width=8 --set blocks=1 --set batch=32
train --resume run --steps 3
lift s.h5 -o o.h5 --run run
lift s.h5 -o o.h5 --run run
export o.h5 -o o.csv
evaluate run --data s.h5 --split train
"""
COMMANDS = [line.split() for line in LINES.strip().splitlines()]
RUN = """
import other_system, sys
from ites.cli.main import main
for command in {commands}:
    try:
        main(command)
    except SystemExit as end:
        if end.code:
            sys.exit(f"{{command}}: {{end.code}}")
import ites.ops, ites.system.files as files, ites.system.lock as lock
assert "cpp" in ites.ops.backends.MISSING and "triton" in ites.ops.backends.MISSING
assert (files.fcntl is None) == (lock.fcntl is None) == ({system!r} == "windows")
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_commands_run_where_a_system_lacks_much(system, tmp_path):
    """No /proc, compiler or extension; on Windows no fcntl, and open files cannot be replaced."""
    folders = (str(ROOT), str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "ITES_SYSTEM": system, "PYTHONPATH": os.pathsep.join(folders)}
    code = RUN.format(commands=COMMANDS, system=system)
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout[-500:] + ended.stderr[-1500:]
    left = {path.name for path in tmp_path.iterdir()}
    assert {"s.h5", "run", "o.h5"} <= left and any(name.endswith(".csv") for name in left)
    names = [path.name for path in tmp_path.rglob("*")]
    assert not [name for name in names if name.endswith((".tmp", ".lock", ".parts"))]


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_build_pure_python(platform, monkeypatch):
    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: given.update(options))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    assert not given.get("ext_modules")
