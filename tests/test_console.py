"""The progress bar."""

import io

import pytest

from classwise import console
from classwise.console import Console


class Terminal(io.StringIO):
    """A text file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_bar_shows_its_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the note says at the time, beside the title and the count; without a terminal the items alone."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(console, "NOTE_SECONDS", 0.0)
    notes = iter(["loss 2.5", "loss 1.5", "loss 0.5"])

    def note() -> str:
        return next(notes)

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    items = list(Console().bar(range(3), "epoch 1/2", note=note))
    assert items == [0, 1, 2]
    last = terminal.getvalue().split("epoch 1/2")[-1]
    assert "3/3" in last
    assert "loss 0.5" in last

    monkeypatch.setattr("sys.stderr", plain := io.StringIO())
    assert list(Console().bar(range(3), "epoch 1/2", note=note)) == [0, 1, 2]
    assert plain.getvalue() == ""
