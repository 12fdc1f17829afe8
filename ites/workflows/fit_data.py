"""The data of a fit: keypoint files are read, cleaned, split by sequence and stored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ites.data.checks import check
from ites.data.clips import Clip, drop_impossible, fill_missing, seen_joints, stored_clips
from ites.data.datasets.keypoints import Repeats, frame_keys, prepare_keypoints
from ites.data.findings import Finding, summarise
from ites.data.store import PoseStore, PoseStoreWriter
from ites.errors import ItesError
from ites.pose.camera import Camera
from ites.pose.missing import Mask, robust_mean
from ites.pose.skeleton import Skeleton

BRIDGE = 0.25
"""Farthest frame, seconds, from which a missing joint is interpolated."""
LEAST_SEEN = 0.75
"""Least share of the joints that a frame to learn from shows."""
WRONG = ("swapped-sides", "jump", "outlier", "guessed")
"""Findings whose frames are left out of the training."""
HELD_OUT = 0.1
"""Share of the frames that is held out, at least."""
MOST_HELD_OUT = (0.2, 0.35)
"""Largest share that whole source sequences may take: where that is possible, and in any case; else
a block of each clip is held out."""
GAP = 2.0
"""Seconds between the frames to learn from and a held-out block of the same clip."""
ASSUMED_FPS = 25.0
LEAST_FRAMES = 100
"""Fewest frames that a fit takes on."""
AWAY = 5.0
"""Root-to-head distances between the camera and a person, where no camera is known."""


Gravity = Callable[[NDArray[np.float32]], tuple[float, float]]
"""Elevation and roll, degrees, of the camera that saw poses (T, J, 2), root-relative."""


@dataclass(frozen=True)
class Source:
    """A cleaned clip, or a part of one.

    Attributes:
        clip: without confidence; every joint is there.
        sequence: the source sequence: all people of one video.
        camera: that saw it.
        start: the first frame in the whole clip.
        whole: frames of the whole clip.
    """

    clip: Clip
    sequence: str
    camera: Camera
    start: int
    whole: int


@dataclass(frozen=True)
class Own:
    """Keypoints to learn from.

    Attributes: `notes`, what was assumed or left out; `findings`, what is implausible, by
    `ites.data.findings.Finding.plain`.
    """

    skeleton: Skeleton
    sources: list[Source]
    notes: list[str]
    findings: list[dict[str, Any]]


def read_own(files: Sequence[Path], skeleton: Skeleton, options: dict[str, Any]) -> Own:
    """Read and clean keypoint files.

    Args:
        files: see `ites.data.readers.read`.
        skeleton: of the clips.
        options: further arguments of `prepare_keypoints`.

    Raises:
        ItesError: a file cannot be read, or no frame is left.
    """
    sources: list[Source] = []
    of_file: list[tuple[Path, list[str]]] = []
    notes: list[str] = []
    findings: list[Finding] = []
    frames = 0
    repeats = Repeats()
    known: dict[bytes, tuple[str, str]] = {}  # by frame: source sequence and clip
    for number, path in enumerate(files):
        with TemporaryDirectory() as scratch:
            out = Path(scratch) / "keypoints.h5"
            summary = prepare_keypoints([path], out, skeleton=skeleton, **options)
            with PoseStore(out) as store:
                clips = stored_clips(store, store.sequences).clips
                names = [sequence.subject for sequence in store.sequences]
                cameras = [store.cameras[sequence.camera] for sequence in store.sequences]
        clips = [replace(clip, name=name) for clip, name in zip(clips, names, strict=True)]
        new = [not repeats.found(clip, path) for clip in clips]
        if any(new):
            of_file.append((path, [note for note in summary["notes"] if not _is_camera(note)]))
            findings += [_unnamed(Finding(**found)) for found in summary["findings"]]
        wrong = _wrong_frames(clips, skeleton)
        for clip, camera in compress(zip(clips, cameras, strict=True), new):
            frames += len(clip)
            sequence = f"{number} {_sequence(path, clip.name)}"
            keys = frame_keys(clip)
            again = np.array([key in known for key in keys], bool)
            if again.any():  # of one video: held out together, and each frame counts once
                sequence, other = known[next(key for key in keys if key in known)]
                notes.append(
                    f"{path}: {int(again.sum()):,} of {len(clip):,} frames of clip {clip.name} "
                    f"have the keypoints of frames of {other}; they count once"
                )
            known.update((key, (sequence, clip.name)) for key in keys if key and key not in known)
            sources += [
                Source(part, sequence, camera, start, len(clip))
                for part, start in _clean(clip, skeleton, wrong.get(clip.name), again, notes)
            ]
    kept = sum(len(source.clip) for source in sources)
    if kept < LEAST_FRAMES:
        raise ItesError(
            f"fit: expected at least 2,000 frames that show a whole person, got {kept:,} of "
            f"{frames:,} frames in {len(files):,} file{'s' * (len(files) > 1)}; add clips, or lift "
            "them with a trained run"
        )
    return Own(
        skeleton,
        sources,
        [*repeats.lines(), *_joined(of_file), *notes],
        [finding.plain() for finding in summarise(findings)],
    )


def _is_camera(note: str) -> bool:
    """Whether a note states a focal length, which a fit does not assume; see `write_own`."""
    return note.startswith("camera unknown: ")


def _unnamed(finding: Finding) -> Finding:
    """A finding without the clip's name before its words, which `summarise` puts there again."""
    return replace(finding, message=finding.message.removeprefix(f"{finding.clip}: "))


