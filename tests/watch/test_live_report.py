"""The report of a run that goes on: written after each epoch, reloading itself until the end, and never in the way."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from classwise.console import Console
from classwise.report.page import write_report
from classwise.run import live_report
from classwise.run.folder import RunFolder
from classwise.run.live_report import LiveReport
from tests.helpers.browser import Browser
from tests.helpers.same_end import assert_same_end
from tests.helpers.scenes import command, plain_table, write_config
from tests.watch.test_watch import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of three epochs, and a run of it without live pages."""
    folder = tmp_path_factory.mktemp("live")
    plain_table(folder, 16)
    write_config(folder, training__epochs=3, report__baselines=False)
    command("train", folder / "classwise.toml", "--run", folder / "plain").ok()
    return folder


def train(folder: Path, run: Path) -> str:
    """A run with live pages; what it has said."""
    return command("train", folder / "classwise.toml", "--run", run, "--report.live", "true").ok().err


def pages(monkeypatch: pytest.MonkeyPatch, after: Callable[[Path], None] = lambda path: None) -> list[str]:
    """The pages that are written while a run goes on."""
    found: list[str] = []
    write = live_report.write_report

    def recorded(path: Path, status: Any) -> Path:
        after(path)
        written = write(path, status)
        found.append(written.read_text())
        return written

    monkeypatch.setattr(live_report, "write_report", recorded)
    monkeypatch.setattr(live_report, "MOST_SHARE", float("inf"))  # none is left out on a busy machine
    return found


def test_each_epoch_has_its_page_and_the_last_one_reloads_no_more(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pages(monkeypatch)
    said = train(folder, tmp_path / "run")
    assert [re.search(r"Running, epoch (\d of \d)", page)[1] for page in found] == [  # type: ignore[index]
        "1 of 3",
        "2 of 3",
        "3 of 3",
        "3 of 3",
    ]
    for page in found:
        assert len(re.findall(r'<meta http-equiv="refresh" content="\d+">', page)) == 1
        assert "default-src 'none'" in page
    last = (tmp_path / "run" / "report.html").read_text()
    assert 'http-equiv="refresh"' not in last
    assert re.search(r"report.live: 4 pages in \d+\.\d s, \d+\.\d% of the training time\n", said)
    assert_same_end(folder / "plain", tmp_path / "run")


def test_an_open_page_shows_what_is_new(tmp_path: Path, browser: Browser) -> None:
    """Its policy lets it reload itself, and it does so without a script."""
    run = write_run(tmp_path / "run")
    live = {"epoch": 1, "epochs": 3, "written": "now", "reload_seconds": 2}
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(write_report(run, {"state": "running", "live": live}))
        assert "Running, epoch 1 of 3" in browser.script("document.documentElement.textContent")
        write_report(run, {"state": "finished"})
        # On a slow machine it may have loaded the old page once more.
        while "Running, epoch 1 of 3" in browser.script("document.documentElement.textContent"):
            browser.wait_for_reload()
        assert "Finished" in browser.script("document.documentElement.textContent")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.problems == []


def test_a_page_that_cannot_be_written_is_one_warning(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    found = pages(monkeypatch, full)
    said = train(folder, tmp_path / "run")
    assert found == []
    assert said.count("report.live") == 1
    assert "warning: report.live: the page could not be written: [Errno 28] No space left on device" in said
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"


def test_where_pages_take_long_epochs_go_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of 3 s may come again 150 s later, at 2 % of the time."""
    now = 0.0
    written: list[float] = []

    def slow(path: Path, status: Any) -> None:
        nonlocal now
        written.append(now)
        now += 3.0

    monkeypatch.setattr(live_report.time, "monotonic", lambda: now)
    monkeypatch.setattr(live_report, "write_report", slow)
    console = Console(quiet=True)
    console.log_to(tmp_path / "log.txt")
    live = LiveReport(RunFolder(write_run(tmp_path / "run")), 100, console)
    for epoch in range(10):
        now = max(now, 60.0 * epoch)
        live.write()
    live.say_cost()
    assert written == [0.0, 180.0, 360.0, 540.0]
    assert (
        "4 pages in 12.0 s, 2.2% of the training time; 6 epochs went without one"
        in (tmp_path / "log.txt").read_text()
    )
