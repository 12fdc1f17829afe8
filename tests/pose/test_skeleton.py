"""Skeletons and keypoint layouts."""

import re
from pathlib import Path

import numpy as np
import pytest

from ites.errors import ItesError
from ites.pose.layouts import to_human36m
from ites.pose.skeleton import (
    FOLDER,
    HUMAN36M,
    Skeleton,
    load_skeleton,
    skeleton_file,
    skeleton_names,
)


def test_human36m():
    assert HUMAN36M.num_joints == 17 and HUMAN36M.root == 0
    assert len(HUMAN36M.edges) == 49
    assert HUMAN36M.edges[:5] == ((0, 0), (0, 1), (0, 4), (0, 7), (1, 0))
    assert HUMAN36M.mirror[4] == 1 and HUMAN36M.mirror[16] == 13 and HUMAN36M.mirror[10] == 10
    for left, right in zip(HUMAN36M.left, HUMAN36M.right, strict=True):
        assert HUMAN36M.joints[left] == HUMAN36M.joints[right].replace("right", "left")
    used = [joint for pair in HUMAN36M.pooling for joint in pair]
    assert sorted(used) == [j for j in range(17) if j != 9]


def test_json_round_trip():
    assert Skeleton.from_json(HUMAN36M.to_json()) == HUMAN36M
    with pytest.raises(ItesError, match="expected the JSON of a skeleton"):
        Skeleton.from_json('{"name": "x"}')


def test_default_pooling_pairs_joints_with_parents():
    chain = Skeleton("chain", tuple("abcde"), (-1, 0, 1, 2, 3))
    assert chain.pooling == ((1, 2), (3, 4))


@pytest.mark.parametrize(
    "fields, message",
    (
        ({"parents": (-1, 0)}, "3 joints but 2 parents"),
        ({"parents": (0, 0, 0)}, "hold -1 once"),
        ({"parents": (-1, 2, 1)}, "circle"),
        ({"left": (1,)}, "pair up"),
        ({"head": 3}, r"0\.\.2"),
        ({"pooling": ((0, 5),)}, r"0\.\.2"),
    ),
)
def test_refusals(fields, message):
    given = {"name": "s", "joints": ("a", "b", "c"), "parents": (-1, 0, 1), **fields}
    with pytest.raises(ItesError, match=message):
        Skeleton(**given)


def test_coco_to_human36m():
    coco = np.arange(34, dtype=np.float64).reshape(17, 2)
    confidence = np.linspace(0.1, 0.9, 17)
    ours, ours_confidence = to_human36m(coco, "coco17", confidence)
    names = HUMAN36M.joints
    assert np.allclose(ours[names.index("right_knee")], coco[14])
    assert np.allclose(ours[names.index("left_wrist")], coco[9])
    assert np.allclose(ours[0], (coco[11] + coco[12]) / 2)
    assert np.allclose(ours[names.index("thorax")], (coco[5] + coco[6]) / 2)
    assert ours_confidence[0] == confidence[11]


@pytest.mark.parametrize("nod", [-15, 0, 15])
@pytest.mark.parametrize("unseen", ["", "eyes", "ears", "left_eye left_ear"])
def test_the_crown_of_coco_is_that_of_an_adult_s_head(nod, unseen):
    """In profile, centimetres, x ahead and y down; a nod of 15 degrees looks up."""
    head = {"nose": (12, 2.5), "eye": (8, -1.5), "ear": (0, 0), "crown": (0, -13)}
    angle = np.radians(nod)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    head = {name: np.array([3, -18]) + turn @ place for name, place in head.items()}
    joints = load_skeleton("coco17").joints
    coco = np.array([head.get(name.split("_")[-1], (0, 0)) for name in joints], float)
    missing = [name for name in joints if any(part in name for part in unseen.split())]
    missing += [f"{side}_{part[:-1]}" for part in unseen.split() for side in ("left", "right")]
    seen = np.array([name not in missing for name in joints], np.float32)
    crown, sure = to_human36m(coco, "coco17", seen)
    assert sure[HUMAN36M.head] == 1
    # the weights allow for errors of the face, so they count on a neck that nods with the head
    assert np.linalg.norm(crown[HUMAN36M.head] - head["crown"]) < (2.5 if nod == 0 else 6)


GROUPS = """
name = "pair"
joints = ["hip", "knee"]
head = "knee"
[parents]
knee = "hip"
[groups]
ends = [["a", "b"], ["c"]]
[recipes]
hip = [{ ends = 3, d = -2 }]
"""


