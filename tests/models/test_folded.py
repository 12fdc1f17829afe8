"""Models with their norms folded: the same numbers as in evaluation mode."""

import pytest
import torch
from op_contract import FORK
from torch import nn

from ites.models import Student, Teacher, fold_norms
from ites.models.layers import BatchNormReLU
from ites.ops.backends import MISSING
from ites.pose.skeleton import HUMAN36M, Skeleton

ROOT_LAST = Skeleton("root last", ("a", "b", "c"), (1, 2, -1), head=0)
SKELETONS = (HUMAN36M, FORK, ROOT_LAST)
BACKENDS = [
    pytest.param(
        name, marks=pytest.mark.skipif(name in MISSING, reason=MISSING.get(name, "installed"))
    )
    for name in ("reference", "cpp")
]
KINDS = (Teacher, Student)


def trained(kind, skeleton=HUMAN36M, backend=None, **more):
    """A model in evaluation mode whose norms do something, some with negative weights."""
    torch.manual_seed(3)
    sizes = {"width": 32, "blocks": 2, **more}
    model = kind(skeleton, backend=backend, **sizes).double()
    for module in model.modules():
        if isinstance(module, BatchNormReLU):
            nn.init.normal_(module.weight, 0.4, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.2)
            nn.init.normal_(module.running_mean, 0.0, 0.2)
            nn.init.uniform_(module.running_var, 0.3, 2.0)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.bias, 0.0, 0.2)
            if kind is Teacher:  # whose own initial values are too small to show anything
                nn.init.normal_(module.weight, 0.0, module.in_features**-0.5)
    if isinstance(model, Teacher):
        nn.init.normal_(model.dictionary, 0.0, 0.1)
        nn.init.normal_(model.mean_pose, 0.0, 0.3)
    return model.eval()


def points(batch, skeleton=HUMAN36M):
    generator = torch.Generator().manual_seed(batch)
    x = 0.2 * torch.randn(batch, skeleton.num_joints, 2, generator=generator).double()
    return x - x[:, skeleton.root, None]


def error(result, expected):
    """The largest error, of the largest entry."""
    return ((result - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("skeleton", SKELETONS, ids=lambda skeleton: skeleton.name)
@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_stay(kind, skeleton, backend):
    model = trained(kind, skeleton, backend)
    x = points(9, skeleton)
    with torch.no_grad():
        depth, pose = model.depth(x), model.pose(x)
        exact = fold_norms(model, torch.float64)
        assert exact.depth(x).shape == depth.shape
        assert error(exact.depth(x), depth) < 1e-12
        assert error(exact.pose(x), pose) < 1e-12
        assert error(fold_norms(model).pose(x.float()), pose) < 1e-5
        assert type(exact) is kind
    assert depth.std() > 0.01  # it says something


@pytest.mark.parametrize("kind", KINDS)
def test_the_paper_s_sizes(kind):
    own = {"width": 1024, "blocks": 6} if kind is Teacher else {"width": 128, "blocks": 4}
    model = trained(kind, **own)
    x = points(3)
    with torch.no_grad():
        assert error(fold_norms(model, torch.float64).pose(x), model.pose(x)) < 1e-12
        assert error(fold_norms(model).pose(x.float()), model.pose(x)) < 2e-5


@pytest.mark.parametrize("kind", KINDS)
def test_half_keeps_its_ends_in_float32(kind):
    model = trained(kind)
    x = points(64)
    with torch.no_grad():
        half = fold_norms(model, torch.bfloat16)
        pose, expected = half.pose(x.float()), model.pose(x)
    assert pose.dtype == torch.float32
    assert (pose - expected).abs().mean() < 0.02 * expected.abs().mean()
    # The first two coordinates come from the points, which were never rounded.
    factor = pose[..., :2] / x.float()
    torch.testing.assert_close(factor[:, 1:, 0], factor[:, 1:, 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_it_stands_by_itself(kind):
    model = trained(kind)
    folded, x = fold_norms(model, torch.float64), points(2)
    before = folded.pose(x)
    assert not before.requires_grad and not list(folded.parameters())
    assert (folded.kind, folded.skeleton, folded.distance) == (model.kind, HUMAN36M, 5.0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    assert torch.equal(folded.pose(x), before)
    assert torch.equal(fold_norms(trained(kind).train(), torch.float64).pose(x), before)
    assert folded.pose(x[:0]).shape == (0, 17, 3)


def test_it_compiles_without_breaks():
    folded, x = fold_norms(trained(Student)), points(2).float()
    compiled = torch.compile(folded.pose, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), folded.pose(x), rtol=1e-5, atol=1e-5)
