"""Films and pictures of clips, by Matplotlib: 2D beside 3D, seen slightly from the side."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.clips import Clip
from ites.data.lifted import SURE_SIGN
from ites.errors import ItesError
from ites.pose.skeleton import Skeleton
from ites.show.scene import COLOURS, bones_by_side, box, window
from ites.system.files import atomic_write

DPI = 100
GIF_FPS, GIF_FRAMES = 15.0, 150
MP4_FPS, MP4_FRAMES = 30.0, 900
STRIP = 6
SOFT, GRID, PANE = "#616e7c", "#dde3e9", "#f5f7f9"
TURN = -60.0
"""Azimuth of the eye, degrees: -90 looks along the camera's own line of sight."""


class Drawing:
    """The 2D and 3D axes of one clip, redrawn frame by frame."""

    def __init__(self, flat: Any, solid: Any, clip: Clip, skeleton: Skeleton) -> None:
        self.clip = clip
        self.bones = bones_by_side(skeleton)
        every = [bone for bones in self.bones.values() for bone in bones]
        self.artists = []  # (line, (T, J, D) values, bones)
        self.lifted = []  # the lines of the lifted pose
        for side, bones in self.bones.items():
            style = {"color": COLOURS[side], "solid_capstyle": "round", "marker": "o"}
            (line,) = flat.plot([], [], lw=2, ms=3, **style)
            self.artists.append((line, clip.keypoints, bones))
            if clip.positions is not None:
                (line,) = solid.plot([], [], [], lw=2.4, ms=3, **style)
                self.artists.append((line, upright(clip.positions), bones))
                self.lifted.append(line)
        if clip.truth is not None:
            (line,) = solid.plot([], [], [], lw=1.4, color=COLOURS["truth"], zorder=0)
            self.artists.append((line, upright(clip.truth), every))
        left, right, top, bottom = window(clip)
        flat.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])
        for spine in flat.spines.values():
            spine.set_color(GRID)
        half, low, high = box(clip)
        solid.set(xlim=(-half, half), ylim=(-half, half), zlim=(low, high))
        solid.set_box_aspect((2 * half, 2 * half, high - low), zoom=1.15)
        solid.view_init(elev=8, azim=TURN)
        for axis in (solid.xaxis, solid.yaxis, solid.zaxis):
            axis.set_ticklabels([])
            axis.set_tick_params(length=0, color=(0, 0, 0, 0))
            axis.set_pane_color(PANE)
            axis.line.set_color(GRID)

    def draw(self, frame: int) -> None:
        """Show a frame; the 3D pose is pale if the depth's sign is uncertain."""
        sure = self.clip.sign_confidence
        for line in self.lifted:
            line.set_alpha(0.35 if sure is not None and sure[frame] < SURE_SIGN else 1)
        for line, values, bones in self.artists:
            path = np.full((len(bones), 3, values.shape[-1]), np.nan)  # [bone, (from, to, gap), D]
            path[:, :2] = values[frame][np.asarray(bones, int).reshape(-1, 2)]
            columns = path.reshape(-1, values.shape[-1]).T
            if len(columns) == 3:
                line.set_data_3d(*columns)
            else:
                line.set_data(*columns)


def upright(positions: NDArray[np.floating]) -> NDArray[np.floating]:
    """(T, J, 3) in camera axes as (right, away from the camera, up)."""
    return positions[..., [0, 2, 1]] * np.array([1, 1, -1], np.float32)


def film(clip: Clip, skeleton: Skeleton, out: str | os.PathLike[str]) -> list[str]:
    """Write a clip as .gif or .mp4, in real time.

    Args:
        clip: root-relative positions, metres, camera frame.
        skeleton: its joints.
        out: the file; the ending chooses the format.

    Returns:
        Notes on omitted content, one per line.

    Raises:
        ItesError: the ending is unknown, or a library is not installed.
    """
    out = Path(out)
    ending = out.suffix.lower()
    if ending not in (".gif", ".mp4"):
        raise ItesError(f"{out}: a film's name must end in .gif or .mp4")
    most_fps, most = (GIF_FPS, GIF_FRAMES) if ending == ".gif" else (MP4_FPS, MP4_FRAMES)
    step = max(1, round(clip.fps / most_fps))
    frames = range(0, len(clip), step)[:most]
    notes = []
    if len(frames) < len(range(0, len(clip), step)):
        notes.append(f"{out.name}: the first {len(frames) * step / clip.fps:.0f} s only")
    with atomic_write(out) as temporary:
        if ending == ".gif":
            _write_gif(temporary, _images(clip, skeleton, frames), clip.fps / step)
        else:
            _write_mp4(temporary, _images(clip, skeleton, frames), clip.fps / step)
    return notes


