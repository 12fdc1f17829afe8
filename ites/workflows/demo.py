"""The method in minutes: synthetic motion, training, evaluation, a lifted clip, a page."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ites.data.synthetic.synthetic import prepare_synthetic
from ites.errors import ItesError
from ites.evaluation.evaluate import Evaluation, evaluate
from ites.inference.lift import lift
from ites.runs.settings import make_settings, stages_of
from ites.show.report import write_report
from ites.training.run import train_stages

POSES = 60_000
FPS = 10.0
RECIPE = "upright"
DATA = "synthetic.h5"
STEPS = {"prior": 1000, "teacher": 1500, "student": 1000}
LEARNS = {
    "prior": "which 2D poses are likely",
    "teacher": "a dictionary of 3D poses",
    "student": "the depth of every joint",
}
OPTIONS = {
    "prior": {},
    "teacher": {"start_elevation_steps": 500},
    "student": {"width": 64, "blocks": 2},
}


def demo(
    out: Path, seed: int = 0, device: str | None = None, say: Callable[[str], None] = print
) -> dict[str, Evaluation]:
    """Run the demo into a folder.

    Smaller networks and far fewer steps than the paper's, so that two CPU cores need minutes.

    Args:
        out: a folder; made, or continued in if it holds an earlier demo's data.
        seed: of the data and the training.
        device: "cpu", "cuda", ...; None: a GPU where there is one.
        say: what prints a line.

    Returns:
        The evaluation of each stage.

    Raises:
        ItesError: the folder holds something else, or an earlier demo, or a training was
            interrupted.
    """
    if any(out.glob("*.safetensors")):
        raise ItesError(f"{out}: holds an earlier demo; remove it or choose another folder")
    times: dict[str, float] = {}
    start = time.perf_counter()

    def done(what: str) -> None:
        nonlocal start
        now = time.perf_counter()
        times[what], start = now - start, now

    data = out / DATA
    say(f"1/6  Making {POSES:,} poses of synthetic motion: {data}")
    prepare_synthetic(data, poses=POSES, seed=seed, fps=FPS)
    done("data")
    results = {}
    common = {"data": str(data), "out": str(out), "seed": seed, "recipe": RECIPE}
    common["device"] = device or "auto"
    stages = stages_of(RECIPE)
    training = train_stages(
        [
            make_settings(stage, options={**common, "steps": STEPS[stage], **OPTIONS[stage]})
            for stage in stages
        ]
    )
    for number, stage in enumerate(stages, 2):
        say(f"{number}/6  Training the {stage} from 2D keypoints alone: {LEARNS[stage]}")
        results[stage] = next(training)
        if results[stage].interrupted:
            raise ItesError(f"{out}: the {stage}'s training was interrupted; resume it")
        done(f"training the {stage}")
    say("5/6  Comparing with the 3D truth, which training never saw")
    evaluations = {
        stage: evaluate(out, data, stage=stage, device=device or "auto")
        for stage in ("teacher", "student")
    }
    done("evaluation")
    clip, page = out / "lifted.npz", out / "report.html"
    say("6/6  Lifting the test clips and writing the page")
    lifted = lift(data, clip, run=out, split="test", device=device)
    done("lifting")
    summary = list(_summary(evaluations, results["student"].backend, results["student"].device))
    others = {what: spent for what, spent in times.items() if not what.startswith("training")}
    write_report(out, page, lifted=clip, times=others, title="ITES demo", summary=summary)
    done("page")

    say("")
    spent = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in times.items())
    poses = f"{results['teacher'].poses:,} 2D poses, mirror images among them"
    say(f"Trained on {poses}; lifted {lifted['poses']:,} others.")
    for line in summary:
        say(line)
    say(f"Time: {spent}.")
    say(f"Open {page.resolve()} in a browser.")
    return evaluations


def _summary(evaluations: dict[str, Evaluation], backend: str, device: str) -> list[str]:
    """How good the result is, the oracle's figure never without the strict one."""
    lines = []
    for stage, evaluation in evaluations.items():
        mean, flat = evaluation.over_poses.figures, evaluation.baseline[-1].figures
        lines.append(
            f"{stage.capitalize()}: P-MPJPE {mean['p_mpjpe']:.0f} mm "
            f"({mean['p_mpjpe_oracle']:.0f} mm if the truth chooses each pose's depth sign, "
            f"which is wrong in {mean['wrong_sign']:.0f}% of poses; "
            f"{flat['p_mpjpe']:.0f} mm for a flat pose)."
        )
    lines.append(f"Ran on {device}, backend {backend}.")
    return lines
