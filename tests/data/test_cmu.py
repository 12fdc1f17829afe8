"""Motion capture files against poses computed by hand, and the CMU protocol."""

import re
from functools import partial

import h5py
import numpy as np
import pytest

from ites.data import PoseStore
from ites.data.datasets.cmu import (
    ACCLAIM,
    JOINT_NAMES,
    centre,
    prepare_cmu,
    read_bvh_take,
    subject_of,
)
from ites.data.datasets.field import prepare_field
from ites.data.datasets.mocap import euler, read_amc, read_asf, read_bvh
from ites.errors import ItesError
from ites.pose.camera import human36m_cameras

ARM_BVH = """HIERARCHY
ROOT hip
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT upper
  {
    OFFSET 0 2 0
    CHANNELS 3 Zrotation Yrotation Xrotation
    JOINT lower
    {
      OFFSET 1 0 0
      CHANNELS 3 Zrotation Yrotation Xrotation
      End Site
      {
        OFFSET 1 0 0
      }
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.025
5 6 7 0 0 0 0 0 0 0 0 0
0 0 0 0 0 90 90 0 0 0 90 0
"""

ARM_ASF = """# a comment
:version 1.10
:name arm
:units
  mass 1.0
  length 0.45
  angle deg
:documentation
  words that mean nothing
:root
  order TX TY TZ RX RY RZ
  axis XYZ
  position 0 0 0
  orientation 0 0 0
:bonedata
  begin
    id 1
    name upper
    direction 1 0 0
    length 2
    axis 0 0 90 XYZ
    dof rx rz
    limits (-160.0 20.0)
           (-70.0 70.0)
  end
  begin
    id 2
    name lower
    direction 0 1 0
    length 3
    axis 0 0 0 XYZ
  end
:hierarchy
  begin
    root upper
    upper lower
  end
"""

ARM_AMC = """#!OML:ASF arm.asf
:FULLY-SPECIFIED
:DEGREES
1
root 1 2 3 0 0 0
upper 0 0
2
root 0 0 0 0 90 0
upper 0 90
3
root 0 0 0 90 90 0
upper 90 0
"""


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_euler_turns_the_last_axis_first():
    turn = euler(np.array([90.0, 90.0]), "ZX")
    np.testing.assert_allclose(turn @ [0, 1, 0], [0, 0, 1], atol=1e-15)  # x: y -> z; z: stays
    np.testing.assert_allclose(turn @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(euler(np.array([30.0]), "Y") @ [1, 0, 0], [0.75**0.5, 0, -0.5])


def test_bvh_by_hand(write):
    bvh = read_bvh(write("arm.bvh", ARM_BVH))
    assert bvh.fps == pytest.approx(40)
    positions = bvh.positions()
    assert list(positions) == ["hip", "upper", "lower", "lower_end"]
    np.testing.assert_allclose(positions["lower_end"][0], [7, 8, 7])
    # The root turns x to -z; upper turns its x to y; lower, in those axes, turns its x to -z,
    # which the root had turned to -x.
    np.testing.assert_allclose(positions["upper"][1], [0, 2, 0], atol=1e-12)
    np.testing.assert_allclose(positions["lower"][1], [0, 3, 0], atol=1e-12)
    np.testing.assert_allclose(positions["lower_end"][1], [-1, 3, 0], atol=1e-12)


def test_amc_by_hand(write):
    bones, length = read_asf(write("arm.asf", ARM_ASF))
    assert length == 0.45
    ends = read_amc(write("arm_01.amc", ARM_AMC), bones)
    np.testing.assert_allclose(ends["upper"][0], [3, 2, 3])
    np.testing.assert_allclose(ends["lower"][0], [3, 5, 3])
    # The bone turns about z, which its own axis leaves as it is, x to y and y to -x; the root then
    # turns x to -z.
    np.testing.assert_allclose(ends["upper"][1], [0, 2, 0], atol=1e-12)
    np.testing.assert_allclose(ends["lower"][1], [0, 2, 3], atol=1e-12)
    # The bone's own x axis is the world's y: z to x, so x to -z. The root turns about x first
    # (-z to y, y to z), then about y (y stays, z to x).
    np.testing.assert_allclose(ends["upper"][2], [0, 2, 0], atol=1e-12)
    np.testing.assert_allclose(ends["lower"][2], [3, 2, 0], atol=1e-12)


def read_any(path, write):
    """Read a file of motion capture by its ending; an .amc with the arm's skeleton."""
    if path.suffix == ".bvh":
        read_bvh(path)
    elif path.suffix == ".asf":
        read_asf(path)
    else:
        read_amc(path, read_asf(write("b.asf", ARM_ASF))[0])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.bvh", ARM_BVH.replace("0 90 0\n", "0 90\n"), "expected a complete .bvh file"),
        ("a.bvh", ARM_BVH.replace("}\nMOTION", "MOTION"), "its hierarchy is not closed"),
        ("a.bvh", ARM_BVH.replace("Frames: 2", "Frames: 0"), "no frames"),
        ("a.bvh", "", "expected a complete .bvh file"),
        ("a.asf", ARM_ASF.replace("deg", "rad"), "angles in rad, expected deg"),
        ("a.asf", ARM_ASF.replace("upper lower", "upper hand"), "expected an .asf skeleton"),
        (
            "a.amc",
            ARM_AMC.replace("upper 90 0", "upper 90"),
            "upper: expected frames of 2 numbers, got 1 in frame 3",
        ),
        ("a.amc", ARM_AMC.replace("upper 90 0\n", ""), "expected 3 frames of 2 numbers"),
        ("a.amc", ARM_AMC.replace("upper 90 0", "upper 90 x"), "expected numbers after upper"),
        ("a.amc", ARM_AMC.replace("DEGREES", "RADIANS"), "got radians"),
        ("a.amc", "", "expected an .amc file with frames"),
    ],
)
def test_broken_files_are_named(write, name, text, message):
    path = write(name, text)
    with pytest.raises(ItesError, match=message) as caught:
        read_any(path, write)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("07/07_01.amc", "S07"),
        ("x/cmu_7_02_walk.bvh", "S07"),
        ("131/01.bvh", "S131"),
        ("dance/03.bvh", "Sdance"),
    ],
)
def test_subject_of(tmp_path, path, subject):
    assert subject_of(tmp_path / path) == subject


