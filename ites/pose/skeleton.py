"""Skeletons: joints, parents, mirror pairs, pooling pairs; and maps between keypoint layouts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from operator import index

from ites.errors import ItesError

MOST_JOINTS = 256
"""Of a skeleton; far more than a body has, few enough for tables of pairs of joints."""


@dataclass(frozen=True)
class Skeleton:
    """A tree of joints, and what the models need to know about it.

    Args:
        name: what the layout is called.
        joints: a name for each joint.
        parents: index of each joint's parent; -1 for the root.
        left: joints of the left side, in the same order as `right`.
        right: joints of the right side; `right[i]` mirrors `left[i]`.
        head: the joint whose distance to the root sets the scale of the networks' input.
        pooling: pairs of joints whose features the non-local block max-pools (METHOD: Student).
            A joint in no pair is dropped by the pooling. Left empty, each joint is paired with its
            parent where both are still free, leaves first.

    Raises:
        ItesError: parents do not form one tree, or an index is out of range.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    left: tuple[int, ...] = ()
    right: tuple[int, ...] = ()
    head: int = 0
    pooling: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        count = len(self.joints)
        if not 1 <= count <= MOST_JOINTS:
            raise ItesError(
                f"Skeleton {self.name}: expected 1 to {MOST_JOINTS} joints, got {count}"
            )
        if len(self.parents) != count:
            raise ItesError(f"Skeleton {self.name}: {count} joints but {len(self.parents)} parents")
        if list(self.parents).count(-1) != 1:
            raise ItesError(f"Skeleton {self.name}: parents must hold -1 once, got {self.parents}")
        if len(self.left) != len(self.right):
            raise ItesError(
                f"Skeleton {self.name}: left and right must pair up, "
                f"got {len(self.left)} and {len(self.right)} joints"
            )
        named = [*self.left, *self.right, self.head, *(j for pair in self.pooling for j in pair)]
        if any(not 0 <= j < count for j in named) or any(not -1 <= p < count for p in self.parents):
            raise ItesError(f"Skeleton {self.name}: joint indices must lie in 0..{count - 1}")
        for joint in range(count):
            seen, at = set(), joint
            while at != -1:
                if at in seen:
                    raise ItesError(f"Skeleton {self.name}: parents form a circle at joint {at}")
                seen.add(at)
                at = self.parents[at]
        if not self.pooling:
            object.__setattr__(self, "pooling", _pair_with_parents(self.parents))

    @property
    def num_joints(self) -> int:
        """J, the number of joints."""
        return len(self.joints)

    @property
    def root(self) -> int:
        """The joint without a parent, to which poses are relative."""
        return self.parents.index(-1)

    @cached_property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, joint) of every joint but the root."""
        return tuple((p, j) for j, p in enumerate(self.parents) if p >= 0)

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(row, column) of the graph's edges with self loops, both directions, row by row.

        This is the order of SemGraphConv's logits: 49 entries for 17 joints.
        """
        links = {(j, j) for j in range(self.num_joints)}
        for parent, joint in self.bones:
            links |= {(parent, joint), (joint, parent)}
        return tuple(sorted(links))

    @cached_property
    def mirror(self) -> tuple[int, ...]:
        """For each joint the joint on the other side (itself on the midline)."""
        others = list(range(self.num_joints))
        for left, right in zip(self.left, self.right, strict=True):
            others[left], others[right] = right, left
        return tuple(others)

    def to_json(self) -> str:
        """The skeleton as one line of JSON, as stores and checkpoints hold it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Skeleton:
        """The skeleton that `to_json` wrote.

        Raises:
            ItesError: the text is no skeleton.
        """
        try:
            fields = json.loads(text)
            for key in ("parents", "left", "right"):
                fields[key] = tuple(map(index, fields[key]))
            fields["joints"] = tuple(map(str, fields["joints"]))
            fields["head"] = index(fields["head"])
            fields["pooling"] = tuple((index(a), index(b)) for a, b in fields["pooling"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ItesError(f"Skeleton: expected the JSON of a skeleton, got {text!r}") from error


def _pair_with_parents(parents: Sequence[int]) -> tuple[tuple[int, int], ...]:
    def depth(joint: int) -> int:
        return 0 if parents[joint] == -1 else 1 + depth(parents[joint])

    free, pairs = set(range(len(parents))), []
    for joint in sorted(free, key=lambda j: (-depth(j), j)):
        parent = parents[joint]
        if joint in free and parent in free:
            free -= {joint, parent}
            pairs.append((parent, joint))
    return tuple(sorted(pairs))


HUMAN36M = Skeleton(
    name="human36m",
    joints=(
        "pelvis",
        "right_hip",
        "right_knee",
        "right_ankle",
        "left_hip",
        "left_knee",
        "left_ankle",
        "spine",
        "thorax",
        "neck",
        "head",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
        "right_shoulder",
        "right_elbow",
        "right_wrist",
    ),
    parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
    left=(4, 5, 6, 11, 12, 13),
    right=(1, 2, 3, 14, 15, 16),
    head=10,
    pooling=((2, 3), (5, 6), (1, 4), (0, 7), (8, 10), (15, 16), (12, 13), (11, 14)),
)
"""Human3.6M's 17 joints; "neck" is the point between neck and nose, "head" the crown."""
