"""A rigid body that turns before a camera, and clips lifted in memory."""

import numpy as np

from ites.data.clips import Clip, Clips
from ites.inference.assume import AllAssumed, network_input
from ites.inference.output import make_consistent, to_clips
from ites.inference.size import body_size_of
from ites.models.predict import lift_points
from ites.pose.skeleton import HUMAN36M

BODY = np.random.default_rng(3).normal(0, 0.3, (17, 3)).astype(np.float32)
BODY[0], BODY[10] = 0, (0, -0.7, 0)


def motion(frames, seed=0):
    """(T, 17, 3) metres, camera frame, 5 m away: a rigid body that turns about the vertical."""
    angle = np.linspace(0, 2, frames) + seed
    c, s, zero, one = np.cos(angle), np.sin(angle), 0 * angle, 0 * angle + 1
    turn = np.stack([c, zero, -s, zero, one, zero, s, zero, c], -1).reshape(-1, 3, 3)
    return (BODY @ turn + [0.2, 0, 5]).astype(np.float32)


def keypoints(frames=12, seed=0, focal=1000.0, centre=500.0):
    """(T, 17, 2) pixels: the same body as a camera sees it."""
    joints = motion(frames, seed)
    return (joints[..., :2] / joints[..., 2:] * focal + centre).astype(np.float32)


def lift_clips(pose, clips, training_scale, *, scale="auto", temporal=False, batch_size=None):
    """Clips lifted in memory by a `pose`, and the notes."""
    clips, points, assumed, sights = network_input(clips, training_scale, scale, temporal)
    lifted = lift_points(pose, points, clips.skeleton, batch_size)
    if temporal:
        lifted = make_consistent(clips, points, points, lifted, sights)
    everything = AllAssumed()
    everything.add(assumed)
    notes = [note.text for note in everything.all_notes()]
    return to_clips(clips, lifted, body_size_of(clips.skeleton), sights=sights), notes


def clips_of(array, **more):
    """One clip of (T, 17, 2) pixels."""
    return Clips(HUMAN36M, [Clip("a", array, fps=25.0, **more)])
