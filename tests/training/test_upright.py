"""Recipe "upright": the prior, the turns, the training of its three stages."""

from __future__ import annotations

import itertools
import math
import operator
import os
import shutil
import signal
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from small_training import rows
from torch import nn
from typer.testing import CliRunner

from benchmarks.accuracy.variants import write_variant
from ites.cli.train import app
from ites.data.store import PoseStore
from ites.data.synthetic.synthetic import prepare_synthetic
from ites.errors import ItesError
from ites.evaluation.evaluate import evaluate
from ites.models import Prior, Student, UprightStudent, UprightTeacher, fold_norms
from ites.models.denoiser import Denoiser
from ites.models.mirror import mirror_image
from ites.models.prior import DENSITY_LIMIT, soft_clamp
from ites.models.teacher import bone_spread, bones_of, spread_of
from ites.pose.geometry import so3_exp
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import load_model, load_prior
from ites.runs.folder import RunFolder
from ites.runs.settings import make_settings, stages_of
from ites.training.dataset import upright_teacher_labels, with_mirror_images
from ites.training.engine import train
from ites.training.log import Log, quiet_console


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upright") / "synthetic.h5"
    prepare_synthetic(path, poses=6000, seed=3, fps=10.0)
    return path


SMALL = {
    "prior": {"steps": 300, "width": 64},
    "teacher": {"steps": 400, "width": 128, "blocks": 2, "start_elevation_steps": 100},
    "student": {"steps": 30, "width": 32, "blocks": 1},
}


def settings(stage: str, store: Path, run: Path, **given: Any) -> Any:
    """Of a small model."""
    plain = {"data": str(store), "out": str(run), "recipe": "upright", "device": "cpu"}
    return make_settings(stage, options={**plain, **SMALL[stage], **given})


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for stage in stages_of("upright"):
        train(settings(stage, store, folder), console=quiet_console())
    return folder


def poses(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, 17, 2, generator=generator, dtype=torch.float64)
    return 0.1 * (points - points[:, :1])


def test_the_prior_starts_as_the_gaussian_of_the_poses() -> None:
    points = poses(400)
    prior = Prior(width=16, blocks=3, components=32).double()
    prior.fit(points)
    rows = points[:, 1:].flatten(1)
    gaussian = torch.distributions.MultivariateNormal(rows.mean(0), rows.T.cov())
    # Whitening changes the volume by the root of the covariance's determinant.
    volume = 0.5 * torch.linalg.slogdet(rows.T.cov())[1]
    torch.testing.assert_close(prior(points), -gaussian.log_prob(rows) - volume)


def test_the_priors_density_is_that_of_its_change_of_variables() -> None:
    torch.manual_seed(0)
    prior = Prior(width=16, blocks=4, components=6).double()
    points = poses(50)
    prior.fit(points)
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.5)

    def latent(z: torch.Tensor) -> torch.Tensor:
        for coupling, order in zip(prior.couplings, prior.order, strict=True):
            z, _ = coupling(z[None, order])
            z = z[0]
        return z

    rows = (points[:, 1:].flatten(1) - prior.centre) @ prior.whiten
    for z, given in zip(rows[:5], prior(points[:5]), strict=True):
        jacobian = torch.autograd.functional.jacobian(latent, z)
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(latent(z)).sum()
        torch.testing.assert_close(given, -normal - torch.linalg.slogdet(jacobian)[1])


def test_the_prior_refuses_what_has_no_spread() -> None:
    with pytest.raises(ValueError, match="at least 2 poses, got 1"):
        Prior().fit(torch.zeros(1, 17, 2))
    with pytest.raises(ValueError, match="all poses are the same"):
        Prior().fit(torch.ones(4, 17, 2))


def correlated(count: int) -> torch.Tensor:
    """2D poses (N, J, 2) of six degrees of freedom that differ in spread, and a little of all."""
    generator = torch.Generator().manual_seed(0)
    draw = {"generator": generator, "dtype": torch.float64}
    size = torch.tensor([0.1, 0.08, 0.06, 0.05, 0.04, 0.03], dtype=torch.float64)
    rows = torch.randn(count, 6, **draw) * size @ torch.linalg.qr(torch.randn(34, 6, **draw))[0].T
    points = (rows + torch.randn(34, **draw) + 1e-4 * torch.randn(count, 34, **draw)).view(
        -1, 17, 2
    )
    return points - points[:, :1]