def test_a_group_stands_for_the_first_set_of_joints(tmp_path):
    path = tmp_path / "pair.toml"
    path.write_text(GROUPS)
    assert skeleton_file(path).recipes["hip"] == [{"a": 1.5, "b": 1.5, "d": -2}, {"c": 3, "d": -2}]
    path.write_text(GROUPS.replace('["c"]', '"c"'))
    with pytest.raises(ItesError, match=r"groups.ends: expected a list of lists of joints, got"):
        skeleton_file(path)
    many = ", ".join(f'["j{i}"]' for i in range(101))
    path.write_text(GROUPS.replace('["a", "b"], ["c"]', many))
    with pytest.raises(ItesError, match=r"recipes.hip: expected at most 100 choices, got"):
        skeleton_file(path)


def test_mpi3dhp_to_human36m_is_a_permutation():
    ours, _ = to_human36m(np.arange(17.0)[:, None].repeat(2, 1), "mpi3dhp17")
    assert sorted(ours[:, 0]) == list(range(17))
    assert ours[0, 0] == 14 and ours[HUMAN36M.joints.index("left_wrist"), 0] == 7


def test_layout_refusals():
    with pytest.raises(ItesError, match=r"coco17 keypoints must have shape \(..., 17, D\)"):
        to_human36m(np.zeros((4, 13, 2)), "coco17")
    with pytest.raises(ItesError, match="layout must be one of"):
        to_human36m(np.zeros((4, 17, 2)), "openpose")


COUNTS = {
    "human36m": 17, "coco17": 17, "coco18": 18, "wholebody133": 133, "halpe26": 26,
    "halpe136": 136, "mpii16": 16, "body25": 25, "body25b": 25, "mediapipe33": 33,
    "mpi3dhp28": 28, "mpi3dhp17": 17, "hand21": 21, "ap10k17": 17,
    "lsp14": 14,
}  # fmt: skip


@pytest.mark.parametrize("name", skeleton_names())
def test_built_in_skeletons(name):
    file = skeleton_file(name)
    skeleton = file.skeleton
    assert skeleton.name == name and skeleton.num_joints == COUNTS[name]
    assert file.source and all(one.source for one in file.maps.values())
    assert load_skeleton(FOLDER / f"{name}.toml") == skeleton
    assert Skeleton.from_json(skeleton.to_json()) == skeleton
    sided = [joint for joint in skeleton.joints if "left" in joint or "right" in joint]
    for left, right in zip(skeleton.left, skeleton.right, strict=True):
        names = skeleton.joints[left], skeleton.joints[right]
        if not names[0].startswith("face_"):
            assert names[1] == names[0].replace("left", "right")
            sided = [joint for joint in sided if joint not in names]
        parents = skeleton.parents[left], skeleton.parents[right]
        assert skeleton.mirror[parents[0]] == parents[1], f"{names}: the parents mirror too"
    assert not sided, "every sided joint has its mirror image"
    assert skeleton.mirror[skeleton.root] == skeleton.root != skeleton.head
    pooled = [joint for pair in skeleton.pooling for joint in pair]
    assert len(set(pooled)) == len(pooled)


def test_every_built_in_skeleton_is_listed_here():
    assert set(skeleton_names()) == set(COUNTS) and skeleton_names()[0] == "human36m"


CHAIN = """
joints = ["hip", "knee", "ankle"]
head = "ankle"
[parents]
knee = "hip"
ankle = "knee"
"""


def test_a_skeleton_of_ones_own(tmp_path):
    path = tmp_path / "leg.toml"
    path.write_text(CHAIN)
    assert load_skeleton(path) == Skeleton("leg", ("hip", "knee", "ankle"), (-1, 0, 1), head=2)


