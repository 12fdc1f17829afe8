"""The viewer of clips: its figures, and the frames packed into its page."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.clips import Clip, Clips
from ites.data.lifted import DOUBT
from ites.show.page import asset, load_plotly
from ites.show.scene import COLOURS, bones_by_side, box, window

UNKNOWN = -32768
"""The code for nan in packed arrays."""


def viewer(clips: Clips, notes: Sequence[str] = ()) -> str:
    """The HTML of a viewer, for a `page` with `plotly_script()`.

    Args:
        clips: the clips to show, as `choose` returns them.
        notes: lines of text below the viewer.
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
    """Empty figures of both panels for plotly.js: one trace per side, then the truth."""
    graphs = load_plotly().graph_objects
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
        off = 1000 * np.linalg.norm(clip.positions - clip.truth, axis=-1)
        known = np.isfinite(off)
        error = off.sum(-1, where=known) / np.where(known.any(-1), known.sum(-1), np.nan)
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
        "mean": None if error is None else _rounded_mean(error),
        "window": window(clip),
        "shapes": shapes,
        "box": box(clip),
    }


def pack(values: NDArray[np.floating] | None) -> dict[str, Any] | None:
    """An array as 16-bit integers times a step, in base64; exact to 1/65,000 of its range.

    Values that are not finite become `UNKNOWN`.
    """
    if values is None:
        return None
    known = np.isfinite(values)
    step = float(np.abs(values).max(initial=0, where=known)) / 32767 or 1.0
    whole = np.where(known, np.rint(np.where(known, values, 0) / step), UNKNOWN)
    data = whole.astype("<i2").tobytes()
    return {"step": step, "data": base64.b64encode(data).decode()}


def _rounded_mean(values: NDArray[np.floating]) -> int | None:
    known = values[np.isfinite(values)]
    return round(float(known.mean())) if len(known) else None