def test_a_denoiser_takes_noise_off_and_leaves_exact_poses() -> None:
    exact = correlated(4000)
    noisy = exact + 0.01 * torch.randn(exact.shape, generator=torch.Generator().manual_seed(1))
    denoiser = Denoiser().double()
    torch.testing.assert_close(denoiser(noisy), noisy - noisy[:, :1])
    denoiser.fit(exact)
    assert (denoiser(exact) - exact).abs().mean() < 2e-4
    denoiser.fit(noisy)
    clean = denoiser(noisy)
    assert (clean[:, 0] == 0).all()
    assert (clean - exact).square().mean() < 0.2 * (noisy - noisy[:, :1] - exact).square().mean()
    torch.testing.assert_close(denoiser(noisy + 3), clean)  # wherever the person stands


def test_a_denoiser_sees_noise_beside_joints_that_are_made_of_others() -> None:
    exact = correlated(4000)
    noisy = exact + 0.01 * torch.randn(exact.shape, generator=torch.Generator().manual_seed(1))
    for points in (exact, noisy):
        points[:, 8] = (points[:, 11] + points[:, 14]) / 2
    denoiser = Denoiser().double()
    denoiser.fit(noisy)
    clean, exact, noisy = denoiser(noisy), exact - exact[:, :1], noisy - noisy[:, :1]
    assert (clean - exact).square().mean() < 0.2 * (noisy - exact).square().mean()
    torch.testing.assert_close(clean[:, 8], (clean[:, 11] + clean[:, 14]) / 2)


def test_of_few_poses_a_denoiser_knows_no_noise() -> None:
    points = correlated(30)
    denoiser = Denoiser().double()
    denoiser.fit(points)
    torch.testing.assert_close(denoiser(points), points)


def test_a_density_is_limited_without_losing_its_gradient() -> None:
    density = torch.tensor([-50.0, 0.0, 1e4], requires_grad=True)
    soft_clamp(density).sum().backward()
    assert soft_clamp(density)[2].item() == pytest.approx(DENSITY_LIMIT)
    assert density.grad is not None and density.grad[1] == 1


def test_turns_teach_the_elevation_and_views_move_no_statistics() -> None:
    torch.manual_seed(0)
    model = UprightTeacher(width=32, blocks=1).double().train()
    prior = Prior(width=16, blocks=2).double()
    points, counter = poses(12), torch.tensor([1, 2, 0])
    prior.fit(poses(200))
    parts = model.turn_losses(points, counter, 2, prior)
    assert [part.shape for part in parts] == [torch.Size()] * 5
    gradient = torch.autograd.grad(parts.turn + parts.prior, model.elevation_angle.weight)[0]
    assert gradient.abs().max() > 1e-6
    once = UprightTeacher(width=32, blocks=1).double().train()
    once.load_state_dict(model.state_dict())
    for norm in once.norms:
        norm.running_mean.zero_(), norm.running_var.fill_(1)
    once(points)  # one pass, as from the start
    for norm, other in zip(model.norms, once.norms, strict=True):
        torch.testing.assert_close(norm.running_mean, other.running_mean)
        torch.testing.assert_close(norm.running_var, other.running_var)


def test_bones_of_one_body_have_no_spread() -> None:
    torch.manual_seed(0)
    body = torch.randn(17, 3, dtype=torch.float64)
    even = body.clone()  # both sides alike
    even[list(HUMAN36M.left)] = even[list(HUMAN36M.right)] * torch.tensor([-1.0, 1, 1])
    even[[j for j in range(17) if HUMAN36M.mirror[j] == j], 0] = 0
    bones = torch.tensor(bones_of(HUMAN36M))
    turned = torch.stack([2 * even, even @ so3_exp(torch.tensor([0.3, 1.0, -2.0]).double())])
    assert bone_spread(turned, bones) < 1e-4  # so3_exp is slightly off orthonormal
    assert bone_spread(torch.stack([body, body]), bones) > 0.05


def test_the_spread_of_bones_is_counted_against_the_mean_of_both_sides() -> None:
    bones = torch.tensor(bones_of(HUMAN36M))
    pose = torch.zeros(2, 17, 3)  # a chain along z in which every bone is 1 long ...
    for child, parent in zip(*bones[:2].tolist(), strict=True):
        pose[:, child, 2] = pose[:, parent, 2] + 1
    pose[1, 3, 2] += 1  # ... but the second one's right shin, of 16 bones
    share = torch.ones(2, 16)
    share[1] = 16 / 17
    share[1, 2] = 32 / 17
    body = share.mean(0)
    body[[2, 5]] = body[[2, 5]].mean()
    torch.testing.assert_close(bone_spread(pose, bones), (share - body).abs().mean())


