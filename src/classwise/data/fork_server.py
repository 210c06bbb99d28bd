"""Imported by Python's fork server only: the server then has in memory what loader workers need.

The server is started with signals blocked, so that a signal to the whole process group does not end it. The processes
that it forks unblock them again, since other parts of a program may use the same server.
"""

import os

import classwise.data.loader  # noqa: F401 - imported before a worker is forked
from classwise.signals import unblock_signals

os.register_at_fork(after_in_child=unblock_signals)
