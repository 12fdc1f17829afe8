"""The viewer of clips: what its page holds, and how the frames are packed.

The page draws by itself, without a library, so that an hour of poses appears at once. Frames are
16-bit whole numbers with one step per frame, in base64:
`value = whole * step[frame]`, `step[frame] = largest absolute value of the frame / 32767`.
The error is at most 1/65,534 of the frame's largest value: 0.03 mm in a pose that reaches 2 m from
its root. Paths are 32-bit floats; confidences are bytes, exact to 0.002.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.clips import Clip, Clips
from ites.data.lifted import SURE_SIGN
from ites.show.page import asset
from ites.show.scene import bones_by_side, box, label_of, root_path, scenes, window

UNKNOWN = -32768
"""The code of nan in packed arrays."""
UNSURE = 255
"""The code of nan in packed confidences; others are 0..250 for 0..1."""
SURE = 250


def viewer(clips: Clips, notes: Sequence[str] = (), before: Clips | None = None) -> str:
    """The HTML of a viewer, for a `page`.

    Args:
        clips: the clips to show, as `choose` returns them. Clips of one video are shown together.
        notes: lines of text below the viewer.
        before: other lifts of the same clips, shown beside them; by the clips' names.
    """
    earlier = {} if before is None else {clip.name: clip for clip in before.clips}
    packs: list[str] = []
    named = scenes(clips.clips)
    data = {
        "joints": list(clips.skeleton.joints),
        "root": clips.skeleton.root,
        "bones": bones_by_side(clips.skeleton),
        "doubt": SURE_SIGN,
        "unknown": UNKNOWN,
        "unsure": UNSURE,
        "sure": SURE,
        "clips": [_pack_clip(clip, earlier.get(clip.name), packs) for clip in clips.clips],
        "scenes": [
            {"name": name, "clips": members, "fps": clips.clips[members[0]].fps}
            for name, members in named
        ],
    }
    options = "".join(
        f'<option value="{i}">{html.escape(name)}</option>' for i, (name, _) in enumerate(named)
    )
    lifted_by = clips.settings.get("model")
    what = f"lifted by the {lifted_by}" if lifted_by else "as measured"
    if all(clip.positions is None for clip in clips.clips):
        what = "none in this file"
    lines = [*notes, *clips.settings.get("notes", []), clips.acknowledgement]
    parts = {
        "options": options,
        "what": html.escape(what),
        "before": html.escape(_before_title(clips, before)),
        "doubt": f"{SURE_SIGN:.0%}",
        "notes": "".join(f"<li>{html.escape(line)}</li>" for line in lines if line),
        "packs": "".join(packs),
        "data": json.dumps(data).replace("<", "\\u003c"),
        "script": asset("viewer.js"),
    }
    # In one pass: a clip's name may look like a place to fill.
    return re.sub(r"\[\[(\w+)\]\]", lambda place: parts[place[1]], asset("viewer.html"))


def _before_title(clips: Clips, before: Clips | None) -> str:
    """How the other lifts differ: by the settings that are not the same."""
    if before is None:
        return ""
    asked = [{**one.settings, **one.settings.get("request", {})} for one in (before, clips)]
    for name in ("smooth", "temporal", "model", "scale"):
        old, new = (one.get(name) for one in asked)
        if old != new:
            return f"before: {name} {'off' if old in (None, False) else old}"
    return "before"


def _pack_clip(clip: Clip, before: Clip | None, packs: list[str]) -> dict[str, Any]:
    error = None
    if clip.positions is not None and clip.truth is not None:
        off = 1000 * np.linalg.norm(clip.positions - clip.truth, axis=-1)
        known = np.isfinite(off)
        error = off.sum(-1, where=known) / np.where(known.any(-1), known.sum(-1), np.nan)
    earlier = None
    if before is not None and before.positions is not None and len(before) == len(clip):
        earlier = before.positions
    root = root_path(clip)
    return {
        "name": clip.name,
        "label": label_of(clip),
        "start": clip.first_frame,
        "frames": len(clip),
        "keypoints": _store(pack(clip.keypoints), packs),
        "positions": _store(pack(clip.positions), packs),
        "truth": _store(pack(clip.truth), packs),
        "before": _store(pack(earlier), packs),
        "root": _store(pack_path(root), packs),
        "confidence": _store(pack_confidence(clip.confidence), packs),
        "sign": _store(pack_confidence(clip.sign_confidence), packs),
        "error": _store(pack(None if error is None else error[:, None]), packs),
        "mean": None if error is None else _rounded_mean(error),
        "window": window(clip),
        "image": clip.image_size,
        "box": box(clip),
    }


def _store(packed: dict[str, Any] | None, packs: list[str]) -> dict[str, Any] | None:
    """Move the data of packed arrays to elements of the page, which are not parsed as a script."""
    if packed is None:
        return None
    stored = dict(packed)
    for key in ("data", "steps"):
        if key in stored:
            packs.append(f'<script type="text/plain">{stored[key]}</script>\n')
            stored[key] = len(packs) - 1
    return stored


def pack(values: NDArray[np.floating] | None) -> dict[str, Any] | None:
    """Frames (T, ...) as 16-bit whole numbers and a step per frame, little-endian, in base64.

    Values that are not finite become `UNKNOWN`.

    Returns:
        `size`, the numbers per frame; `data` and `steps`, base64; None for None.
    """
    if values is None:
        return None
    frames = np.asarray(values, np.float32).reshape(len(values), -1)
    known = np.isfinite(frames)
    largest = np.abs(frames, where=known, out=np.zeros_like(frames)).max(1, initial=0)
    steps = np.where(largest > 0, largest / 32767, 1).astype("<f4")
    whole = np.full(frames.shape, UNKNOWN, np.float32)
    np.rint(frames / steps[:, None], where=known, out=whole)
    whole = np.where(known, np.clip(whole, -32767, 32767), UNKNOWN).astype("<i2")
    return {"size": frames.shape[1], "data": _base64(whole), "steps": _base64(steps)}


def pack_path(path: NDArray[np.floating] | None) -> dict[str, Any] | None:
    """A path (T, 3) as 32-bit floats, little-endian, in base64."""
    return None if path is None else {"size": 3, "data": _base64(path.astype("<f4"))}


def pack_confidence(values: NDArray[np.floating] | None) -> dict[str, Any] | None:
    """Confidences (T, ...) in 0..1 as bytes, in base64; nan is `UNSURE`."""
    if values is None:
        return None
    frames = np.asarray(values).reshape(len(values), -1)
    known = np.isfinite(frames)
    whole = np.where(known, np.rint(SURE * np.clip(np.where(known, frames, 0), 0, 1)), UNSURE)
    return {"size": frames.shape[1], "data": _base64(whole.astype("u1"))}


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _rounded_mean(values: NDArray[np.floating]) -> int | None:
    known = values[np.isfinite(values)]
    return round(float(known.mean())) if len(known) else None