def test_mirror_images_change_sides_and_are_lifted_alike(run: Path, store: Path) -> None:
    points = poses(3)
    both = with_mirror_images(points, HUMAN36M)
    assert torch.equal(both[:3], points)
    torch.testing.assert_close(both[4, 16], points[1, 13] * torch.tensor([-1.0, 1.0]).double())
    given = settings("student", store, run)
    points = both.float()
    depth, elevation = upright_teacher_labels(given, HUMAN36M, points, torch.device("cpu"))
    teacher, _ = load_model(run, "teacher")
    assert isinstance(teacher, UprightTeacher)
    swap = list(HUMAN36M.mirror)
    assert torch.equal(depth[3:], depth[:3, swap]) and torch.equal(elevation[3:], elevation[:3])
    theirs = teacher.depth(points)
    torch.testing.assert_close(depth[:3], (theirs[:3] + theirs[3:, swap]) / 2)


def test_a_student_can_be_held_to_the_density_and_to_the_cameras_vertical(
    store: Path, run: Path, tmp_path: Path
) -> None:
    given = {"teacher": str(run), "prior": str(run), "steps": 2}
    plain = train(settings("student", store, tmp_path / "a", **given), console=quiet_console())
    assert list(plain.losses) == ["total", "distillation", "equivariance"]
    given["prior_weight"] = 0.05
    held = train(settings("student", store, tmp_path / "b", **given), console=quiet_console())
    assert list(held.losses) == ["total", "distillation", "equivariance", "prior"]
    parts = held.losses
    total = 5 * parts["distillation"] + parts["equivariance"] + 0.05 * parts["prior"]
    assert parts["total"] == pytest.approx(total, rel=1e-5)
    given = {**given, "prior_weight": 0.0, "vertical": "camera"}
    turned = train(settings("student", store, tmp_path / "c", **given), console=quiet_console())
    assert turned.losses["distillation"] == pytest.approx(plain.losses["distillation"], rel=0.05)
    assert turned.losses["equivariance"] != plain.losses["equivariance"]


def test_upright_depths_are_relative_to_the_root() -> None:
    model = UprightTeacher(width=32, blocks=1).eval()
    assert (model.depth(poses(5).float())[:, 0] == 0).all()
    assert model.elevation(poses(5).float()).shape == (5,)
    spread = spread_of(torch.tensor([0.1, 0.3]))
    torch.testing.assert_close(spread, torch.tensor([0.2, 0.1]))


def test_the_recipe_changes_defaults_and_nothing_that_is_said() -> None:
    paper, upright = make_settings("teacher"), make_settings("teacher", None, {"recipe": "upright"})
    assert (paper.optimiser, paper.batch, paper.samples) == ("sgd", 128, 4)
    assert (upright.optimiser, upright.batch, upright.samples) == ("adam", 256, 1)
    assert make_settings("teacher", None, {"recipe": "upright", "batch": 64}).batch == 64
    assert stages_of("paper") == ("teacher", "student")
    assert stages_of("upright") == ("prior", "teacher", "student")


def test_the_depths_sign_is_right_without_any_3d(run: Path, store: Path) -> None:
    result = evaluate(run, store, stage="teacher", save=False)
    ours, flat = result.over_poses.figures, result.baseline[-1].figures
    assert ours["wrong_sign"] < 15
    assert ours["p_mpjpe"] < 0.85 * flat["p_mpjpe"]


def test_the_sign_is_right_in_a_mirrored_world_too(store: Path, tmp_path: Path) -> None:
    """Perspective decides it: nothing of the method knows which way people bend."""
    mirror = tmp_path / "mirrored.h5"
    write_variant("mirrored", store, mirror)
    for stage in ("prior", "teacher"):
        train(settings(stage, mirror, tmp_path), console=quiet_console())
    ours = evaluate(tmp_path, mirror, stage="teacher", save=False).over_poses.figures
    unmirrored = evaluate(tmp_path, store, stage="teacher", save=False).over_poses.figures
    assert ours["wrong_sign"] < 15
    assert unmirrored["p_mpjpe"] > ours["p_mpjpe"] + 10  # it has learned these people, not others


