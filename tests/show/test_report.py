"""ites.show.report: one page about a run, in a real browser."""

import base64
import json
import re

import numpy as np
import pytest
from browser import browse

from ites.data.clips import Clip, Clips
from ites.data.lifted import write_clips
from ites.errors import ItesError
from ites.models import Student, Teacher
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import Metadata, save_model
from ites.runs.settings import make_settings, write_toml
from ites.show.report import read_csv, write_report

pytest.importorskip("plotly", reason="pip install 'ites[view]'")

LOSSES = {
    "teacher": ("total", "reprojection", "turn", "prior", "level"),
    "student": ("total", "distillation"),
}


def figures(value):
    return {"mpjpe": value, "p_mpjpe_oracle": value - 10, "wrong_sign": 41.0, "pck": 77.0}


def loss(name):
    return -1 if name == "prior" else 1  # a density may be above 1


@pytest.fixture
def run(tmp_path):
    """A run folder as training, evaluation and lifting leave it."""
    folder = tmp_path / "walk & run"
    models = {"teacher": Teacher(width=32, blocks=1), "student": Student(width=16, blocks=1)}
    for stage, model in models.items():
        save_model(folder / f"{stage}.safetensors", model, Metadata(stage, HUMAN36M, 1.0))
        header = ("step", "epoch", *LOSSES[stage], "learning_rate", "poses_per_second", "seconds")
        rows = [
            [10 * i, i / 2, *(loss(name) / i for name in LOSSES[stage]), 0.001, 2000, 3 * i]
            for i in (1, 2, 3)
        ]
        lines = [",".join(map(str, row)) for row in (header, *rows)]
        (folder / f"{stage}.log.csv").write_text("\n".join(lines) + "\n")
    (folder / "teacher.evaluation.csv").write_text(
        "step,p_mpjpe,p_mpjpe_oracle\n10,90,80\n20,85,7\n"
    )
    write_toml(folder / "settings.toml", [make_settings(stage) for stage in models])
    versions = {stage: {"torch": "2.13.0", "device": "cpu, 2 threads"} for stage in models}
    (folder / "versions.json").write_text(json.dumps(versions))
    columns = [
        {"name": name, "title": name.upper(), "aligned": "root", "unit": "mm"}
        for name in figures(0)
    ]
    found = {
        "settings": {"model": "student", "data": "a/s.h5", "split": "test", "poses": 5, "step": 30},
        "columns": columns,
        "actions": [{"name": "walk", "poses": 5, "figures": figures(123.45)}],
        "means": [{"name": "mean over poses", "poses": 5, "figures": figures(234.56)}],
    }
    (folder / "evaluation-student-s-test.json").write_text(json.dumps(found))
    joints = np.random.default_rng(0).normal(size=(9, 17, 3)).astype(np.float32)
    clip = Clip("one", joints[..., :2], 25.0, positions=joints, metres_per_unit=np.ones(9))
    write_clips(folder / "lifted.npz", Clips(HUMAN36M, [clip], settings={"model": "student"}))
    return folder


PROBE = """
  while (!document.querySelector(".viewer[data-ready]")) await pause(50);
  const graphs = [...document.querySelectorAll(".graphs .js-plotly-plot")];
  const right = (element) => element.getBoundingClientRect().right;
  return {
    graphs: graphs.map((g) => g.data.map((t) => [t.name, t.y.length])),
    fits: graphs.map((g) => right(g) <= right(g.parentElement) + 1),
    drawn: document.querySelectorAll(".graphs .scatterlayer path.js-line").length,
    viewer: document.querySelector(".viewer .time").textContent,
    tables: document.querySelectorAll("table").length,
  };
"""


