"""Checkpoints: what is written is read back; what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ites.errors import ItesError
from ites.models import Student, Teacher
from ites.pose.skeleton import HUMAN36M, Skeleton
from ites.runs.checkpoint import (
    Metadata,
    Model,
    load_model,
    load_state,
    save_model,
    save_state,
    state_file,
    weights_file,
)

ARM = Skeleton("arm", ("a", "b", "c"), (-1, 0, 1), head=2)


def small(kind: str, skeleton: Skeleton = HUMAN36M) -> Model:
    torch.manual_seed(0)
    if kind == "teacher":
        return Teacher(skeleton, width=16, blocks=1, atoms=3, distance=6.0)
    return Student(skeleton, width=8, blocks=1)


def trained(model: Model, steps: int = 2) -> torch.optim.SGD:
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    for _ in range(steps):
        model.pose(torch.randn(4, model.skeleton.num_joints, 2)).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    return optimiser


@pytest.mark.parametrize("kind", ["teacher", "student"])
@pytest.mark.parametrize("skeleton", [HUMAN36M, ARM], ids=lambda skeleton: skeleton.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(tmp_path: Path, kind: str, skeleton: Skeleton, dtype: torch.dtype) -> None:
    model = small(kind, skeleton)
    trained(model)
    model.to(dtype)
    metadata = Metadata(kind, skeleton, 4.123456789012345, 7, {"seed": 3, "data": "a.h5"})
    save_model(weights_file(tmp_path, kind), model, metadata)
    loaded, read = load_model(tmp_path)
    assert read == metadata
    assert not loaded.training and loaded.sizes() == model.sizes()
    points = torch.randn(5, skeleton.num_joints, 2, dtype=dtype)
    assert torch.equal(loaded.pose(points), model.eval().pose(points))


def test_a_run_folder_gives_its_student_unless_asked(tmp_path: Path) -> None:
    for kind in ("teacher", "student"):
        save_model(weights_file(tmp_path, kind), small(kind), Metadata(kind, HUMAN36M, 1.0))
    assert load_model(tmp_path)[1].kind == "student"
    assert load_model(tmp_path, "teacher")[1].kind == "teacher"
    assert load_model(tmp_path / "teacher.safetensors")[1].kind == "teacher"


def test_metadata_is_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_model(path, small("student"), Metadata("student", HUMAN36M, 2.0, 5))
    with safe_open(path, "pt") as file:
        text = file.metadata()
    assert text["format"] == "ites-model" and text["version"] == "1" and text["step"] == "5"
    assert Skeleton.from_json(text["skeleton"]) == HUMAN36M


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"

    def message(*arguments: object) -> str:
        with pytest.raises(ItesError) as caught:
            load_model(*arguments)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
        return str(caught.value)

    assert "no such checkpoint or run folder" in message(path)
    assert "expected a run folder with student.safetensors or teacher" in message(tmp_path)
    save_model(path, small("teacher"), Metadata("teacher", HUMAN36M, 1.0))
    assert "expected a student, got 'teacher'" in message(path, "student")
    whole = path.read_bytes()
    for cut in (b"", whole[:5], whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(cut)
        assert "not a safetensors file, or a damaged one" in message(path)
    save_file({"a": torch.zeros(1)}, path)
    assert "expected a file of format ites-model, got None" in message(path)

    def rewrite(tensors: dict[str, torch.Tensor], **text: str) -> None:
        path.write_bytes(whole)
        with safe_open(path, "pt") as file:
            old = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        save_file({**old, **tensors}, path, metadata=metadata | text)

    rewrite({}, version="2")
    assert "expected version 1 or older, got '2'" in message(path)
    rewrite({}, scale="big")
    assert "damaged metadata" in message(path)
    rewrite({}, kind="pupil")
    assert "expected a teacher or student, got 'pupil'" in message(path)
    rewrite({"mean_pose": torch.zeros(3)})
    assert "mean_pose: expected (51,), got (3,)" in message(path)
    rewrite({"extra": torch.zeros(3)})
    assert "extra: expected no such tensor, got (3,)" in message(path)


def test_state_continues_the_optimiser(tmp_path: Path) -> None:
    model = small("teacher")
    optimiser = trained(model)
    path = state_file(tmp_path, "teacher")
    losses = torch.arange(6.0, dtype=torch.float64).view(3, 2)
    save_state(path, model, optimiser, losses, {"step": 2, "note": "ä"})

    other = small("teacher")
    fresh = torch.optim.SGD(other.parameters(), lr=1e-4, momentum=0.9)
    read, counters = load_state(path, other, fresh)
    assert torch.equal(read, losses) and counters == {"step": 2, "note": "ä"}
    torch.manual_seed(1)
    for net, optim in ((model, optimiser), (other, fresh)):
        torch.manual_seed(1)
        net.pose(torch.randn(4, 17, 2)).square().mean().backward()
        optim.step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name

    with pytest.raises(ItesError, match="expected a file of format ites-model, got ites-training"):
        load_model(path)
    with pytest.raises(ItesError, match="no such file"):
        load_state(tmp_path / "no", other, fresh)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "teacher.safetensors"
    save_model(path, small("teacher"), Metadata("teacher", HUMAN36M, 1.0))
    before = path.read_bytes()

    def fail(file: Path, content: bytes) -> None:
        file.open("wb").write(content[: len(content) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(path, small("teacher"), Metadata("teacher", HUMAN36M, 2.0))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_kind_must_be_the_models(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected a student, got Teacher"):
        save_model(tmp_path / "x", small("teacher"), Metadata("student", HUMAN36M, 1.0))