def star_bvh(names, frames=6):
    """A root with each name at its own place, and frames that only move the root.

    Each has a child at its own place, as a chest without a thorax bone has.
    """
    joints = "".join(
        f"JOINT {name}\n{{\nOFFSET {i} {2 * i} {3 * i}\nCHANNELS 0\n"
        "JOINT short%d\n{\nOFFSET 0 0 0\nCHANNELS 0\n}\n}\n" % i
        for i, name in enumerate(names, 1)
    )
    rows = "\n".join(f"{t} 0 0" for t in range(frames))
    return (
        "HIERARCHY\nROOT place\n{\nOFFSET 0 0 0\nCHANNELS 3 Xposition Yposition Zposition\n"
        f"{joints}}}\nMOTION\nFrames: {frames}\nFrame Time: 0.00833333\n{rows}\n"
    )


@pytest.mark.parametrize("layout", JOINT_NAMES)
def test_each_layout_is_recognised_and_mapped(write, layout):
    layout = JOINT_NAMES[layout]
    new = {name: (parent, offset) for name, parent, offset in layout.added}
    names = {name for recipe in layout.joints for name in recipe} | set(layout.short.split())
    names = sorted((names | {parent for parent, _ in new.values()}) - new.keys())
    clip = read_bvh_take(write("12_01.bvh", star_bvh(names)))
    place = {name: i * np.array([1, 2, 3.0]) for i, name in enumerate(names, 1)}
    place |= {name: place[parent] + offset for name, (parent, offset) in new.items()}
    expected = [sum(w * place[n] for n, w in recipe.items()) for recipe in layout.joints]
    expected = np.array(expected) + [layout.skipped, 0, 0]
    x, y, z = expected.T
    assert (clip.subject, clip.action, len(clip.positions)) == ("S12", "12_01", 6 - layout.skipped)
    np.testing.assert_allclose(clip.positions[0], np.stack([x, -z, y], -1) * layout.unit)


