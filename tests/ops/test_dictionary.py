"""The pose dictionary's ops."""

from __future__ import annotations

import pytest
import torch
from op_contract import KERNELS, Arguments, OpContract, device_of, normal, require

from ites import ops
from ites.pose.skeleton import HUMAN36M


class TestDictionaryReprojection(OpContract):
    op = "dictionary_reprojection"

    @staticmethod
    def call(arguments: Arguments, backend: str):
        return ops.dictionary_reprojection(**arguments, distance=5.0, backend=backend)

    def sample(self, batch, skeleton):
        joints, w = skeleton.num_joints, normal(batch, 3, seed=3)
        mean = normal(3 * joints, seed=2)
        coefficients = normal(batch, 12)
        if batch > 4:
            w[0] = 0
            w[1] *= 1e-8
            w[2] *= torch.pi / w[2].norm()
            coefficients[3] *= 9  # some joints behind the clamp
        return {
            "coefficients": coefficients.requires_grad_(),
            "dictionary": normal(12, 3 * joints, seed=1).requires_grad_(),
            "mean": mean.requires_grad_(),
            "rotation_vector": w.requires_grad_(),
            "target": normal(batch, joints, 2, seed=4),
        }

    @pytest.mark.parametrize("backend", KERNELS)
    @pytest.mark.parametrize("atoms", (1, 5, 32))
    def test_numbers_of_atoms(self, backend, atoms):
        require(backend, self.op)
        sample = self.sample(9, HUMAN36M)
        sample["coefficients"] = normal(9, atoms).requires_grad_()
        sample["dictionary"] = normal(atoms, 51, seed=1).requires_grad_()
        self.compare(sample, backend, torch.float32)

    @pytest.mark.parametrize("backend", KERNELS)
    @pytest.mark.parametrize("used", (0, 1, 2), ids=("error", "canonical", "camera"))
    def test_each_output_has_its_own_gradient(self, backend, used):
        """A loss on one output alone gives what the reference gives."""
        require(backend, self.op)
        sample = self.sample(7, HUMAN36M)
        wanted = [n for n, t in sample.items() if t.requires_grad]
        grads = []
        for name, dtype in ((backend, torch.float32), ("reference", torch.float64)):
            device = device_of(name)
            tensors = {
                n: t.detach().float().to(device, dtype).requires_grad_(t.requires_grad)
                for n, t in sample.items()
            }
            output = self.call(tensors, name)[used]
            weight = normal(*output.shape, seed=8).to(output)
            grads.append(
                torch.autograd.grad(
                    (output * weight).sum(), [tensors[n] for n in wanted], allow_unused=True
                )
            )
        for name, a, b in zip(wanted, *grads, strict=True):
            b = torch.zeros(sample[name].shape) if b is None else b
            scale = max(b.abs().max().item(), 1e-30)
            assert (a.cpu().double() - b).abs().max().item() <= 1e-4 * max(scale, 1e-3), name

    @pytest.mark.parametrize("backend", ("reference", *KERNELS))
    def test_perfect_fit_has_zero_error_and_finite_gradient(self, backend):
        require(backend, self.op)
        device = device_of(backend)
        mean = torch.tensor([0.0, 0.0, 0.0, 0.5, -0.25, 1.0], device=device)
        target = torch.tensor([[[0.0, 0.0], [0.5 / 6, -0.25 / 6]]], device=device)
        zeros = [
            torch.zeros(*s, device=device, requires_grad=True) for s in ((1, 2), (2, 6), (1, 3))
        ]
        error, canonical, camera = ops.dictionary_reprojection(
            zeros[0], zeros[1], mean, zeros[2], target, backend=backend
        )
        assert error.item() < 1e-7
        assert torch.equal(canonical.flatten(), mean) and torch.equal(camera, canonical)
        error.sum().backward()
        assert all(t.grad.isfinite().all() for t in zeros)

    def test_refusals(self):
        sample = self.sample(4, HUMAN36M)
        with pytest.raises(
            ValueError, match=r"target must have shape \(4, 17, 2\), got \(3, 17, 2\)"
        ):
            self.call({**sample, "target": sample["target"][:3]}, "reference")
        with pytest.raises(
            ValueError, match=r"dictionary must have shape \(12, 3 J\), got \(5, 51\)"
        ):
            self.call({**sample, "dictionary": sample["dictionary"][:5]}, "reference")
        with pytest.raises(TypeError, match="mean must be torch.float64"):
            self.call({**sample, "mean": sample["mean"].float()}, "reference")
        with pytest.raises(ValueError, match="target is a constant"):
            self.call({**sample, "target": sample["target"].requires_grad_()}, "reference")


class TestInvarianceDistance(OpContract):
    op = "invariance_distance"

    @staticmethod
    def call(arguments: Arguments, backend: str):
        return (ops.invariance_distance(**arguments, backend=backend),)

    def sample(self, batch, skeleton):
        joints = skeleton.num_joints
        return {
            "coefficients": normal(4 * batch, 12).requires_grad_(),
            "dictionary": normal(12, 3 * joints, seed=1).requires_grad_(),
            "mean": normal(3 * joints, seed=2).requires_grad_(),
            "canonical": normal(batch, joints, 3, seed=3).requires_grad_(),
        }

    @pytest.mark.parametrize("backend", ("reference", *KERNELS))
    def test_gradient_is_zero_where_poses_agree(self, backend):
        require(backend, self.op)
        device = device_of(backend)
        tensors = [
            torch.zeros(*s, device=device, requires_grad=True)
            for s in ((4, 2), (2, 9), (9,), (2, 3, 3))
        ]
        distance = ops.invariance_distance(*tensors, backend=backend)
        distance.sum().backward()
        assert torch.equal(distance, torch.zeros_like(distance))
        assert all(torch.equal(t.grad, torch.zeros_like(t)) for t in tensors)
