"""Keypoint layouts: the joints of each detector by name, and their maps to Human3.6M's 17 joints.

The layouts are the files of `ites/pose/skeletons` that have a map to Human3.6M, and a user's own
files of the same form. A map is by name. Each joint of Human3.6M has several recipes, weighted sums
of a detector's joints, in order of preference. A recipe counts where all of its joints are seen. So
the head of somebody seen from behind, whose eyes are never found, comes from ears and shoulders.
The recipes and the reasons for their weights are in `skeletons/human36m.toml`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ites.errors import ItesError, shorten
from ites.pose.skeleton import HUMAN36M, JointMap, JointWeights, skeleton_file, skeleton_names

LAYOUT_JOINTS: dict[str, tuple[str, ...]] = {
    name: skeleton_file(name).skeleton.joints
    for name in skeleton_names()
    if name == HUMAN36M.name or HUMAN36M.name in skeleton_file(name).maps
}
"""The joints of each layout, in its order; `neck` is the base of the neck but in "human36m"."""

LAYOUTS = tuple(LAYOUT_JOINTS)
"""Keypoint layouts that `to_human36m` reads."""


def recipes(joints: Sequence[str], layout: str | None = None) -> list[list[JointWeights]]:
    """How each joint of Human3.6M is derived from the joints of a layout.

    Args:
        joints: the layout's joints, by the names of `LAYOUT_JOINTS`.
        layout: whose file may have recipes of its own, which come before the general ones; None,
            or no layout: no file.

    Returns:
        For each of Human3.6M's 17 joints its recipes, the best first; none if it cannot be derived.
    """
    if tuple(joints) == HUMAN36M.joints:
        return [[{joint: 1.0}] for joint in joints]
    there, general = set(joints), skeleton_file(HUMAN36M.name).recipes
    own: Mapping[str, Sequence[JointWeights]] = {}
    if layout is not None and _is_layout(layout):
        own = skeleton_file(layout).maps.get(HUMAN36M.name, JointMap("")).recipes
    return [
        [
            recipe
            for recipe in [*own.get(name, ()), *general.get(name, [{name: 1.0}])]
            if there >= set(recipe)
        ]
        for name in HUMAN36M.joints
    ]


def _is_layout(name: str) -> bool:
    return name in LAYOUTS or name.endswith(".toml")


def convert(
    keypoints: NDArray[np.floating],
    joints: Sequence[str],
    confidence: NDArray[np.floating] | None = None,
    layout: str | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.floating] | None]:
    """Convert keypoints of named joints to Human3.6M's 17 joints.

    Args:
        keypoints: (..., K, D) coordinates; any unit.
        joints: the K joints' names, as in `LAYOUT_JOINTS`.
        confidence: (..., K), 0 for a missing joint; or None: all are seen.
        layout: see `recipes`.

    Returns:
        (..., 17, D) coordinates, and (..., 17) confidences: the least of the joints that a joint
        is made of, 0 where no recipe has all of its joints. The confidences are None where none
        were given and all 17 joints can be derived.
    """
    order = {name: index for index, name in enumerate(joints)}
    known = np.ones(keypoints.shape[:-1], np.float32) if confidence is None else confidence
    found = np.zeros((*keypoints.shape[:-2], HUMAN36M.num_joints, keypoints.shape[-1]))
    sure = np.zeros(found.shape[:-1], known.dtype)
    for joint, choices in enumerate(recipes(joints, layout)):
        for recipe in choices:
            sources = [order[name] for name in recipe]
            least = known[..., sources].min(axis=-1)
            use = (sure[..., joint] == 0) & (least > 0)
            if use.any():
                weights = np.array(list(recipe.values()))
                sums = np.einsum("s,...sd->...d", weights, keypoints[..., sources, :])
                found[..., joint, :] = np.where(use[..., None], sums, found[..., joint, :])
                sure[..., joint] = np.where(use, least, sure[..., joint])
            if use.all():
                break
    converted = found.astype(keypoints.dtype)
    return converted, None if confidence is None and (sure > 0).all() else sure


def to_human36m(
    keypoints: NDArray[np.floating],
    layout: str,
    confidence: NDArray[np.floating] | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.floating] | None]:
    """Convert keypoints of another layout to Human3.6M's 17 joints.

    Args:
        keypoints: (..., J, D) coordinates in `layout`'s order; any unit.
        layout: one of `LAYOUTS`, or the path of a skeleton's TOML file that has a map.
        confidence: (..., J) in [0, 1], or None.

    Returns:
        (..., 17, D) coordinates, and (..., 17) confidences or None: see `convert`.

    Raises:
        ItesError: the layout is unknown or has another number of joints.
    """
    joints = joints_of(layout)
    if keypoints.ndim < 2 or keypoints.shape[-2] != len(joints):
        raise ItesError(
            f"to_human36m: {layout} keypoints must have shape (..., {len(joints)}, D), "
            f"got {keypoints.shape}"
        )
    return convert(keypoints, joints, confidence, layout)


def joints_of(layout: str) -> tuple[str, ...]:
    """The names of a layout's joints.

    Args:
        layout: one of `LAYOUTS`, or the path of a skeleton's TOML file that has a map.

    Raises:
        ItesError: there is no such layout, or the file is wrong or has no map.
    """
    if layout in LAYOUT_JOINTS:
        return LAYOUT_JOINTS[layout]
    if not _is_layout(layout):
        raise ItesError(
            f"layout must be one of {', '.join(LAYOUTS)} or a TOML file, "
            f"got {shorten(layout, 40)!r}"
        )
    file = skeleton_file(layout)
    if HUMAN36M.name not in file.maps:
        raise ItesError(f"{layout}: expected a table [maps.{HUMAN36M.name}], got none")
    for joint in file.maps[HUMAN36M.name].recipes:
        if joint not in HUMAN36M.joints:
            raise ItesError(
                f"{layout}: maps.{HUMAN36M.name}: expected joints of {HUMAN36M.name}, "
                f"{', '.join(HUMAN36M.joints)}, got {shorten(joint, 40)!r}"
            )
    return file.skeleton.joints


BY_COUNT = {
    17: "coco17",
    18: "coco18",
    16: "mpii16",
    26: "halpe26",
    28: "mpi3dhp28",
    33: "mediapipe33",
    133: "wholebody133",
    136: "halpe136",
}
"""A detector's layout by its number of joints; `body25_or_25b` distinguishes 25 joints."""


