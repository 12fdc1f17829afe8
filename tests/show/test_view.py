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
from ites.show.scene import bones_by_side, box, choose, to_truth, window
from ites.show.view import view
from ites.show.viewer import pack

pytest.importorskip("plotly", reason="pip install 'ites[view]'")

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
        name, keypoints, fps, None, lifted, poses if truth else None, (1100.0, 1100.0), (1000, 1000)
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


def read_png(file):
    image = pytest.importorskip("PIL.Image", reason="pip install 'ites[view]'")
    return np.asarray(image.open(file).convert("RGB"), int)


def count(pixels, colour, tolerance):
    """How many pixels have nearly that colour."""
    return (np.abs(pixels - colour).sum(-1) < tolerance).sum()


PROBE = """
  const root = document.querySelector(".viewer"), find = (n) => root.querySelector("." + n);
  const seen = { steps: [] };
  const note = (what) => seen.steps.push({
    what, time: find("time").textContent, error: find("error").textContent,
    flat: find("flat").data.map((t) => ({ x: [...t.x], y: [...t.y] })),
    solid: find("solid").data.map((t) => ({ x: [...t.x], y: [...t.y], z: [...t.z] })),
    sure: find("sure").textContent, marks: find("marks").style.background,
    opacity: find("solid").data.map((t) => t.opacity), doubtHidden: find("doubt-key").hidden,
    truthHidden: find("truth-key").hidden, slider: [find("slider").value, find("slider").max],
  });
  const send = (name, kind) => find(name).dispatchEvent(new Event(kind));
  for (let i = 0; i < 400 && root.dataset.ready !== "yes"; i++) await pause(50);
  note("first");
  find("slider").value = 7; send("slider", "input"); await pause(100); note("slider");
  find("truth").checked = false; send("truth", "change"); await pause(100); note("no truth");
  find("play").click();
  for (let i = 0; i < 200 && find("slider").value === "7"; i++) await pause(50);
  find("play").click(); note("played");
  find("picker").value = 1; send("picker", "change"); await pause(100); note("second clip");
  seen.canvases = find("solid").querySelectorAll("canvas").length;
  seen.lines = find("flat").querySelectorAll(".scatterlayer path.js-line").length;
  await Plotly.relayout(find("solid"), { "scene.camera.eye": { x: 2, y: 2, z: 2 } });
  find("reset").click(); await pause(100);
  seen.eye = find("solid").layout.scene.camera.eye;
  seen.up = find("solid").layout.scene.camera.up;
  seen.picture = await Plotly.toImage(find("solid"), { format: "png", width: 500, height: 400 });
  return seen;
"""


def test_page_draws_plays_and_stays_offline(lifted, tmp_path):
    out = tmp_path / "page.html"
    summary = view(lifted, out)
    assert summary["files"] == [str(out)]
    assert summary["clips"] == ["S1/walk/front", "S1/walk/side"]
    seen = browse(out, PROBE, tmp_path)
    steps = {step["what"]: step for step in seen["steps"]}
    assert seen["errors"] == []
    assert seen["requests"] == []
    assert seen["canvases"] >= 1
    assert seen["lines"] == len(HUMAN36M.bones)
    assert seen["eye"]["y"] < -1
    assert seen["up"] == {"x": 0, "y": 0, "z": 1}

    assert seen["picture"].startswith("data:image/png;base64,")
    pixels = read_png(io.BytesIO(base64.b64decode(seen["picture"].split(",")[1])))
    for colour in COLOURS:
        assert count(pixels, colour, 60) > 150

    clip = to_truth(walking("S1/walk/front", 50))
    first, slid = steps["first"], steps["slider"]
    assert first["slider"] == ["0", "49"]
    assert slid["time"].startswith("frame 8 of 50") and "0.28 s" in slid["time"]
    bones = bones_by_side(HUMAN36M)
    for frame, step in ((0, first), (7, slid)):
        for trace, side in zip(step["flat"], bones, strict=True):
            drawn = [[x, y] for x, y in zip(trace["x"], trace["y"], strict=True) if x is not None]
            expected = clip.keypoints[frame][np.ravel(bones[side])]
            np.testing.assert_allclose(drawn, expected, atol=0.05)
        for trace, side in zip(step["solid"], bones, strict=False):
            drawn = np.array([trace[k] for k in "xyz"], float).T
            drawn = drawn[~np.isnan(drawn[:, 0])]
            x, y, z = clip.positions[frame][np.ravel(bones[side])].T
            np.testing.assert_allclose(drawn, np.stack([x, z, -y], -1), atol=1e-3)
    assert first["solid"] != slid["solid"]
    assert len(slid["solid"][3]["x"]) == 3 * len(HUMAN36M.bones)
    error = 1000 * np.linalg.norm(clip.positions[7] - clip.truth[7], axis=-1).mean()
    assert slid["error"].startswith(f"off by {round(error)} mm")

    assert first["sure"] == "depth's sign 97% sure" and first["opacity"] == [1, 1, 1, 0.75]
    assert slid["sure"] == "depth's sign 60% sure" and slid["opacity"] == [0.35] * 3 + [0.75]
    assert "var(--doubt) 10% 20%" in first["marks"] and not first["doubtHidden"]

    assert steps["no truth"]["solid"][3]["x"] == []
    assert steps["no truth"]["solid"][:3] == slid["solid"][:3]
    assert steps["played"]["slider"][0] != slid["slider"][0]
    second = steps["second clip"]
    assert second["sure"] == "" and second["doubtHidden"] and "doubt" not in second["marks"]
    assert second["truthHidden"] and second["slider"] == ["0", "29"] and second["error"] == ""


