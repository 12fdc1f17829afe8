"""Keypoint layouts: the joints of each detector by name, and their maps to Human3.6M's 17 joints.

A map is by name. Each joint of Human3.6M has several recipes, weighted sums of a detector's joints,
in order of preference; a recipe counts where all of its joints are seen. So the head of somebody
seen from behind, whose eyes are never found, comes from ears and shoulders.

Weights. The torso joints that a layout lacks lie on the line between the middles of hips and
shoulders. "neck", Human3.6M's point between neck and nose, is halfway from the middle of the
shoulders to the nose, or to the middle of the ears. "head" is the layout's own crown where it has
one, else beyond the eyes, seen from the nose, or beyond the ears, seen from the shoulders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ites.errors import ItesError
from ites.pose.skeleton import HUMAN36M

Recipe = dict[str, float]
"""A joint as a weighted sum of other joints, by name."""

_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_COCO = (
    *_FACE,
    *(f"{s}_{j}" for j in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
      for s in ("left", "right")),
)  # fmt: skip
_HAND = (
    "wrist_root",
    *(f"{f}{i}" for f in ("thumb", "index", "middle", "ring", "pinky") for i in range(1, 5)),
)
_FEET = ("big_toe", "small_toe", "heel")
_HALPE = (
    *_COCO, "head_top", "neck", "mid_hip",
    *(f"{side}_{j}" for j in _FEET for side in ("left", "right")),
)  # fmt: skip
_BODY_25 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
    "left_wrist", "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee",
    "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear",
    *(f"{side}_{j}" for side in ("left", "right") for j in _FEET),
)  # fmt: skip


def _hands() -> tuple[str, ...]:
    return tuple(f"{side}_hand_{joint}" for side in ("left", "right") for joint in _HAND)


LAYOUT_JOINTS: dict[str, tuple[str, ...]] = {
    # Source: Ionescu et al., Human3.6M; the order of VideoPose3D's 17 joints.
    "human36m": HUMAN36M.joints,
    # Source: the `categories` of COCO's person_keypoints_val2017.json.
    "coco17": _COCO,
    # Source: OpenPose, doc/02_output.md, COCO model.
    "coco18": (
        *_BODY_25[:8], *_BODY_25[9:15], "right_eye", "left_eye", "right_ear", "left_ear",
    ),
    # Source: OpenPose, doc/02_output.md, BODY_25.
    "body25": _BODY_25,
    # Source: OpenPose, experimental models, BODY_25B.
    "body25b": (
        *_COCO, "upper_neck", "head_top",
        *(f"{side}_{j}" for side in ("left", "right") for j in _FEET),
    ),
    # Source: Halpe-FullBody, README; AlphaPose and RTMPose, 26 joints.
    "halpe26": _HALPE,
    # Source: Halpe-FullBody, README: 26 joints of the body, 68 of the face, 21 of each hand.
    "halpe136": (*_HALPE, *(f"face_{i}" for i in range(68)), *_hands()),
    # Source: Jin et al., COCO-WholeBody: body 17, feet 6, face 68, hands 21 each.
    "wholebody133": (
        *_COCO, *(f"{side}_{j}" for side in ("left", "right") for j in _FEET),
        *(f"face_{i}" for i in range(68)), *_hands(),
    ),
    # Source: MediaPipe, Pose Landmarker, the pose landmark model.
    "mediapipe33": (
        "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye",
        "right_eye_outer", "left_ear", "right_ear", "mouth_left", "mouth_right",
        *_COCO[5:11], "left_pinky", "right_pinky", "left_index", "right_index", "left_thumb",
        "right_thumb", *_COCO[11:], "left_heel", "right_heel", "left_foot_index",
        "right_foot_index",
    ),
    # Source: Andriluka et al., MPII Human Pose, annotation description.
    "mpii16": (
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis",
        "thorax", "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder",
        "left_shoulder", "left_elbow", "left_wrist",
    ),
    # Source: Mehta et al., MPI-INF-3DHP, the 17 joints of its evaluation (mpii_get_joint_set.m).
    "mpi3dhp17": (
        "head_top", "thorax", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder",
        "left_elbow", "left_wrist", "right_hip", "right_knee", "right_ankle", "left_hip",
        "left_knee", "left_ankle", "pelvis", "spine", "middle_head",
    ),
    # Source: Mehta et al., MPI-INF-3DHP, all 28 joints (mpii_get_joint_set.m).
    "mpi3dhp28": (
        "spine3", "spine4", "spine2", "spine", "pelvis", "thorax", "middle_head", "head_top",
        "left_clavicle", "left_shoulder", "left_elbow", "left_wrist", "left_hand",
        "right_clavicle", "right_shoulder", "right_elbow", "right_wrist", "right_hand", "left_hip",
        "left_knee", "left_ankle", "left_foot", "left_toe", "right_hip", "right_knee",
        "right_ankle", "right_foot", "right_toe",
    ),
}  # fmt: skip
"""The joints of each layout, in its order; `neck` is the base of the neck but in "human36m"."""

LAYOUTS = tuple(LAYOUT_JOINTS)
"""Keypoint layouts that `to_human36m` reads."""

_SHOULDERS: Recipe = {"left_shoulder": 0.5, "right_shoulder": 0.5}
_HIPS: Recipe = {"left_hip": 0.5, "right_hip": 0.5}
_EARS: Recipe = {"left_ear": 0.5, "right_ear": 0.5}
_BEYOND = 0.64
"""From ear to crown over from shoulder to ear, by the heights 0.82, 0.93 and 1 of an adult."""


def _sum(*terms: tuple[float, Recipe]) -> Recipe:
    total: Recipe = {}
    for factor, recipe in terms:
        for joint, weight in recipe.items():
            total[joint] = total.get(joint, 0.0) + factor * weight
    return total


def _between(*ends: tuple[Recipe, Recipe]) -> list[Recipe]:
    return [_sum((0.5, a), (0.5, b)) for a, b in ends]


_MIDDLES: tuple[Recipe, ...] = (_SHOULDERS, {"neck": 1.0})
_SIDES: tuple[Recipe, ...] = (_EARS, {"left_ear": 1.0}, {"right_ear": 1.0})

_RECIPES: dict[str, list[Recipe]] = {
    "pelvis": [{"pelvis": 1.0}, _HIPS, {"mid_hip": 1.0}],
    "right_hip": [{"right_hip": 1.0}, *({m: 2.0, "left_hip": -1.0} for m in ("mid_hip", "pelvis"))],
    "left_hip": [{"left_hip": 1.0}, *({m: 2.0, "right_hip": -1.0} for m in ("mid_hip", "pelvis"))],
    "spine": [
        {"spine": 1.0},
        *_between((_SHOULDERS, _HIPS), ({"thorax": 1.0}, _HIPS), ({"neck": 1.0}, _HIPS)),
        *_between(*((m, {n: 1.0}) for n in ("mid_hip", "pelvis") for m in _MIDDLES)),
    ],
    "thorax": [{"thorax": 1.0}, _SHOULDERS, {"neck": 1.0}],
    "neck": [
        {"middle_head": 1.0},
        *_between(*((middle, {"nose": 1.0}) for middle in _MIDDLES)),
        *_between(*((middle, side) for side in _SIDES for middle in _MIDDLES)),
        _sum((0.75, {"upper_neck": 1.0}), (0.25, {"head_top": 1.0})),
    ],
    "head": [
        {"head_top": 1.0},
        {"left_eye": 0.75, "right_eye": 0.75, "nose": -0.5},
        *(
            _sum((1 + _BEYOND, side), (-_BEYOND, middle))
            for side in _SIDES
            for middle in _MIDDLES
        ),
        {"left_eye": 1.5, "nose": -0.5},
        {"right_eye": 1.5, "nose": -0.5},
    ],
}  # fmt: skip


def recipes(joints: Sequence[str]) -> list[list[Recipe]]:
    """How each joint of Human3.6M can be made of the joints that a layout has.

    Args:
        joints: the layout's joints, by the names of `LAYOUT_JOINTS`.

    Returns:
        For each of Human3.6M's 17 joints its recipes, the best first; none where it cannot be told.
    """
    if tuple(joints) == HUMAN36M.joints:
        return [[{joint: 1.0}] for joint in joints]
    there = set(joints)
    return [
        [recipe for recipe in _RECIPES.get(name, [{name: 1.0}]) if there >= set(recipe)]
        for name in HUMAN36M.joints
    ]


def convert(
    keypoints: NDArray[np.floating],
    joints: Sequence[str],
    confidence: NDArray[np.floating] | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.floating] | None]:
    """Convert keypoints of named joints to Human3.6M's 17 joints.

    Args:
        keypoints: (..., K, D) coordinates; any unit.
        joints: the K joints' names, as in `LAYOUT_JOINTS`.
        confidence: (..., K), 0 for a missing joint; or None: all are seen.

    Returns:
        (..., 17, D) coordinates, and (..., 17) confidences: the least of the joints that a joint
        is made of, 0 where no recipe has all of its joints. The confidences are None where none
        were given and all 17 joints can be told.
    """
    order = {name: index for index, name in enumerate(joints)}
    told = np.ones(keypoints.shape[:-1], np.float32) if confidence is None else confidence
    found = np.zeros((*keypoints.shape[:-2], HUMAN36M.num_joints, keypoints.shape[-1]))
    sure = np.zeros(found.shape[:-1], told.dtype)
    for joint, choices in enumerate(recipes(joints)):
        for recipe in choices:
            sources = [order[name] for name in recipe]
            least = told[..., sources].min(axis=-1)
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
        layout: one of `LAYOUTS`.
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
    return convert(keypoints, joints, confidence)


def joints_of(layout: str) -> tuple[str, ...]:
    """The names of a layout's joints.

    Raises:
        ItesError: there is no such layout.
    """
    if layout not in LAYOUT_JOINTS:
        raise ItesError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    return LAYOUT_JOINTS[layout]


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
"""A detector's layout by its number of joints; 25 joints are told apart by `body25_or_25b`."""


def body25_or_25b(keypoints: NDArray[np.floating], confidence: NDArray[np.floating]) -> str:
    """Whether 25 joints are OpenPose's BODY_25 or BODY_25B, by where its middle joints lie.

    In BODY_25 joint 8 is the middle of the hips 9 and 12, and joint 1 that of the shoulders 2 and
    5; in BODY_25B joint 17, the neck, is near the middle of the shoulders 5 and 6. The order whose
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
    """The name in `LAYOUT_JOINTS` of a joint as people call it: "LEye", "eye_left", "hip1".

    A number 1 means the right side and 2 the left, as in DeepLabCut's human model. A name that
    stands for no joint of a body is returned as it is.
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
