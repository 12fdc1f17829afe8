"""Joints that a detector moved to the image's edge, because they lie outside the image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ites.data.checks.arrays import Bools, Floats
from ites.data.checks.group import Body, Group
from ites.data.checks.repeats import is_coarse
from ites.data.findings import Finding, listed

FEWEST, SHARE = 5, 0.1
"""Least frames with a joint at an edge, and their least share."""
PLACES, BOTH = 5, 0.8
"""Least number of places of a joint along the edge, since one may be held in place; and the share
of frames with two joints on it from which they are no feet that walk."""
BOXED = 0.95
"""Share of frames with one joint on an edge from which it is a box's side."""
BORDER = 1.0
"""Pixels within which an edge is that of a known image."""


def clipped(
    points: Floats, seen: Bools, bones: NDArray[np.intp], size: tuple[int, int] | None
) -> tuple[Bools, list[str]]:
    """The joints (T, J) that lie on an edge, and the edges in words.

    An edge is the least or the greatest x or y of all joints, where many of them lie on it. Their
    number tells it where coordinates are not rounded, or where the edge is the image's. Where they
    are, feet on the ground have one y, so both ends of a bone must lie on it, or two joints in most
    frames.

    Args:
        points: (T, J, 2), pixels.
        seen: (T, J).
        bones: (B, 2), joints at both ends of each.
        size: (width, height) of the image, if it is known.
    """
    found = np.zeros(seen.shape, bool)
    edges: list[str] = []
    least = max(FEWEST, SHARE * len(points))
    if seen.any(1).sum() < least:
        return found, edges
    coarse = is_coarse(points, seen)
    for axis, name in enumerate("xy"):
        along = points[..., axis]
        for edge in (along[seen].min(), along[seen].max()):
            on = seen & (along == edge)
            if on.any(1).sum() < least:
                continue
            other = points[..., 1 - axis]
            places = max(len(np.unique(other[on[:, j], j])) for j in range(on.shape[1]))
            if places < PLACES or _is_box(on):
                continue
            whole = on[:, bones[:, 0]] & on[:, bones[:, 1]]
            border = size is not None and min(abs(edge), abs(size[axis] - edge)) <= BORDER
            often = (on.sum(1) > 1).sum() >= BOTH * seen.any(1).sum()
            if border or not coarse or often or whole.any(1).sum() >= least:
                found |= on
                edges.append(f"{name} = {edge:.6g}")
    return found, edges


def _is_box(on: Bools) -> bool:
    """Whether an edge is a side of a box around the joints: one joint is on it, frame by frame."""
    return bool((on.sum(1) == 1).mean() > BOXED)


def moved_to_edge(group: Group, _: Body) -> Iterator[tuple[int, Finding]]:
    """Joints at the image's edge: they lie outside the image, and were moved to it."""
    bones = np.array(group.skeleton.bones)
    for number, (clip, rows) in enumerate(zip(group.clips, group.rows, strict=True)):
        on, edges = clipped(group.points[rows], group.seen[rows], bones, clip.image_size)
        if not edges:
            continue
        frames = np.flatnonzero(on.any(1))
        names = [group.skeleton.joints[j] for j in np.flatnonzero(on.any(0))]
        yield group.found(
            number,
            "clipped",
            "warning",
            f"joints lie exactly on an edge, {' and '.join(edges)}, in {len(frames):,} of "
            f"{len(clip):,} frames ({listed(names)}): they are outside the image, and were moved "
            "to it",
            {"joints": names, "frames": len(frames), "edges": edges},
            frames,
        )
