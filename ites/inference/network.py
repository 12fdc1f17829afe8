"""A trained model as lifting uses it: on its device, with what judges its poses."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property

import torch

from ites.inference.assume import Note
from ites.models import GeneralTeacher, Prior, fold_norms
from ites.models.predict import Pose, batch_size_for
from ites.models.trust import Trust
from ites.pose.skeleton import Skeleton
from ites.runs.checkpoint import Model, load_model, load_prior, load_trust
from ites.runs.folder import RunFolder

PRECISIONS = {"float32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Network:
    """A loaded model.

    Attributes:
        kind: "teacher" or "student".
        weights: identifies them.
        skeleton: of the poses.
        scale: the training's factor from normalised points to the input.
        upright: whether known cameras are turned to the person, and poses can be judged.
        masks: whether the model completes missing joints, and roll is found.
        model: as loaded; what lifts is `folded`.
        precision: of the arithmetic, a key of `PRECISIONS`.
        density: of 2D poses, where the roll is found by it.
        judge: what rates the poses; None: they are not rated.
        device: where the model runs.
        batch_size: poses per batch.
    """

    kind: str
    weights: str
    skeleton: Skeleton
    scale: float
    upright: bool
    masks: bool
    model: Model
    precision: str
    density: Prior | None
    judge: Trust | None
    device: torch.device
    batch_size: int

    @classmethod
    def load(
        cls,
        run: str | os.PathLike[str],
        stage: str | None,
        device: torch.device,
        precision: str,
        trust: bool,
        batch_size: int | None,
    ) -> Network:
        """Load a model of a run folder or a checkpoint.

        Args:
            run: the run folder or checkpoint.
            stage: "teacher" or "student"; None: the folder's student, or else its teacher.
            device: where the model runs.
            precision: of the arithmetic, a key of `PRECISIONS`.
            trust: load what rates the poses, if the folder holds it.
            batch_size: poses per batch; None: chosen by device and skeleton.

        Returns:
            The model in evaluation mode. Its norms are folded when it is first asked to lift.

        Raises:
            ItesError: a file is invalid, or there is no such model.
        """
        model, metadata = load_model(run, stage, device)
        has_density = model.masks and RunFolder(run).weights("prior").is_file()
        return cls(
            kind=metadata.kind,
            weights=_digest(model),
            skeleton=model.skeleton,
            scale=metadata.scale,
            upright=model.upright,
            masks=model.masks,
            model=model,
            precision=precision,
            density=load_prior(run, device) if has_density else None,
            judge=load_trust(run, metadata.kind, device) if trust else None,
            device=device,
            batch_size=batch_size or batch_size_for(device, model.skeleton),
        )

    @cached_property
    def folded(self) -> Model:
        """The model with its norms folded, for lifting alone."""
        return fold_norms(self.model.float(), PRECISIONS[self.precision])

    @property
    def pose(self) -> Pose:
        """The folded model's."""
        return self.folded.pose

    @property
    def clean(self) -> Pose:
        """The folded model's."""
        return self.folded.clean

    @property
    def elevation(self) -> Pose | None:
        """Of lines of sight; None if the model has no such estimate."""
        return self.folded.elevation if isinstance(self.folded, GeneralTeacher) else None

    def trust_note(self, run: str | os.PathLike[str]) -> Note:
        """Whether the output contains confidence measures, and a reason if not."""
        measures = "elevation, log_density, sign_confidence"
        if self.judge is not None:
            more = ", expected_error" if self.judge.odds.error else ""
            return Note("trust", f"how far to trust each pose: {measures}{more}")
        if self.upright:
            reason = f"{run} is no run folder with the teacher, the prior and the odds"
        else:
            reason = "a model of recipe paper does not know its depth's sign"
        return Note("no-trust", f"no {measures}: {reason}")


def _digest(model: Model) -> str:
    """An identifier of the weights."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
