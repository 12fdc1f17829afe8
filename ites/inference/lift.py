"""Lift 2D keypoints to 3D with a trained model. Files, frames and units: `docs/lifting.md`.

`lift` divides the input into portions of whole clips. While one portion is lifted, the next is read
and the previous one is written, so memory does not grow with their number. Each portion's result is
stored in a separate file until all are complete: see `ites.system.parts`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import wraps
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ites.data.checks import check_reader
from ites.data.clips import Clips, cut, seen_joints
from ites.data.corrections import Corrections
from ites.data.findings import Finding, refuse
from ites.data.keypoint_reader import KeypointReader
from ites.data.lifted import (
    SURE_SIGN,
    ClipsWriter,
    read_clips,
    read_settings,
    write_clips,
)
from ites.data.readers.options import check_options
from ites.data.upright import stand_upright
from ites.errors import ItesError
from ites.inference.assume import AllAssumed, Assumed, Note, assume_camera, network_input
from ites.inference.likely import density_by
from ites.inference.output import make_consistent, smoothed, to_clips, views_of
from ites.inference.roll import find_roll
from ites.inference.sight import Sight
from ites.inference.size import BodySize, body_size_of, unseen_bones
from ites.models import GeneralTeacher, Prior, fold_norms
from ites.models.predict import Pose, batch_size_for, cleaned, lift_points
from ites.models.trust import Judgement, Trust
from ites.pose.smoothing import SMOOTHERS
from ites.runs.checkpoint import Model, load_model, load_prior, load_trust
from ites.runs.folder import RunFolder
from ites.runs.packaged import run_or_packaged
from ites.system.arithmetic import arithmetic
from ites.system.files import keep_source
from ites.system.lock import lock
from ites.system.overlap import overlap
from ites.system.parts import Parts
from ites.system.ranks import Ranks, pick_device

PORTION = 1 << 16
"""Poses that are read, lifted and written together, but for a clip's end."""
FARTHEST_CENTRE = 1e6
"""Pixels."""
UPS = ("camera", "gravity")
PRECISIONS = {"float32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def _files_or_arrays(lift_file: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """Let `lift` take an array, return clips, and accept the older order (run, keypoints, out)."""

    @wraps(lift_file)
    def call(*files: Any, **options: Any) -> Any:
        names: tuple[str, ...] = ("keypoints", "out")
        if len(files) == 3 or (len(files) == 2 and "out" in options):
            names = ("run", *names)
        signature(lift_file).bind_partial(**options)  # names an unknown argument
        for name, file in zip(names, files, strict=len(files) > 3):
            if name in options:
                raise TypeError(f"lift() got multiple values for argument {name!r}")
            options[name] = file
        keypoints, out = options["keypoints"], options.get("out")
        if out is None and Ranks.here().distributed:
            raise ItesError("lift: several processes need a file to write, got out=None")
        with TemporaryDirectory(prefix="ites-") as folder:
            if isinstance(keypoints, np.ndarray | Tensor):
                options["keypoints"] = Path(folder, "keypoints.npy")
                np.save(options["keypoints"], np.asarray(keypoints))
            options["out"] = Path(folder, "lifted.npz") if out is None else out
            summary = lift_file(**options)
            return read_clips(options["out"]) if out is None else summary

    return call


@_files_or_arrays
def lift(
    keypoints: str | os.PathLike[str] | NDArray[np.floating] | Tensor,
    out: str | os.PathLike[str] | None = None,
    *,
    run: str | os.PathLike[str] | None = None,
    stage: str | None = None,
    split: str | None = None,
    layout: str | None = None,
    person: str | int | None = None,
    min_confidence: float | None = None,
    corrections: Corrections | None = None,
    focal_length: float | None = None,
    field_of_view: float | None = None,
    image_size: tuple[int, int] | None = None,
    principal_point: tuple[float, float] | None = None,
    roll: float | None = None,
    fps: float | None = None,
    scale: str = "auto",
    body_size: float | None = None,
    height: float | None = None,
    bone: Mapping[str, float] | None = None,
    up: str = "camera",
    floor: bool = False,
    temporal: bool | None = None,
    smooth: str | None = None,
    trust: bool = True,
    batch_size: int | None = None,
    device: str | None = None,
    precision: str = "float32",
    resume: bool = False,
) -> dict[str, Any]:
    """Lift the keypoints of a file and write the 3D poses.

    Processes started by `torchrun` share the work; rank 0 joins their output.

    Args:
        keypoints: a pose store, any input of `ites.data.readers.read`, or an array: (N, J, 2) or
            (N, J, 3), pixels and confidence.
        out: the .npz or .h5 file to write; `docs/lifting.md` lists its keys. None: no file, the
            lifted clips are returned.
        run: a run folder or a checkpoint; None: the general model of the package, if it has one.
            `lift(run, keypoints, out)` is accepted too.
        stage: "teacher" or "student"; None: the checkpoint's own kind; from a folder the student,
            or else the teacher.
        split: the split of a store to lift; None: "test" if present, else all.
        layout, person, min_confidence: see `ites.data.readers.read`.
        corrections: of the keypoints after reading; None: no corrections.
        focal_length: pixels, x and y alike; overrides the file's.
        field_of_view: horizontal, degrees, in place of the focal length.
        image_size: (width, height) in pixels, before corrections; overrides the file's.
        principal_point: (cx, cy) in pixels, after corrections; None: the file's, or else the
            image's centre.
        roll: of the camera about its optical axis, degrees, clockwise; it is undone before the
            lifting, and the poses are turned back after it. None: 0; a model of recipe general
            finds it for each clip, see `ites.inference.roll`.
        fps: frames per second; overrides the file's.
        scale: the factor from keypoints to the network's input. "checkpoint": the training split's
            factor, right for the training cameras. "clip": a factor per clip that makes its mean
            root-to-head distance 1/5. "auto": "clip"; a model of recipe paper takes "checkpoint" if
            the camera is known.
        body_size: mean pelvis-to-head distance in metres; sets the output's scale. 0.72 is assumed
            if neither this, `height` nor `bone` is given.
        height: standing height of the people in metres, in place of `body_size`; see
            `ites.inference.size.STATURE`.
        bone: lengths in metres by bone, in place of `body_size`; {"knee": 0.45} is a thigh. See
            `ites.inference.size.body_size_of`.
        up: axes of the output: "camera", or "gravity" to turn each clip upright by the elevation
            found; this needs a run folder of recipe "upright" or "general".
        floor: with `up="gravity"`, let the root's path stand on the floor: the lowest foot is at
            height 0.
        temporal: fit each clip as a whole: one body, smooth motion, likely views; see
            `ites.models.temporal`. None: if the frame rate of all clips is known.
        smooth: filter each joint's trajectory: "savitzky-golay" uses past and future frames,
            "one-euro" past frames only; see `ites.pose.smoothing`. None: no filter.
        trust: write the confidence in each pose; this needs a run folder of recipe "upright" or
            "general"; see `ites.models.trust`.
        batch_size: poses per batch; None: chosen by device.
        device: "cpu", "cuda", ...; None or "auto": a GPU if available.
        precision: of matrix products: "float32", "tf32" (on a GPU) or "bf16".
        resume: keep the output of an interrupted call with the same request and do the rest.

    Returns:
        A summary: poses, clips, seconds and poses_per_second (of reading, lifting and writing
        together, joining aside, in this call), model, device, out; notes: what was assumed, found
        or left out, a line each; codes: what each of them is about; and findings: what is
        implausible, each as `ites.data.findings.Finding.plain` gives it. Empty on all ranks but 0.
        Without `out`, `ites.data.clips.Clips` instead: each clip's `positions` are (N, J, 3),
        metres, and its `settings` are that summary.

    Raises:
        ItesError: a file is invalid, or an argument is out of range.

    Example:
        >>> import ites
        >>> summary = ites.lift("clip.npz", "clip3d.npz", run="runs/mine")
        >>> summary["poses"], summary["out"]
        (12, 'clip3d.npz')
        >>> ites.lift("clip.npz", run="runs/mine").clips[0].positions.shape
        (12, 17, 3)
    """
    assert out is not None and not isinstance(keypoints, np.ndarray | Tensor)
    run = run_or_packaged(run)
    if batch_size is not None and not 0 < batch_size < float("inf"):
        raise ItesError(f"lift: batch_size must be positive and finite, got {batch_size}")
    _check_axes(up, floor, trust, roll, principal_point)
    check_options("lift", image_size, fps, min_confidence, focal_length)
    keep_source(keypoints, out)
    if precision not in PRECISIONS:
        raise ItesError(
            f"lift: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}"
        )
    if smooth is not None and smooth not in SMOOTHERS:
        raise ItesError(f"lift: smooth must be one of {', '.join(SMOOTHERS)}, got {smooth!r}")
    ClipsWriter(out)  # rejects a name that cannot be written
    turned = corrections is not None and corrections.rotate % 180 == 90
    camera = {
        "focal_length": focal_length,
        "field_of_view": field_of_view,
        "image_size": image_size[::-1] if image_size and turned else image_size,
        "fps": fps,
        "principal_point": principal_point,
    }
    ranks = Ranks.here()
    where = pick_device(device or "auto", ranks)
    model, metadata = load_model(run, stage, where)
    size = body_size_of(model.skeleton, body_size, height, bone)
    judge = load_trust(run, metadata.kind, where) if trust else None
    if up == "gravity" and judge is None:
        raise ItesError(
            f"{run}: up 'gravity' needs the camera's elevation: a run folder of recipe upright "
            "or general with teacher, prior and odds"
        )
    batch_size = batch_size or batch_size_for(where, model.skeleton)
    with (
        arithmetic(precision),
        ranks.joined(where),
        KeypointReader(
            keypoints,
            model.skeleton,
            split,
            layout,
            image_size=image_size,
            person=person,
            min_confidence=min_confidence,
            corrections=corrections,
        ) as reader,
        _only_writer(out) if ranks.is_main else nullcontext(),
    ):
        if reader.skeleton.parents != model.skeleton.parents:
            raise ItesError(
                f"{keypoints}: the model lifts {model.skeleton.name} "
                f"({model.skeleton.num_joints} joints), got {reader.skeleton.name} "
                f"({reader.skeleton.num_joints} joints)"
            )
        if temporal is None:
            temporal = fps is not None or reader.timed
        file = Path(keypoints).stat()
        request = {
            "keypoints": [str(keypoints), file.st_size, file.st_mtime_ns],
            "split": split,
            "layout": layout,
            "person": None if person is None else str(person),
            "min_confidence": min_confidence,
            "corrections": asdict(corrections or Corrections()),
            **camera,
            "model": f"{metadata.kind} {_digest(model)}",
            "scale": scale,
            "roll": roll,
            "body_size": None if size.bones else size.metres,
            "height": height,
            "bone": dict(bone or {}),
            "up": up,
            "floor": floor,
            "temporal": temporal,
            "smooth": smooth,
            "trust": judge is not None,
            "batch_size": batch_size,
            "precision": precision,
            "portion": PORTION,
        }
        portions = cut(reader.lengths, PORTION)
        parts = Parts(out, json.loads(json.dumps(request)), len(portions))
        if resume and _is_done(out, parts):
            summary = read_settings(out)
        else:
            folded = fold_norms(model.float(), PRECISIONS[precision])
            known_roll = None if roll is None else math.radians(roll)
            has_density = model.masks and RunFolder(run).weights("prior").is_file()
            density = load_prior(run, where) if has_density else None
            notes = [Note("read", line) for line in reader.notes]
            if temporal and max(reader.lengths, default=0) > 1:
                notes.append(Note("temporal", "each clip is lifted as a whole"))
            if smooth is not None:
                notes.append(Note("smooth", f"smoothed in time: {smooth}"))
            notes += _judged(judge, model, run) if trust else []
            lifting = _Lifting(
                Path(keypoints), reader, portions, parts, camera, metadata.scale, scale,
                model.upright, known_roll, density, model.masks, size, up, floor,
                folded.pose, folded.clean, _elevation_of(folded),
                temporal, smooth,
                judge, notes, batch_size, where,
            )  # fmt: skip
            poses, seconds = lifting.run(ranks, resume)
            summary = {
                "poses": sum(reader.lengths),
                "clips": len(reader.lengths),
                "seconds": seconds,
                "poses_per_second": poses / seconds,
                "model": metadata.kind,
                "run": str(run),
                "keypoints": str(keypoints),
                "device": str(where),
                "precision": precision,
                "processes": ranks.count,
                "request": parts.request,
            }
            if ranks.is_main:
                summary = lifting.join(out, summary)
    ranks.leave()
    return {**summary, "out": str(out)} if ranks.is_main else {}


@dataclass(frozen=True)
class _Portion:
    """Clips in the pipeline, with the network's input, then with its output."""

    index: int
    clips: Clips
    assumed: Assumed
    points: NDArray[np.float32]
    sights: list[Sight]


@dataclass(frozen=True)
class _Lifting:
    """The state of one call of `lift`; see there."""

    path: Path
    reader: KeypointReader
    portions: list[slice]
    parts: Parts
    camera: dict[str, Any]
    training_scale: float
    scale: str
    turned: bool
    roll: float | None
    density: Prior | None
    masked: bool
    size: BodySize
    up: str
    floor: bool
    pose: Pose
    clean: Pose
    elevation: Pose | None
    temporal: bool
    smooth: str | None
    judge: Trust | None
    notes: list[Note]
    batch_size: int
    device: torch.device

    def run(self, ranks: Ranks, resume: bool) -> tuple[int, float]:
        """Write this rank's share of the missing parts.

        Returns:
            The number of poses that all ranks lifted, and the seconds taken.
        """
        if ranks.is_main:
            self.parts.begin(resume)
        ranks.barrier(self.device)
        todo = self.parts.missing()
        ranks.barrier(self.device)  # no rank writes before all have listed the parts
        start = time.perf_counter()
        try:
            overlap(map(self.read, todo[ranks.share(len(todo))]), self.compute, self.write)
        except BaseException:
            if not ranks.distributed and len(self.parts.missing()) == self.parts.count:
                self.parts.remove()
            raise
        ranks.barrier(self.device)
        poses = sum(sum(self.reader.lengths[self.portions[index]]) for index in todo)
        return poses, time.perf_counter() - start

    def read(self, index: int) -> _Portion:
        """Read a portion and make the network's input."""
        chosen = self.portions[index]
        prior = None if self.judge is None else density_by(self.judge.prior, self.device)
        read = self.reader.read(chosen)
        clips, notes = assume_camera(read, **self.camera)
        stated = [
            replace(clip, fps=self.camera["fps"] or own.fps)  # an assumed rate judges nothing
            for clip, own in zip(clips.clips, read.clips, strict=True)
        ]
        found = check_reader(self.reader, chosen, prior, replace(clips, clips=stated))
        found = refuse(found, len(clips.clips), self.path)
        clips, points, assumed, sights = network_input(
            clips, self.training_scale, self.scale, self.temporal,
            turned=self.turned, roll=self._roll(), masked=self.masked,
        )  # fmt: skip
        assumed.notes = notes + assumed.notes + self._unseen(clips)
        assumed.findings = [f.plain() for f in found if not _is_noted(f, assumed.notes)]
        return _Portion(index, clips, assumed, points, sights)

    def _roll(self) -> float | Callable[[NDArray[np.float32]], float]:
        """The given roll, radians, or what finds it."""
        density, device = self.density, self.device
        if self.roll is None and density is not None:
            return lambda points: find_roll(points, density, device)
        return self.roll or 0.0

    def _unseen(self, clips: Clips) -> list[Note]:
        """Notes on clips that lack a bone which the scale is taken from."""
        notes = []
        for clip in clips.clips:
            names = unseen_bones(self.size, seen_joints(clip), clips.skeleton)
            if names:
                left = "" if len(names) < len(self.size.bones) else "; a standing body's stand in"
                line = f"{clip.name}: metres without bones never seen: {', '.join(names)}{left}"
                notes.append(Note("unseen-bones", line))
        return notes

    def compute(self, portion: _Portion) -> tuple[_Portion, NDArray[np.float32], Judgement | None]:
        """Lift the portion: its poses, network units, and their confidence measures."""
        points, skeleton = portion.points, self.reader.skeleton
        lifted = lift_points(self.pose, points, skeleton, self.batch_size, self.device)
        if self.temporal:
            flat = cleaned(self.clean, points, self.device)
            views = None
            if self.elevation is not None and self.density is not None:
                elevation = cleaned(self.elevation, points, self.device)
                views = views_of(portion.clips, elevation, self.density)
            lifted = make_consistent(
                portion.clips, points, flat, lifted, portion.sights,
                device=self.device, masked=self.masked, views=views,
            )  # fmt: skip
        judgement = self.judge(points, lifted, self.device) if self.judge else None
        return portion, lifted, judgement

    def write(self, done: tuple[_Portion, NDArray[np.float32], Judgement | None]) -> None:
        """Write a part."""
        portion, lifted, judgement = done
        clips = to_clips(portion.clips, lifted, self.size, judgement, portion.sights)
        if self.smooth is not None:
            clips = replace(clips, clips=[smoothed(clip, self.smooth) for clip in clips.clips])
        if self.up == "gravity":
            clips = stand_upright(clips, self.floor)
        settings = asdict(portion.assumed)
        write_clips(self.parts.path(portion.index), replace(clips, settings=settings))

    def _frames(self) -> list[Note]:
        """Notes on the output's unit and axes."""
        origin = "given" if self.size.given else "assumed"
        code = "height" if self.size.given else "body-size"
        notes = [Note(code, f"metres by {self.size.words}, {origin}")]
        if self.roll:
            notes.append(Note("roll", f"camera rolled by {math.degrees(self.roll):g} degrees"))
        if self.up == "gravity":
            line = "turned upright by each clip's median elevation: y is gravity's direction"
            notes.append(Note("up", line + ", 0 at the floor" * self.floor))
        return notes

    def join(self, out: str | os.PathLike[str], summary: dict[str, Any]) -> dict[str, Any]:
        """Write the output from the parts; return the summary with its notes."""
        assumed, doubtful, error, rated = AllAssumed(), 0, 0.0, 0
        with ClipsWriter(out) as writer:
            for index in range(self.parts.count):
                clips = read_clips(self.parts.path(index))
                assumed.add(_assumed(clips.settings))
                writer.add(clips)
                sure_of = (clip.sign_confidence for clip in clips.clips)
                for clip in clips.clips:
                    if clip.expected_error is not None:
                        finite = clip.expected_error[np.isfinite(clip.expected_error)]
                        error += float(finite.sum(dtype=np.float64))
                        rated += len(finite)
                doubtful += sum(
                    int((sure < SURE_SIGN).sum()) for sure in sure_of if sure is not None
                )
            notes = [*assumed.all_notes(), *self._frames(), *self.notes]
            if rated:
                line = f"expected error {error / rated:.0f} mm, a mean over poses"
                notes.append(Note("expected-error", line))
            if self.judge is not None:
                of = f"{doubtful:,} of {summary['poses']:,} poses"
                line = f"{of} are less than {SURE_SIGN:.0%} sure of their depth's sign"
                notes.append(Note("doubtful", line))
            writer.settings = {
                **summary,
                "notes": [note.text for note in notes],
                "codes": [note.code for note in notes],
                "findings": [finding.plain() for finding in assumed.findings()],
            }
        self.parts.remove()
        return writer.settings


def _assumed(settings: dict[str, Any]) -> Assumed:
    """The assumptions about a part's clips, as `_Lifting.write` stored them."""
    return Assumed(**{**settings, "notes": [Note(*note) for note in settings["notes"]]})


def _is_noted(finding: Finding, notes: list[Note]) -> bool:
    """Whether a note of the lifting already covers the finding: it may exchange sides itself."""
    codes = {"swapped-sides": ("swapped", "swapped-kept"), "roll": ("roll-found",)}
    return any(
        note.code in codes.get(finding.code, ()) and note.text.startswith(f"{finding.clip}:")
        for note in notes
    )


def _only_writer(out: str | os.PathLike[str]) -> AbstractContextManager[None]:
    """Excludes a second lifting from the parts of the same output."""
    out = Path(out)
    return lock(out.with_name(f".{out.name}.lock"), f"{out}: another lifting into this file")


def _digest(model: Model) -> str:
    """An identifier of the weights."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _is_done(out: str | os.PathLike[str], parts: Parts) -> bool:
    """Whether the output exists and belongs to the same request."""
    if not Path(out).is_file() or parts.folder.is_dir():
        return False
    return read_settings(out).get("request") == parts.request


def _judged(judge: Trust | None, model: Model, run: str | os.PathLike[str]) -> list[Note]:
    """Whether the output contains confidence measures, and a reason if not."""
    measures = "elevation, log_density, sign_confidence"
    if judge is not None:
        more = ", expected_error" if judge.odds.error else ""
        return [Note("trust", f"how far to trust each pose: {measures}{more}")]
    if model.upright:
        reason = f"{run} is no run folder with the teacher, the prior and the odds"
    else:
        reason = "a model of recipe paper does not know its depth's sign"
    return [Note("no-trust", f"no {measures}: {reason}")]


def _elevation_of(model: Model) -> Pose | None:
    """What estimates the elevation of lines of sight; None if the model has no such estimate."""
    return model.elevation if isinstance(model, GeneralTeacher) else None


def _check_axes(
    up: str,
    floor: bool,
    trust: bool,
    roll: float | None,
    principal_point: tuple[float, float] | None,
) -> None:
    """Refuse axes, angles and places that no output and no camera has."""
    if up not in UPS:
        raise ItesError(f"lift: up must be one of {', '.join(UPS)}, got {up!r}")
    if floor and up != "gravity":
        raise ItesError("lift: floor needs up 'gravity', got up 'camera'")
    if up == "gravity" and not trust:
        raise ItesError("lift: up 'gravity' needs trust, which finds the camera's elevation")
    if roll is not None and not -180 <= roll <= 180:
        raise ItesError(f"lift: roll must lie between -180 and 180 degrees, got {roll}")
    if principal_point is not None and not np.all(np.abs(principal_point) < FARTHEST_CENTRE):
        raise ItesError(
            f"lift: principal_point must be two numbers of pixels, got {principal_point}"
        )