@pytest.mark.parametrize("world, degrees", [("up30", -30), ("down30", 30)])
def test_the_sign_is_right_from_steep_cameras(
    world: str, degrees: int, store: Path, tmp_path: Path
) -> None:
    """Pilots find that the camera is not level, and whether it looks up or down."""
    steep = tmp_path / "steep.h5"
    write_variant(world, store, steep)
    said = StringIO()
    for stage, given in {"prior": {}, "teacher": {"steps": 1000}}.items():
        chosen = settings(stage, steep, tmp_path, **given)
        train(chosen, console=Console(file=said, width=200))
    assert f"the camera looks {world[:-2]} by about 30 degrees" in said.getvalue()
    teacher, _ = load_model(tmp_path, "teacher")
    assert isinstance(teacher, UprightTeacher)
    with PoseStore(steep) as poses:
        elevation = teacher.elevation(torch.from_numpy(poses.points("train")[0])).detach()
    assert math.degrees(elevation.mean()) == pytest.approx(degrees, abs=8)
    assert (
        evaluate(tmp_path, steep, stage="teacher", save=False).over_poses.figures["wrong_sign"] < 5
    )


def test_a_start_changes_where_elevations_are_counted_from() -> None:
    torch.manual_seed(0)
    model = UprightTeacher(width=32, blocks=1).double().eval()
    before = model.elevation(poses(5))
    model.start_elevation.fill_(0.5)
    torch.testing.assert_close(model.elevation(poses(5)), before + 0.5)
    depth = model.depth(poses(5))
    model.flip()
    torch.testing.assert_close(model.elevation(poses(5)), -before - 0.5)
    torch.testing.assert_close(model.depth(poses(5)), -depth)


def test_models_of_a_run_know_their_recipe(run: Path) -> None:
    teacher, metadata = load_model(run, "teacher")
    student, _ = load_model(run)
    assert isinstance(teacher, UprightTeacher) and isinstance(student, UprightStudent)
    assert metadata.settings["recipe"] == "upright"
    assert load_prior(run).skeleton == HUMAN36M
    with pytest.raises(ItesError, match="expected a prior, got 'teacher'"):
        load_prior(run / "teacher.safetensors")


@pytest.mark.parametrize("stage", ["prior", "teacher", "student"])
def test_resume_is_bit_for_bit(
    stage: str, store: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(name: str) -> Any:
        others = {"prior": str(run)} if stage == "teacher" else {}
        others |= {"teacher": str(run)} if stage == "student" else {}
        return settings(stage, store, tmp_path / name, steps=50, log_every=10, **others)

    train(chosen("whole"), console=quiet_console())
    advance = Log.advance

    def interrupt(log: Log, step: int) -> None:
        advance(log, step)
        if step == 27:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Log, "advance", interrupt)
        assert train(chosen("cut"), console=quiet_console()).step == 27
    assert train(chosen("cut"), resume=True, console=quiet_console()).step == 50
    whole, cut = (tmp_path / name / f"{stage}.safetensors" for name in ("whole", "cut"))
    ours, theirs = ((load_prior if stage == "prior" else _model)(path) for path in (whole, cut))
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name


def _model(path: Path) -> Any:
    return load_model(path)[0]


def test_a_teacher_of_the_other_recipe_is_refused(run: Path, store: Path, tmp_path: Path) -> None:
    given = {"teacher": str(run), "steps": 1, "recipe": "paper"}
    with pytest.raises(ItesError, match="expected a teacher of recipe 'paper'"):
        train(settings("student", store, tmp_path, **given), console=quiet_console())
    with pytest.raises(ItesError, match="expected a trained prior$"):
        train(settings("teacher", store, tmp_path, steps=1), console=quiet_console())


