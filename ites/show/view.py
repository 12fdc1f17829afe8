"""Show clips: a self-contained HTML page, and by `ites.show.render` pictures and films."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites import __version__
from ites.data.clips import Clip, Clips
from ites.data.lifted import DOUBT, PER_FRAME, read_clips
from ites.errors import ItesError
from ites.pose.skeleton import Skeleton
from ites.system.files import replacing

COLOURS = {"right": "#d55e00", "middle": "#3e4c59", "left": "#0072b2", "truth": "#9aa5b1"}
"""Okabe and Ito's orange and blue, which the colour-blind tell apart too."""
MAX_CLIPS = 8
MAX_FRAMES = 1500


def view(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    gif: str | os.PathLike[str] | None = None,
    mp4: str | os.PathLike[str] | None = None,
    png: str | os.PathLike[str] | None = None,
    clip: str | None = None,
    max_clips: int = MAX_CLIPS,
    max_frames: int = MAX_FRAMES,
) -> dict[str, Any]:
    """Make a page, a film or a picture of lifted clips, or of a pose store.

    Args:
        path: a file that `ites lift` wrote, or a pose store, whose own 3D is then shown.
        out: the HTML file; None: `path` with the ending .html, unless another output is asked for.
        gif, mp4: films of the first clip chosen.
        png: a strip of that clip's frames, 2D above 3D.
        clip: show the clips whose names hold this text; None: clips spread evenly over the file.
        max_clips: the most clips on the page.
        max_frames: the most frames of a clip; the rest is left out.

    Returns:
        A summary: files (those written), clips (shown), and notes: what was left out, a line each.

    Raises:
        ItesError: the file cannot be shown, no clip has that name, or a library is not installed.
    """
    clips = read_clips(path)
    chosen, notes = choose(clips, clip, max_clips, max_frames)
    files = []
    if out is None and not (gif or mp4 or png):
        out = Path(path).with_suffix(".html")
    if out is not None:
        text = page(
            chosen.title or Path(path).name,
            viewer(chosen, notes),
            plotly_script(),
        )
        with replacing(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
        files.append(str(out))
    if gif or mp4 or png:
        from ites.show import render

        for write, target in ((render.film, gif), (render.film, mp4), (render.strip, png)):
            if target is not None:
                notes += write(chosen.clips[0], chosen.skeleton, target)
                files.append(str(target))
    return {"files": files, "clips": [c.name for c in chosen.clips], "notes": notes}


def choose(
    clips: Clips, name: str | None, max_clips: int, max_frames: int
) -> tuple[Clips, list[str]]:
    """Choose the clips to show, aligned to their ground truth; and say what is left out.

    Raises:
        ItesError: no clip's name holds `name`, or a limit is not positive.
    """
    if max_clips < 1 or max_frames < 1:
        raise ItesError(
            f"view: at least 1 clip, 1 frame, got {max_clips} clips, {max_frames} frames"
        )
    found = [c for c in clips.clips if len(c) and (name is None or name in c.name)]
    if not found:
        names = ", ".join(c.name for c in clips.clips[:5])
        raise ItesError(f"view: none of {len(clips.clips)} clips ({names}, ...) is named {name!r}")
    picks = np.linspace(0, len(found) - 1, min(max_clips, len(found))).round().astype(int)
    notes = []
    if len(picks) < len(found):
        notes.append(f"{len(picks)} of {len(found)} clips shown; --clip NAME chooses others")
    long = sum(len(found[i]) > max_frames for i in picks)
    if long:
        notes.append(f"{long} clips cut to their first {max_frames} frames")
    shown = [to_truth(_cut(found[i], max_frames)) for i in picks]
    return replace(clips, clips=shown), notes


def _cut(clip: Clip, frames: int) -> Clip:
    arrays = {key: getattr(clip, key) for key in PER_FRAME}
    return replace(clip, **{k: a[:frames] for k, a in arrays.items() if a is not None})


def to_truth(clip: Clip) -> Clip:
    """The clip with each lifted pose scaled to its ground truth, if there is one.

    The factor is N-MPJPE's, each pose's least-squares one: `<lifted, truth> / <lifted, lifted>`.
    """
    if clip.positions is None or clip.truth is None:
        return clip
    product = (clip.positions * clip.truth).sum((1, 2), keepdims=True)
    square = np.square(clip.positions).sum((1, 2), keepdims=True)
    return replace(clip, positions=clip.positions * (product / np.maximum(square, 1e-12)))


def bones_by_side(skeleton: Skeleton) -> dict[str, list[tuple[int, int]]]:
    """The bones, (parent, joint), of the right side, the middle and the left side."""
    sides: dict[str, list[tuple[int, int]]] = {"right": [], "middle": [], "left": []}
    for parent, joint in skeleton.bones:
        left, right = joint in skeleton.left, joint in skeleton.right
        sides["left" if left else "right" if right else "middle"].append((parent, joint))
    return sides


def window(clip: Clip) -> tuple[float, float, float, float]:
    """The square part of the image that holds the person: left, right, top, bottom, pixels."""
    low = clip.keypoints.reshape(-1, 2).min(0).astype(float)
    high = clip.keypoints.reshape(-1, 2).max(0).astype(float)
    half = 0.56 * max(*(high - low), 1.0)
    x, y = (low + high) / 2
    return x - half, x + half, y - half, y + half


def box(clip: Clip) -> tuple[float, float, float]:
    """The upright box around the root's axis that holds the clip: half width, bottom, top (m)."""
    arrays = [a.reshape(-1, 3) for a in (clip.positions, clip.truth) if a is not None]
    joints = np.concatenate(arrays) if arrays else np.zeros((1, 3))
    half = max(1.06 * float(np.abs(joints[:, [0, 2]]).max()), 0.3)
    bottom, top = -float(joints[:, 1].max()), -float(joints[:, 1].min())
    return half, min(bottom, -0.3) - 0.05, max(top, 0.3) + 0.05


def viewer(clips: Clips, notes: Sequence[str] = ()) -> str:
    """The HTML of a viewer, to be put in a `page` with `plotly_script()`.

    Args:
        clips: those to show, as `choose` returns them.
        notes: lines to put under it.
    """
    flat, solid = _figures()
    data = {
        "joints": clips.skeleton.num_joints,
        "bones": bones_by_side(clips.skeleton),
        "flat": flat,
        "solid": solid,
        "doubt": DOUBT,
        "clips": [_pack_clip(clip) for clip in clips.clips],
    }
    options = "".join(
        f'<option value="{i}">{html.escape(clip.name)}</option>'
        for i, clip in enumerate(clips.clips)
    )
    lifted_by = clips.settings.get("model")
    what = f"lifted by the {lifted_by}" if lifted_by else "as measured"
    if all(clip.positions is None for clip in clips.clips):
        what = "(none in this file)"
    lines = [*notes, *clips.settings.get("notes", []), clips.acknowledgement]
    parts = {
        "options": options,
        "what": html.escape(what),
        "right": COLOURS["right"],
        "middle": COLOURS["middle"],
        "left": COLOURS["left"],
        "truth": COLOURS["truth"],
        "doubt": f"{DOUBT:.0%}",
        "notes": "".join(f"<li>{html.escape(line)}</li>" for line in lines if line),
        "data": json.dumps(data).replace("<", "\\u003c"),
        "script": asset("viewer.js"),
    }
    text = asset("viewer.html")
    for key, value in parts.items():
        text = text.replace(f"[[{key}]]", value)
    return text


def _figures() -> tuple[dict[str, Any], dict[str, Any]]:
    """Empty figures of both panels, as plotly.js takes them: a trace a side, then the truth."""
    graphs = _plotly().graph_objects
    sides = ("right", "middle", "left")
    flat = graphs.Figure(
        [
            graphs.Scatter(
                x=[],
                y=[],
                mode="lines+markers",
                name=side,
                line={"color": COLOURS[side], "width": 3},
                marker={"color": COLOURS[side], "size": 7},
                hovertemplate="%{x:.1f}, %{y:.1f} px<extra></extra>",
            )
            for side in sides
        ]
    )
    axis = {"showgrid": True, "gridcolor": "#edf0f3", "zeroline": False, "tickfont": {"size": 11}}
    flat.update_layout(
        template="none",
        showlegend=False,
        margin={"l": 48, "r": 8, "t": 8, "b": 40},
        xaxis={**axis, "title": {"text": "x (px)"}, "constrain": "domain"},
        yaxis={
            **axis,
            "title": {"text": "y (px)"},
            "scaleanchor": "x",
            "constrain": "domain",
            "constraintoward": "top",
        },
    )
    solid = graphs.Figure(
        [
            graphs.Scatter3d(
                x=[],
                y=[],
                z=[],
                mode="lines+markers",
                name=side,
                line={"color": COLOURS[side], "width": 5 if side == "truth" else 8},
                marker={"color": COLOURS[side], "size": 2.5 if side == "truth" else 4},
                opacity=0.75 if side == "truth" else 1,
                hovertemplate="right %{x:.2f}, away %{y:.2f}, up %{z:.2f} m<extra></extra>",
            )
            for side in (*sides, "truth")
        ]
    )
    axis = {
        "backgroundcolor": "#f5f7f9",
        "gridcolor": "#d5dbe1",
        "showbackground": True,
        "zeroline": False,
        "showspikes": False,
        "nticks": 6,
        "tickfont": {"size": 10},
    }
    solid.update_layout(
        template="none",
        showlegend=False,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        uirevision="keep",
        scene={
            "xaxis": {**axis, "title": {"text": "right (m)"}},
            "yaxis": {**axis, "title": {"text": "away (m)"}},
            "zaxis": {**axis, "title": {"text": "up (m)"}},
            "aspectmode": "manual",
            "dragmode": "turntable",
            "camera": {
                "eye": {"x": 0.8, "y": -1.9, "z": 0.4},
                "center": {"x": 0, "y": 0, "z": -0.1},
                "up": {"x": 0, "y": 0, "z": 1},
            },
        },
    )
    return flat.to_plotly_json(), solid.to_plotly_json()


def _pack_clip(clip: Clip) -> dict[str, Any]:
    error = None
    if clip.positions is not None and clip.truth is not None:
        error = 1000 * np.linalg.norm(clip.positions - clip.truth, axis=-1).mean(-1)
    shapes = []
    if clip.image_size:
        width, height = clip.image_size
        border = {"x0": 0, "y0": 0, "x1": width, "y1": height}
        shapes = [{"type": "rect", **border, "line": {"color": "#9aa5b1", "width": 1}}]
    about = f"{len(clip)} frames, {len(clip) / clip.fps:.1f} s at {clip.fps:g} fps"
    return {
        "about": about,
        "frames": len(clip),
        "fps": clip.fps,
        "keypoints": pack(clip.keypoints),
        "positions": pack(clip.positions),
        "truth": pack(clip.truth),
        "error": pack(error),
        "confidence": pack(clip.sign_confidence),
        "mean": None if error is None else round(float(error.mean())),
        "window": window(clip),
        "shapes": shapes,
        "box": box(clip),
    }


def pack(values: NDArray[np.floating] | None) -> dict[str, Any] | None:
    """An array as 16-bit whole numbers times a step, in base64; exact to 1/65,000 of its range."""
    if values is None:
        return None
    step = float(np.abs(values).max(initial=0)) / 32767 or 1.0
    data = np.rint(values / step).astype("<i2").tobytes()
    return {"step": step, "data": base64.b64encode(data).decode()}


def page(title: str, body: str, *scripts: str) -> str:
    """One self-contained HTML page.

    Args:
        title: plain text.
        body: HTML.
        scripts: JavaScript, run before the body.
    """
    tags = "".join(f"<script>{script}</script>\n" for script in scripts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="ites {__version__}">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>{asset("page.css")}</style>
{tags}</head>
<body>
<h1>{html.escape(title)}</h1>
{body}
</body>
</html>
"""


def line_graph(
    title: str,
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    unit: str,
    colours: Sequence[str],
    *,
    logarithmic: bool = False,
) -> str:
    """The HTML of a graph of curves over training steps, to be put in a `page`.

    Args:
        title: over the graph.
        x: steps.
        curves: values at these steps, by name.
        unit: of the values, written beside the axis.
        colours: of the curves, in order.
        logarithmic: whether the values' axis is.
    """
    graphs = _plotly().graph_objects
    lines = [
        graphs.Scatter(x=list(x), y=list(y), name=name, mode="lines", line={"color": c, "width": 2})
        for (name, y), c in zip(curves.items(), cycle(colours), strict=False)
    ]
    axis = {"gridcolor": "#edf0f3", "zeroline": False, "linecolor": "#dde3e9"}
    figure = graphs.Figure(lines)
    figure.update_layout(
        template="none",
        title={"text": title, "font": {"size": 15}, "x": 0.02},
        height=320,
        margin={"l": 64, "r": 12, "t": 56, "b": 44},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
        xaxis={**axis, "title": {"text": "step"}, "rangemode": "tozero"},
        yaxis={**axis, "title": {"text": unit}, "type": "log" if logarithmic else "linear"},
        hovermode="x unified",
    )
    config = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(config=config, include_plotlyjs=False, full_html=False))


def plotly_script() -> str:
    """The JavaScript of the installed Plotly, which draws the figures offline."""
    return str(_plotly().offline.get_plotlyjs())


def _plotly() -> Any:
    try:
        import plotly.graph_objects
        import plotly.offline
    except ImportError:
        raise ItesError("pages need Plotly: pip install 'ites[view]'") from None
    return plotly


def asset(name: str) -> str:
    """The text of a file of ites/show/assets."""
    return (resources.files("ites.show") / "assets" / name).read_text(encoding="utf-8")
