"""Metrics against the released program's numbers, against closed cases, and at their edges."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ites.pose import metrics

ROTATION = torch.linalg.qr(torch.tensor([[1.0, 2, 3], [-2, 1, 0.5], [0.3, -1, 2]]).double())[0]
ROTATION = ROTATION * torch.linalg.det(ROTATION)  # proper
DEGENERATE = {
    "planar": [1.0, 1.0, 0.0],
    "collinear": [1.0, 0.0, 0.0],
    "point": [0.0, 0.0, 0.0],
    "nearly planar": [1.0, 1.0, 1e-9],
    "nearly collinear": [1.0, 1e-9, 1e-12],
    "tiny": [1e-12, 1e-12, 1e-12],
}


def poses(seed, count=64, joints=17):
    return torch.randn(count, joints, 3, generator=torch.Generator().manual_seed(seed)).double()


def kabsch(pred, gt):
    """One pose at a time, as the textbook has it; reflections excluded."""
    pred, mean = pred - pred.mean(0), gt.mean(0)
    left, singular, right = np.linalg.svd(pred.T @ (gt - mean))
    singular[2] *= np.sign(np.linalg.det(left @ right))
    left[:, 2] *= np.sign(np.linalg.det(left @ right))
    return singular.sum() / (pred**2).sum() * pred @ left @ right + mean


@pytest.mark.parametrize("name", ["golden_small_seed1_b8", "golden_small_seed200_b33"])
def test_ites_protocol_is_the_released_programs(shared, name):
    with np.load(shared / "golden" / f"{name}.npz", allow_pickle=False) as golden:
        expected = {k[5:]: golden[k] for k in golden.files if k.startswith("eval.")}
    result = metrics.ites_protocol(*(torch.from_numpy(expected.pop(k)) for k in ("pred", "gt")))
    assert set(expected) == set(vars(result))
    for key, value in expected.items():
        error = np.abs(np.asarray(getattr(result, key)) - value).max()
        assert error <= 1e-6 * np.abs(value).max(), key


def test_pose_errors_agree_with_the_protocol_and_the_single_functions(monkeypatch):
    monkeypatch.setattr(metrics, "CHUNK", 10)  # several chunks and a short one
    pred, gt = poses(1), poses(2) * 0.1
    errors, protocol = metrics.pose_errors(pred, gt, unit=0.4), metrics.ites_protocol(pred, gt)
    best = torch.minimum(protocol.mpjpe, protocol.mpjpe_flip)
    expected = {
        "mpjpe": metrics.mpjpe(0.4 * pred, gt),
        "n_mpjpe": metrics.n_mpjpe(pred, gt),
        "p_mpjpe": metrics.p_mpjpe(pred, gt),
        "p_mpjpe_oracle": torch.minimum(protocol.pmpjpe, protocol.pmpjpe_flip),
        "scaled_mpjpe": protocol.mpjpe,
        "scaled_mpjpe_oracle": best,
        "wrong_sign": protocol.wrong_sign.double(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(errors[name], value, rtol=1e-12, atol=0)
    assert 0 < errors["wrong_sign"].mean() < 1
    for key in ("pck", "auc", "p_pck", "p_auc"):
        name = {"pck": "pck150", "p_pck": "p_pck150"}.get(key, key)
        assert float(errors[f"{key}_oracle"].mean()) == pytest.approx(getattr(protocol, name))
        assert (errors[f"{key}_oracle"] >= errors[key]).all()


def test_mpjpe_by_hand():
    gt = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    pred = torch.tensor([[[5.0, 5, 5], [6, 5, 5.3], [5, 6.4, 5.3]]])
    assert metrics.mpjpe(pred, gt).item() == pytest.approx((0 + 0.3 + 0.5) / 3)
    assert metrics.mpjpe(pred, gt, root=1).item() == pytest.approx((0.3 + 0 + 0.4) / 3)


def test_n_mpjpe_ignores_scale_and_is_least_squares():
    pred, gt = poses(3), poses(4)
    torch.testing.assert_close(metrics.n_mpjpe(7 * pred, gt), metrics.n_mpjpe(pred, gt))
    assert metrics.n_mpjpe(3 * gt + 2, gt).max() < 1e-14
    half = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    other = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 0, 1]]])
    expected = (0.5 + np.sqrt(1.25)) / 3  # scale 1/2
    assert metrics.n_mpjpe(half, other).item() == pytest.approx(expected)


def test_p_mpjpe_undoes_a_similarity_but_not_a_reflection():
    gt = poses(5)
    moved = 0.3 * gt @ ROTATION + torch.tensor([1.0, -2, 9])
    assert metrics.p_mpjpe(moved, gt).max() < 1e-14
    assert metrics.p_mpjpe(metrics.flip_depth(moved), gt).min() > 0.05
    assert metrics.ites_protocol(metrics.flip_depth(moved), gt).pmpjpe_flip.max() < 1e-14
    torch.testing.assert_close(
        metrics.similarity_scale(moved, gt), torch.full((64,), 1 / 0.3).double()
    )


@pytest.mark.parametrize("kind", ["full", *DEGENERATE])
@pytest.mark.parametrize("mirrored", [False, True])
def test_align_is_kabsch(kind, mirrored):
    gt = poses(6)
    shape = torch.tensor(DEGENERATE.get(kind, [1.0, 1, 1])).double()
    pred = (poses(7) * 0.2 + gt) * shape @ ROTATION
    pred = metrics.flip_depth(pred) if mirrored else pred
    aligned = metrics.align(pred, gt)
    assert aligned.isfinite().all()
    if kind == "point":
        torch.testing.assert_close(aligned, gt.mean(1, keepdim=True).expand_as(gt))
        return
    expected = np.stack([kabsch(p, g) for p, g in zip(pred.numpy(), gt.numpy(), strict=True)])
    distance = np.linalg.norm(expected - gt.numpy(), axis=-1).mean(-1)
    np.testing.assert_allclose(metrics.p_mpjpe(pred, gt), distance, rtol=1e-9)
    # The twin is aligned without a second decomposition: the same as flipping it by hand.
    twin = metrics.ites_protocol(pred, gt).pmpjpe_flip
    by_hand = metrics.p_mpjpe(metrics.flip_depth(pred), gt)
    np.testing.assert_allclose(twin, by_hand, rtol=1e-9)


@pytest.mark.parametrize("kind", DEGENERATE)
def test_degenerate_truth_and_coincident_joints_stay_finite(kind):
    gt = poses(8) * torch.tensor(DEGENERATE[kind])
    pred = poses(9)
    pred[:, 3:9] = pred[:, 3:4]
    for a, b in ((pred, gt), (gt, pred), (gt, gt), (gt + 1e3, pred)):
        assert all(value.isfinite().all() for value in metrics.pose_errors(a, b).values())


def test_a_flat_pose_has_no_wrong_sign():
    flat = poses(10) * torch.tensor([1.0, 1, 0])
    protocol = metrics.ites_protocol(flat, poses(11))
    assert not protocol.wrong_sign.any()
    torch.testing.assert_close(protocol.pmpjpe, protocol.pmpjpe_flip)


def test_wrong_sign_marks_the_flipped_pose():
    gt = poses(12)
    pred = gt.clone()
    pred[::2] = metrics.flip_depth(pred[::2])
    wrong = metrics.ites_protocol(pred, gt).wrong_sign
    assert wrong[::2].all() and not wrong[1::2].any()


def test_pck_and_auc_at_the_thresholds():
    distance = torch.tensor([[0.0, 0.005, 0.149, 0.15, 1.0]], dtype=torch.float64)
    assert metrics.pck(distance).item() == pytest.approx(3 / 5)
    assert metrics.pck(distance, threshold=0.004).item() == pytest.approx(1 / 5)
    # thresholds 0, 5, ..., 150 mm lying strictly above each distance: 30, 29, 1, 0, 0 of 31
    assert metrics.auc(distance).item() == pytest.approx((30 + 29 + 1) / 31 / 5)


def test_float32_input_is_computed_in_float64_and_left_alone():
    pred, gt = poses(13).float(), poses(14).float()
    before = pred.clone()
    result = metrics.pose_errors(pred, gt)
    assert torch.equal(pred, before)
    for name, value in metrics.pose_errors(pred.double(), gt.double()).items():
        assert result[name].dtype is torch.float64 and torch.equal(result[name], value)


def test_no_pose():
    empty = torch.zeros(0, 17, 3)
    assert all(value.shape == (0,) for value in metrics.pose_errors(empty, empty).values())
    with pytest.raises(ValueError, match="ites_protocol: at least one pose"):
        metrics.ites_protocol(empty, empty)


@pytest.mark.parametrize(
    "function",
    [
        metrics.mpjpe,
        metrics.n_mpjpe,
        metrics.p_mpjpe,
        metrics.align,
        metrics.similarity_scale,
        metrics.ites_protocol,
        metrics.pose_errors,
    ],
)
def test_wrong_input_is_refused(function):
    pred, gt = poses(15, 4), poses(16, 4)
    with pytest.raises(ValueError, match=r"shape \(N, J, 3\), got \(4, 17, 2\) and \(4, 17, 3\)"):
        function(pred[..., :2], gt)
    with pytest.raises(ValueError, match=r"got \(4, 0, 3\)"):
        function(pred[:, :0], gt[:, :0])
    broken = gt.clone()
    broken[2, 5, 1], broken[3, 0, 0] = float("nan"), float("inf")
    message = f"{function.__name__}: gt must be finite, got 2 poses .* first at index 2"
    with pytest.raises(ValueError, match=message):
        function(pred, broken)
    with pytest.raises(ValueError, match="pred must be finite"):
        function(broken, gt)


def test_counted_joints_must_exist():
    pose = poses(17, 2, joints=5)
    with pytest.raises(ValueError, match=r"joints must lie in 0\.\.4, got \[5, 6"):
        metrics.pose_errors(pose, pose)
    assert metrics.pose_errors(pose, pose, joints=(1, 2))["pck"].tolist() == [1, 1]


class _Calls(TorchDispatchMode):
    """Counts the calls of PyTorch's operators."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_no_loop_over_poses():
    """A chunk of any size takes the same operators, which run over all its poses."""
    counts = []
    for size in (3, 1000):
        with _Calls() as calls:
            metrics.pose_errors(poses(18, size), poses(19, size))
        counts.append(calls.count)
    assert counts[0] == counts[1] > 0