def _joined(of_file: Sequence[tuple[Path, Sequence[str]]]) -> list[str]:
    """The notes of several files; one that many files share stands once."""
    files: dict[str, list[str]] = {}
    for path, notes in of_file:
        for note in notes:
            files.setdefault(note.removeprefix(f"{path.stem}: "), []).append(path.stem)
    if len(of_file) == 1:
        return list(files)
    return [
        f"{names[0]}{f' and {len(names) - 1:,} other files' * (len(names) > 1)}: {note}"
        for note, names in files.items()
    ]


def _sequence(path: Path, clip: str) -> str:
    """The source sequence of a clip: its name without the person or camera."""
    if path.is_file() and h5py.is_hdf5(path):
        clip = clip.rpartition("/")[0] or clip
    return clip.rpartition("#")[0] or clip


def _wrong_frames(clips: list[Clip], skeleton: Skeleton) -> dict[str, Mask]:
    """Frames that a finding names, by the clip's name."""
    wrong: dict[str, Mask] = {}
    lengths = {clip.name: len(clip) for clip in clips}
    for finding in check(clips, skeleton):
        if finding.code in WRONG and len(finding.frames):
            mask = wrong.setdefault(finding.clip, np.zeros(lengths[finding.clip], bool))
            mask[finding.frames] = True
    return wrong


def _clean(
    clip: Clip, skeleton: Skeleton, wrong: Mask | None, again: Mask, notes: list[str]
) -> list[tuple[Clip, int]]:
    """The parts of a clip whose frames show a person, with short gaps filled, and their starts."""
    clip, _ = drop_impossible(clip, skeleton)
    seen = seen_joints(clip)
    fps = clip.fps if clip.fps > 0 else ASSUMED_FPS
    good = (seen.mean(1) >= LEAST_SEEN) & (_away(seen) <= BRIDGE * fps).all(1)
    if wrong is not None:
        good &= ~wrong
    never = [skeleton.joints[joint] for joint in np.flatnonzero(~seen.any(0))]
    if never:
        notes.append(f"{clip.name}: left out, for it never shows {', '.join(never[:4])}")
        return []
    if not good.all():
        lost = int(np.count_nonzero(~good))
        notes.append(
            f"{clip.name}: {lost:,} of {len(clip):,} frames left out: joints are missing "
            "or implausible"
        )
    good &= ~again
    filled, _ = fill_missing(clip, skeleton)
    edges = np.flatnonzero(np.diff(good, prepend=False, append=False)).reshape(-1, 2)
    parts = []
    for start, stop in edges.tolist():
        name = clip.name if len(edges) == 1 else f"{clip.name} from frame {start}"
        part = filled.keypoints[start:stop]
        parts.append((replace(clip, name=name, keypoints=part, confidence=None), start))
    return parts