def test_the_example_of_contributing_is_read(tmp_path):
    guide = Path(__file__).parents[2] / "CONTRIBUTING.md"
    if not guide.is_file():
        pytest.skip("an installed package has no CONTRIBUTING.md")
    example, _ = re.findall(r"```toml\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "legs.toml"
    path.write_text(example)
    legs = load_skeleton(path)
    assert legs.num_joints == 5 and legs.mirror == (0, 3, 4, 1, 2)
    derived = Skeleton(legs.name, legs.joints, legs.parents)
    assert legs.pooling == derived.pooling


@pytest.mark.parametrize(
    "old, new, message",
    (
        ("joints = [", "joints = ['hip', ", "joints: expected each name once, got 'hip'"),
        ('["hip", "knee", "ankle"]', "3", "joints: expected a list of names, got 3"),
        (
            '["hip", "knee", "ankle"]',
            str([f"j{number}" for number in range(5000)]),
            "joints: expected at most 256 names, got 5000",
        ),
        ('["hip", "knee", "ankle"]', "[]", "parents.knee: expected a joint"),
        (
            'head = "ankle"',
            'head = "toe"',
            "head: expected a joint, of hip, knee, ankle, got 'toe'",
        ),
        ('head = "ankle"', 'head = "hip"', "head: expected another joint than the root, got 'hip'"),
        ('head = "ankle"', "", "head: expected a joint, of hip, knee, ankle, got nothing"),
        ('ankle = "knee"', "", "parents: expected a parent of every joint but one"),
        ('ankle = "knee"', "ankle = 1", "parents.ankle: expected a joint, of hip, knee, ankle"),
        ('knee = "hip"', 'knee = "ankle"', "parents form a circle at joint 1"),
        ("[parents]", "pairs = 1\n[parents]", "pairs: expected a name of name, source, joints"),
        ("[parents]", "mirror = 1\n[parents]", "mirror: expected a list of pairs of joints, got 1"),
        ("[parents]", 'mirror = [["hip", "knee"]]\n[parents]', "a root that has no mirror image"),
        (
            "[parents]",
            'mirror = [["knee", "knee"]]\n[parents]',
            "mirror: expected each joint in one pair of two",
        ),
        ("[parents]", "name = 3\n[parents]", "name: expected a text, got 3"),
        ("[parents]", "maps = 3\n[parents]", "maps: expected a table, got 3"),
        (
            "[parents]",
            "[maps.human36m]\nhead = [{toe = 1}]\n[parents]",
            "maps.human36m.head: expected a joint, of hip, knee, ankle, got 'toe'",
        ),
        (
            "[parents]",
            "[maps.human36m]\nhead = [{knee = nan}]\n[parents]",
            "maps.human36m.head.knee: expected a finite weight, got nan",
        ),
        (
            "[parents]",
            "[maps.human36m]\nhead = [{knee = 1.5, ankle = -0.45}]\n[parents]",
            "maps.human36m.head: expected weights with the sum 1, got 1.05",
        ),
        ("head", "head head", "expected a TOML file of a skeleton"),
        ("[parents]", "source = " + "[" * 5000 + "\n[parents]", "expected a TOML file"),
    ),
)
def test_a_wrong_file_is_one_line(old, new, message, tmp_path):
    path = tmp_path / "leg.toml"
    path.write_text(CHAIN.replace(old, new, 1))
    with pytest.raises(ItesError) as caught:
        load_skeleton(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and message in text
    assert "\n" not in text and len(text) <= len(str(path)) + 280


@pytest.mark.parametrize(
    "pair", [["right_knee", "left_knee"], ["left_knee", "right_ankle"], ["L", "right_hip"]]
)
def test_a_mirrored_pair_is_left_and_right_of_one_name(tmp_path, pair):
    path = tmp_path / "leg.toml"
    names = ["root", "end", *pair]
    path.write_text(
        f'joints = {names}\nhead = "end"\nmirror = [{pair}]\n[parents]\n'
        + "".join(f'{name} = "root"\n' for name in names[1:])
    )
    if pair[0] == "L":  # the names do not tell
        assert load_skeleton(path).mirror == (0, 1, 3, 2)
        return
    with pytest.raises(ItesError, match="mirror: expected a left joint and its right one, got"):
        load_skeleton(path)


def test_a_layout_derives_joints_that_there_are(tmp_path):
    path = tmp_path / "leg.toml"
    path.write_text(CHAIN + "[maps.human36m]\npelvs = [{hip = 1}]\n")
    with pytest.raises(ItesError, match="maps.human36m: expected joints of human36m, .*'pelvs'"):
        to_human36m(np.zeros((2, 3, 2)), str(path))


def test_no_such_skeleton(tmp_path):
    with pytest.raises(ItesError, match=r"expected a TOML file or one of .*nearest is 'coco17'"):
        load_skeleton("coco_17")
    with pytest.raises(ItesError, match=r"no\.toml: cannot read the skeleton: No such file"):
        load_skeleton(tmp_path / "no.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ItesError, match="expected a TOML file of a skeleton"):
        load_skeleton(tmp_path / "bytes.toml")
    (tmp_path / "huge.toml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(ItesError, match="at most 1048576 bytes, got more"):
        load_skeleton(tmp_path / "huge.toml")
