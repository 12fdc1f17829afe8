"""glTF: animated skeletons with a simple skin, for 3D programs and browsers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ites import __version__
from ites.errors import ItesError
from ites.export.motion import Motion
from ites.export.rotations import Rotations, find_rotations, quaternions
from ites.pose.skeleton import Skeleton

WIDTH = 0.12
"""Half width of a bone's shape, as a share of its length."""


def write_gltf(path: Path, motions: Sequence[Motion]) -> None:
    """Write clips as binary glTF 2.0: an armature, a skin and an animation for each.

    Nodes are joints. Their translations and rotations are key-framed, so the poses are exact and
    the rotations usable. A bone is drawn as a bipyramid that follows its upper joint.

    Args:
        path: the file to write, .glb.
        motions: y up, metres, as glTF requires.

    Raises:
        ItesError: the package is missing.
    """
    try:
        import pygltflib as gltf
    except ImportError:
        raise ItesError("glTF needs the package pygltflib: pip install 'ites[export]'") from None
    document = gltf.GLTF2(
        asset=gltf.Asset(version="2.0", generator=f"ites {__version__}"),
        scenes=[gltf.Scene(nodes=[])],
        scene=0,
        materials=[
            gltf.Material(
                name="bones",
                doubleSided=True,
                pbrMetallicRoughness=gltf.PbrMetallicRoughness(
                    baseColorFactor=[0.25, 0.45, 0.75, 1.0], metallicFactor=0.0
                ),
            )
        ],
    )
    document.asset.extras = {
        "frame": motions[0].words,
        "unit": motions[0].frame.unit,
        "framesPerSecond": [motion.fps for motion in motions],
    }
    data = _Data(gltf, document)
    for motion in motions:
        _add(gltf, document, data, motion)
    document.buffers = [gltf.Buffer(byteLength=len(data.bytes))]
    document.set_binary_blob(bytes(data.bytes))
    document.save_binary(str(path))


def _add(gltf: Any, document: Any, data: _Data, motion: Motion) -> None:
    """Add a clip: its joints, a body that they move, and its animation."""
    found = find_rotations(motion.complete(), motion.skeleton, motion.frame)
    first = len(document.nodes)
    _add_joints(gltf, document, motion.skeleton, found.rest)
    _add_body(gltf, document, data, motion, found.rest, first)
    document.animations.append(_animation(gltf, data, motion, found, first))


def _add_joints(gltf: Any, document: Any, skeleton: Skeleton, offsets: np.ndarray) -> None:
    """A node per joint, by its offset (J, 3) from its parent in the rest pose."""
    first = len(document.nodes)
    for joint, name in enumerate(skeleton.joints):
        children = [first + j for p, j in skeleton.bones if p == joint]
        document.nodes.append(
            gltf.Node(name=name, translation=offsets[joint].tolist(), children=children)
        )


def _add_body(
    gltf: Any, document: Any, data: _Data, motion: Motion, offsets: np.ndarray, first: int
) -> None:
    """Bones that the joints, nodes from `first` on, move; and the clip's node in the scene."""
    skeleton = motion.skeleton
    rest = np.zeros((skeleton.num_joints, 3))
    for parent, joint in sorted(skeleton.bones, key=lambda bone: _depth(skeleton.parents, bone[1])):
        rest[joint] = rest[parent] + offsets[joint]
    inverse = np.tile(np.eye(4, dtype=np.float32), (skeleton.num_joints, 1, 1))
    inverse[:, 3, :3] = -rest  # column-major: the translation is the last column
    skin = gltf.Skin(
        name=motion.name,
        joints=list(range(first, first + skeleton.num_joints)),
        skeleton=first + skeleton.root,
        inverseBindMatrices=data.add(inverse.reshape(-1, 16), "MAT4"),
    )
    document.skins.append(skin)
    vertices, faces, joints = _bones(rest, skeleton.bones)
    weights = np.tile(np.array([1, 0, 0, 0], np.float32), (len(vertices), 1))
    bound = np.zeros((len(vertices), 4), np.uint16)
    bound[:, 0] = joints
    primitive = gltf.Primitive(
        attributes=gltf.Attributes(
            POSITION=data.add(vertices, "VEC3", limits=True, target=gltf.ARRAY_BUFFER),
            JOINTS_0=data.add(bound, "VEC4", target=gltf.ARRAY_BUFFER),
            WEIGHTS_0=data.add(weights, "VEC4", target=gltf.ARRAY_BUFFER),
        ),
        indices=data.add(faces.reshape(-1), "SCALAR", target=gltf.ELEMENT_ARRAY_BUFFER),
        material=0,
    )
    document.meshes.append(gltf.Mesh(name=motion.name, primitives=[primitive]))
    document.nodes.append(
        gltf.Node(
            name=f"{motion.name} body",
            mesh=len(document.meshes) - 1,
            skin=len(document.skins) - 1,
        )
    )
    document.nodes.append(
        gltf.Node(name=motion.name, children=[first + skeleton.root, len(document.nodes) - 1])
    )
    document.scenes[0].nodes.append(len(document.nodes) - 1)


