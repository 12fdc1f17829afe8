"""Skeletons: joints, parents, mirror pairs, pooling pairs; those built in are `skeletons/*.toml`.

A file of a user's own has the same form::

    name = "chain"
    joints = ["hip", "knee", "ankle"]
    head = "ankle"                       # its distance to the root sets the input's scale
    mirror = [["left_eye", "right_eye"]] # left and right; may be absent
    pooling = [["knee", "ankle"]]        # may be absent: each joint with its parent, leaves first

    [parents]                            # of every joint but the root
    knee = "hip"
    ankle = "knee"

    [maps.human36m]                      # may be absent; see `ites.pose.layouts`
    source = "where the joints are defined"
"""

from __future__ import annotations

import difflib
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from itertools import product
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ites.errors import ItesError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Joints = TypeVar("Joints", "NDArray[np.floating]", "Tensor")

MOST_JOINTS = 256
"""Maximum number of joints: far more than a body has, few enough for tables of joint pairs."""


@dataclass(frozen=True)
class Skeleton:
    """A tree of joints, with the tables that the models need.

    Args:
        name: what the layout is called.
        joints: a name for each joint.
        parents: index of each joint's parent; -1 for the root.
        left: joints of the left side, in the same order as `right`.
        right: joints of the right side; `right[i]` mirrors `left[i]`.
        head: the joint whose distance to the root sets the scale of the networks' input.
        pooling: pairs of joints whose features the non-local block max-pools (docs/method.md, 4.3).
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

    def difference(self, other: Skeleton) -> str:
        """How another skeleton's joints differ from these in place, in words; "" if they do not.

        Other names of joints are no difference, unless they are the same ones in another order.
        """
        if self.num_joints != other.num_joints:
            return f"{other.num_joints} joints, not {self.num_joints}"
        if self.parents != other.parents:
            return "other bones"
        if set(self.joints) == set(other.joints) and self.joints != other.joints:
            one = next(j for j in range(len(self.joints)) if self.joints[j] != other.joints[j])
            return f"joint {one} is {other.joints[one]}, not {self.joints[one]}"
        if (set(self.left), set(self.right)) != (set(other.left), set(other.right)):
            return "other joints on the left and on the right"
        if self.mirror != other.mirror:
            return "other pairs of left and right joints"
        if self.head != other.head:
            return f"the head is {other.joints[other.head]}, not {self.joints[self.head]}"
        return ""

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
        except ItesError:
            raise
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


JointWeights = dict[str, float]
"""A joint as a weighted sum of other joints, by name."""

FOLDER = Path(__file__).parent / "skeletons"
"""Folder of the built-in skeletons."""

_LARGEST = 1 << 20
"""Maximum bytes of a skeleton's file; the largest built-in one has 7,000."""
_MOST_CHOICES = 100
"""Maximum choices of sets of joints for the groups of one recipe."""


@dataclass(frozen=True)
class JointMap:
    """How the joints of another skeleton are derived from those of a layout.

    Args:
        source: where the points of both are defined.
        recipes: by joint of the other skeleton, the best first; only what differs from that
            skeleton's own `recipes`.
    """

    source: str
    recipes: Mapping[str, Sequence[JointWeights]] = field(default_factory=dict)


@dataclass(frozen=True)
class SkeletonFile:
    """The content of a skeleton's TOML file.

    Args:
        skeleton: the tree.
        source: where the order of joints is defined.
        recipes: how each joint can be made of joints of other layouts, by name, the best first.
        maps: to other skeletons, by their names.
    """

    skeleton: Skeleton
    source: str = ""
    recipes: Mapping[str, Sequence[JointWeights]] = field(default_factory=dict)
    maps: Mapping[str, JointMap] = field(default_factory=dict)


@cache
def skeleton_names() -> tuple[str, ...]:
    """The names of the built-in skeletons, Human3.6M's first."""
    names = sorted(path.stem for path in FOLDER.glob("*.toml"))
    return tuple(sorted(names, key=lambda name: name != "human36m"))


def load_skeleton(name: str | os.PathLike[str]) -> Skeleton:
    """A built-in skeleton by its name, or the one of a TOML file.

    Args:
        name: one of `skeleton_names()`, or the path of a file.

    Raises:
        ItesError: there is no such skeleton or file, or the file is wrong.
    """
    return skeleton_file(name).skeleton


