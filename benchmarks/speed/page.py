"""Time the page of a long clip in a headless Chromium.

    python -m benchmarks.speed.page [--minutes 60] [--repeat 5]

One person, 30 frames per second, 17 joints, with confidences, a root path and a sign confidence.
The page is opened from a file. Times are in seconds: `page` is its making in Python; `script` the
page's own, from the start of its script to the first drawing; `ready` from the navigation to then;
`processor` that of the browser's main process and of those it waits for, without the renderer's.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from ites.data.clips import Clip, Clips
from ites.pose.skeleton import HUMAN36M
from ites.show.page import page
from ites.show.scene import choose
from ites.show.viewer import viewer

FPS = 30
FLAGS = ("--headless", "--no-sandbox", "--use-angle=swiftshader", "--no-first-run",
         "--disable-background-networking", "--window-size=1280,800", "--dump-dom",
         "--timeout=60000")  # fmt: skip
PROBE = """<script>
document.documentElement.dataset.times = JSON.stringify(
  { script: performance.now() - window.begun, ready: performance.now() });
document.querySelector(".packs").remove(); // not to be dumped
</script>
"""


def long_clip(minutes: float) -> Clip:
    """Somebody whose joints swing about their places while they walk in a circle."""
    frames = round(60 * FPS * minutes)
    t = np.arange(frames, dtype=np.float32)[:, None, None] / FPS
    place = np.random.default_rng(0).uniform(-0.8, 0.8, (17, 3)).astype(np.float32)
    poses = place + 0.1 * np.sin(t + np.arange(17, dtype=np.float32)[:, None])
    root = np.concatenate([np.sin(t / 7), 0 * t, 5 + np.cos(t / 11)], -1)[:, 0]
    seen = poses + root[:, None]
    sure = np.full((frames, 17), 0.8, np.float32)
    return Clip(
        "long",
        seen[..., :2] / seen[..., 2:] * 1100 + 500,
        float(FPS),
        confidence=sure,
        positions=poses,
        image_size=(1000, 1000),
        root=root,
        sign_confidence=sure[:, 0],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if browser is None:
        parser.error("no Chromium on the PATH")
    begun = time.perf_counter()
    chosen, _ = choose(Clips(HUMAN36M, [long_clip(options.minutes)]), None, 1, 1 << 30)
    text = page("long", viewer(chosen))
    made = time.perf_counter() - begun
    call = "\nstartViewer(root, data);\n"
    text = text.replace(call, "\nwindow.begun = performance.now();" + call)
    text = text.replace("</body>", PROBE + "</body>")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(text, encoding="utf-8")
        for _ in range(options.repeat):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [browser, *FLAGS, f"--user-data-dir={folder}/browser", f"file://{path}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found = re.search(r'data-times="([^"]*)"', done.stdout)
            if found is None:
                parser.error("the page was not ready in time")
            times = json.loads(found[1].replace("&quot;", '"'))
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            rows.append({name: ms / 1000 for name, ms in times.items()} | {"processor": used})
    size = len(text) / 1e6
    print(f"{len(chosen):,} frames, {size:.1f} MB, page {made:.2f} s")
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"{name}: median {statistics.median(values):.2f} s, least {min(values):.2f} s")


if __name__ == "__main__":
    main()