def body25_or_25b(keypoints: NDArray[np.floating], confidence: NDArray[np.floating]) -> str:
    """Whether 25 joints are OpenPose's BODY_25 or BODY_25B, by the positions of its middle joints.

    In BODY_25 joint 8 is the middle of the hips 9 and 12, and joint 1 that of the shoulders 2 and
    5. In BODY_25B joint 17, the neck, is near the middle of the shoulders 5 and 6. The order whose
    median distance is less is taken.

    Args:
        keypoints: (..., 25, 2).
        confidence: (..., 25), 0 for a missing joint.
    """

    def apart(middle: int, a: int, b: int) -> NDArray[np.floating]:
        seen = (confidence[..., [middle, a, b]] > 0).all(-1)
        ends = (keypoints[..., a, :] + keypoints[..., b, :]) / 2
        return np.linalg.norm(keypoints[..., middle, :] - ends, axis=-1)[seen]

    plain = np.concatenate([apart(8, 9, 12).ravel(), apart(1, 2, 5).ravel()])
    other = apart(17, 5, 6).ravel()
    if not len(other):
        return "body25"
    return "body25" if len(plain) and np.median(plain) <= np.median(other) else "body25b"


_SYNONYMS = {
    "headtop": "head_top", "tophead": "head_top", "topofhead": "head_top", "vertex": "head_top",
    "crown": "head_top", "forehead": "head_top", "head": "head_top", "headend": "head_top",
    "midhip": "mid_hip", "hip": "mid_hip", "hips": "mid_hip", "midhips": "mid_hip",
    "hipcenter": "mid_hip", "hipcentre": "mid_hip", "root": "pelvis", "pelvis": "pelvis",
    "chin": "upper_neck",
    "upperneck": "upper_neck", "neckbase": "neck", "midshoulder": "neck", "midshoulders": "neck",
    "shouldercenter": "neck", "sternum": "neck", "neck": "neck", "nose": "nose",
    "thorax": "thorax",
    "chest": "thorax", "spine": "spine", "belly": "spine", "torso": "spine",
}  # fmt: skip
_SIDED = {
    "eye": "eye", "ear": "ear", "shoulder": "shoulder", "sho": "shoulder", "acromion": "shoulder",
    "elbow": "elbow", "elb": "elbow", "wrist": "wrist", "wri": "wrist", "hand": "wrist",
    "hip": "hip", "knee": "knee", "kne": "knee", "ankle": "ankle", "ank": "ankle",
    "foot": "ankle", "heel": "heel", "bigtoe": "big_toe", "smalltoe": "small_toe", "toe": "big_toe",
}  # fmt: skip
_SIDE = re.compile(r"^(left|right|l|r)[^a-z0-9]*(.+)$|^(.+?)[^a-z0-9]*(left|right|[^a-z0-9][lr])$")


def joint_name(name: str) -> str:
    """The name in `LAYOUT_JOINTS` of a joint by a common name: "LEye", "eye_left", "hip1".

    A number 1 means the right side and 2 the left, as in DeepLabCut's human model. A name that
    stands for no joint of a body is returned unchanged.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=^[LR])(?=[A-Z][a-z])", "_", name.strip())
    lower = spaced.lower()
    plain = re.sub(r"[^a-z0-9]", "", lower)
    if plain in _SYNONYMS:
        return _SYNONYMS[plain]
    numbered = re.fullmatch(r"([a-z]+)([12])", plain)
    if numbered and numbered[1] in _SIDED:
        return f"{'right' if numbered[2] == '1' else 'left'}_{_SIDED[numbered[1]]}"
    sided = _SIDE.match(lower)
    if sided:
        side, rest = sided[1] or sided[4], sided[2] or sided[3]
        part = re.sub(r"[^a-z0-9]", "", rest)
        if part in _SIDED:
            return f"{'left' if 'l' in side.lstrip('_-. ')[0] else 'right'}_{_SIDED[part]}"
    return name