def test_report_draws_offline(run, tmp_path):
    out = tmp_path / "report.html"
    write_report(run, out, times={"make the data": 12.0}, summary=["It went well."])
    seen = browse(out, PROBE, tmp_path)
    assert seen["errors"] == [] and seen["requests"] == []
    assert seen["graphs"] == [
        [[name, 3] for name in LOSSES["teacher"]],
        [["P-MPJPE", 2], ["P-MPJPE with the oracle's sign", 2]],
        [["total", 3], ["distillation", 3]],
    ]
    assert seen["drawn"] == 9 and all(seen["fits"])
    assert seen["viewer"].startswith("frame 1 of 9")
    assert seen["tables"] == 6


def test_report_says_what_was_done(run, tmp_path):
    out = tmp_path / "report.html"
    write_report(run, out, times={"make the data": 12.0}, summary=["It went well."])
    text = re.sub(r"<script.*?</script>", "", out.read_text(encoding="utf-8"), flags=re.DOTALL)
    for words in (
        "<h1>Training report: walk &amp; run</h1>",
        "<p>It went well.</p>",
        "<td>train the teacher</td><td>9 s</td><td>30 steps, 1.5 epochs, 2,000 poses/s",
        "<td>make the data</td><td>12 s</td>",
        "the student on s.h5, split test",
        '<tr class="total"><td>mean over poses</td><td>5</td><td>234.6</td><td>224.6</td>',
        "<td>walk</td><td>5</td><td>123.5</td>",
        "MPJPE<small>root, mm</small>",
        "<td>learning_rate</td><td>0.001</td><td>0.001</td>",
        "<td>torch</td><td>2.13.0</td><td>2.13.0</td>",
    ):
        assert words in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)


def test_a_folder_with_less_gives_a_page_with_less(run, tmp_path):
    for name in ("lifted.npz", "evaluation-student-s-test.json", "student.safetensors"):
        (run / name).unlink()
    write_report(run, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "train the teacher" in text and "train the student" not in text
    assert "How it looks" not in text and "How good" not in text
    (run / "teacher.safetensors").unlink()
    with pytest.raises(ItesError, match="expected a run folder with a teacher or a student"):
        write_report(run, tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()


def test_columns_are_read_as_numbers(tmp_path):
    path = tmp_path / "a.csv"
    assert read_csv(path) == {}
    path.write_text("step,total\n")
    assert read_csv(path) == {}
    path.write_text("step,total\n1,0.5\n2,0.25\n")
    assert read_csv(path) == {"step": [1, 2], "total": [0.5, 0.25]}


def test_clips_of_different_lengths_keep_their_own_frames(run, tmp_path):
    """Each clip's poses and confidences on the page are its own, whatever the others' lengths."""
    rng = np.random.default_rng(1)
    clips = []
    for name, frames in (("a", 9), ("b", 4), ("c", 17)):
        joints = rng.normal(size=(frames, 17, 3)).astype(np.float32)
        sure = rng.uniform(size=frames).astype(np.float32)
        clips.append(
            Clip(
                name, joints[..., :2], 25.0, positions=joints,
                metres_per_unit=np.ones(frames, np.float32), elevation=sure, log_density=-sure,
                sign_confidence=sure,
            )
        )  # fmt: skip
    write_clips(run / "lifted.npz", Clips(HUMAN36M, clips, settings={"model": "student"}))
    write_report(run, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    packs = re.findall(r'<script type="text/plain">(.*?)</script>', text)
    shown = json.loads(re.search(r"const data = (\{.*\});\n", text)[1])["clips"]
    assert [(one["name"], one["frames"]) for one in shown] == [("a", 9), ("b", 4), ("c", 17)]
    for one, clip in zip(shown, clips, strict=True):
        sign = np.frombuffer(base64.b64decode(packs[one["sign"]["data"]]), "u1")
        np.testing.assert_allclose(sign / 250, clip.sign_confidence, atol=0.005)
        whole = np.frombuffer(base64.b64decode(packs[one["positions"]["data"]]), "<i2")
        steps = np.frombuffer(base64.b64decode(packs[one["positions"]["steps"]]), "<f4")
        poses = whole.reshape(len(clip), -1) * steps[:, None]
        np.testing.assert_allclose(poses, clip.positions.reshape(len(clip), -1), atol=2e-3)
