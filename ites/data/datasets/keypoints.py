"""A user's own 2D keypoints as a pose store: train or fine-tune on one's own videos, without 3D.

Arrays as `ites lift` reads them, and the COCO-17 detections of the usual detectors:

- a list of `{"image_id": ..., "keypoints": [x, y, score, ...], "score": ...}`, the COCO results of
  Detectron2, MMPose, AlphaPose, or the `annotations` of a COCO file;
- MMPose's predictions: `instance_info`, with `frame_id` and `instances` of `keypoints` (17, 2),
  `keypoint_scores` and `bbox_score`.

In each frame the person with the highest score is taken.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.clips import Clip, drop_impossible, read_keypoints, seen_joints
from ites.data.store import PoseStore, PoseStoreWriter
from ites.errors import ItesError
from ites.pose.camera import FIELD_OF_VIEW, Camera, focal_length_of
from ites.pose.skeleton import HUMAN36M, to_human36m

SUFFIXES = (".npz", ".npy", ".json")


def prepare_keypoints(
    sources: Sequence[Path],
    out: Path,
    *,
    layout: str | None = None,
    split: str = "train",
    fps: float | None = None,
    focal_length: float | None = None,
    field_of_view: float | None = None,
    image_size: tuple[int, int] | None = None,
    min_confidence: float = 0.0,
    title: str = "",
) -> dict[str, Any]:
    """Write a pose store of 2D keypoints.

    Args:
        sources: files, one clip of one person each: .npz or .npy as
            `ites.data.clips.read_keypoints` takes them, or .json detections; or folders of
            such files.
        out: the store to write.
        layout: the joints' order, one of `ites.pose.skeleton.LAYOUTS`; None means "human36m" in
            arrays and "coco17" in .json files.
        split: the split that they become.
        fps: frames a second; None takes the file's, where it has one.
        focal_length: pixels; None takes the file's, or else `field_of_view`.
        field_of_view: horizontal, degrees: `focal_length = width / (2 tan(field_of_view / 2))`;
            None assumes 55, and the store says of its camera that it is assumed.
        image_size: (width, height), pixels; None takes the file's, or else the keypoints' extent.
        min_confidence: a joint with less confidence than this counts as missing.
        title: one line that says what the data are.

    Returns:
        `PoseStore.summary` of what was written, and `notes`: what was assumed or left out, a line
        each.

    Raises:
        ItesError: there is no file, or one cannot be read or holds no pose.
    """
    if field_of_view is not None and not 0 < field_of_view < 180:
        raise ItesError(f"prepare_keypoints: field_of_view must be in 0..180, got {field_of_view}")
    notes: list[str] = []
    with PoseStoreWriter(out, HUMAN36M, title or "2D keypoints") as writer:
        for path in _files(sources):
            clip = _read(path, layout)
            clip = replace(
                clip,
                fps=fps or clip.fps,
                image_size=image_size or clip.image_size,
                focal_length=(focal_length,) * 2 if focal_length else clip.focal_length,
            )
            confidence = clip.confidence
            if confidence is not None:
                confidence = np.where(confidence < min_confidence, 0, confidence)
            clip, note = drop_impossible(replace(clip, confidence=confidence), HUMAN36M)
            camera = _camera(clip, field_of_view)
            notes += [*note, *_assumptions(clip, camera)]
            if camera.id not in writer.cameras:
                writer.add_camera(camera.id, camera)
            writer.add(
                clip.keypoints,
                camera=camera.id,
                subject=clip.name,
                action="keypoints",
                split=split,
                fps=clip.fps,
                confidence=clip.confidence,
            )
    with PoseStore(out) as store:
        return {**store.summary(), "notes": list(dict.fromkeys(notes))}


def _files(sources: Sequence[Path]) -> Iterator[Path]:
    for source in map(Path, sources):
        if not source.is_dir():
            yield source
            continue
        files = sorted(p for p in source.iterdir() if p.suffix in SUFFIXES)
        if not files:
            raise ItesError(f"{source}: expected files of {', '.join(SUFFIXES)}, got none")
        yield from files


def _read(path: Path, layout: str | None) -> Clip:
    if path.suffix not in SUFFIXES:
        raise ItesError(f"{path}: expected a file of {', '.join(SUFFIXES)}")
    if path.suffix != ".json":
        return read_keypoints(path, layout=layout).clips[0]
    try:
        with path.open(encoding="utf-8") as file:
            frames = _people(json.load(file))
        keypoints, confidence = _best(frames)
    except FileNotFoundError:
        raise ItesError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ItesError(f"{path}: expected COCO or MMPose detections ({error!r})") from None
    keypoints, converted = to_human36m(keypoints, layout or "coco17", confidence)
    return Clip(name=path.stem, keypoints=keypoints, confidence=converted)


Person = tuple[float, NDArray[np.float32]]  # score, (J, 3)


def _people(content: Any) -> dict[Any, list[Person]]:
    """Everybody in each frame, frames in the order of their ids."""
    frames: dict[Any, list[Person]] = {}
    if isinstance(content, dict) and "instance_info" in content:
        for frame in content["instance_info"]:
            frames[frame["frame_id"]] = [
                (
                    float(np.ravel(person.get("bbox_score", 1))[0]),
                    np.c_[person["keypoints"], person["keypoint_scores"]].astype(np.float32),
                )
                for person in frame["instances"]
            ]
    else:
        for person in content["annotations"] if isinstance(content, dict) else content:
            joints = np.array(person["keypoints"], np.float32).reshape(-1, 3)
            score = float(person.get("score", 1))
            frames.setdefault(person["image_id"], []).append((score, joints))
    return dict(sorted(frames.items()))


def _best(frames: dict[Any, list[Person]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Keypoints (T, J, 2) and confidence (T, J) of the best person; 0 in frames without any."""
    seen = [max(people, key=lambda person: person[0])[1] for people in frames.values() if people]
    if not seen:
        raise ValueError("nobody is in it")
    rows = np.zeros((len(frames), *seen[0].shape), np.float32)
    rows[[bool(people) for people in frames.values()]] = seen
    return rows[..., :2], np.clip(rows[..., 2], 0, 1)


def _assumptions(clip: Clip, camera: Camera) -> list[str]:
    """What a store of this clip lacks, a line each."""
    lines = []
    if camera.assumed:
        lines.append(
            f"camera unknown: focal length {camera.focal_length[0]:.0f} px assumed, "
            f"{FIELD_OF_VIEW:g} degrees (--focal-length or --field-of-view)"
        )
    if not clip.fps > 0:
        lines.append("frames per second unknown (--fps)")
    return lines


def _camera(clip: Clip, field_of_view: float | None) -> Camera:
    """The clip's camera, the optical axis in the middle of the image; says what is assumed."""
    seen = seen_joints(clip)[..., None]
    edges = clip.keypoints.max((0, 1), where=seen, initial=1)
    extent = (math.ceil(edges[0]), math.ceil(edges[1]))
    width, height = clip.image_size or extent
    degrees = FIELD_OF_VIEW if field_of_view is None else field_of_view
    wide = focal_length_of(degrees, width)
    fx, fy = clip.focal_length or (wide, wide)
    assumed = clip.focal_length is None and field_of_view is None
    name = f"{width}x{height} f{fx:.6g},{fy:.6g}{' assumed' * assumed}"
    known = {"width": width, "height": height} if clip.image_size else {}
    return Camera(name, (fx, fy), (width / 2, height / 2), assumed=assumed, **known)
