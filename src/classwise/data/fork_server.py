"""Imported by Python's fork server and by nothing else: it then has in memory what loader workers need.

The server is started while signals are held back, so that one to the whole group does not end it. What it forks takes
them as ever: other parts of a program may use the same server.
"""

import os
import signal

import classwise.data.loader  # noqa: F401 - to be there when a worker is forked
from classwise.signals import STOPPING


def _take_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


os.register_at_fork(after_in_child=_take_signals)