def skeleton_file(name: str | os.PathLike[str]) -> SkeletonFile:
    """The whole content of a skeleton's file; see `load_skeleton`."""
    if str(name) in skeleton_names():
        return _built_in(str(name))
    if Path(name).suffix != ".toml" and not Path(name).is_file():
        nearest = difflib.get_close_matches(str(name), skeleton_names(), n=1, cutoff=0)[0]
        raise ItesError(
            f"skeleton: expected a TOML file or one of {', '.join(skeleton_names())}, got "
            f"{str(name)[:40]!r}; the nearest is {nearest!r}"
        )
    return read_skeleton(name)


@cache
def _built_in(name: str) -> SkeletonFile:
    return read_skeleton(FOLDER / f"{name}.toml")


def read_skeleton(path: str | os.PathLike[str]) -> SkeletonFile:
    """Read a skeleton's TOML file.

    Raises:
        ItesError: the file is absent or no TOML, a name is unknown, or the joints form no tree.
    """
    try:
        if Path(path).stat().st_size > _LARGEST:
            raise ItesError(f"{path}: expected a skeleton of at most {_LARGEST} bytes, got more")
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ItesError(f"{path}: cannot read the skeleton: {error.strerror}") from None
    except ItesError:
        raise
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ItesError(f"{path}: expected a TOML file of a skeleton: {reason}") from None
    return _Reader(path).read(content)