def test_the_thorax_bone_is_put_back(write):
    names = dict.fromkeys(n for r in JOINT_NAMES["3ds Max"].joints for n in r if n != "lowerneck")
    text = star_bvh(names)
    bones = "JOINT Chest2\n{\nOFFSET 0 5 0\nJOINT lowerneck\n{\nOFFSET 0 0 0\nCHANNELS 0\n}\n}\n"
    text = text.replace("JOINT Chest\n", f"{bones}JOINT Chest\n")
    clip = read_bvh_take(write("131_01.bvh", text))
    np.testing.assert_allclose(clip.positions[0, 8], np.array([1, 0, 10]) * 0.0254 / 0.45)


def test_joints_of_another_program_by_the_same_names_are_refused(write):
    names = sorted({name for recipe in JOINT_NAMES["MotionBuilder"].joints for name in recipe})
    text = star_bvh([*names, "Spine1"]).replace(
        "OFFSET 0 0 0\nCHANNELS 0", "OFFSET 0 1 0\nCHANNELS 0"
    )
    with pytest.raises(ItesError, match="expected a conversion of CMU's files by cgspeed.com"):
        read_bvh_take(write("12_01.bvh", text))


def test_unknown_joint_names_are_listed(write):
    with pytest.raises(ItesError, match="expected the joint names of one of .*got hip upper"):
        read_bvh_take(write("arm.bvh", ARM_BVH))


def human_asf():
    bones = sorted({name for recipe in ACCLAIM.joints for name in recipe})
    data = "".join(
        f"begin\nname {b}\ndirection 0 1 0\nlength {i}\naxis 0 0 0 XYZ\nend\n"
        for i, b in enumerate(bones, 1)
    )
    hierarchy = "".join(f"root {b}\n" for b in bones)
    head = ARM_ASF[: ARM_ASF.index("  begin")]
    return f"{head}{data}:hierarchy\nbegin\n{hierarchy}end\n", bones


def test_a_folder_of_asf_and_amc(write, tmp_path):
    text, bones = human_asf()
    write("07/07.asf", text)
    write("01/01.asf", text)
    for subject in ("07", "01"):
        frames = "".join(f"{t}\nroot {t / 100} 0 0 0 0 0\n" for t in range(1, 241))
        write(f"{subject}/{subject}_01.amc", f":DEGREES\n{frames}")
    summary = prepare_cmu(tmp_path, tmp_path / "cmu.h5")
    # 240 frames at 120 a second: every 10th (12.5 a second) and every 24th (5 a second).
    assert summary["splits"]["train"] == {
        "poses": 96,
        "incomplete": 0,
        "sequences": 4,
        "subjects": ["S07"],
    }
    assert summary["splits"]["test"] == {
        "poses": 40,
        "incomplete": 0,
        "sequences": 4,
        "subjects": ["S01"],
    }
    with PoseStore(tmp_path / "cmu.h5") as store:
        sequence = store.sequences_of("train")[0]
        assert (sequence.camera, sequence.action, sequence.fps) == ("S1.54138969", "07_01", 12.0)
        world = store.cameras[sequence.camera].camera_to_world(store.positions("train")[:24])
    heights = np.array([(bones.index("head") + 1), (bones.index("lfemur") + 1)]) * 0.0254 / 0.45
    np.testing.assert_allclose(world[:, [10, 5], 2], np.tile(heights, (24, 1)), atol=1e-5)
    np.testing.assert_allclose(np.diff(world[:, 0, 0]), 0.1 * 0.0254 / 0.45, atol=1e-5)


def test_an_amc_without_its_skeleton(write, tmp_path):
    write("07/07_01.amc", ARM_AMC)
    with pytest.raises(ItesError, match="expected its skeleton, one .asf file"):
        prepare_cmu(tmp_path, tmp_path / "cmu.h5")
    assert not (tmp_path / "cmu.h5").exists()


def test_centre_keeps_the_frames_near_the_mean():
    world = np.zeros((4, 17, 3))
    world[:, 0, 0] = [9, 10, 10, 11]
    kept = centre(world, 1.0)
    assert len(kept) == 2
    np.testing.assert_array_equal(kept[:, 0], 0)
    np.testing.assert_array_equal(kept[:, 1, 0], -10)


