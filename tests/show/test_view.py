"""ites.show.view and ites.show.render: the page in a real browser, and the pictures and films."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from browser import browse

from ites.data.clips import Clip, Clips
from ites.data.lifted import read_clips, write_clips
from ites.data.store import PoseStoreWriter
from ites.errors import ItesError
from ites.pose.camera import Camera
from ites.pose.skeleton import HUMAN36M
from ites.show.scene import box, choose, label_of, scenes, to_truth, window
from ites.show.view import view
from ites.show.viewer import pack, pack_confidence

# Upright, facing away from the camera: metres, camera axes, root at the origin.
STANDING = np.float32(
    [
        [0, 0, 0],
        [0.13, 0, 0], [0.14, 0.44, 0], [0.14, 0.88, 0],
        [-0.13, 0, 0], [-0.14, 0.44, 0], [-0.14, 0.88, 0],
        [0, -0.24, 0], [0, -0.49, 0], [0, -0.59, -0.03], [0, -0.7, 0],
        [-0.17, -0.45, 0], [-0.2, -0.17, 0], [-0.2, 0.08, 0],
        [0.17, -0.45, 0], [0.2, -0.17, 0], [0.2, 0.08, 0],
    ]
)  # fmt: skip


def walking(name, frames, turn=0.0, truth=True, fps=25.0):
    """A clip of someone who swings legs and arms once a second."""
    phase = 2 * np.pi * np.arange(frames) / fps
    poses = np.repeat(STANDING[None], frames, 0)
    for joints, sign in (((2, 3, 12, 13), 1), ((5, 6, 15, 16), -1)):
        for joint in joints:
            poses[:, joint, 2] += sign * 0.2 * np.sin(phase) * (2 if joint in (3, 6) else 1)
    c, s = np.cos(turn), np.sin(turn)
    poses = (poses @ np.float32([[c, 0, -s], [0, 1, 0], [s, 0, c]])).astype(np.float32)
    keypoints = poses[..., :2] / (4 + poses[..., 2:]) * 1100 + 500
    lifted = poses * np.float32([1, 1, 0.8])
    return Clip(
        name,
        keypoints,
        fps,
        positions=lifted,
        truth=poses if truth else None,
        focal_length=(1100.0, 1100.0),
        image_size=(1000, 1000),
    )


def in_doubt(clip):
    """The clip, its sign unsure from its sixth to its tenth frame."""
    sure = np.full(len(clip), 0.97, np.float32)
    sure[5:10] = 0.6
    return replace(clip, sign_confidence=sure)


@pytest.fixture
def lifted(tmp_path):
    clips = [
        in_doubt(walking("S1/walk/front", 50)),
        walking("S1/walk/side", 30, turn=1.2, truth=False),
    ]
    notes = ["a <note> & more"]
    path = tmp_path / "lifted.npz"
    settings = {"model": "student", "notes": notes}
    write_clips(path, Clips(HUMAN36M, clips, "A title", "Thanks.", settings))
    return path


COLOURS = ((213, 94, 0), (0, 114, 178), (62, 76, 89))  # right, left, middle
TRUTH = (154, 165, 177)


def read_png(file):
    image = pytest.importorskip("PIL.Image", reason="pip install 'ites[view]'")
    return np.asarray(image.open(file).convert("RGB"), int)


def count(pixels, colour, tolerance):
    """How many pixels have nearly that colour."""
    return (np.abs(pixels - colour).sum(-1) < tolerance).sum()


# What a page shows: numbers of its viewer, and what its canvases have of each colour.
HELPERS = """
  const root = document.querySelector(".viewer"), find = (n) => root.querySelector("." + n);
  while (root.dataset.ready !== "yes") await pause(20);
  const v = root.viewer, J = v.state.people[0].positions ? 17 : 0;
  const send = (name, kind) => { find(name).dispatchEvent(new Event(kind)); v.draw(); };
  const joints = Array.from({ length: 17 }, (_, j) => j);
  const number = (x) => (Number.isNaN(x) ? null : x);
  const shown = () => v.state.people.map((clip) => ({
    name: clip.name,
    positions: clip.positions && joints.map((j) => v.position(clip, v.state.frame, j).map(number)),
    keypoints: joints.map((j) => v.keypoint(clip, v.state.frame, j).map(number)),
    world: clip.positions && joints.map((j) =>
      v.world(clip.positions, clip, v.state.frame - clip.start + v.state.first, j).map(number)),
  }));
  const picture = (name) => {
    const canvas = find(name), copy = document.createElement("canvas");
    [copy.width, copy.height] = [canvas.width, canvas.height];
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff"; context.fillRect(0, 0, copy.width, copy.height);
    context.drawImage(canvas, 0, 0);
    return copy.toDataURL("image/png").split(",")[1];
  };
  const text = (name) => find(name).textContent;