def _animation(gltf: Any, data: _Data, motion: Motion, found: Rotations, first: int) -> Any:
    """Offsets and rotations of the joints, nodes from `first` on, in each frame."""
    times = data.add(motion.seconds.astype(np.float32), "SCALAR", limits=True)
    turns = quaternions(found.local)
    animation = gltf.Animation(name=motion.name)
    for joint in range(motion.skeleton.num_joints):
        for path, values, kind in (
            ("translation", found.offsets[:, joint], "VEC3"),
            ("rotation", turns[:, joint], "VEC4"),
        ):
            animation.samplers.append(
                gltf.AnimationSampler(
                    input=times,
                    output=data.add(values.astype(np.float32), kind),
                    interpolation=gltf.ANIM_LINEAR,
                )
            )
            animation.channels.append(
                gltf.AnimationChannel(
                    sampler=len(animation.samplers) - 1,
                    target=gltf.AnimationChannelTarget(node=first + joint, path=path),
                )
            )
    return animation


def _depth(parents: Sequence[int], joint: int) -> int:
    return 0 if parents[joint] < 0 else 1 + _depth(parents, parents[joint])


def _bones(
    rest: np.ndarray, bones: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bipyramid for each bone of a rest pose (J, 3).

    Returns:
        Vertices (V, 3) float32, faces (F, 3) uint32, and the joint of each vertex (V,).
    """
    vertices: list[np.ndarray] = []
    faces: list[tuple[int, ...]] = []
    owners: list[int] = []
    for parent, joint in bones:
        start, end = rest[parent], rest[joint]
        bone = end - start
        length = max(float(np.linalg.norm(bone)), 1e-6)
        side = np.cross(bone, np.eye(3)[np.argmin(np.abs(bone))])
        side *= WIDTH * length / max(float(np.linalg.norm(side)), 1e-12)
        other = np.cross(bone, side) / length
        middle = start + bone / 4
        base = len(vertices)
        vertices += [start, middle + side, middle + other, middle - side, middle - other, end]
        ring = [base + 1, base + 2, base + 3, base + 4]
        for a, b in zip(ring, ring[1:] + ring[:1], strict=True):
            faces += [(base, b, a), (base + 5, a, b)]
        owners += [parent] * 6
    return (
        np.array(vertices, np.float32),
        np.array(faces, np.uint32),
        np.array(owners, np.uint16),
    )


class _Data:
    """The binary part of a document, built array by array."""

    def __init__(self, gltf: Any, document: Any) -> None:
        self.gltf, self.document, self.bytes = gltf, document, bytearray()

    def add(
        self, values: np.ndarray, kind: str, *, limits: bool = False, target: int | None = None
    ) -> int:
        """Append an array with one row per element; return the index of its accessor."""
        gltf, document = self.gltf, self.document
        types = {"f4": gltf.FLOAT, "u2": gltf.UNSIGNED_SHORT, "u4": gltf.UNSIGNED_INT}
        self.bytes += bytes(-len(self.bytes) % 4)
        raw = np.ascontiguousarray(values).tobytes()
        document.bufferViews.append(
            gltf.BufferView(
                buffer=0, byteOffset=len(self.bytes), byteLength=len(raw), target=target
            )
        )
        self.bytes += raw
        rows = values.reshape(len(values), -1)
        document.accessors.append(
            gltf.Accessor(
                bufferView=len(document.bufferViews) - 1,
                componentType=types[values.dtype.str[1:]],
                count=len(values),
                type=kind,
                min=rows.min(0).tolist() if limits else None,
                max=rows.max(0).tolist() if limits else None,
            )
        )
        return len(document.accessors) - 1