def people(path, unit=1.0, axes=(0, 1, 2), signs=(1, 1, 1)):
    """An HDF5 file of somebody who stands, 1.7 m tall, the axes exchanged and in another unit."""
    heights = [0.9, 0.9, 0.5, 0.1, 0.9, 0.5, 0.1, 1.1, 1.4, 1.5, 1.7, 1.4, 1.1, 0.9, 1.4, 1.1, 0.9]
    positions = np.zeros((30, 17, 3), np.float32)
    positions[..., 2] = heights
    positions[:, [4, 5, 6], 0], positions[:, [1, 2, 3], 0] = 0.1, -0.1
    with h5py.File(path, "w") as file:
        group = file.create_group("S07/07_01")
        group["positions"] = positions[..., axes] * signs * unit
        group.attrs["fps"] = 30.0
    return path


@pytest.mark.parametrize(
    ("axes", "signs", "message"),
    [
        ((0, 2, 1), (1, 1, -1), r"expected \+z up, got people who stand along \+y in 100% of 30"),
        ((0, 2, 1), (1, -1, 1), r"stand along -y in 100%"),
        ((0, 1, 2), (1, -1, -1), r"stand along -z in 100%"),
    ],
)
@pytest.mark.parametrize("prepare", [prepare_cmu, partial(prepare_field, people=200)])
def test_people_who_stand_along_another_axis_are_refused(tmp_path, prepare, axes, signs, message):
    source = people(tmp_path / "motion.h5", axes=axes, signs=signs)
    with pytest.raises(ItesError, match=message):
        prepare(source, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_people_who_stand_upright_are_read(tmp_path):
    summary = prepare_cmu(people(tmp_path / "motion.h5"), tmp_path / "out.h5")
    assert summary["splits"]["train"]["poses"] == 4 * 15


@pytest.mark.parametrize("unit", [1 / 0.3048, 0.1])
def test_a_person_who_is_too_large_or_small_is_refused(tmp_path, unit):
    """Feet and tens of metres: within `SIZES`, which single frames may reach."""
    with pytest.raises(ItesError, match=r"S07/07_01: expected a person of 0.3 to 4 m, got .*unit"):
        prepare_cmu(people(tmp_path / "motion.h5", unit), tmp_path / "out.h5")


def test_the_protocol_gives_its_pose_counts(shared, tmp_path):
    source, out = shared / "data" / "cmu_h36m17.h5", tmp_path / "cmu.h5"
    summary = prepare_cmu(source, out)
    assert {k: v["poses"] for k, v in summary["splits"].items()} == {"train": 96864, "test": 14528}
    assert "NSF EIA-0196217" in summary["acknowledgement"]
    cameras = {"train": human36m_cameras("S1"), "test": human36m_cameras("S9")}
    with PoseStore(out) as store, h5py.File(source) as file:
        for split, rig in cameras.items():
            sequences = store.sequences_of(split)
            assert {store.cameras[s.camera] for s in sequences} == set(rig)
        assert not {s.subject for s in store.sequences_of("train")} & {"S01", "S02", "S94"}
        first = next(s for s in store.sequences_of("test") if s.action.startswith("playground"))
        camera = store.cameras[first.camera]
        positions = store.positions("test")[first.rows]
        keypoints = store.keypoints("test")[first.rows]
        group = file["S01/01_01"]
        assert first.fps == group.attrs["fps"] / 8
        world = centre(group["positions"][::8], 1.5)
        expected = camera.world_to_camera(world)
        np.testing.assert_allclose(positions, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(keypoints, camera.project(expected), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_rate": 0}, "must be positive"),
        ({"source": "none.h5"}, "none.h5: no such file"),
        ({"source": "text.h5"}, "expected an HDF5 file of CMU motion, or a folder"),
        ({"source": "."}, "expected .amc or .bvh files, got none"),
        ({"source": "empty.h5"}, "expected datasets /<subject>/<clip>/positions, got none"),
        ({"source": "shape.h5"}, re.escape("/S1/a: expected (T, 17, 3), got (2, 16, 3)")),
        ({"source": "fps.h5"}, "/S1/a: expected a dataset positions and an attribute fps"),
    ],
)
def test_a_bad_source_is_named(tmp_path, change, message):
    (tmp_path / "text.h5").write_text("no HDF5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with h5py.File(tmp_path / "shape.h5", "w") as file:
        file["S1/a/positions"] = np.zeros((2, 16, 3))
        file["S1/a"].attrs["fps"] = 40
    with h5py.File(tmp_path / "fps.h5", "w") as file:
        file["S1/a/positions"] = np.zeros((2, 17, 3))
    options = {"source": "fps.h5"} | change
    with pytest.raises(ItesError, match=message):
        prepare_cmu(tmp_path / options.pop("source"), tmp_path / "out.h5", **options)
    assert not (tmp_path / "out.h5").exists()


def cmu_file(path, **changes):
    """An HDF5 file of one clip, (T, 17, 3), of a person of about 1 m, 120 frames per second."""
    positions = np.random.default_rng(0).uniform(-0.5, 0.5, (40, 17, 3))
    for index, value in changes.items():
        positions[int(index[1:])] = value
    with h5py.File(path, "w") as file:
        file["S07/07_01/positions"] = positions
        file["S07/07_01"].attrs["fps"] = 120.0
    return positions


def test_a_frame_that_is_not_finite_is_reported_and_left_out(tmp_path):
    clean, lines = cmu_file(tmp_path / "clean.h5"), []
    cmu_file(tmp_path / "a.h5", _10=np.nan, _33=np.inf)
    summary = prepare_cmu(tmp_path / "a.h5", tmp_path / "cmu.h5", say=lines.append)
    assert lines == [
        f"{tmp_path / 'a.h5'}: /S07/07_01: 2 of 40 frames left out, not finite: frame 10, 33 "
        "(the first is 0)"
    ]
    assert summary["splits"]["train"]["poses"] == 4 * 4
    with PoseStore(tmp_path / "cmu.h5") as store:
        camera = store.cameras[store.sequences[0].camera]
        got = camera.camera_to_world(store.positions("train")[:4].astype(np.float64))
    # Of every ten frames the first; of the second ten, whose first is not finite, the next.
    np.testing.assert_allclose(got, centre(clean[[0, 11, 20, 30]], 1.5), atol=1e-5)


def test_a_misplaced_frame_does_not_move_the_others(tmp_path):
    lines = []
    cmu_file(tmp_path / "a.h5", _20=1e7)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["S07/07_01/positions"][20] += np.random.default_rng(1).uniform(0, 1, (17, 3))
    summary = prepare_cmu(tmp_path / "a.h5", tmp_path / "cmu.h5", say=lines.append)
    assert summary["splits"]["train"]["poses"] == 16
    assert "1 of 40 frames left out, no place of a person: frame 20 " in lines[0]


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1000, "a.h5: /S07/07_01: expected a person of 0.1 to 10 m within an image, got one of 9"),
        (1e-3, "expected a person of 0.1 to 10 m within an image, got one of 0.0009"),
        (np.nan, "expected finite numbers, got none in 40 frames"),
    ],
)
def test_another_unit_is_refused(tmp_path, factor, message):
    positions = cmu_file(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["S07/07_01/positions"][:] = positions * factor
    with pytest.raises(ItesError, match=re.escape(message)):
        prepare_cmu(tmp_path / "a.h5", tmp_path / "cmu.h5")
    assert not (tmp_path / "cmu.h5").exists()


@pytest.mark.parametrize("kind", ["amc", "bvh"])
def test_the_frame_of_a_text_file_is_reported(write, tmp_path, kind):
    lines = []
    if kind == "amc":
        write("07/07.asf", human_asf()[0])
        frames = "".join(f"{t}\nroot {t / 100} 0 0 0 0 0\n" for t in range(1, 41))
        write("07/07_01.amc", ":DEGREES\n" + frames.replace("root 0.03 0", "root -1.#IND 0"))
        frame = "frame 3 "
    else:
        names = dict.fromkeys(n for r in JOINT_NAMES["Acclaim names"].joints for n in r)
        text = star_bvh(names, 40)
        write("07/07_01.bvh", text.replace("\n4 0 0\n", "\n4 nan 0\n"))
        frame = "frame 5 "
    summary = prepare_cmu(tmp_path / "07", tmp_path / "cmu.h5", say=lines.append)
    assert summary["splits"]["train"]["poses"] == 16
    name = tmp_path / "07" / f"07_01.{kind}"
    assert lines == [f"{name}: 1 of 40 frames left out, not finite: {frame}(the first is 1)"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.bvh", ARM_BVH.replace("OFFSET 0 2 0", "OFFSET 0 inf 0"), "3 finite numbers"),
        ("a.bvh", ARM_BVH.replace("Yrotation", "Wrotation"), "channels Xposition .* Wrotation"),
        ("a.bvh", ARM_BVH.replace("Yposition", "Xposition"), "a channel twice"),
        ("a.bvh", ARM_BVH.replace("CHANNELS 6", "CHANNELS 99999999"), "channels"),
        ("a.bvh", ARM_BVH.replace("Frames: 2", "Frames: 2000000000"), "2000000000 frames"),
        ("a.bvh", ARM_BVH.replace("0.025", "nan"), "no frames: 2 of nan s"),
        ("a.bvh", ARM_BVH.replace("5 6 7", "5 six 7"), "expected a complete .bvh file"),
        ("a.bvh", ARM_BVH.replace("JOINT lower", "JOINT upper"), "two joints of one name"),
        ("a.bvh", "\xff\x00" * 500, "expected a complete .bvh file"),
        ("a.asf", ARM_ASF.replace("rx rz", "rx ? rz"), r"dof rx \? rz"),
        ("a.asf", ARM_ASF.replace("rx rz", "rx rx"), "dof rx rx"),
        ("a.asf", ARM_ASF.replace("direction 1 0 0", "direction 1 nan 0"), "3 finite numbers"),
        ("a.asf", ARM_ASF.replace("length 2", "length inf"), "a length of inf"),
        ("a.asf", ARM_ASF.replace("length 0.45", "length 0"), "a unit of length 0"),
        ("a.asf", ARM_ASF.replace("90 XYZ", "90 XYQ"), "axis XYQ"),
        ("a.asf", ARM_ASF.replace("upper lower", "hand lower"), "before its parent"),
        ("a.asf", ARM_ASF.replace("name lower", "name upper"), "bone upper twice"),
        ("a.amc", ARM_AMC.replace("upper 0 90", "hand 0 90"), "bones of its skeleton, got 'hand'"),
        ("a.amc", ARM_AMC.replace("upper 0 90", "upper 0 " + "[" * 9000), "numbers after upper"),
        ("a.amc", "\n".join(x for x in ARM_AMC.split("\n") if "upper" not in x), "got 0"),
    ],
)
def test_what_makes_no_sense_is_named(write, name, text, message):
    path = write(name, text)
    with pytest.raises(ItesError, match=message) as caught:
        read_any(path, write)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_size_that_is_only_declared_is_not_believed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("S1/a/positions", (10**11, 17, 3), chunks=(100, 17, 3))
        file["S1/a"].attrs["fps"] = 40
    with pytest.raises(ItesError, match="expected at most [0-9,]* bytes .* declared"):
        prepare_cmu(tmp_path / "a.h5", tmp_path / "out.h5")


def test_data_in_another_file_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        external = [(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("S1/a/positions", (3, 17, 3), external=external)
        file["S1/a"].attrs["fps"] = 40
    with pytest.raises(ItesError, match="expected data in the file itself"):
        prepare_cmu(tmp_path / "a.h5", tmp_path / "out.h5")


def test_a_rate_of_amc_files_is_refused_where_there_are_none(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["S1/a/positions"] = np.zeros((3, 17, 3))
        file["S1/a"].attrs["fps"] = 60.0
    with pytest.raises(ItesError, match="a.h5: fps is of .amc files, which do not state their own"):
        prepare_cmu(tmp_path / "a.h5", tmp_path / "out.h5", fps=60.0)


def test_a_clip_in_two_files_is_refused(write, tmp_path):
    write("all/07/07.asf", human_asf()[0])
    write("all/07/07_01.amc", ":DEGREES\n1\nroot 0 0 0 0 0 0\n")
    write("all/bvh/07_01.bvh", ARM_BVH)
    with pytest.raises(ItesError, match=r"07_01.bvh: expected each clip once, got .*amc too"):
        prepare_cmu(tmp_path / "all", tmp_path / "cmu.h5")
