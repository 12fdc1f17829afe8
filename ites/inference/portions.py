"""A lifting, portion by portion: read, lifted and written beside one another, joined at the end."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.checks import check_reader
from ites.data.clips import Clips, seen_joints
from ites.data.findings import Finding, refuse
from ites.data.keypoint_reader import KeypointReader
from ites.data.lifted import SURE_SIGN, ClipsWriter, read_clips, write_clips
from ites.data.upright import stand_upright
from ites.inference.assume import AllAssumed, Assumed, Note, assume_camera, network_input
from ites.inference.likely import density_by
from ites.inference.network import Network
from ites.inference.output import make_consistent, smoothed, to_clips, views_of
from ites.inference.roll import find_roll
from ites.inference.sight import Sight
from ites.inference.size import BodySize, unseen_bones
from ites.models.predict import cleaned, lift_points
from ites.models.trust import Judgement
from ites.system.overlap import overlap
from ites.system.parts import Parts
from ites.system.ranks import Ranks


@dataclass(frozen=True)
class Portion:
    """Clips in the pipeline, with the network's input, then with its output."""

    index: int
    clips: Clips
    assumed: Assumed
    points: NDArray[np.float32]
    sights: list[Sight]


@dataclass(frozen=True)
class Lifting:
    """The state of one call of `lift`; see there."""

    path: Path
    reader: KeypointReader
    portions: list[slice]
    parts: Parts
    network: Network
    camera: dict[str, Any]
    scale: str
    roll: float | None
    size: BodySize
    up: str
    floor: bool
    whole: list[bool]
    """Whether each clip is fitted as a whole."""
    smooth: str | None
    notes: list[Note]

    def run(self, ranks: Ranks, resume: bool) -> tuple[int, float]:
        """Write this rank's share of the missing parts.

        Returns:
            The number of poses that all ranks lifted, and the seconds taken.
        """
        if ranks.is_main:
            self.parts.begin(resume)
        ranks.barrier(self.network.device)
        todo = self.parts.missing()
        ranks.barrier(self.network.device)  # no rank writes before all have listed the parts
        if todo:
            _ = self.network.folded  # once, before several threads ask for it
        start = time.perf_counter()
        try:
            overlap(map(self.read, todo[ranks.share(len(todo))]), self.compute, self.write)
        except BaseException:
            if not ranks.distributed and len(self.parts.missing()) == self.parts.count:
                self.parts.remove()
            raise
        ranks.barrier(self.network.device)
        poses = sum(sum(self.reader.lengths[self.portions[index]]) for index in todo)
        return poses, time.perf_counter() - start

    def read(self, index: int) -> Portion:
        """Read a portion and make the network's input."""
        chosen, judge = self.portions[index], self.network.judge
        prior = None if judge is None else density_by(judge.prior, self.network.device)
        read = self.reader.read(chosen)
        clips, notes = assume_camera(read, **self.camera)
        stated = [
            replace(clip, fps=self.camera["fps"] or own.fps)  # an assumed rate judges nothing
            for clip, own in zip(clips.clips, read.clips, strict=True)
        ]
        found = check_reader(self.reader, chosen, prior, replace(clips, clips=stated))
        found = refuse(found, len(clips.clips), self.path)
        clips, points, assumed, sights = network_input(
            clips, self.network.scale, self.scale, self.whole[chosen],
            turned=self.network.upright, roll=self._roll(), masked=self.network.masks,
        )  # fmt: skip
        assumed.notes = notes + assumed.notes + self._unseen(clips)
        assumed.findings = [f.plain() for f in found if not _is_noted(f, assumed.notes)]
        return Portion(index, clips, assumed, points, sights)

    def _roll(self) -> float | Callable[[NDArray[np.float32]], float]:
        """The given roll, radians, or what finds it."""
        density, device = self.network.density, self.network.device
        if self.roll is None and density is not None:
            complete = self.network.clean if self.network.masks else None
            return lambda points: find_roll(points, density, device, complete)
        return self.roll or 0.0

    def _unseen(self, clips: Clips) -> list[Note]:
        """Notes on clips that lack a bone which the scale is taken from."""
        notes = []
        for clip in clips.clips:
            names = unseen_bones(self.size, seen_joints(clip), clips.skeleton)
            if names:
                filled = "; the missing joints are placed as in a standing body"
                left = "" if len(names) < len(self.size.bones) else filled
                line = f"{clip.name}: metres without bones never seen: {', '.join(names)}{left}"
                notes.append(Note("unseen-bones", line))
        return notes

    def compute(self, portion: Portion) -> tuple[Portion, NDArray[np.float32], Judgement | None]:
        """Lift the portion: its poses, network units, and their confidence measures."""
        points, skeleton, net = portion.points, self.reader.skeleton, self.network
        lifted = lift_points(net.pose, points, skeleton, net.batch_size, net.device)
        if any(self.whole[self.portions[portion.index]]):
            lifted = self._fitted(portion, lifted)
        judgement = net.judge(points, lifted, net.device) if net.judge else None
        return portion, lifted, judgement

    def _fitted(self, portion: Portion, lifted: NDArray[np.float32]) -> NDArray[np.float32]:
        """The poses (N, J, 3) of a portion; those of clips that are wholes suit one another."""
        whole, net = self.whole[self.portions[portion.index]], self.network
        frames = np.repeat(whole, [len(clip) for clip in portion.clips.clips])
        clips = replace(portion.clips, clips=list(compress(portion.clips.clips, whole)))
        points = portion.points[frames]
        flat = cleaned(net.clean, points, net.device)
        views = None
        if net.elevation is not None and net.density is not None:
            views = views_of(clips, cleaned(net.elevation, points, net.device), net.density)
        lifted[frames] = make_consistent(
            clips, points, flat, lifted[frames], list(compress(portion.sights, whole)),
            device=net.device, masked=net.masks, views=views,
        )  # fmt: skip
        return lifted

    def write(self, done: tuple[Portion, NDArray[np.float32], Judgement | None]) -> None:
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
            if self.network.judge is not None:
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
    """The assumptions about a part's clips, as `Lifting.write` stored them."""
    return Assumed(**{**settings, "notes": [Note(*note) for note in settings["notes"]]})


def _is_noted(finding: Finding, notes: list[Note]) -> bool:
    """Whether a note of the lifting already covers the finding: it may exchange sides itself."""
    codes = {"swapped-sides": ("swapped", "swapped-kept"), "roll": ("roll-found",)}
    return any(
        note.code in codes.get(finding.code, ()) and note.text.startswith(f"{finding.clip}:")
        for note in notes
    )