"""

PROBE = (
    HELPERS
    + """
  const seen = { steps: {} };
  const note = (what) => { seen.steps[what] = {
    time: text("time"), error: text("error"), sure: text("sure"), shown: shown(),
    doubts: v.state.doubts,
    solid: picture("solid"), flat: picture("flat"), doubtHidden: find("doubt-key").hidden,
    truthHidden: find("truth-key").hidden, slider: [find("slider").value, find("slider").max],
  }; };
  note("first");
  find("slider").value = 7; send("slider", "input"); note("slider");
  find("truth").checked = false; send("truth", "change"); note("no truth");
  find("play").click();
  while (v.state.frame === 7) await pause(20);
  find("play").click(); note("played");
  find("picker").value = 1; send("picker", "change"); note("second clip");
  const box = find("solid").getBoundingClientRect();
  const drag = (kind, x) => find("solid").dispatchEvent(new PointerEvent(kind,
    { pointerId: 1, clientX: box.left + x, clientY: box.top + 50, buttons: 1, bubbles: true }));
  seen.yaw = [v.eye.yaw];
  drag("pointerdown", 100); drag("pointermove", 200); drag("pointerup", 200);
  seen.yaw.push(v.eye.yaw);
  root.querySelector("[data-view=start]").click(); seen.yaw.push(v.eye.yaw);
  const p = v.image(v.keypoint(v.state.people[0], v.state.frame, 3));
  const area = find("flat").getBoundingClientRect();
  const over = { clientX: area.left + p[0], clientY: area.top + p[1] };
  find("flat").dispatchEvent(new PointerEvent("pointermove", over));
  seen.tip = text("tip");
  return seen;
"""
)


def picture(data):
    return read_png(io.BytesIO(base64.b64decode(data)))


def test_page_draws_plays_and_stays_offline(lifted, tmp_path):
    out = tmp_path / "page.html"
    summary = view(lifted, out)
    assert summary["files"] == [str(out)]
    assert summary["clips"] == ["S1/walk/front", "S1/walk/side"]
    seen = browse(out, PROBE, tmp_path)
    assert seen["errors"] == []
    assert seen["requests"] == []
    steps = seen["steps"]
    first, slid = steps["first"], steps["slider"]

    clip = to_truth(walking("S1/walk/front", 50))
    assert first["slider"] == ["0", "49"] and slid["slider"] == ["7", "49"]
    assert slid["time"].startswith("frame 8 of 50") and "0.28 s" in slid["time"]
    for frame, step in ((0, first), (7, slid)):
        (own,) = step["shown"]
        np.testing.assert_allclose(own["keypoints"], clip.keypoints[frame], atol=0.05)
        np.testing.assert_allclose(own["positions"], clip.positions[frame], atol=1e-4)
        x, y, z = clip.positions[frame].T
        np.testing.assert_allclose(own["world"], np.stack([x, z, -y], -1), atol=1e-4)
    for panel in ("flat", "solid"):
        pixels = picture(first[panel])
        for colour in COLOURS:
            assert count(pixels, colour, 60) > 100
        assert first[panel] != slid[panel]
    error = 1000 * np.linalg.norm(clip.positions[7] - clip.truth[7], axis=-1).mean()
    assert slid["error"].startswith(f"off by {round(error)} mm")

    assert first["sure"] == "depth's sign 97% sure" and slid["sure"] == "depth's sign 60% sure"
    assert first["doubts"] == [[5, 10]] and not first["doubtHidden"]
    solid = [picture(step["solid"]) for step in (first, slid)]
    strong = [sum(count(pixels, colour, 60) for colour in COLOURS) for pixels in solid]
    assert strong[1] < 0.2 * strong[0]  # pale
    assert steps["no truth"]["solid"] != slid["solid"]
    assert count(picture(steps["no truth"]["solid"]), TRUTH, 30) < count(solid[1], TRUTH, 30)

    assert steps["played"]["slider"][0] != slid["slider"][0]
    second = steps["second clip"]
    assert second["sure"] == "" and second["doubtHidden"] and second["doubts"] == []
    assert second["truthHidden"] and second["slider"] == ["0", "29"] and second["error"] == ""
    start, turned, again = seen["yaw"]
    assert turned == pytest.approx(start - 0.8) and again == start
    x, y = walking("", 1, turn=1.2).keypoints[0, 3]
    assert seen["tip"] == f"right ankle: {x:.1f}, {y:.1f} px"


def crossing(name, frames, start, step, first=0):
    """Someone who walks from a place, with the root's path and confidences."""
    path = np.float32(start) + np.arange(frames, dtype=np.float32)[:, None] * np.float32(step)
    sure = np.full((frames, 17), 0.8, np.float32)
    sure[:, 3] = 0.1
    return replace(
        walking(name, frames, truth=False), root=path, confidence=sure, first_frame=first
    )