class _Reader:
    """Checks the entries of a skeleton's file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path

    def read(self, content: dict[str, Any]) -> SkeletonFile:
        known = (
            "name", "source", "joints", "head", "mirror", "pooling", "parents", "groups", "recipes",
            "maps",
        )  # fmt: skip
        for key in content:
            if key not in known:
                raise self.wrong(key[:40], f"a name of {', '.join(known)}", key)
        joints = content.get("joints")
        if not isinstance(joints, list) or not all(isinstance(j, str) and j for j in joints):
            raise self.wrong("joints", "a list of names", joints)
        if len(joints) > MOST_JOINTS:
            raise self.wrong("joints", f"at most {MOST_JOINTS} names", len(joints))
        twice = next((joint for joint in joints if joints.count(joint) > 1), None)
        if twice is not None:
            raise self.wrong("joints", "each name once", twice)
        self.index = {joint: at for at, joint in enumerate(joints)}
        parents = [-1] * len(joints)
        for joint, parent in self.table(content, "parents").items():
            parents[self.joint("parents", joint)] = self.joint(f"parents.{joint}", parent)
        roots = [joint for joint in joints if parents[self.index[joint]] == -1]
        if len(roots) != 1:
            raise self.wrong("parents", "a parent of every joint but one, the root", roots)
        pairs = self.sides(content)
        sides = [joint for pair in pairs for joint in pair]
        if len(set(sides)) != len(sides):
            raise self.wrong("mirror", "each joint in one pair of two", content["mirror"])
        if self.index[roots[0]] in sides:
            raise self.wrong("mirror", "a root that has no mirror image", roots[0])
        name = self.text(content, "name", Path(self.path).stem)
        if "head" not in content:
            raise self.wrong("head", f"a joint, of {', '.join(joints)}", None)
        try:
            skeleton = Skeleton(
                name=name,
                joints=tuple(joints),
                parents=tuple(parents),
                left=tuple(left for left, _ in pairs),
                right=tuple(right for _, right in pairs),
                head=self.joint("head", content["head"]),
                pooling=tuple(self.pairs(content, "pooling")),
            )
        except ItesError as error:
            raise ItesError(f"{self.path}: {error}"[:300]) from None
        if skeleton.head == skeleton.root:
            raise self.wrong("head", "another joint than the root", content["head"])
        maps = {}
        for target in self.table(content, "maps"):
            entry = dict(self.table(content["maps"], target, "maps."))
            source = self.text(entry, "source", "", f"maps.{target}.")
            entry.pop("source", None)
            maps[target] = JointMap(source, self.recipes(entry, f"maps.{target}.", self.index))
        groups = self.groups(self.table(content, "groups"))
        grouped = self.recipes(self.table(content, "recipes"), "recipes.", None)
        recipes = {
            joint: [plain for recipe in choices for plain in self.ungrouped(joint, recipe, groups)]
            for joint, choices in grouped.items()
        }
        return SkeletonFile(skeleton, self.text(content, "source", ""), recipes, maps)

    def wrong(self, place: str, expected: str, got: object) -> ItesError:
        shown = "nothing" if got is None else repr(got)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        expected = expected if len(expected) <= 120 else f"{expected[:117]}..."
        return ItesError(f"{self.path}: {place}: expected {expected}, got {shown}")

    def table(self, content: Mapping[str, Any], key: str, before: str = "") -> dict[str, Any]:
        value = content.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(before + key, "a table", value)
        return value

    def text(self, content: Mapping[str, Any], key: str, default: str, before: str = "") -> str:
        value = content.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(before + key, "a text", value)
        return value

    def joint(self, place: str, name: object) -> int:
        if not isinstance(name, str) or name not in self.index:
            raise self.wrong(place, f"a joint, of {', '.join(self.index)}", name)
        return self.index[name]

    def pairs(self, content: Mapping[str, Any], key: str) -> list[tuple[int, int]]:
        value = content.get(key, [])
        if not isinstance(value, list) or any(
            not isinstance(pair, list) or len(pair) != 2 for pair in value
        ):
            raise self.wrong(key, "a list of pairs of joints", value)
        return [(self.joint(key, a), self.joint(key, b)) for a, b in value]

    def sides(self, content: Mapping[str, Any]) -> list[tuple[int, int]]:
        """The pairs of `mirror`: a left joint and the right one of the same name."""
        pairs = self.pairs(content, "mirror")
        for pair in content.get("mirror", []):
            parts = [name.lower().replace("-", "_").split("_") for name in pair]
            named = [("left" in words, "right" in words) for words in parts]
            if all(any(sides) for sides in named):
                stems = [[w for w in words if w not in ("left", "right")] for words in parts]
                if named != [(True, False), (False, True)] or stems[0] != stems[1]:
                    raise self.wrong("mirror", "a left joint and its right one", pair)
        return pairs

    def groups(self, content: Mapping[str, Any]) -> dict[str, list[list[str]]]:
        for name, sets in content.items():
            if not isinstance(sets, list) or not all(
                isinstance(some, list) and some and all(isinstance(joint, str) for joint in some)
                for some in sets
            ):
                raise self.wrong(f"groups.{name}", "a list of lists of joints", sets)
        return dict(content)

    def recipes(
        self, content: Mapping[str, Any], place: str, known: Mapping[str, int] | None
    ) -> dict[str, list[JointWeights]]:
        for joint, choices in content.items():
            if not isinstance(choices, list) or not choices:
                raise self.wrong(place + joint, "a list of tables of weights by joint", choices)
            for recipe in choices:
                if not isinstance(recipe, dict) or not recipe:
                    raise self.wrong(place + joint, "a table of weights by joint", recipe)
                for name, weight in recipe.items():
                    if known is not None:
                        self.joint(place + joint, name)
                    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
                    if not number or not abs(weight) < 1e3:
                        raise self.wrong(f"{place}{joint}.{name}", "a finite weight", weight)
                total = sum(recipe.values())
                if abs(total - 1) > 1e-3:  # the joint would move with the image's origin
                    raise self.wrong(place + joint, "weights with the sum 1", round(total, 6))
        return {
            joint: [{name: float(weight) for name, weight in recipe.items()} for recipe in choices]
            for joint, choices in content.items()
        }

    def ungrouped(
        self, joint: str, recipe: JointWeights, groups: Mapping[str, list[list[str]]]
    ) -> list[JointWeights]:
        """A recipe by joints alone: one for each choice of sets for its groups, the best first."""
        sets = [groups.get(name, [[name]]) for name in recipe]
        if math.prod(map(len, sets)) > _MOST_CHOICES:
            raise self.wrong(f"recipes.{joint}", f"at most {_MOST_CHOICES} choices", recipe)
        found = []
        for chosen in product(*sets):
            plain: dict[str, float] = {}
            for joints, weight in zip(chosen, recipe.values(), strict=True):
                for name in joints:
                    plain[name] = plain.get(name, 0.0) + weight / len(joints)
            found.append(plain)
        return found


HUMAN36M = load_skeleton("human36m")
"""Human3.6M's 17 joints; "neck" is the point between neck and nose, "head" the crown."""


def root_relative(joints: Joints, root: int) -> Joints:
    """Positions relative to the root joint: `x_j - x_root`.

    Args:
        joints: (..., J, D), an array or a tensor; any unit.
        root: the root's index.

    Returns:
        (..., J, D), the same kind and dtype.
    """
    return joints - joints[..., root : root + 1, :]
