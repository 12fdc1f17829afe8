"""Checkpoints: what is written is read back; what is wrong is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ites.errors import ItesError
from ites.models import Student, Teacher, UprightStudent
from ites.pose.skeleton import HUMAN36M, Skeleton
from ites.runs.checkpoint import (
    Metadata,
    Model,
    load_model,
    load_state,
    load_trust,
    save_model,
    save_state,
)
from ites.runs.folder import RunFolder

TWO_ROOTS = (
    '{"name": "arm", "joints": ["a", "b", "c"], "parents": [-1, -1, 1], "left": [], "right": [], '
    '"head": 2, "pooling": []}'
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
    save_model(RunFolder(tmp_path).weights(kind), model, metadata)
    loaded, read = load_model(tmp_path)
    assert read == metadata
    assert not loaded.training and loaded.sizes() == model.sizes()
    points = torch.randn(5, skeleton.num_joints, 2, dtype=dtype)
    assert torch.equal(loaded.pose(points), model.eval().pose(points))


def test_a_run_folder_gives_its_student_unless_asked(tmp_path: Path) -> None:
    for kind in ("teacher", "student"):
        save_model(RunFolder(tmp_path).weights(kind), small(kind), Metadata(kind, HUMAN36M, 1.0))
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
    path = RunFolder(tmp_path).state("teacher")
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


def test_settings_of_an_earlier_version_get_their_present_names(tmp_path: Path) -> None:
    model, old, new = small("teacher"), {"level_steps": 9}, {"start_elevation_steps": 9}
    weights, state = RunFolder(tmp_path).weights("teacher"), RunFolder(tmp_path).state("teacher")
    save_model(weights, model, Metadata("teacher", HUMAN36M, 1.0, 0, old))
    assert load_model(weights)[1].settings == new
    optimiser = trained(model)
    save_state(state, model, optimiser, torch.zeros(1, 2), {"step": 2, "settings": old})
    assert load_state(state, model, optimiser)[1] == {"step": 2, "settings": new}


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


def rewritten(path: Path, tensors: dict[str, torch.Tensor], **text: str) -> None:
    """Write a checkpoint anew with other tensors or metadata, and the checksum it had."""
    with safe_open(path, "pt") as file:
        old = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    save_file({**old, **tensors}, path, metadata=metadata | text)


def refusal(path: Path) -> str:
    with pytest.raises(ItesError) as caught:
        load_model(path)
    line = str(caught.value)
    assert path.name in line and len(line) <= 300 and line.isprintable()
    return line


@pytest.mark.parametrize(
    "text, what",
    [
        ({"scale": "-1"}, "expected a scale that is finite and positive, got -1.0"),
        ({"scale": "0"}, "finite and positive"),
        ({"scale": "nan"}, "finite and positive"),
        ({"scale": "inf"}, "finite and positive"),
        ({"scale": "[" * 20_000}, "damaged metadata"),
        ({"step": "-3"}, "damaged metadata"),
        ({"step": "9" * 5000}, "damaged metadata"),
        ({"settings": "[" * 20_000}, "damaged metadata"),
        ({"settings": "[1]"}, "damaged metadata"),
        ({"sizes": "[]"}, "damaged metadata"),
        ({"sizes": '{"width": 1000000000, "blocks": 1}'}, "width: expected a size that fits"),
        ({"sizes": '{"width": 16, "blocks": 1000000000}'}, "blocks: expected a size that fits"),
        ({"sizes": '{"width": 16, "blocks": 1, "atoms": NaN}'}, "atoms: expected a size"),
        ({"sizes": '{"width": 16, "blocks": 1, "atoms": "3"}'}, "atoms: expected a size"),
        ({"sizes": '{"depth": 16}'}, "expected the sizes of a teacher"),
        ({"skeleton": "[" * 20_000}, "expected the JSON of a skeleton"),
        ({"kind": "[" * 20_000}, "expected a teacher or student"),
        ({"format": "[" * 20_000}, "expected a file of format ites-model"),
        ({"version": "9" * 5000}, "expected version 1 or older"),
        ({"scale": "0.9"}, "checksum"),
        ({"step": "4"}, "checksum"),
    ],
)
def test_metadata_that_make_no_sense_are_refused(
    tmp_path: Path, text: dict[str, str], what: str
) -> None:
    path = RunFolder(tmp_path).weights("teacher")
    save_model(path, small("teacher"), Metadata("teacher", HUMAN36M, 0.8, 3))
    rewritten(path, {}, **text)
    assert what in refusal(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    path = RunFolder(tmp_path).weights("teacher")
    model = small("teacher")
    model.mean_pose.data[3] = value
    save_model(path, model, Metadata("teacher", HUMAN36M, 0.8))
    assert "mean_pose: expected finite numbers, got 1 that are not" in refusal(path)


@pytest.mark.parametrize(
    "text, what",
    [
        ({"skeleton": TWO_ROOTS}, "Skeleton arm: parents must hold -1 once, got (-1, -1, 1)"),
        ({"skeleton": "{}"}, "Skeleton: expected the JSON of a skeleton, got '{}'"),
    ],
)
def test_a_mistake_below_is_reported_once(tmp_path: Path, text: dict[str, str], what: str) -> None:
    path = RunFolder(tmp_path).weights("teacher")
    save_model(path, small("teacher"), Metadata("teacher", HUMAN36M, 0.8, 3))
    rewritten(path, {}, **text)
    assert refusal(path) == f"{path}: {what}"


def test_odds_that_are_no_odds_are_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ites.runs.checkpoint.load_judges", lambda run, device: (None, None))
    path = RunFolder(tmp_path).odds("student")
    for text, what in (("[", "expected a JSON file"), ("[1]", "expected the odds of a sign")):
        path.write_text(text)
        with pytest.raises(ItesError) as caught:
            load_trust(tmp_path, "student")
        line = str(caught.value)
        assert line.startswith(f"{path}: {what}") and line.count(path.name) == 1


def test_weights_of_another_dtype_are_refused(tmp_path: Path) -> None:
    path = RunFolder(tmp_path).weights("teacher")
    save_model(path, small("teacher"), Metadata("teacher", HUMAN36M, 0.8))
    rewritten(path, {"mean_pose": torch.zeros(51, dtype=torch.int64)})
    assert "mean_pose: expected torch.float32, got torch.int64" in refusal(path)


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    path = RunFolder(tmp_path).weights("teacher")
    save_model(path, small("teacher"), Metadata("teacher", HUMAN36M, 0.8))
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 1
    path.write_bytes(whole)
    assert "checksum" in refusal(path)


def test_a_file_without_a_checksum_is_read(tmp_path: Path) -> None:
    path = RunFolder(tmp_path).weights("teacher")
    save_model(path, small("teacher"), Metadata("teacher", HUMAN36M, 0.8))
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = file.metadata()
    assert len(text.pop("sha256")) == 64
    save_file(tensors, path, metadata=text)
    assert load_model(path)[1].scale == 0.8


def test_a_training_state_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    model = small("teacher")
    optimiser = trained(model)
    path = RunFolder(tmp_path).state("teacher")

    def refusal(tensors: dict[str, torch.Tensor], **text: str) -> str:
        save_state(path, model, optimiser, torch.zeros(1, 2), {"step": 2})
        rewritten(path, tensors, **text)
        other = small("teacher")
        with pytest.raises(ItesError) as caught:
            load_state(path, other, torch.optim.SGD(other.parameters(), 0.1), ("step",))
        assert path.name in str(caught.value) and len(str(caught.value)) <= 300
        return str(caught.value)

    assert "momentum.mean_pose: expected finite" in refusal(
        {"momentum.mean_pose": torch.full((51,), torch.nan)}
    )
    assert "checksum" in refusal({"momentum.mean_pose": torch.zeros(51)})
    assert "damaged training state" in refusal({}, counters="[" * 20_000)
    assert "expected the counters step" in refusal({}, counters="{}")
    assert "a training's state" in refusal({}, counters="[1]")


def test_hostile_checkpoints(shared: Path) -> None:
    for path in sorted((shared / "hostile").glob("ckpt_*")):
        refusal(path)
    for path in sorted((shared / "hostile").glob("state_*")):
        model = small("teacher")
        with pytest.raises(ItesError) as caught:
            load_state(path, model, torch.optim.SGD(model.parameters(), 0.1))
        assert path.name in str(caught.value) and len(str(caught.value)) <= 300


def test_loading_does_not_import_pytorchs_compiler(tmp_path: Path) -> None:
    """Counted, not timed: it is hundreds of modules, and seconds in each call of the command."""
    models = (("teacher", Teacher(width=8, blocks=1)), ("student", UprightStudent(width=8)))
    for kind, model in models:
        save_model(tmp_path / f"{kind}.safetensors", model, Metadata(kind, HUMAN36M, 1.0))
    code = (
        "import sys; from ites.runs.checkpoint import load_model; "
        "load_model(sys.argv[1], 'teacher'); load_model(sys.argv[1], 'student'); "
        "print(sorted(sys.modules.keys() & {'sympy', 'torch._dynamo', 'torch._inductor'}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert found.stdout == "[]\n", found.stderr