PROBE_PEOPLE = (
    HELPERS
    + """
  const seen = { about: text("about"), chips: text("people"), options: find("picker").length };
  v.show(20); v.draw(); seen.together = shown();
  seen.floor = v.state.floor; seen.paths = v.state.paths; seen.flat = picture("flat");
  seen.tip = v.clipOf(0).confidence.at(3, 3);
  const solid = picture("solid");
  find("path").checked = false; send("path", "change"); seen.pathDrawn = solid !== picture("solid");
  find("place").checked = false; send("place", "change"); seen.beside = shown();
  const before = picture("solid");
  find("people").children[1].click(); seen.hidden = before !== picture("solid");
  v.show(2); v.draw(); seen.early = shown();
  return seen;
"""
)


def test_people_of_one_video_are_one_scene(tmp_path):
    pair = [
        crossing("walk#1", 50, (-1, 0, 4), (0.02, 0, 0)),
        crossing("walk#7", 30, (1, 0, 5), (0, 0, 0.01), first=10),
    ]
    write_clips(tmp_path / "two.npz", Clips(HUMAN36M, [*pair, walking("alone", 9)]))
    view(tmp_path / "two.npz")
    seen = browse(tmp_path / "two.html", PROBE_PEOPLE, tmp_path)
    assert seen["errors"] == []
    assert seen["options"] == 2 and seen["chips"] == "17" and seen["paths"]
    assert seen["about"].startswith("2 people, 50 frames")
    for one, clip, row in zip(seen["together"], pair, (20, 10), strict=True):
        np.testing.assert_allclose(one["positions"], clip.positions[row], atol=1e-4)
        x, y, z = (clip.positions[row] + clip.root[row]).T
        np.testing.assert_allclose(one["world"], np.stack([x, z, -y], -1), atol=1e-4)
    left, right, near, far, low = seen["floor"]
    assert left < -1 and right > 1 and near < 4 and far > 5.29 and low < -0.8
    assert seen["tip"] == pytest.approx(0.1, abs=0.002)
    assert seen["pathDrawn"] and seen["hidden"]
    roots = np.array([one["world"][0] for one in seen["beside"]])
    np.testing.assert_allclose(roots, [[-0.65, 0, 0], [0.65, 0, 0]], atol=1e-4)
    later = seen["early"][1]  # not in view yet
    assert all(x is None for joint in later["keypoints"] for x in joint)


def test_people_without_paths_stand_side_by_side(tmp_path):
    pair = [crossing(f"a#{i}", 30, (0, 0, 4), (0, 0, 0)) for i in (1, 2)]
    pair[1] = replace(pair[1], root=None)
    write_clips(tmp_path / "two.npz", Clips(HUMAN36M, pair))
    view(tmp_path / "two.npz")
    seen = browse(tmp_path / "two.html", PROBE_PEOPLE, tmp_path)
    assert seen["errors"] == [] and not seen["paths"]
    roots = [one["world"][0][0] for one in seen["together"]]
    assert roots == pytest.approx([-0.65, 0.65])


