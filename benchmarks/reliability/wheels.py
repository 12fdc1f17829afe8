"""Build a wheel for each Python, and try it where there is no compiler.

    python -m benchmarks.reliability.wheels PYTHON ... [--torch-of PYTHON ...]
        [--versions newest oldest] [--tests tests/pose ...] [--out FOLDER] [--publish]

Each PYTHON is an interpreter that has PyTorch. A wheel is built for it from the committed files, as
the release workflow does, without CUDA. The wheel is installed in environments of their own, once
with the newest versions of what it needs and once with the oldest that `pyproject.toml` allows and
for which there are wheels. An environment sees the interpreter's PyTorch, as that is gigabytes;
everything else is its own. There cibuildwheel's test commands run, and the model that is packaged
lifts the same clip. The PATH holds the environment alone, and the folder is empty.

`--torch-of` are interpreters with other versions of PyTorch, which try the wheel that was built for
their version of Python.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reliability.warm import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COLUMNS = (
    "Python", "PyTorch of the build", "PyTorch", "versions", "installed", "commands", "joints, mm",
)  # fmt: skip
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "nvcc", "ninja", "make")
SHOWN = ("numpy", "scipy", "h5py", "safetensors", "typer", "rich")
TESTERS = ("pytest", "pytest-xdist", "hypothesis", "mpmath")
LIFTED = "general.npz"
MORE = (f"ites lift smoke.h5 -o {LIFTED}", f"ites export {LIFTED} -o general.bvh")
"""After cibuildwheel's commands."""
DISTANCE = """
import sys, numpy as np
ours, theirs = (np.load(path, allow_pickle=False) for path in sys.argv[1:])
names = [name for name in ours.files if name.endswith("positions")]
assert names and sorted(ours.files) == sorted(theirs.files)
print(1000 * max(np.abs(ours[name] - theirs[name]).max() for name in names))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that has PyTorch."""

    path: Path
    version: str
    torch: str
    packages: str

    @staticmethod
    def at(path: Path) -> Interpreter:
        """The interpreter of an environment."""
        code = (
            "import sys, torch; print(sys.version.split()[0], torch.__version__, *torch.__path__)"
        )
        version, torch, folder = output(path, "-c", code).split()
        return Interpreter(path, version, torch, str(Path(folder).parent))

    @property
    def series(self) -> str:
        return ".".join(self.version.split(".")[:2])


