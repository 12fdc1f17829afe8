"""Options that several commands share, and how a command prints a line."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ites.errors import one_line

Device = Annotated[
    str | None, typer.Option(help='"cpu", "cuda", ...; by default a GPU, if there is one.')
]
Layout = Annotated[
    str | None,
    typer.Option(
        help="Joint order: human36m, coco17, coco18, body25, body25b, halpe26, halpe136, "
        "wholebody133, mediapipe33, mpii16, lsp14, mpi3dhp17, mpi3dhp28 or FILE.toml; by default "
        "the format decides."
    ),
]
MinConfidence = Annotated[
    float | None,
    typer.Option(help="Joints below this count as missing; by default the detector's threshold."),
]
FlipY = Annotated[bool, typer.Option("--flip-y", help="Flip y: the keypoints' y points up.")]
Rotate = Annotated[
    int,
    typer.Option(help="Rotate a sideways image clockwise by 90, 180 or 270 degrees."),
]
SwapSides = Annotated[
    bool, typer.Option("--swap-sides", help="Exchange left and right throughout.")
]
Person = Annotated[
    str | None,
    typer.Option(help="Track id or number of the only person to read; everybody by default."),
]
Fps = Annotated[float | None, typer.Option(help="Frames per second.")]
FocalLength = Annotated[float | None, typer.Option(help="Focal length, pixels.")]
FieldOfView = Annotated[
    float | None, typer.Option(help="Horizontal field of view, degrees; 55 by default.")
]
ImageSize = Annotated[tuple[int, int] | None, typer.Option(help="Image width and height, pixels.")]
SkeletonName = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="Skeleton of the poses: human36m, to which a body's keypoints are converted; another "
        "built-in one, such as hand21 or ap10k17; or a TOML file.",
    ),
]
Split = Annotated[str, typer.Option(help="Split of the store.")]
Stage = Annotated[
    Literal["teacher", "student"] | None,
    typer.Option(help="Model of the run; by default the student, or else the teacher."),
]


def say(line: str = "") -> None:
    """Print a line; what a file's name or content would break it with is left out."""
    typer.echo(one_line(line))