PROBE_BEFORE = (
    HELPERS
    + """
  const clip = v.state.people[0];
  const seen = { before: joints.map((j) => [0, 1, 2].map((k) => clip.before.at(4, 3 * j + k))),
    words: text("before-key").trim(), hidden: find("before-key").hidden };
  v.show(6); v.draw();
  const first = picture("solid");
  find("before").checked = false; send("before", "change"); seen.drawn = first !== picture("solid");
  const without = picture("solid");
  find("input").checked = true; send("input", "change"); seen.input = without !== picture("solid");
  return seen;
"""
)


def test_another_lift_is_shown_beside(tmp_path):
    old = walking("a", 20, truth=False)
    new = replace(old, positions=old.positions * np.float32(0.9))
    write_clips(tmp_path / "old.npz", Clips(HUMAN36M, [old]))
    write_clips(tmp_path / "new.npz", Clips(HUMAN36M, [new], settings={"smooth": "one-euro"}))
    view(tmp_path / "new.npz", before=tmp_path / "old.npz")
    seen = browse(tmp_path / "new.html", PROBE_BEFORE, tmp_path)
    assert seen["errors"] == [] and not seen["hidden"] and seen["drawn"] and seen["input"]
    assert seen["words"] == "before: smooth off"
    np.testing.assert_allclose(seen["before"], old.positions[4], atol=1e-4)
    write_clips(tmp_path / "other.npz", Clips(HUMAN36M, [walking("b", 20)]))
    with pytest.raises(ItesError, match="other.npz: expected clips of .*new.npz of equal length"):
        view(tmp_path / "new.npz", before=tmp_path / "other.npz")


PROBE_LONG = (
    HELPERS
    + """
  v.show(6999); v.draw();
  return { last: shown(), time: text("time"), max: find("slider").max };
"""
)


def test_thousands_of_frames_are_all_there(tmp_path):
    long = walking("long", 7000, truth=False)
    write_clips(tmp_path / "long.npz", Clips(HUMAN36M, [long]))
    assert view(tmp_path / "long.npz")["notes"] == []
    seen = browse(tmp_path / "long.html", PROBE_LONG, tmp_path)
    assert seen["max"] == "6999" and "4:40.0" in seen["time"]
    np.testing.assert_allclose(seen["last"][0]["positions"], long.positions[-1], atol=1e-4)


def test_page_escapes_and_names_everything(lifted, tmp_path):
    out = tmp_path / "page.html"
    view(lifted, out)
    text = out.read_text(encoding="utf-8")
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    for words in ("<h1>A title</h1>", "S1/walk/side", "a &lt;note&gt; &amp; more", "Thanks."):
        assert words in own
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", own)
    assert "[[" not in own
    assert len(text) < 100_000