def test_one_command_trains_all_stages(store: Path, tmp_path: Path) -> None:
    arguments = ["both", "--recipe", "upright", "--data", str(store), "--out", str(tmp_path)]
    for stage in stages_of("upright"):
        arguments += [f"--{stage}-steps", "2", f"--{stage}-width", "8", f"--{stage}-blocks", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for stage in stages_of("upright"):
        assert f"{stage}: trained after 2 of 2 steps" in result.output
        assert (tmp_path / f"{stage}.safetensors").is_file()
    assert RunFolder(tmp_path).state("prior").is_file()


def test_folded_models_lift_the_same(run: Path) -> None:
    points = poses(9).float()
    for stage in ("teacher", "student"):
        model, _ = load_model(run, stage)
        torch.testing.assert_close(fold_norms(model).pose(points), model.pose(points))
        assert (fold_norms(model).depth(points)[:, 0] == 0).all()


def test_a_flipped_teacher_says_the_opposite_and_can_be_flipped_back() -> None:
    torch.manual_seed(0)
    model = UprightTeacher(width=32, blocks=1).double().eval()
    points = poses(7)
    depth, elevation = model.depth(points), model.elevation(points)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.flip()
    torch.testing.assert_close(model.depth(points), -depth)
    torch.testing.assert_close(model.elevation(points), -elevation)
    model.flip()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_perspective_tells_the_sign_of_all_depths(run: Path, store: Path) -> None:
    model, _ = load_model(run, "teacher")
    prior = load_prior(run)
    assert isinstance(model, UprightTeacher)
    with PoseStore(store) as poses_store:
        points = torch.from_numpy(poses_store.points("train", None)[0][::5])
    assert not model.flip_helps(points, prior)
    model.flip()
    assert model.flip_helps(points, prior)


@pytest.mark.parametrize("network", (UprightTeacher, UprightStudent))
def test_a_mirror_image_is_lifted_to_the_mirror_image(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = network(HUMAN36M, width=16, blocks=1).double().eval()
    points = correlated(5)
    swap = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    for lifted in (model, fold_norms(model, torch.float64)):
        pose = lifted.pose(points)
        image = lifted.pose(mirror_image(points, HUMAN36M))
        torch.testing.assert_close(image[:, list(HUMAN36M.mirror)] * swap, pose)
        assert pose[:, 1:, 2].abs().min() > 0


def test_the_paper_lifts_a_mirror_image_as_any_other() -> None:
    torch.manual_seed(0)
    student = Student(HUMAN36M, width=16, blocks=1).double().eval()
    points = correlated(5)
    assert torch.equal(student.depth(points), student(points))
    image = student.depth(mirror_image(points, HUMAN36M))[:, list(HUMAN36M.mirror)]
    assert (image - student.depth(points)).abs().max() > 1e-3


class Killed(BaseException):
    """The process is gone."""


def train_small(stage: str, store: Path, run: Path) -> None:
    """A short training of a stage, taken up where the folder holds a state of it."""
    small = {"steps": 6, "width": 8, "blocks": 1, "log_every": 2, "checkpoint_every": 3}
    small |= {"batch": 64, "evaluate_every": 3}
    chosen = settings(stage, store, run, **small)
    train(chosen, resume=RunFolder(run).state(stage).is_file(), console=quiet_console())


def left(run: Path) -> dict[str, Any]:
    """What three stages leave in a run folder, but for times."""
    found: dict[str, Any] = {}
    for path in sorted(run.iterdir()):
        if path.suffix == ".safetensors":
            found |= {f"{path.name} {name}": value for name, value in load_file(path).items()}
        elif path.suffix == ".csv":
            found[path.name] = rows(path)
        elif path.is_file() and path.name != "versions.json":
            found[path.name] = path.read_text().replace(str(run), "RUN")
    return found


@pytest.mark.parametrize("stage", stages_of("upright"))
def test_a_run_killed_at_any_write_resumes_to_the_same_bits(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each file takes its name, and right after it."""
    store, run, before = tmp_path / "small.h5", tmp_path / "run", tmp_path / "before"
    prepare_synthetic(store, poses=400, seed=3, fps=10.0)
    monkeypatch.setattr("ites.training.calibration.CALIBRATION", (64, 1))
    monkeypatch.setattr("ites.training.log._has_tensorboard", lambda console: False)
    monkeypatch.setattr("os.fsync", lambda file: None)  # it is the process that dies
    run.mkdir()
    for earlier in stages_of("upright")[: stages_of("upright").index(stage)]:
        train_small(earlier, store, run)
    shutil.copytree(run, before)
    replace, written = os.replace, []

    def watched(source: Any, target: Any) -> None:
        written.append(Path(target).name)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", watched)
        train_small(stage, store, run)
    whole = left(run)
    assert written.count(f"{stage}.state.safetensors") == 2  # at steps 3 and 6
    assert written.count(f"{stage}.safetensors") == 2
    assert (f"{stage}.odds.json" in written) == (stage != "prior")
    for kill, after in itertools.product(range(len(written)), (False, True)):
        shutil.rmtree(run)
        shutil.copytree(before, run)
        with monkeypatch.context() as patch:
            patch.setattr("os.replace", killing(kill, after))
            with pytest.raises(Killed):
                train_small(stage, store, run)
        train_small(stage, store, run)
        cut, where = left(run), f"killed {'after' if after else 'before'} {written[kill]}, {kill}"
        assert cut.keys() == whole.keys(), where
        for name, value in whole.items():
            same = torch.equal if isinstance(value, torch.Tensor) else operator.eq
            assert same(value, cut[name]), f"{name}, {where}"


def killing(kill: int, after: bool) -> Callable[[Any, Any], None]:
    """An `os.replace` whose call number `kill` ends the process, before or after its work."""
    replace, calls = os.replace, itertools.count()

    def call(source: Any, target: Any) -> None:
        last = next(calls) == kill
        if after or not last:
            replace(source, target)
        if last:
            raise Killed

    return call
