"""`ites view`: an HTML page of clips, and by `ites.show.render` pictures and films."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from ites.data.clips import Clips
from ites.data.lifted import read_clips
from ites.errors import ItesError
from ites.show.page import page
from ites.show.scene import MAX_CLIPS, MAX_FRAMES, choose
from ites.show.viewer import viewer
from ites.system.arguments import checked
from ites.system.files import atomic_write, keep_source


@checked("view")
def view(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    gif: str | os.PathLike[str] | None = None,
    mp4: str | os.PathLike[str] | None = None,
    png: str | os.PathLike[str] | None = None,
    clip: str | None = None,
    split: str | None = None,
    before: str | os.PathLike[str] | None = None,
    max_clips: int = MAX_CLIPS,
    max_frames: int = MAX_FRAMES,
) -> dict[str, Any]:
    """Make a page, a film or a picture of lifted clips, or of a pose store.

    Args:
        path: a file written by `ites lift`, or a pose store, whose own 3D is then shown.
        out: the HTML file; None: `path` with the ending .html, unless another output is given.
        gif, mp4: films of the first chosen clip.
        png: a strip of that clip's frames, 2D above 3D.
        clip: show the clips whose names contain this text; None: clips spread evenly over the file.
        split: of a pose store; None: "test" if present, else all, and a note counts the others.
        before: another file written by `ites lift` of the same clips, as without smoothing; the
            page shows its poses beside those of `path`.
        max_clips: the maximum number of clips on the page.
        max_frames: the maximum number of frames per clip; later frames are omitted.

    Returns:
        A summary: files (written), clips (shown), and notes on omitted content, one per line.

    Raises:
        ItesError: the file cannot be shown, no clip has that name, or a library is not installed.

    Example:
        >>> import ites
        >>> ites.view("clip3d.npz", "clip.html")["files"]
        ['clip.html']
    """
    for target in (out, gif, mp4, png):
        if target is not None:
            keep_source(path, target)
    clips = read_clips(path, split)
    chosen, notes = choose(clips, clip, max_clips, max_frames)
    notes = clips.notes + notes
    other = None if before is None else _earlier(before, path, chosen, max_frames)
    files = []
    if out is None and not (gif or mp4 or png):
        out = Path(path).with_suffix(".html")
    if out is not None:
        text = page(
            chosen.title or Path(path).name,
            viewer(chosen, notes, other),
        )
        with atomic_write(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
        files.append(str(out))
    if gif or mp4 or png:
        from ites.show import render

        for write, target in ((render.film, gif), (render.film, mp4), (render.strip, png)):
            if target is not None:
                notes += write(chosen.clips[0], chosen.skeleton, target)
                files.append(str(target))
    return {"files": files, "clips": [c.name for c in chosen.clips], "notes": notes}


def _earlier(
    before: str | os.PathLike[str], path: str | os.PathLike[str], chosen: Clips, max_frames: int
) -> Clips:
    """The clips of another file that are alike the chosen ones.

    Raises:
        ItesError: it has none of the chosen clips.
    """
    other = read_clips(before)
    wanted = {clip.name: len(clip) for clip in chosen.clips}
    alike = [replace(other, clips=[clip]) for clip in other.clips if clip.name in wanted]
    cut = [choose(one, None, 1, max_frames)[0].clips[0] for one in alike]
    cut = [clip for clip in cut if len(clip) == wanted[clip.name]]
    if not cut or other.skeleton.joints != chosen.skeleton.joints:
        names = ", ".join(clip.name for clip in other.clips[:5])
        raise ItesError(f"{before}: expected clips of {path} of equal length, got {names}"[:300])
    return replace(other, clips=cut)
