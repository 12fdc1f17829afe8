"""Put a trained run of recipe general into the package: weights and odds, without anybody's paths.

python -m benchmarks.accuracy.package RUN
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ites.runs.checkpoint import load_stage, save_model
from ites.runs.folder import RunFolder
from ites.runs.packaged import FOLDER
from ites.runs.settings import stages_of

PATHS = ("data", "out", "start", "prior", "replay")
"""Settings that name files of the machine that trained."""


def package(run: Path, out: Path = FOLDER) -> None:
    """Write a run's stages and odds into a folder; of its paths only the last names stay."""
    out.mkdir(exist_ok=True)
    for stage in stages_of("general"):
        model, metadata = load_stage(run, stage)
        names = {key: Path(metadata.settings.get(key, "")).name for key in PATHS}
        settings = {k: names.get(k, v) for k, v in metadata.settings.items()}
        settings |= {"out": out.name, "prior": ""}  # the prior lies in the same folder
        save_model(RunFolder(out).weights(stage), model, replace(metadata, settings=settings))
    odds = RunFolder(run).odds("teacher").read_bytes()
    RunFolder(out).odds("teacher").write_bytes(odds)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    package(parser.parse_args(argv).run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
