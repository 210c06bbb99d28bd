"""Reports of runs whose names are hostile, in headless Chromium: no script runs, nothing is asked for."""

import csv
import html
import http.server
import json
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults import trials
from tests.faults.counting import Count, Figure
from tests.helpers.browser import CHROMIUM

# {js} marks the page and asks for an address; {url} is an address that nobody should ask for.
SHAPES = (
    "<script>{js}</script>",
    "</script><script>{js}</script>",
    '<img src=x onerror="{js}">',
    "<svg onload='{js}'>",
    '"><script>{js}</script>',
    "'><img src=x onerror={bare}>",
    '" onmouseover="{js}" x="',
    "' onfocus='{js}' autofocus='",
    "</style><script>{js}</script>",
    "</title><script>{js}</script>",
    "--><script>{js}</script>",
    "]]><script>{js}</script>",
    '<iframe src="javascript:{js}">',
    '<a href="javascript:{js}">x</a>',
    '<object data="{url}">',
    '<embed src="{url}">',
    '<link rel=stylesheet href="{url}">',
    "<style>@import '{url}'</style>",
    '<img src="{url}">',
    '<div style="background:url({url})">',
    "{{{{ 7*7 }}}}{{% for x in y %}}",
    "${{{js}}}",
    "&lt;script&gt;{js}&lt;/script&gt;",
    "&#60;script&#62;{js}&#60;/script&#62;",
    "<math><mtext><script>{js}</script>",
    "<body onload='{js}'>",
    "<details open ontoggle='{js}'>",
    "<video src='{url}' onerror='{js}'>",
    "<meta http-equiv=refresh content='0;url={url}'>",
    "<base href='{url}'>",
    "<form action='{url}'><input autofocus onfocus='{js}'>",
    "\u202e<script>{js}</script>",
    "\u2066\u200f<b>",
    "<scr\0ipt>{js}</script>",
    "<SCRIPT SRC='{url}'></SCRIPT>",
    "<template><script>{js}</script>",
    '<noscript><p title="</noscript><img src=x onerror={bare}>">',
    '<svg><a xlink:href="javascript:{js}"><text>x</text></a></svg>',
    "<svg><use href='{url}#x'/></svg>",
    "<image href='{url}'>",
)


def payloads(count: int, port: int) -> list[str]:
    """So many hostile names, each with an address of its own."""
    found = []
    for number in range(count):
        url = f"http://127.0.0.1:{port}/{number}"
        bare = f"document.body.setAttribute(&#34;ran&#34;,{number})"
        js = f"document.documentElement.setAttribute(String.fromCharCode(114,97,110),{number});fetch(String.fromCharCode({','.join(str(ord(c)) for c in url)}))"
        shape = SHAPES[number % len(SHAPES)]
        found.append(f"{number} " + shape.format(js=js, url=url, bare=bare))
    return found


@contextmanager
def listening() -> Iterator[tuple[int, list[str]]]:
    """A server that counts what it is asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        server.server_close()


def browsed(page: Path, width: int = 1200, shot: Path | None = None) -> str:
    """The page's document after Chromium has shown it."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
            f"--user-data-dir={profile}",
            f"--window-size={width},2000",
            "--virtual-time-budget=3000",
            *([f"--screenshot={shot}"] if shot else ["--dump-dom"]),
            page.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        return done.stdout.decode(errors="replace")


def hostile_run(folder: Path, names: list[str]) -> Path:
    """A run directory in which every name is hostile."""
    from tests.helpers.fabricated import fabricate_run

    each = iter(names * 3)
    labels = {next(each): [next(each) for _ in range(3)] for _ in range(2)}
    run = fabricate_run(folder, people=20, epochs=3, labels=labels, name=next(each))
    ids: dict[str, str] = {}
    for file in ("split.csv", "predictions.csv"):
        path = run / file
        with path.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.reader(opened))
        ids = (
            {row[0]: f"{names[i % len(names)]}{i}" for i, row in enumerate(rows[1:])}
            if file == "split.csv"
            else ids
        )
        with path.open("w", encoding="utf-8", newline="") as opened:
            csv.writer(opened).writerows(
                [rows[0], *([ids.get(row[0], row[0]), *row[1:]] for row in rows[1:])]
            )
    status = json.loads((run / "status.json").read_text())
    status["reason"], status["state"] = names[0], "failed"
    status["data"]["warnings"] = names
    status["data"]["bad_images"] = [{"path": name, "reason": name} for name in names]
    status["model"]["backbone"] = names[-1]
    status["environment"] = {name[:30]: name for name in names}
    (run / "status.json").write_text(json.dumps(status))
    (run / "log.txt").write_text("\n".join(names))
    return run


def pages(count: int = 200, at_once: int = 10, sabotage: str = "") -> Count:
    """Reports with so many hostile names in all their places."""
    from classwise.report.page import write_report

    found = Count()
    folder = trials.scratch_folder()
    with listening() as (port, asked):
        names = payloads(count, port)
        for start in range(0, count, at_once):
            part = names[start : start + at_once]
            here = folder / str(start)
            asked.clear()
            page = write_report(hostile_run(here, part))
            if sabotage:
                text = page.read_text()
                text = html.unescape(text)
                if sabotage == "neither":
                    text = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text)
                page.write_text(text)
            document = browsed(page)
            shown = "<html" in document and len(document) > 5000
            ran = sorted(set(re.findall(r"<(?:html|body)[^>]* ran=\"(\d+)\"", document)))
            for name in part:
                number = name.partition(" ")[0]
                problem = "not shown" if not shown else f"script {ran} ran" if ran else ""
                problem = problem or (f"asked for {asked[:3]}" if asked else "")
                found.add(not problem, "in all places", f"{number}: {problem}")
    shutil.rmtree(folder, ignore_errors=True)
    return found


FIGURES = [
    Figure(
        15,
        "report-hostile",
        "hostile names as ids, paths, labels, targets, run names, reasons, warnings and log in reports in headless"
        " Chromium: no script run, no request",
        pages,
    )
]
