"""Exported models give what ours give."""

import numpy as np
import pytest
import torch

from ites.errors import ItesError
from ites.export.network import BODY_SIZE, export_model
from ites.models import Student, UprightTeacher
from ites.models.general import GeneralTeacher
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import Metadata, save_model


@pytest.fixture(scope="module", params=["upright", "general", "student"])
def checkpoint(request, tmp_path_factory):
    """A model with weights drawn at random, the file that holds it, and its scale."""
    torch.manual_seed(1)
    kinds = {"upright": UprightTeacher, "general": GeneralTeacher}
    teacher = kinds.get(request.param)
    model = teacher(width=32, blocks=1) if teacher else Student(width=16, blocks=1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    path = tmp_path_factory.mktemp("model") / f"{model.kind}.safetensors"
    save_model(path, model, Metadata(model.kind, HUMAN36M, scale=0.8))
    return path, model.eval(), 0.8


def keypoints(count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    return rng.normal((960, 540), (60, 200), (count, 17, 2)).astype(np.float32)


def expected(model, scale: float, given: np.ndarray, focal: np.ndarray) -> np.ndarray:
    points = torch.from_numpy((given - given[:, :1]) * np.float32(scale) / focal)
    with torch.no_grad():
        pose = model.pose(points).numpy().astype(np.float64)
    pose -= pose[:, :1]
    bones = sum(np.linalg.norm(pose[:, j] - pose[:, p], axis=-1) for p, j in HUMAN36M.bones)
    head = np.mean(np.linalg.norm(pose[:, HUMAN36M.head], axis=-1) / bones)
    return pose * (BODY_SIZE / head / bones)[:, None, None]


def test_onnx_runtime_gives_the_same_poses(checkpoint, tmp_path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path, model, scale = checkpoint
    summary = export_model(path, tmp_path / "model.onnx")
    assert summary["files"] == [str(tmp_path / "model.onnx")]
    session = runtime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    focal = np.array([1145.0, 1143.0], np.float32)
    for count in (1, 2, 7):
        given = keypoints(count)
        positions, unit = session.run(None, {"keypoints": given, "focal_length": focal})
        assert positions.shape == (count, 17, 3) and unit.shape == (count,)
        assert np.abs(positions - expected(model, scale, given, focal)).max() < 1e-4


def test_the_exported_program_gives_the_same_poses(checkpoint, tmp_path) -> None:
    path, model, scale = checkpoint
    export_model(path, tmp_path / "model.pt2")
    program = torch.export.load(str(tmp_path / "model.pt2")).module()
    focal = np.array([1145.0, 1143.0], np.float32)
    for count in (1, 5):
        given = keypoints(count)
        positions, _ = program(torch.from_numpy(given), torch.from_numpy(focal))
        assert np.abs(positions.numpy() - expected(model, scale, given, focal)).max() < 1e-4


def test_another_ending_is_refused(checkpoint, tmp_path) -> None:
    with pytest.raises(ItesError, match=r"must end in \.onnx or \.pt2"):
        export_model(checkpoint[0], tmp_path / "model.tflite")
    assert not (tmp_path / "model.tflite").exists()
