"""Draw the same test frames under several runs: the picture of docs/accuracy.md.

    python -m benchmarks.accuracy.pictures paper=runs/paper upright=runs/upright --data cmu.h5

The frames are evenly spread over the test split, not chosen by their result. One row has the 2D
keypoints, one the truth, and one per run its poses. These are at the least-squares scale, in
colour, over the truth in grey. Seen a little from the side, where the depth shows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np  # noqa: E402
import torch  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402

from ites.data.clips import Clip  # noqa: E402
from ites.data.store import PoseStore  # noqa: E402
from ites.models import fold_norms  # noqa: E402
from ites.models.predict import lift_points  # noqa: E402
from ites.pose.metrics import p_mpjpe  # noqa: E402
from ites.pose.skeleton import Skeleton, root_relative  # noqa: E402
from ites.runs.checkpoint import load_model  # noqa: E402
from ites.show.render import Drawing  # noqa: E402
from ites.show.scene import to_truth  # noqa: E402
from ites.system.files import atomic_write  # noqa: E402


def frames_of(data: Path, count: int) -> tuple[Skeleton, Clip, np.ndarray]:
    """So many test frames as a clip with its truth, and the network's input of them."""
    with PoseStore(data) as store:
        points, _ = store.points("test")
        keypoints, positions = store.keypoints("test"), store.positions("test")
        skeleton = store.skeleton
    rows = np.linspace(0, len(points) - 1, count + 2).round().astype(int)[1:-1]
    truth = root_relative(positions[rows], skeleton.root)
    return skeleton, Clip("test", keypoints[rows], truth=truth), points[rows]


def lifted_by(run: Path, stage: str | None, points: np.ndarray) -> np.ndarray:
    """The poses of a run's stage; None: of its student, or else of its teacher."""
    model, metadata = load_model(run, stage)
    return lift_points(fold_norms(model.float()).pose, points, metadata.skeleton)


def draw(skeleton: Skeleton, clip: Clip, rows: dict[str, np.ndarray | None], path: Path) -> None:
    """A column per frame; the 2D above, then a row for each of `rows`, None being the truth."""
    frames, count = len(clip), 1 + len(rows)
    plt.rcParams["font.size"] = 8
    figure = plt.figure(figsize=(1.75 * frames + 0.5, 2.0 * count), dpi=84)
    margin, wide, high = 0.05, 0.95 / frames, 1 / count
    for column in range(frames):
        only = slice(column, column + 1)
        left = margin + column * wide
        flat = figure.add_axes((left + 0.06 * wide, 1 - 0.94 * high, 0.88 * wide, 0.88 * high))
        for row, (name, poses) in enumerate(rows.items(), 1):
            bottom = 1 - (row + 1) * high
            solid = figure.add_axes(
                (left - 0.05 * wide, bottom, 1.1 * wide, 0.98 * high), projection="3d"
            )
            truth = clip.truth[only]
            one = Clip(name, clip.keypoints[only], positions=truth)
            if poses is not None:
                one = to_truth(Clip(name, one.keypoints, positions=poses[only], truth=truth))
                error = 1000 * p_mpjpe(*map(torch.from_numpy, (poses[only], truth))).item()
                figure.text(left + 0.98 * wide, bottom + 0.02 * high, f"{error:.0f} mm", ha="right")
            below = flat if row == 1 else figure.add_axes((2, 2, 0.1, 0.1))  # beside the picture
            Drawing(below, solid, one, skeleton).draw(0)
    for row, name in enumerate(("2D", *rows)):
        figure.text(0.012, 1 - (row + 0.5) * high, name, rotation=90, va="center", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--stage", choices=("teacher", "student"))
    parser.add_argument("--out", type=Path, default=Path("docs/recipes.png"))
    parser.add_argument("--frames", type=int, default=6)
    given = parser.parse_args(argv)
    skeleton, clip, points = frames_of(given.data, given.frames)
    rows: dict[str, np.ndarray | None] = {"truth": None}
    for run in given.runs:
        name, _, folder = run.rpartition("=")
        rows[name or folder] = lifted_by(Path(folder), given.stage, points)
    draw(skeleton, clip, rows, given.out)
    print(f"{given.out}: {given.out.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
