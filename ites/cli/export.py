"""`ites export`: poses and models in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ites.cli.options import Stage, say

Preset = Annotated[
    Literal["blender", "unity", "unreal", "opensim"] | None,
    typer.Option(help="Axes and unit of a program; of BVH, TRC, C3D, CSV and JSON."),
]
Up = Annotated[
    Literal["camera", "gravity"] | None,
    typer.Option(
        help="gravity: turn each clip upright by the gravity found. camera: as in the image."
    ),
]
Travel = Annotated[
    bool | None,
    typer.Option(
        "--travel/--in-place",
        help="Move by the root's path, or keep the root at the origin; by default --travel with "
        "--up gravity.",
    ),
]
Floor = Annotated[bool, typer.Option("--floor", help="Put the lowest foot at height 0.")]


def export(
    source: Annotated[
        Path, typer.Argument(help="What ites lift wrote, a pose store with 3D; or a run folder.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Poses: .bvh, .trc, .c3d, .glb, .csv, .json, .npz or .h5. A run: .onnx or .pt2.",
        ),
    ],
    clip: Annotated[str | None, typer.Option(help="Only clips whose names contain this.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split of a pose store; by default test if present, else all."),
    ] = None,
    preset: Preset = None,
    bones: Annotated[
        Literal["exact", "constant"],
        typer.Option(help="BVH: exact positions, or bones of constant length for animation."),
    ] = "exact",
    up: Up = None,
    travel: Travel = None,
    floor: Floor = False,
    stage: Stage = None,
) -> None:
    """Write poses for Blender, OpenSim, Unity or a spreadsheet, or a model for ONNX Runtime.

    Example: ites export clip3d.npz -o clip.bvh --preset blender
    """
    from ites.errors import ItesError

    if out.suffix.lower() in (".onnx", ".pt2"):
        from ites.export.network import export_model

        options = {
            "--clip": clip,
            "--split": split,
            "--preset": preset,
            "--up": up,
            "--travel": travel,
        }
        given = [name for name, value in options.items() if value is not None]
        given += ["--bones"] * (bones != "exact") + ["--floor"] * floor
        if given:
            raise ItesError(f"{out}: {given[0]} is for poses, not for a model")
        summary = export_model(source, out, stage=stage)
    else:
        from ites.export import export as run_export

        if stage is not None:
            raise ItesError(f"{out}: --stage chooses a model to export, to .onnx or .pt2")
        summary = run_export(
            source,
            out,
            clip=clip,
            split=split,
            preset=preset,
            bones=bones,
            up=up,
            travel=travel,
            floor=floor,
        )
    for line in [*summary["notes"], *summary["files"]]:
        say(line)