class Environment:
    """A fresh environment that sees an interpreter's PyTorch.

    Args:
        of: the interpreter.
        folder: to make it in.
    """

    def __init__(self, of: Interpreter, folder: Path) -> None:
        subprocess.run([of.path, "-m", "venv", str(folder)], check=True)
        self.bin, self.python = folder / "bin", folder / "bin" / "python"
        site = output(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
        (Path(site) / "pytorch.pth").write_text(f"{of.packages}\n", encoding="utf-8")

    def install(self, *words: str) -> None:
        """Install what pip is given, for which there are wheels; what cannot be is an error."""
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
        subprocess.run([*pip, *words], check=True)

    def run(self, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in a folder; nothing else is on its PATH."""
        given = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        given |= {"PATH": str(self.bin), "OMP_NUM_THREADS": "1"}
        program = str(self.bin / words[0])
        return subprocess.run(
            [program, *words[1:]], cwd=folder, env=given, capture_output=True, text=True
        )


def output(python: Path, *words: str) -> str:
    """What an interpreter prints."""
    ran = subprocess.run([python, *words], check=True, capture_output=True, text=True)
    return ran.stdout.strip()


def build(of: Interpreter, source: Path, folder: Path, out: Path) -> Path:
    """Build the wheel of an interpreter from sources into `out`, where it is not there yet."""
    pattern = f"*-cp{of.series.replace('.', '')}-*.whl"
    for wheel in out.glob(pattern):
        return wheel
    environment = Environment(of, folder / "build")
    environment.install("setuptools>=77", "pybind11>=2.13", "ninja", "numpy", "wheel")
    given = {**os.environ, "ITES_CUDA": "0", "PATH": f"{environment.bin}:{os.environ['PATH']}"}
    given.pop("PYTHONPATH", None)
    words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w"]
    subprocess.run([environment.python, *words, str(out), str(source)], check=True, env=given)
    (wheel,) = out.glob(pattern)
    return wheel


def oldest(environment: Environment) -> list[str]:
    """The oldest versions of what the package needs, but PyTorch, for which there are wheels."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chosen = []
    for requirement in project["dependencies"]:
        name, bound = re.match(r"([\w-]+)>=([\d.]+)", requirement).groups()  # type: ignore[union-attr]
        if name == "torch" or ("python_version" in requirement and name == "tomli"):
            continue
        words = [environment.python, "-m", "pip", "install", "--only-binary", ":all:", f"{name}==0"]
        refused = subprocess.run(words, capture_output=True, text=True).stderr
        found = re.search(r"from versions: ([^)]+)\)", refused)[1].split(", ")  # type: ignore[index]
        allowed = [v for v in found if re.fullmatch(r"[\d.]+", v) and order(v) >= order(bound)]
        chosen.append(f"{name}=={min(allowed, key=order)}")
    return chosen


def order(version: str) -> tuple[int, ...]:
    """A version of numbers, to compare."""
    numbers = [int(part) for part in version.split(".")]
    return (*numbers, *[0] * (4 - len(numbers)))


def tried(
    of: Interpreter, wheel: Path, which: str, tests: list[str], folder: Path, first: Path
) -> tuple[dict[str, str], list[str]]:
    """Try a wheel in one environment: versions, commands, joints and tests of a row, and faults.

    Args:
        of: whose Python and PyTorch.
        wheel: to install.
        which: "newest" or "oldest".
        tests: folders of tests to run against the installed package.
        folder: to work in.
        first: the poses of the first environment, to compare with; written where it is missing.
    """
    environment, empty = Environment(of, folder / "environment"), folder / "empty"
    empty.mkdir()
    there = [name for name in COMPILERS if shutil.which(name, path=str(environment.bin))]
    assert not there, there
    environment.install(str(wheel), *(oldest(environment) if which == "oldest" else ()))
    commands = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    passed, faults = 0, []
    listed = [*commands["tool"]["cibuildwheel"]["test-command"], *MORE]
    for command in listed:
        ran = environment.run(shlex.split(command), empty)
        passed += ran.returncode == 0
        if ran.returncode:
            faults.append(f"{command}: exit code {ran.returncode}: {ran.stderr[-800:]}")
    doctor = environment.run(["ites", "doctor", "--json"], empty)
    if doctor.returncode or not json.loads(doctor.stdout)["extensions"]["_C"]:
        faults.append(f"no extension: {doctor.stdout[-800:]} {doctor.stderr[-800:]}")
    apart = ""
    if (empty / LIFTED).exists() and not first.exists():
        shutil.copy2(empty / LIFTED, first)
    elif (empty / LIFTED).exists():
        words = ["python", "-c", DISTANCE, str(empty / LIFTED), str(first)]
        ran = environment.run(words, empty)
        apart = f"{float(ran.stdout):.1g}" if ran.returncode == 0 else "differ"
        if ran.returncode:
            faults.append(ran.stderr[-800:])
    row = {
        "installed": versions(environment),
        "commands": f"{passed} of {len(listed)}",
        "joints, mm": apart,
    }
    row["tests"] = ""
    if tests:
        environment.install(*TESTERS)
        (folder / "tests").mkdir()
        for name in ("tests", "benchmarks", "pyproject.toml"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, folder / "tests" / name)
        words = ["python", "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
        ran = environment.run(words, folder / "tests")
        row["tests"] = (ran.stdout.strip().splitlines() or [""])[-1].split(" in ")[0]
        if ran.returncode:
            faults.append(ran.stdout[-6000:] + ran.stderr[-800:])
    return row, faults


def versions(environment: Environment) -> str:
    """The versions of what the package needs."""
    code = "import sys; from importlib.metadata import version as v; print(*map(v, sys.argv[1:]))"
    found = output(environment.python, "-c", code, *SHOWN).split()
    return ", ".join(f"{name} {version}" for name, version in zip(SHOWN, found, strict=True))


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pythons", metavar="PYTHON", nargs="+", type=Path)
    parser.add_argument("--torch-of", nargs="+", type=Path, default=[])
    parser.add_argument("--versions", nargs="+", default=["newest", "oldest"])
    parser.add_argument("--tests", nargs="+", default=[], help="run these against the wheel")
    parser.add_argument(
        "--out", type=Path, help="keep wheels and poses; a wheel that is there is tried"
    )
    parser.add_argument("--publish", action="store_true", help="put the rows in the table")
    given = parser.parse_args(argv)
    builders = [Interpreter.at(path) for path in given.pythons]
    others = [Interpreter.at(path) for path in given.torch_of]
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory() as home:
        source = Path(home) / "source"
        source.mkdir()
        archive = subprocess.run(
            ["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True
        )
        subprocess.run(["tar", "-x", "-C", str(source)], input=archive.stdout, check=True)
        first = (given.out or Path(home)) / LIFTED
        for builder in builders:
            folder = Path(home) / builder.series
            folder.mkdir()
            wheel = build(builder, source, folder, given.out or folder / "wheel")
            print(f"{wheel.name}: {wheel.stat().st_size:,} bytes", flush=True)
            trials = [(builder, which) for which in given.versions]
            trials += [(of, "newest") for of in others if of.series == builder.series]
            for number, (of, which) in enumerate(trials):
                place = folder / str(number)
                place.mkdir()
                found, faults = tried(of, wheel, which, given.tests, place, first)
                keys = dict(
                    zip(COLUMNS, (of.version, builder.torch, of.torch, which), strict=False)
                )
                rows.append(keys | found)
                print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
                print(*faults, sep="\n", end="\n" * bool(faults), flush=True)
                wrong += len(faults)
                if given.publish:
                    from benchmarks.reliability.tables import renew  # which needs the package

                    published = [{name: row[name] for name in COLUMNS} for row in rows]
                    renew("wheels", COLUMNS, COLUMNS[:4], published)
                shutil.rmtree(place)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