def test_a_name_that_looks_like_a_place_of_the_page_stays_a_name(lifted, tmp_path):
    clips = read_clips(lifted)
    name = "x [[packs]] [[script]]"
    write_clips(tmp_path / "n.npz", replace(clips, clips=[replace(clips.clips[0], name=name)]))
    view(tmp_path / "n.npz", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    data = re.search(r"^const data = (.*);$", text, re.MULTILINE)
    assert data and name in str(json.loads(data[1]))


def test_the_page_never_replaces_what_it_shows(lifted, tmp_path):
    path = tmp_path / "own.npz"
    write_clips(path, read_clips(lifted))
    for target in ({"out": path}, {"png": path}):
        with pytest.raises(ItesError, match="the output would overwrite the input"):
            view(path, **target)
    assert len(read_clips(path).clips) == len(read_clips(lifted).clips)


def test_limits_are_reported(lifted, tmp_path):
    summary = view(lifted, tmp_path / "page.html", max_clips=1, max_frames=10)
    assert summary["clips"] == ["S1/walk/front"]
    assert summary["notes"] == [
        "1 of 2 clips shown; `clip` chooses others",
        "1 clips cut to their first 10 frames",
    ]
    assert view(lifted, tmp_path / "page.html", clip="side")["clips"] == ["S1/walk/side"]
    with pytest.raises(ItesError, match="none of 2 clips .S1/walk/front.* is named 'none'"):
        view(lifted, tmp_path / "page.html", clip="none")
    with pytest.raises(ItesError, match="at least 1 clip, 1 frame"):
        view(lifted, tmp_path / "page.html", max_frames=0)


def test_clips_are_spread_over_the_file():
    clips = Clips(HUMAN36M, [walking(str(i), 3) for i in range(9)])
    chosen, _ = choose(clips, None, 3, 100)
    assert [clip.name for clip in chosen.clips] == ["0", "4", "8"]


def test_truth_is_met_at_the_least_squares_scale():
    clip = walking("a", 5)
    small = Clip("b", clip.keypoints, 25.0, positions=clip.truth * 0.37, truth=clip.truth)
    scaled = to_truth(small)
    np.testing.assert_allclose(scaled.positions, clip.truth, atol=1e-6)


def test_window_and_box_hold_the_clip():
    clip = walking("a", 20, turn=0.4)
    left, right, top, bottom = window(clip)
    assert right - left == pytest.approx(bottom - top)
    x, y = clip.keypoints[..., 0], clip.keypoints[..., 1]
    assert left < x.min() and x.max() < right and top < y.min() and y.max() < bottom
    half, low, high = box(clip)
    assert np.abs(clip.truth[..., [0, 2]]).max() < half
    assert low < -clip.truth[..., 1].max() and -clip.truth[..., 1].min() < high


def unpacked(packed):
    """The frames of packed arrays, nan where unknown."""
    whole, steps = (
        np.frombuffer(base64.b64decode(packed[k]), t)
        for k, t in (("data", "<i2"), ("steps", "<f4"))
    )
    frames = whole.reshape(-1, packed["size"])
    return np.where(frames == -32768, np.nan, frames * steps[:, None])


def test_packed_poses_are_exact_to_a_tenth_of_a_millimetre():
    poses = np.random.default_rng(0).uniform(-2, 2, (40, 17, 3)).astype(np.float32)
    poses[7, 3] = 500  # a jump costs its own frame alone
    off = np.abs(unpacked(pack(poses)).reshape(poses.shape) - poses)
    assert np.delete(off, 7, 0).max() < 1e-4
    assert off[7].max() < 500 / 65000
    assert pack(None) is None
    assert unpacked(pack(np.zeros((2, 3)))).tolist() == [[0] * 3] * 2


def test_what_is_not_known_is_packed_as_such():
    values = np.array([[1.0, np.nan, -0.5], [np.inf, np.nan, np.nan]])
    found = unpacked(pack(values))
    np.testing.assert_allclose(found, [[1, np.nan, -0.5], [np.nan] * 3], atol=1e-4)
    sure = np.frombuffer(
        base64.b64decode(pack_confidence(np.array([0, 0.5, 2, np.nan]))["data"]), "u1"
    )
    assert sure.tolist() == [0, 125, 250, 255]


def test_scenes_are_clips_of_one_video():
    names = ["a#1", "a#2", "b", "a#x", "c#1"]
    clips = [walking(name, 3) for name in names]
    clips.append(walking("a#3", 3, fps=30.0))
    assert scenes(clips) == [("a", [0, 1, 3]), ("b", [2]), ("c#1", [4]), ("a#3", [5])]
    assert [label_of(clip) for clip in clips[:3]] == ["1", "2", ""]
    chosen, _ = choose(Clips(HUMAN36M, clips[:5]), None, 4, 100)
    assert [clip.name for clip in chosen.clips] == ["a#1", "a#2", "a#x", "c#1"]
    few, _ = choose(Clips(HUMAN36M, clips[:5]), None, 2, 100)
    assert [clip.name for clip in few.clips] == ["a#1", "a#2"]


PROBE_UNKNOWN = (
    HELPERS
    + """
  const seen = [];
  for (const clip of [0, 1, 2]) {
    find("picker").value = clip; send("picker", "change");
    for (const frame of [0, 3]) {
      find("slider").value = frame; send("slider", "input");
      const known = shown()[0].positions.filter((p) => p.every((x) => x !== null)).length;
      seen.push([known, text("error") !== "", text("sure") !== ""]);
    }
  }
  return { seen };
"""
)


@pytest.fixture
def partly(tmp_path):
    """Clips of 7, 5 and 9 frames: without legs, of nobody, and without a frame."""
    clips = []
    for name, frames in (("no legs", 7), ("nobody", 5), ("a gap", 9)):
        clip = replace(walking(name, frames), sign_confidence=np.full(frames, 0.9, np.float32))
        nothing = np.zeros((frames, 17), bool)
        nothing[:, [1, 2, 3, 4, 5, 6]] = name == "no legs"
        nothing[slice(None) if name == "nobody" else slice(3, 4)] |= name != "no legs"
        empty = nothing.all(1)
        clips.append(
            replace(
                clip,
                keypoints=np.where(nothing[..., None], np.nan, clip.keypoints),
                positions=np.where(nothing[..., None], np.nan, clip.truth),
                confidence=(~nothing).astype(np.float32),
                sign_confidence=np.where(empty, np.nan, clip.sign_confidence),
            )
        )
    write_clips(tmp_path / "partly.npz", Clips(HUMAN36M, clips))
    return tmp_path / "partly.npz"


def test_what_is_not_known_is_not_drawn(partly, tmp_path):
    view(partly, tmp_path / "page.html")
    found = browse(tmp_path / "page.html", PROBE_UNKNOWN, tmp_path)
    assert found["errors"] == []
    no_legs, also_none, nobody, still_nobody, there, gap = found["seen"]
    assert no_legs == also_none == [11, True, True]
    assert nobody == still_nobody == gap == [0, False, False]
    assert there == [17, True, True]


def test_clips_with_unknown_joints_have_films_and_pictures(partly, tmp_path):
    pytest.importorskip("matplotlib", reason="pip install 'ites[view]'")
    for clip in ("no legs", "nobody", "a gap"):
        view(partly, png=tmp_path / "a.png", gif=tmp_path / "a.gif", clip=clip)


def test_a_picture_is_drawn(lifted, tmp_path):
    pytest.importorskip("matplotlib", reason="pip install 'ites[view]'")
    out = tmp_path / "strip.png"
    assert view(lifted, png=out)["files"] == [str(out)]
    for colour in COLOURS:
        assert count(read_png(out), colour, 12) > 500


def test_films_have_the_clip_s_pace(lifted, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="pip install 'ites[view]'")
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="pip install 'ites[view]'")
    gif, mp4 = tmp_path / "film.gif", tmp_path / "film.mp4"
    assert view(lifted, gif=gif, mp4=mp4, max_frames=10)["files"] == [str(gif), str(mp4)]
    with image.open(gif) as film:
        assert film.n_frames == 5 and film.info["duration"] == 80
    frames, seconds = ffmpeg.count_frames_and_secs(mp4)
    assert frames == 10 and seconds == pytest.approx(0.4, abs=0.05)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["film.gif", "film.mp4", "lifted.npz"]


