"""Lift 2D keypoints to 3D with a trained model. Files, frames and units: `docs/lifting.md`.

`lift` divides the input into portions of whole clips. While one portion is lifted, the next is read
and the previous one is written, so memory does not grow with their number. Each portion's result is
stored in a separate file until all are complete: see `ites.system.parts`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ites.data.clips import cut
from ites.data.corrections import Corrections
from ites.data.keypoint_reader import KeypointReader
from ites.data.lifted import ClipsWriter, read_clips, read_settings
from ites.data.readers.options import as_array
from ites.errors import ItesError
from ites.inference.assume import Note
from ites.inference.network import PRECISIONS, Network
from ites.inference.portions import Lifting
from ites.inference.request import Form, GivenCamera, Source
from ites.inference.size import body_size_of
from ites.runs.packaged import run_or_packaged
from ites.system.arguments import checked
from ites.system.arithmetic import arithmetic
from ites.system.files import keep_source
from ites.system.lock import lock
from ites.system.parts import Parts
from ites.system.ranks import Ranks, pick_device

PORTION = 1 << 16
"""Poses that are read, lifted and written together, but for a clip's end."""


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
            if not isinstance(keypoints, str | os.PathLike):
                options["keypoints"] = Path(folder, "keypoints.npy")
                np.save(options["keypoints"], as_array("lift", keypoints))
            options["out"] = Path(folder, "lifted.npz") if out is None else out
            try:
                summary = lift_file(**options)
            except ItesError as error:  # names no file that the caller does not know
                words = str(error)
                for name, text in (("keypoints.npy", "the array"), ("lifted.npz", "the result")):
                    words = words.replace(str(Path(folder, name)), f"lift: {text}")
                error.args = (words,)
                raise
            return read_clips(options["out"]) if out is None else summary

    return call


@_files_or_arrays
@checked("lift")
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
    focal_length: float | tuple[float, float] | None = None,
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
        focal_length: pixels, (fx, fy) or one number for both; overrides the file's.
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
            `ites.models.temporal`. None: each clip whose frame rate is known.
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
    assert out is not None and isinstance(keypoints, str | os.PathLike)
    run = run_or_packaged(run)
    source = Source(keypoints, split, layout, person, min_confidence, corrections, image_size)
    camera = GivenCamera(focal_length, field_of_view, image_size, fps, principal_point, roll)
    form = Form(up, floor, temporal, smooth, trust)
    _check_computing(batch_size)
    form.check_axes()
    camera.check()
    source.check(fps, focal_length)
    keep_source(keypoints, out)
    _check_precision(precision)
    form.check_smooth()
    ClipsWriter(out)  # rejects a name that cannot be written
    ranks = Ranks.here()
    where = pick_device(device or "auto", ranks)
    network = Network.load(run, stage, where, precision, trust, batch_size)
    size = body_size_of(network.skeleton, body_size, height, bone)
    form.check_network(run, network)
    with (
        arithmetic(precision),
        ranks.joined(where),
        source.open(network.skeleton) as reader,
        _only_writer(out) if ranks.is_main else nullcontext(),
    ):
        whole = form.whole(reader.timed, fps)
        request = {
            **source.request(),
            **camera.request(corrections),
            "model": f"{network.kind} {network.weights}",
            "scale": scale,
            "roll": roll,
            "body_size": None if size.bones else size.metres,
            "height": height,
            "bone": dict(bone or {}),
            **form.request(whole),
            "trust": network.judge is not None,
            "batch_size": network.batch_size,
            "precision": precision,
            "portion": PORTION,
        }
        portions = cut(reader.lengths, PORTION)
        parts = Parts(out, json.loads(json.dumps(request)), len(portions))
        if resume and _is_done(out, parts):
            summary = read_settings(out)
        else:
            lifting = Lifting(
                path=Path(keypoints),
                reader=reader,
                portions=portions,
                parts=parts,
                network=network,
                camera=camera.request(corrections),
                scale=scale,
                roll=None if roll is None else math.radians(roll),
                size=size,
                up=up,
                floor=floor,
                whole=whole,
                smooth=smooth,
                notes=_notes(run, reader, whole, form, network),
            )
            about = {"run": str(run), "keypoints": str(keypoints), "precision": precision}
            summary = _lifted(lifting, out, about, ranks, resume)
    ranks.leave()
    return {**summary, "out": str(out)} if ranks.is_main else {}


def _notes(
    run: Path, reader: KeypointReader, whole: Sequence[bool], form: Form, network: Network
) -> list[Note]:
    """What is known before the lifting: of the file, the sequences, the filter and the rating."""
    notes = [Note("read", line) for line in reader.notes]
    notes += _sequences(reader.lengths, whole)
    if form.smooth is not None:
        notes.append(Note("smooth", f"smoothed in time: {form.smooth}"))
    if form.trust:
        notes.append(network.trust_note(run))
    return notes


def _lifted(
    lifting: Lifting,
    out: str | os.PathLike[str],
    about: Mapping[str, str],
    ranks: Ranks,
    resume: bool,
) -> dict[str, Any]:
    """Lift the missing parts and, on rank 0, join them; return the summary."""
    poses, seconds = lifting.run(ranks, resume)
    lengths = lifting.reader.lengths
    summary = {
        "poses": sum(lengths),
        "clips": len(lengths),
        "seconds": seconds,
        "poses_per_second": poses / seconds,
        "model": lifting.network.kind,
        "run": about["run"],
        "keypoints": about["keypoints"],
        "device": str(lifting.network.device),
        "precision": about["precision"],
        "processes": ranks.count,
        "request": lifting.parts.request,
    }
    return lifting.join(out, summary) if ranks.is_main else summary


def _check_computing(batch_size: int | None) -> None:
    if batch_size is not None and not 0 < batch_size < float("inf"):
        raise ItesError(f"lift: batch_size must be positive and finite, got {batch_size}")


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ItesError(
            f"lift: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}"
        )


def _sequences(lengths: Sequence[int], whole: Sequence[bool]) -> list[Note]:
    """A note on the clips that are lifted as wholes, if there are any."""
    long = [one for length, one in zip(lengths, whole, strict=True) if length > 1]
    if not any(long):
        return []
    if all(long):
        return [Note("temporal", "each clip is lifted as a whole")]
    words = f"{sum(long)} of {len(long)} clips are lifted as wholes; of the others the frame rate"
    return [Note("temporal-some", f"{words} is unknown, and they are lifted frame by frame")]


def _only_writer(out: str | os.PathLike[str]) -> AbstractContextManager[None]:
    """Excludes a second lifting from the parts of the same output."""
    out = Path(out)
    return lock(out.with_name(f".{out.name}.lock"), f"{out}: another lifting into this file")


def _is_done(out: str | os.PathLike[str], parts: Parts) -> bool:
    """Whether the output exists and belongs to the same request."""
    if not Path(out).is_file() or parts.folder.is_dir():
        return False
    return read_settings(out).get("request") == parts.request
