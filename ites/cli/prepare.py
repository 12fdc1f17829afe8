"""`ites prepare ...`: make a pose store from motion capture, a data set or keypoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ites.cli.options import (
    FieldOfView,
    FlipY,
    FocalLength,
    Fps,
    ImageSize,
    Layout,
    MinConfidence,
    Person,
    Rotate,
    SkeletonName,
    SwapSides,
    say,
)
from ites.errors import ItesError

SHOWN = 20
"""Subjects of a split that the summary names."""


def cmu(
    source: Annotated[
        Path, typer.Argument(help="HDF5 file of CMU motion, or a folder of .asf/.amc or .bvh.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Store to write.")] = Path("cmu.h5"),
    train_rate: Annotated[float, typer.Option(help="Frames per second for training.")] = 12.5,
    test_rate: Annotated[float, typer.Option(help="Frames per second for testing.")] = 5.0,
    radius: Annotated[
        float, typer.Option(help="Drop frames farther than this from the clip's middle, metres.")
    ] = 1.5,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second of .amc files; 120 by default.")
    ] = None,
) -> None:
    """CMU motion capture, seen by Human3.6M's cameras.

    Example: ites prepare cmu cmu_h36m17.h5 --out cmu.h5
    """
    from ites.data.datasets.cmu import prepare_cmu

    _summary(
        out,
        prepare_cmu(
            source,
            out,
            train_rate=train_rate,
            test_rate=test_rate,
            radius=radius,
            fps=fps,
            say=say,
        ),
    )


def synthetic(
    out: Annotated[Path, typer.Option("--out", "-o", help="Store to write.")] = Path(
        "synthetic.h5"
    ),
    poses: Annotated[
        int, typer.Option(help="Number of poses; each camera's view counts.")
    ] = 1_560_000,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    subjects: Annotated[int, typer.Option(help="People in the training split.")] = 20,
    test_subjects: Annotated[int, typer.Option(help="People in the test split.")] = 5,
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 50.0,
    seconds: Annotated[float, typer.Option(help="Longest sequence, seconds.")] = 12.0,
    rig: Annotated[
        Literal["human36m", "ring"], typer.Option(help="Human3.6M's cameras, or an ideal ring.")
    ] = "human36m",
    cameras: Annotated[int | None, typer.Option(help="Cameras of the ring; 4 by default.")] = None,
    elevation: Annotated[
        float | None,
        typer.Option(help="Angle at which the ring looks down, degrees; 10 by default."),
    ] = None,
    noise_px: Annotated[float, typer.Option(help="Keypoint noise, pixels.")] = 0.0,
    drop: Annotated[float, typer.Option(help="Probability that a joint is missing.")] = 0.0,
) -> None:
    """Synthetic human motion of any length.

    Example: ites prepare synthetic --poses 200000 --out synthetic.h5
    """
    from ites.data.synthetic.synthetic import prepare_synthetic

    _summary(
        out,
        prepare_synthetic(
            out,
            poses=poses,
            seed=seed,
            subjects=subjects,
            test_subjects=test_subjects,
            fps=fps,
            seconds=seconds,
            rig=rig,
            cameras=cameras,
            elevation=elevation,
            noise_px=noise_px,
            drop=drop,
        ),
    )


def field(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="HDF5 file of CMU motion, or a folder of .asf/.amc or .bvh. Without it: synthetic "
            "people alone."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Store to write.")] = Path("field.h5"),
    people: Annotated[int, typer.Option(help="Number of poses.")] = 600_000,
    views: Annotated[
        int, typer.Option(help="Views of each pose, by pairs of unrelated cameras.")
    ] = 2,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
) -> None:
    """People of every build in every posture, seen by any camera: for recipe general.

    Example: ites prepare field cmu_h36m17.h5 --out field.h5
    """
    from ites.data.datasets.field import prepare_field

    _summary(out, prepare_field(source, out, people=people, views=views, seed=seed, say=say))


def h36m(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of CDF or HDF5 files, h36m.zip, or a VideoPose3D .npz."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Store to write.")] = Path("h36m.h5"),
    keypoints: Annotated[
        Path | None, typer.Option(help="VideoPose3D's .npz of 2D ground truth or detections.")
    ] = None,
    every: Annotated[int, typer.Option(help="Take every n-th frame of 50 per second.")] = 1,
) -> None:
    """Human3.6M, from any of its three usual sources.

    Example: ites prepare h36m data_3d_h36m.npz --out h36m.h5
    """
    from ites.data.datasets.h36m import prepare_h36m

    _summary(out, prepare_h36m(source, out, keypoints=keypoints, every=every, say=say))


def mpi_inf_3dhp(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of S*/Seq*/annot.mat and TS*/annot_data.mat, or an .npz."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Store to write.")] = Path("3dhp.h5"),
    annotation: Annotated[
        Literal["univ_annot3", "annot3"] | None,
        typer.Option(help="The 3D: scaled to one body height, the default, or as measured."),
    ] = None,
    cameras: Annotated[
        str | None,
        typer.Option(help="Training cameras, 0 to 13, between commas; 0,1,2,4,5,6,7,8 by default."),
    ] = None,
    every: Annotated[int, typer.Option(help="Take every n-th frame.")] = 1,
) -> None:
    """MPI-INF-3DHP, from its own files or the arrays that other programs use.

    Example: ites prepare 3dhp mpi_inf_3dhp/ --out 3dhp.h5
    """
    from ites.data.datasets.mpi_inf_3dhp import prepare_3dhp

    try:
        chosen = None if cameras is None else [int(word) for word in cameras.split(",")]
    except ValueError:
        raise ItesError(f"--cameras: expected numbers between commas, got {cameras!r}") from None
    summary = prepare_3dhp(source, out, annotation=annotation, cameras=chosen, every=every, say=say)
    _summary(out, summary)


def keypoints(
    sources: Annotated[
        list[Path], typer.Argument(help="Files or folders of keypoints by any detector.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Store to write.")] = Path(
        "keypoints.h5"
    ),
    layout: Layout = None,
    skeleton: SkeletonName = "human36m",
    split: Annotated[
        str | None,
        typer.Option(
            help="Split of all clips; by default train, and for a pose store's clips their own."
        ),
    ] = None,
    fps: Fps = None,
    focal_length: FocalLength = None,
    field_of_view: FieldOfView = None,
    image_size: ImageSize = None,
    person: Person = None,
    min_confidence: MinConfidence = None,
    flip_y: FlipY = False,
    rotate: Rotate = 0,
    swap_sides: SwapSides = False,
) -> None:
    """Your own keypoints, by any detector, without 3D.

    Example: ites prepare keypoints clips/ --layout coco17 --out mine.h5
    """
    from ites.cli.hints import print_findings
    from ites.data.corrections import Corrections
    from ites.data.datasets.keypoints import prepare_keypoints
    from ites.inference.likely import density_of
    from ites.pose.skeleton import load_skeleton

    body = load_skeleton(skeleton)
    summary = prepare_keypoints(
        sources,
        out,
        layout=layout,
        skeleton=body,
        split=split,
        fps=fps,
        focal_length=focal_length,
        field_of_view=field_of_view,
        image_size=image_size,
        person=person,
        min_confidence=min_confidence,
        corrections=Corrections(flip_y=flip_y, rotate=rotate, swap_sides=swap_sides),
        prior=density_of(None, body),
    )
    print_findings(summary["findings"])
    _summary(out, summary)


def _summary(out: Path, summary: dict[str, Any]) -> None:
    say(f"{out}: {summary['title']}")
    incomplete = 0
    for split, found in summary["splits"].items():
        subjects, incomplete = found["subjects"], incomplete + found["incomplete"]
        lacking = f" ({found['incomplete']:,} lack a joint)" if found["incomplete"] else ""
        shown = " ".join([*subjects[:SHOWN], *(["..."] if len(subjects) > SHOWN else [])])
        say(
            f"  {split}: poses {found['poses']:,}{lacking}, sequences {found['sequences']:,}, "
            f"subjects {len(subjects)} ({shown})"
        )
    truth = "with 3D, for evaluation" if summary["positions"] else "2D alone: enough to train"
    confidence = ", confidences" if summary["confidence"] else ""
    cameras = f"cameras {summary['cameras']}"
    say(f"  skeleton {summary['skeleton']}, {cameras}{confidence}, {truth}")
    for note in summary.get("notes", ()):
        say(f"  {note}")
    if summary["acknowledgement"]:
        say(f"  {summary['acknowledgement']}")
    missing = " --missing interpolate" if incomplete else ""
    if "train" in summary["splits"]:
        say(f"next: ites train --data {out} --out runs/{out.stem}{missing}")
    else:
        say(f"next: ites lift {out} -o {out.stem}3d.npz")
