"""The lengths of bones."""

import numpy as np

from ites.pose.bones import bone_lengths
from ites.pose.skeleton import HUMAN36M


def test_each_bone_is_as_long_as_its_ends_are_apart() -> None:
    poses = np.random.default_rng(0).normal(size=(3, 17, 3)).astype(np.float32)
    lengths = bone_lengths(poses, HUMAN36M)
    assert lengths.shape == (3, len(HUMAN36M.bones)) and lengths.dtype == np.float32
    for column, (parent, joint) in enumerate(HUMAN36M.bones):
        expected = np.linalg.norm(poses[:, joint] - poses[:, parent], axis=-1)
        np.testing.assert_allclose(lengths[:, column], expected, rtol=1e-6)