def test_page_escapes_and_names_everything(lifted, tmp_path):
    out = tmp_path / "page.html"
    view(lifted, out)
    text = out.read_text(encoding="utf-8")
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    for words in ("<h1>A title</h1>", "S1/walk/side", "a &lt;note&gt; &amp; more", "Thanks."):
        assert words in own
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", own)
    assert "[[" not in own
    assert len(text) < 7_000_000


def test_the_page_never_replaces_what_it_shows(lifted, tmp_path):
    path = tmp_path / "own.npz"
    write_clips(path, read_clips(lifted))
    for target in ({"out": path}, {"png": path}):
        with pytest.raises(ItesError, match="the output would overwrite the input"):
            view(path, **target)
    assert len(read_clips(path).clips) == len(read_clips(lifted).clips)


def test_limits_are_told(lifted, tmp_path):
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


def test_pack_keeps_the_values():
    values = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32) * 500
    packed = pack(values)
    data = np.frombuffer(base64.b64decode(packed["data"]), "<i2") * packed["step"]
    np.testing.assert_allclose(data.reshape(7, 3), values, atol=np.abs(values).max() / 65000)
    assert pack(None) is None
    assert pack(np.zeros(2))["step"] == 1.0


def test_what_is_not_known_is_packed_as_such():
    packed = pack(np.array([1.0, np.nan, -0.5, np.inf]))
    whole = np.frombuffer(base64.b64decode(packed["data"]), "<i2")
    assert whole[[1, 3]].tolist() == [-32768, -32768]
    np.testing.assert_allclose(whole[[0, 2]] * packed["step"], [1, -0.5], atol=1e-4)
    assert set(np.frombuffer(base64.b64decode(pack(np.full(3, np.nan))["data"]), "<i2")) == {-32768}


PROBE_UNKNOWN = """
  for (let i = 0; i < 400 && !document.querySelector(".viewer[data-ready]"); i++) await pause(50);
  const find = (name) => document.querySelector("." + name);
  const drawn = () => [0, 2].map((s) => find("solid").data[s].x.filter((v) => v !== null).length);
  const seen = [];
  for (const clip of [0, 1, 2]) {
    find("picker").value = clip;
    find("picker").dispatchEvent(new Event("change"));
    for (const frame of [0, 3]) {
      find("slider").value = frame;
      find("slider").dispatchEvent(new Event("input"));
      await pause(300);
      seen.push([drawn(), find("error").textContent !== "", find("sure").textContent !== ""]);
    }
  }
  return { seen };
"""


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
    assert no_legs == also_none == [[7, 7], True, True]
    assert nobody == still_nobody == gap == [[0, 0], False, False]
    assert there == [[12, 12], True, True]


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
    assert "<h1>only 2D</h1>" in text and "(none in this file)" in text
    packed = json.loads(re.search(r"const data = (\{.*\});\n", text)[1])["clips"][0]
    assert packed["positions"] is None and packed["window"][0] > 0