def test_wrong_endings_are_refused(lifted, tmp_path):
    for wrong in ({"gif": "a.webm"}, {"mp4": "a.avi"}, {"png": "a.jpg"}):
        with pytest.raises(ItesError, match="must end in"):
            view(lifted, **{key: tmp_path / name for key, name in wrong.items()})
    assert [p.name for p in tmp_path.iterdir()] == ["lifted.npz"]


def test_a_store_without_3d_shows_its_keypoints(tmp_path):
    clip = walking("a", 6)
    seen = np.ones((6, 17), np.float32)
    seen[2, 3] = 0
    keypoints = np.where(seen[..., None] > 0, clip.keypoints, -9999)
    with PoseStoreWriter(tmp_path / "store.h5", HUMAN36M, "only 2D") as writer:
        writer.add_camera("c", Camera("c", (1100, 1100), (500, 500)))
        writer.add(keypoints, camera="c", subject="s", action="a", fps=25.0, confidence=seen)
    assert view(tmp_path / "store.h5")["files"] == [str(tmp_path / "store.html")]
    text = (tmp_path / "store.html").read_text(encoding="utf-8")
    assert "<h1>only 2D</h1>" in text and "none in this file" in text
    packed = json.loads(re.search(r"const data = (\{.*\});\n", text)[1])["clips"][0]
    assert packed["positions"] is None and packed["window"][0] > 0
