"""COCO: results of detectors, a list of `{"image_id", "keypoints", "score"}`, and annotations.

Source: cocodataset.org, "Results Format" and "Data format". AlphaPose writes the same list, with
image names as ids and, with tracking, `idx`. MMPose 0.x, Detectron2 and others write it too, some
with `track_id`. A dict with `annotations` may give sizes and names in `images`, and joint names in
`categories`. An annotation's third number is its visibility: 0 unlabelled, else labelled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.readers.recording import (
    Detections,
    Frame,
    Person,
    joints_from,
    joints_of_many,
    number,
    track_id,
)
from ites.errors import ItesError, shorten
from ites.pose.layouts import BY_COUNT, joint_name, joints_of

FORMAT = "COCO"
MIN_CONFIDENCE = 0.1
"""For heatmap detectors; a lower confidence is a guess."""
IDS = ("track_id", "idx", "tracking_id", "person_id", "instance_id")
"""Detectors' names for a track id. An annotation's own `id` is not a track id."""


def recognises(content: Any) -> bool:
    """Whether JSON content is in COCO's format."""
    if isinstance(content, dict):
        return "annotations" in content
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(entry, dict) for entry in content[:10])
        and any("image_id" in entry for entry in content[:10])
    )


def parse(content: Any, where: str) -> Detections:
    """Detections of JSON content that `recognises` accepts.

    Raises:
        ItesError: an entry is malformed.
    """
    if isinstance(content, dict):
        return _annotations(content, where)
    found = Detections(FORMAT + " results", min_confidence=MIN_CONFIDENCE)
    first = content[0]
    if isinstance(first, dict) and ("box" in first or "idx" in first):
        found.format = "AlphaPose"
    if any(isinstance(entry, dict) and entry.get("keypoints") for entry in content):
        given = [entry for entry in content if not _is_bare(entry)]
        if len(given) < len(content):
            found.notes.append(f"left out: {len(content) - len(given)} entries without keypoints")
        content = given
    many = _many(content)
    for index, entry in enumerate(content):
        entry_at = f"{where}: entry {index}"
        if not isinstance(entry, dict) or "image_id" not in entry or "keypoints" not in entry:
            raise ItesError(
                f"{entry_at}: expected image_id and keypoints, got {shorten(entry, 80)}"
            )
        joints = None if many is None else many[index]
        found.frames.append(
            Frame(image_id(entry["image_id"], entry_at), [person(entry, entry_at, joints)])
        )
    return found


def _is_bare(entry: Any) -> bool:
    """Whether an entry is of an image, but has no keypoints: a box alone."""
    return isinstance(entry, dict) and "image_id" in entry and not entry.get("keypoints")


def _many(entries: list[Any]) -> NDArray[np.float32] | None:
    """The joints of all entries at once, if they are alike."""
    alike = all(type(e) is dict and "keypoint_scores" not in e for e in entries)
    return joints_of_many([e.get("keypoints") for e in entries]) if alike else None


def person(entry: dict[str, Any], where: str, joints: NDArray[np.float32] | None = None) -> Person:
    """A person of one entry; `joints` if they are read already."""
    if joints is None:
        joints = joints_from(entry["keypoints"], where, entry.get("keypoint_scores"))
    score = entry.get("score", entry.get("bbox_score"))
    label = next(
        (track_id(entry[key]) for key in IDS if key in entry and track_id(entry[key])), None
    )
    return Person(joints, number(score, where), label)


def image_id(value: Any, where: str) -> int | float | str:
    """An image's id: a number or a name.

    Raises:
        ItesError: the id is neither.
    """
    whole = isinstance(value, int) or (isinstance(value, float) and abs(value) < 1e18)
    if isinstance(value, bool) or not (whole or isinstance(value, str)):
        raise ItesError(
            f"{where}: expected a number or a name as image id, got {shorten(value, 60)!r}"
        )
    return value


def _annotations(content: dict[str, Any], where: str) -> Detections:
    annotations, images = content["annotations"], content.get("images") or []
    if not isinstance(annotations, list) or not isinstance(images, list):
        raise ItesError(f"{where}: expected lists of annotations and images")
    found = Detections(FORMAT + " annotations", min_confidence=0.0)
    names: dict[Any, int | float | str] = {}
    frames: dict[Any, list[Person]] = {}
    for index, image in enumerate(images):
        image_at = f"{where}: images, entry {index}"
        if not isinstance(image, dict) or "id" not in image:
            raise ItesError(f"{image_at}: expected an id, got {shorten(image, 80)}")
        own = image_id(image["id"], image_at)
        names[own] = _frame_id(image, own, image_at)
        frames.setdefault(names[own], [])
        width, height = image.get("width"), image.get("height")
        if width is not None and height is not None:
            size = (number(width, image_at, 0), number(height, image_at, 0))
            if min(size) >= 1:
                found.sizes[names[own]] = (round(size[0]), round(size[1]))
    bare, used = 0, set[str]()
    for index, entry in enumerate(annotations):
        entry_at = f"{where}: annotations, entry {index}"
        if not isinstance(entry, dict) or "image_id" not in entry:
            raise ItesError(f"{entry_at}: expected image_id, got {shorten(entry, 80)}")
        if not entry.get("keypoints"):
            bare += 1
            continue
        own = image_id(entry["image_id"], entry_at)
        if images and own not in names:
            raise ItesError(f"{entry_at}: no image has the id {shorten(own, 60)}")
        frames.setdefault(names.get(own, own), []).append(person(entry, entry_at))
        used.add(str(entry.get("category_id")))
    if bare:
        found.notes.append(f"left out: {bare} annotations without keypoints")
    found.frames = [Frame(key, people) for key, people in frames.items()]
    counts = [len(p.joints) for people in frames.values() for p in people]
    listed = _named(content.get("categories"), used)
    if listed and counts and not set(map(len, listed.values())) & set(counts):
        name, given = next(iter(listed.items()))
        raise ItesError(
            f"{where}: expected a category that names the {counts[0]} keypoints of an annotation, "
            f"got {shorten(name, 40)} with {len(given)}"
        )
    found.joints = _names(listed, counts[0] if counts else 0)
    return found


def _frame_id(image: dict[str, Any], own: int | float | str, where: str) -> int | float | str:
    """A name that contains video and frame: one of these, or the file's name, or the id."""
    frame = next((image[key] for key in ("frame_id", "frame_index") if key in image), None)
    if "video_id" in image and frame is not None:
        return f"{image_id(image['video_id'], where)}/{image_id(frame, where)}"
    name = image.get("file_name")
    return name if isinstance(name, str) and name else own


def _named(categories: Any, used: set[str]) -> dict[str, list[str]]:
    """The keypoints that the categories name, by category: of those used, if one of these does."""
    found: dict[str, list[str]] = {}
    own: dict[str, list[str]] = {}
    for category in categories if isinstance(categories, list) else []:
        listed = category.get("keypoints") if isinstance(category, dict) else None
        if isinstance(listed, list) and listed and all(isinstance(name, str) for name in listed):
            name = str(category.get("name") or category.get("id"))
            found[name] = listed
            if str(category.get("id")) in used:
                own[name] = listed
    return own or found


def _names(listed: dict[str, list[str]], count: int) -> tuple[str, ...] | None:
    """The joint names of a category with this many keypoints; None if COCO's or unknown."""
    for own in listed.values():
        if len(own) != count:
            continue
        names = tuple(joint_name(name) for name in own)
        usual = BY_COUNT.get(count)
        same = usual is not None and names == joints_of(usual)
        return None if same or len(set(names)) < count else names
    return None
