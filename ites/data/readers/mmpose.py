"""MMPose: predictions of its demos and of MMPoseInferencer; and RTMLib's arrays as JSON.

Source: MMPose 1.x, mmpose/structures/utils.py (`split_instances`) and MMPoseInferencer's
pred_out_dir. `{"meta_info": ..., "instance_info": [{"frame_id", "instances"}]}`, or the list alone,
for a video; a list of instances for an image. An instance has `keypoints` (K pairs),
`keypoint_scores`, `bbox`, `bbox_score` and, where people are tracked, `track_id`. Sapiens' demos
write a file per image, with the instances themselves under `instance_info`.

RTMLib returns `keypoints` (people, K, 2) and `scores` (people, K) per frame and writes no file.
Accepted are lists or dicts of these per frame, and one list of each over all frames.
"""

from __future__ import annotations

from typing import Any

from ites.data.readers.coco import IDS, image_id
from ites.data.readers.recording import Detections, Frame, Person, joints_from, number, track_id
from ites.errors import ItesError, shorten
from ites.pose.layouts import BY_COUNT, joint_name, joints_of

FORMAT = "MMPose"
MIN_CONFIDENCE = 0.3
"""MMPose's own drawing threshold, `kpt_thr`."""


def is_frame(content: Any) -> bool:
    """Whether content is the list of instances of one image."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(
            isinstance(entry, dict) and isinstance(entry.get("keypoints"), list)
            and "image_id" not in entry and ("keypoint_scores" in entry or "bbox" in entry)
            for entry in content[:10]
        )
    )  # fmt: skip


def is_image(content: Any) -> bool:
    """Whether content is a file of one image, as Sapiens writes them: instances under the key."""
    found = content.get("instance_info") if isinstance(content, dict) else None
    return found == [] or is_frame(found)


def recognises(content: Any) -> bool:
    """Whether JSON content is MMPose's."""
    if isinstance(content, dict):
        return "instance_info" in content
    if not isinstance(content, list) or not content:
        return False
    return is_frame(content) or all(
        isinstance(entry, dict) and "instances" in entry for entry in content[:10]
    )


def is_rtmlib(content: Any) -> bool:
    """Whether JSON content is RTMLib's `keypoints` and `scores`, per frame or of all frames."""
    if isinstance(content, dict) and {"keypoints", "scores"} <= set(content):
        return True
    frames = list(content.values()) if isinstance(content, dict) else content
    if not isinstance(frames, list) or not frames:
        return False
    given = [frame.get("scores") for frame in frames[:100] if isinstance(frame, dict)]
    return all(
        isinstance(frame, dict) and {"keypoints", "scores"} <= set(frame) for frame in frames[:10]
    ) and all(not scores or isinstance(scores, list) and isinstance(scores[0], list)
              for scores in given)  # fmt: skip


def parse_rtmlib(content: Any, where: str) -> Detections:
    """Detections of JSON content that `is_rtmlib`.

    Raises:
        ItesError: keypoints and scores are inconsistent.
    """
    found = Detections("RTMLib", min_confidence=MIN_CONFIDENCE)
    items: Any = content.items() if isinstance(content, dict) else enumerate(content)
    if isinstance(content, dict) and "keypoints" in content:
        pairs = [content["keypoints"], content["scores"]]
        if not all(isinstance(one, list) for one in pairs) or len(pairs[0]) != len(pairs[1]):
            raise ItesError(f"{where}: expected keypoints and scores per frame")
        items = enumerate({"keypoints": k, "scores": s} for k, s in zip(*pairs, strict=True))
    for key, frame in items:
        frame_at = f"{where}: frame {shorten(key, 40)}"
        pairs = [frame.get(n) for n in ("keypoints", "scores")] if isinstance(frame, dict) else []
        if not pairs or not all(isinstance(one, list) for one in pairs):
            raise ItesError(f"{frame_at}: expected keypoints and scores")
        if len(pairs[0]) != len(pairs[1]):
            raise ItesError(
                f"{frame_at}: expected scores of {len(pairs[0])} people, got {len(pairs[1])}"
            )
        people = [Person(joints_from(k, frame_at, s)) for k, s in zip(*pairs, strict=True)]
        found.frames.append(Frame(image_id(key, frame_at), people))
    return found


def people_of(instances: Any, where: str) -> list[Person]:
    """The people of a list of instances.

    Raises:
        ItesError: an instance is malformed.
    """
    if not isinstance(instances, list):
        raise ItesError(f"{where}: expected a list of instances, got {shorten(instances, 80)}")
    found = []
    for index, entry in enumerate(instances):
        person_at = f"{where}: instance {index}"
        if not isinstance(entry, dict) or "keypoints" not in entry:
            raise ItesError(f"{person_at}: expected keypoints, got {shorten(entry, 80)}")
        joints = joints_from(entry["keypoints"], person_at, entry.get("keypoint_scores"))
        label = next((track_id(entry[key]) for key in IDS if track_id(entry.get(key))), None)
        found.append(Person(joints, number(entry.get("bbox_score"), person_at), label))
    return found


def parse(content: Any, where: str, name: str) -> Detections:
    """Detections of JSON content that `recognises`.

    Args:
        content: of a video, or of an image.
        where: the file, for messages.
        name: the image's name.

    Raises:
        ItesError: an entry is malformed.
    """
    found = Detections(FORMAT, min_confidence=MIN_CONFIDENCE)
    frames = content
    if isinstance(content, dict):
        frames = content["instance_info"]
        found.joints, found.layout = _meta(content.get("meta_info"))
    if not isinstance(frames, list):
        raise ItesError(f"{where}: expected a list of frames, got {shorten(frames, 80)}")
    if not frames or is_frame(frames):
        found.frames = [Frame(name, people_of(frames, where))]
        return found
    for index, frame in enumerate(frames):
        frame_at = f"{where}: frame {index}"
        if not isinstance(frame, dict) or "instances" not in frame:
            raise ItesError(f"{frame_at}: expected instances, got {shorten(frame, 80)}")
        key = image_id(frame.get("frame_id", index), frame_at)
        found.frames.append(Frame(key, people_of(frame["instances"], frame_at)))
    return found


def _meta(meta: Any) -> tuple[tuple[str, ...] | None, str | None]:
    """The joint names and the layout, if MMPose's `meta_info` gives them."""
    names = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
    if isinstance(names, dict):
        try:
            names = [names[key] for key in sorted(names, key=int)]
        except (ValueError, TypeError):
            return None, None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        data = meta.get("dataset_name") if isinstance(meta, dict) else None
        return None, "human36m" if data in ("h36m", "human3.6m") else None
    joints = tuple(joint_name(name) for name in names)
    usual = BY_COUNT.get(len(joints))
    if usual and joints == joints_of(usual):
        return None, usual
    return (joints, None) if len(set(joints)) == len(joints) else (None, usual)