def _images(clip: Clip, skeleton: Skeleton, frames: range) -> Iterator[NDArray[np.uint8]]:
    """Frames (H, W, 3) uint8, one at a time; both sides even, as films need."""
    with _figure(7.2, 4.0) as figure:
        flat = figure.add_axes((0.02, 0.04, 0.44, 0.84))
        solid = figure.add_axes((0.47, -0.02, 0.54, 0.94), projection="3d")
        flat.set_title("2D keypoints", fontsize=10, loc="left")
        figure.text(0.55, 0.9, "3D pose", fontsize=10)
        drawing = Drawing(flat, solid, clip, skeleton)
        time = figure.text(0.97, 0.9, "", fontsize=10, ha="right", color=SOFT)
        for frame in frames:
            drawing.draw(frame)
            time.set_text(f"{frame / clip.fps:.2f} s")
            figure.canvas.draw()
            yield np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _write_gif(path: Path, images: Iterator[NDArray[np.uint8]], fps: float) -> None:
    from PIL import Image, ImageColor

    # All drawn pixels have one of these colours, or a blend of it with white.
    ink = ImageColor.getrgb
    solid = np.array([ink(c) for c in (*COLOURS.values(), SOFT, GRID, PANE, "black")])
    shades = 255 - np.linspace(0, 1, 24)[:, None, None] * (255 - solid)
    palette = Image.new("P", (1, 1))
    palette.putpalette(shades.round().astype(np.uint8).reshape(-1).tolist())
    pictures = [
        Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE)
        for image in images
    ]
    pictures[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / fps),
        loop=0,
        optimize=False,
    )


def _write_mp4(path: Path, images: Iterator[NDArray[np.uint8]], fps: float) -> None:
    try:
        import imageio_ffmpeg
    except ImportError:
        raise ItesError("films need imageio-ffmpeg: pip install 'ites[view]'") from None
    first = next(images)
    writer = imageio_ffmpeg.write_frames(
        str(path), first.shape[1::-1], fps=fps, macro_block_size=2, output_params=["-f", "mp4"]
    )
    writer.send(None)
    for image in chain([first], images):
        writer.send(image)
    writer.close()


def strip(clip: Clip, skeleton: Skeleton, out: str | os.PathLike[str]) -> list[str]:
    """Write evenly spaced frames of a clip side by side as a .png: 2D above 3D.

    Args, returns and raises as `film`.
    """
    out = Path(out)
    if out.suffix.lower() != ".png":
        raise ItesError(f"{out}: a picture's name must end in .png")
    frames = np.unique(np.linspace(0, len(clip) - 1, STRIP).round().astype(int))
    with _figure(2.1 * len(frames), 5.0) as figure:
        for i, frame in enumerate(frames):
            left, share = i / len(frames), 1 / len(frames)
            flat = figure.add_axes((left + 0.06 * share, 0.55, 0.88 * share, 0.38))
            solid = figure.add_axes((left - 0.1 * share, 0.0, 1.2 * share, 0.54), projection="3d")
            flat.set_title(f"{frame / clip.fps:.2f} s", fontsize=9, color=SOFT)
            Drawing(flat, solid, clip, skeleton).draw(frame)
        with atomic_write(out) as temporary:
            figure.savefig(temporary, format="png")
    return []


@contextmanager
def _figure(width: float, height: float) -> Iterator[Any]:
    """A Matplotlib figure with a size in inches, drawn without a screen."""
    try:
        import matplotlib
        import PIL  # noqa: F401
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ItesError("pictures need Matplotlib and Pillow: pip install 'ites[view]'") from None
    with matplotlib.rc_context({"grid.color": GRID, "grid.linewidth": 0.6}):
        figure = Figure(figsize=(width, height), dpi=DPI)
        FigureCanvasAgg(figure)
        yield figure
