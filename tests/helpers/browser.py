"""A real browser for the tests of pages."""

import json
import queue
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",  # 3D without a GPU
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no network
    "--window-size=1200,860",
]
FOREVER = 900
"""Seconds after which a page that says nothing has failed; a busy machine is not so slow."""
CATCH = """<script>
window.seenErrors = [];
window.addEventListener("error", (e) => seenErrors.push(e.message));
window.addEventListener("unhandledrejection", (e) => seenErrors.push(String(e.reason)));
for (const kind of ["error", "warn"]) {
  const old = console[kind];
  console[kind] = (...words) => { seenErrors.push(words.join(" ")); old.apply(console, words); };
}
</script>
"""
SEND = """<script>
(async () => {
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const probe = async () => { PROBE };
  const seen = await probe().catch((error) => ({ probe: String(error) }));
  seen.errors = window.seenErrors;
  seen.requests = performance.getEntriesByType("resource").map((r) => r.name)
    .filter((name) => !name.startsWith("data:") && !name.startsWith("blob:"));
  await fetch("/seen", { method: "POST", body: JSON.stringify(seen) });
})();
</script>
"""


def browse(page, probe, tmp_path):
    """Show a page to a headless Chromium, and run a probe in it.

    Args:
        page: an HTML file.
        probe: the body of an async JavaScript function, run after the page's own scripts.
        tmp_path: a folder for the browser.

    Returns:
        what the probe returned, a dict, with `errors` (of scripts, and lines on the console that
        warn) and `requests` (addresses that the page asked for).
    """
    if BROWSER is None:
        pytest.skip("no Chromium on the PATH")
    text = page.read_text(encoding="utf-8")
    text = text.replace("<head>", "<head>" + CATCH, 1)
    text = text.replace("</body>", SEND.replace("PROBE", probe) + "</body>")
    answers = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode())

        def do_POST(self):
            answers.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path}/browser", address]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return json.loads(answers.get(timeout=FOREVER))
        finally:
            browser.terminate()
            browser.wait(30)
            server.shutdown()
