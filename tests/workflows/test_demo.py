"""The demo, with few poses and steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ites.errors import ItesError
from ites.training import engine
from ites.training.result import Result
from ites.workflows import demo


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "POSES", 400)
    monkeypatch.setattr(demo, "STEPS", dict.fromkeys(demo.STEPS, 2))


def test_it_trains_evaluates_lifts_and_shows(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    lines: list[str] = []
    evaluations = demo.demo(tmp_path / "demo", device="cpu", say=lines.append)
    assert list(evaluations) == ["teacher", "student"]
    assert [line[0] for line in lines[:6]] == list("123456")
    assert (tmp_path / "demo" / "report.html").is_file()
    with pytest.raises(ItesError, match="holds an earlier demo"):
        demo.demo(tmp_path / "demo", device="cpu", say=lines.append)


def test_after_an_interruption_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, train = [], engine.train

    def interrupted(settings, **given) -> Result:  # type: ignore[no-untyped-def]
        stages.append(settings.stage)
        return replace(train(settings, **given), step=1)

    monkeypatch.setattr(engine, "train", interrupted)
    with pytest.raises(ItesError, match="prior's training was interrupted; resume it"):
        demo.demo(tmp_path / "demo", device="cpu", say=lambda line: None)
    assert stages == ["prior"]
