"""Commands that must be refused as a user's mistake."""

from pathlib import Path

from tests.helpers.scenes import command, untouched


def refused(folder: Path, *arguments: object, lines: int = 1) -> str:
    """The message of a command that must fail as a user's mistake and leave everything below `folder` alone."""
    with untouched(folder):
        result = command(*arguments)
    assert result.code == 1
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert "Traceback" not in result.err
    assert len(result.err.splitlines()) == lines, result.err
    # Short, whatever the length of this machine's temporary paths.
    assert len(result.err.replace(str(folder), "")) < 300 * lines, result.err
    return result.err


def says(message: str, *parts: object) -> None:
    """Each part stands in the message."""
    for part in parts:
        assert str(part) in message, message