def _away(seen: Mask) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Frames (T, J) to the nearest one that shows the joint; inf of none."""
    count = np.arange(len(seen), dtype=np.float64)[:, None]
    before = np.maximum.accumulate(np.where(seen, count, -np.inf), axis=0)
    after = np.minimum.accumulate(np.where(seen, count, np.inf)[::-1], axis=0)[::-1]
    return np.minimum(count - before, after - count)


def split(sources: Sequence[Source], seed: int) -> list[list[Source]]:
    """Sources to learn from, and those held out.

    Whole sequences are held out, chosen by the seed: at least `HELD_OUT` of the frames and at most
    `MOST_HELD_OUT`. Where there are only two, or all are larger, the end of each clip is held out,
    after a gap of `GAP` seconds (at most a tenth of the clip).
    """
    frames: dict[str, int] = {}
    for source in sources:
        frames[source.sequence] = frames.get(source.sequence, 0) + len(source.clip)
    total = sum(frames.values())
    order = sorted(frames, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    for most in MOST_HELD_OUT if len(frames) > 2 else ():
        chosen: set[str] = set()
        held = 0
        for name in order:
            if held < HELD_OUT * total and held + frames[name] <= most * total:
                chosen.add(name)
                held += frames[name]
        if held >= HELD_OUT * total:
            own = [source for source in sources if source.sequence not in chosen]
            return [own, [source for source in sources if source.sequence in chosen]]
    own, out = [], []
    for source in sources:
        fps = source.clip.fps if source.clip.fps > 0 else ASSUMED_FPS
        cut = source.whole - round(1.5 * HELD_OUT * source.whole)
        gap = min(round(GAP * fps), source.whole // 10)
        own += _part(source, 0, cut - gap)
        out += _part(source, cut, source.whole)
    return [own, out]


def _part(source: Source, first: int, last: int) -> list[Source]:
    """The frames of a source from `first` to before `last` of the whole clip, if there are any."""
    rows = slice(max(0, first - source.start), max(0, last - source.start))
    points = source.clip.keypoints[rows]
    return [replace(source, clip=replace(source.clip, keypoints=points))] if len(points) else []


def write_own(
    out: Path,
    own: Own,
    parts: Sequence[Sequence[Source]],
    gravity: Gravity | None = None,
) -> None:
    """Write the store of a fit: splits "train" and "test".

    A camera that is only assumed gets the focal length at which the clip's person stands as far
    away as all others, because lifting without a camera sizes each clip by itself.

    Args:
        out: the store to write.
        own: all clips.
        parts: those to learn from, and those held out.
        gravity: estimates how a clip's camera stands; None: the store does not say.
    """
    known = [source for source in own.sources if not source.camera.assumed]
    usual = np.median([_size(source, own.skeleton) for source in known]) if known else 1 / AWAY
    with PoseStoreWriter(out, own.skeleton, "keypoints of a fit") as writer:
        for name, sources in zip(("train", "test"), parts, strict=True):
            for source in sources:
                camera = source.camera
                if camera.assumed:
                    size = _size(source, own.skeleton) * camera.focal_length[0]  # pixels
                    focal = float(size / usual)
                    camera = replace(camera, focal_length=(focal, focal))
                stands = None
                if gravity is not None:
                    points = source.clip.keypoints - source.clip.keypoints[:, [own.skeleton.root]]
                    points = (points / np.asarray(camera.focal_length)).astype(np.float32)
                    stands = np.tile(np.array(gravity(points), np.float32), (len(points), 1))
                writer.add(
                    source.clip.keypoints,
                    camera=writer.key_of(camera),
                    subject=source.clip.name,
                    action="keypoints",
                    split=name,
                    fps=source.clip.fps,
                    gravity=stands,
                )


def _size(source: Source, skeleton: Skeleton) -> float:
    """The mean root-to-head distance of a clip over the focal length."""
    focal = np.asarray(source.camera.focal_length, np.float32)
    across = source.clip.keypoints[:, skeleton.head] - source.clip.keypoints[:, skeleton.root]
    return max(robust_mean(np.linalg.norm(across / focal, axis=-1)), 1e-6)
