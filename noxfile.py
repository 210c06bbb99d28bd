"""The tasks of a contributor: `nox -s tests`, `nox -s full`, `nox -s lint`, `nox -s demo`, `nox -s site`.

What follows `--` is passed on: `nox -s tests -- tests/losses -k focal`. Each task has an environment of its own, kept
between calls; `nox --no-venv -s tests` runs in the active one instead.
"""

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "tests"]


@nox.session
def tests(session: nox.Session) -> None:
    """The quick tests, on all cores."""
    install(session, "-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def full(session: nox.Session) -> None:
    """The tests that `tests` leaves out: what repeats, takes long, or takes a protection out."""
    install(session, "-e", ".[test]")
    session.run("pytest", "-m", "full", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting, types, and which module may import which."""
    install(session, "-e", ".[test]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session
def demo(session: nox.Session) -> None:
    """`classwise demo`, as a user has it; `nox -s demo -- --masks` for another one."""
    install(session, ".")
    session.run("classwise", "demo", *session.posargs)


@nox.session
def site(session: nox.Session) -> None:
    """The documentation as a site in site/, where a dead link is an error; `nox -s site -- serve` shows it."""
    install(session, "-e", ".[site]")
    session.run("python", "docs/site_pages.py")
    if session.posargs == ["serve"]:
        session.run("zensical", "serve")
    else:
        session.run("zensical", "build", "--strict", "--clean", *session.posargs)


def install(session: nox.Session, *arguments: str) -> None:
    """Into the task's own environment; with --no-venv everything is there already."""
    if session.venv_backend != "none":
        session.install(*arguments)
