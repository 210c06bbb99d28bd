"""The processes that train the runs of a comparison or of folds."""

from typing import Any

import pytest

from classwise.run import parallel


def test_an_answer_is_received_from_a_pipe_of_any_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows `multiprocessing.Pipe` makes PipeConnections, which are no Connections."""
    pipes: list[Any] = [object(), object()]
    process: Any = None
    idle, busy = parallel.Worker(process, pipes[0]), parallel.Worker(process, pipes[1], run="a run")
    monkeypatch.setattr(parallel, "wait", lambda asked, timeout: asked)
    assert parallel._answering([idle, busy]) == [(1, busy)]
