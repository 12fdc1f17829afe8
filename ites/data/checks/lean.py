"""Whether people stand: upside down, lying on the side, leaning throughout."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ites.data.checks.group import FEW, TRUNK, Body, Group
from ites.data.findings import Finding, Severity

MOST = 0.85
"""Share of the frames that counts as throughout."""
ROLL = 15.0, 60.0
"""Degrees of a standing person's lean: a camera's roll from the one on, lying beyond the other."""


def lean(group: Group, body: Body) -> Iterator[tuple[int, Finding]]:
    """The lean of each frame's trunk and legs, and their common value over most frames."""
    hips, has_hips = group.middle(body.hips)
    shoulders, has_shoulders = group.middle(body.shoulders)
    lower, has_lower = group.middle([*body.legs[-1]])
    knees, has_knees = group.middle([*body.legs[-2]])
    lower = np.where(has_lower[:, None], lower, knees)
    has_lower |= has_knees
    trunk, legs = shoulders - hips, hips - lower
    has_trunk, has_legs = has_hips & has_shoulders, has_hips & has_lower
    reach = np.repeat(group.typical, [len(clip) for clip in group.clips])
    with np.errstate(invalid="ignore"):
        has_trunk &= np.linalg.norm(trunk, axis=-1) > 0.4 * TRUNK * reach
        has_legs &= np.linalg.norm(legs, axis=-1) > 0.25 * 0.87 * reach
    lean = np.degrees(np.arctan2(trunk[:, 0], -trunk[:, 1]))
    stand = np.degrees(np.arctan2(legs[:, 0], -legs[:, 1]))
    whole = np.degrees(np.arctan2(*((trunk + legs) * [1, -1]).T))
    for number, (clip, rows) in enumerate(zip(group.clips, group.rows, strict=True)):
        own = has_trunk[rows]
        if own.sum() < max(1, 0.3 * len(clip)):
            continue
        angle, leg, has_leg = lean[rows], stand[rows], has_legs[rows] & own
        severity: Severity = "warning" if len(clip) >= FEW else "note"
        down = own & (np.abs(angle) > 130) & (~has_leg | (np.abs(leg) > 120))
        along = (np.abs(np.abs(leg) - 90) < 60) & (np.sign(leg) == np.sign(angle))
        side = own & (np.abs(np.abs(angle) - 90) < 50) & (~has_leg | along)
        side &= np.sign(angle) == np.sign(np.median(angle[own]))
        count = own.sum()
        tilts = np.abs(np.where(has_leg, whole[rows], angle))[side]
        lies = side.sum() >= MOST * count and np.median(tilts) > ROLL[1]
        if down.sum() >= MOST * count:
            yield group.found(
                number,
                "upside-down",
                severity,
                f"the person is upside down in {down.sum():,} of {count:,} frames: y "
                "points up, or the image is turned by 180 degrees",
                {"frames": int(down.sum())},
                np.flatnonzero(down),
            )
        elif lies:
            right = bool(np.median(angle[own]) > 0)
            to = "right" if right else "left"
            yield group.found(
                number,
                "sideways",
                severity,
                f"the person lies on the side, head to the {to}, in {side.sum():,} of "
                f"{count:,} frames: the video's rotation was not applied, or somebody lies",
                {"frames": int(side.sum()), "head": to, "rotate": 270 if right else 90},
                np.flatnonzero(side),
            )
        elif has_leg.sum() >= max(FEW, 0.5 * len(clip)):
            roll = whole[rows][has_leg]
            middle = float(np.median(roll))
            spread = float(np.median(np.abs(roll - middle)))
            if ROLL[0] <= abs(middle) <= ROLL[1] and spread < 0.4 * abs(middle):
                yield group.found(
                    number,
                    "roll",
                    "note",
                    f"the person leans by {abs(middle):.0f} degrees to the "
                    f"{'right' if middle > 0 else 'left'} throughout: a rolled camera, "
                    "if the person stands upright",
                    {"roll": middle, "spread": spread},
                )
