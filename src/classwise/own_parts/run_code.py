"""The copies of the user's own code in a run directory, which make the run stand on its own, and who may run them.

    runs/NAME/code/my_losses.py     a copy of each file that the config names
    runs/NAME/code/manifest.json    its size and SHA-256

A run directory may come from anyone, and code can do anything. So whoever opens one names the digests of the files that
they trust. A file that is not what the manifest says is refused in any case.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from classwise.errors import CheckpointError, TrustError
from classwise.files import make_folder, write_bytes, write_json
from classwise.own_parts.source import SourceFile

FOLDER = "code"
MANIFEST = "manifest.json"
LEAST_DIGITS = 8
"""Of a digest; more may be given."""


def copies_in(run: Path, sources: Iterable[SourceFile]) -> dict[str, SourceFile]:
    """The copy of each file in the run directory, by the path of the original. Files of the same name get numbers."""
    copies: dict[str, SourceFile] = {}
    names: set[str] = set()
    for source in sources:
        path = Path(source.path)
        name, number = path.name, 2
        while name in names:
            name, number = f"{path.stem}_{number}{path.suffix}", number + 1
        names.add(name)
        copies[source.path] = SourceFile(str(run.resolve() / FOLDER / name), source.content)
    return copies


def write_code(run: Path, copies: Sequence[SourceFile]) -> None:
    """Write the copies and their manifest; nothing where there are none."""
    if not copies:
        return
    folder = run / FOLDER
    make_folder(folder)
    for copy in copies:
        write_bytes(folder / Path(copy.path).name, copy.content)
    files = {Path(copy.path).name: {"size": len(copy.content), "sha256": copy.digest} for copy in copies}
    write_json(folder / MANIFEST, {"schema": 1, "files": files})


def read_code(run: Path) -> list[SourceFile]:
    """The copies in a run directory, each as the manifest says; none where the run has no code of its own. Raises
    CheckpointError that names the file."""
    folder = run.resolve() / FOLDER
    manifest = folder / MANIFEST
    if not manifest.exists():
        return []
    try:
        listed = {
            str(name): str(entry["sha256"])
            for name, entry in json.loads(manifest.read_text(encoding="utf-8"))["files"].items()
        }
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise CheckpointError(f"{manifest} is damaged: {error}") from None
    sources = []
    for name, digest in listed.items():
        path = folder / name
        if path.name != name or path.suffix != ".py":
            raise CheckpointError(f"{manifest} is damaged: found {name!r}, allowed: names of .py files")
        try:
            source = SourceFile(str(path), path.read_bytes())
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
        if source.digest != digest:
            raise CheckpointError(
                f"{path} has changed since the run began: its digest was {digest[:LEAST_DIGITS]} and is"
                f" {source.digest[:LEAST_DIGITS]}. Restore the file, or start a new run with the changed one"
            )
        sources.append(source)
    return sources


def lies_in_a_run(path: str) -> bool:
    """Whether a file is one of the copies in a run directory, rather than in some folder of that name."""
    folder = Path(path).parent
    return (
        folder.name == FOLDER and (folder / MANIFEST).is_file() and (folder.parent / "config.toml").is_file()
    )


def digests_of(trust: str | Sequence[str]) -> list[str]:
    """The digests that --trust names, separated by commas. Raises TrustError for what is none."""
    texts = trust.split(",") if isinstance(trust, str) else list(trust)
    digests = [text.strip().lower() for text in texts if text.strip()]
    for digest in digests:
        if not LEAST_DIGITS <= len(digest) <= 64 or set(digest) - set("0123456789abcdef"):
            raise TrustError(
                f"--trust: found {digest!r}, allowed: at least the first {LEAST_DIGITS} characters of a file's SHA-256,"
                " of several files separated by commas"
            )
    return digests


def require_trust(where: str, sources: Sequence[SourceFile], trust: str | Sequence[str]) -> None:
    """Raise TrustError unless `trust` names the digest of each file, and no other. `where`: what they belong to."""
    digests = digests_of(trust)
    for digest in digests:
        if not any(source.digest.startswith(digest) for source in sources):
            has = ", ".join(f"{_name(source)} ({source.digest[:LEAST_DIGITS]})" for source in sources)
            raise TrustError(
                f"--trust: {digest} is not the digest of a file of {where}, which has {has or 'no code of its own'}"
            )
    sources = sorted(sources, key=_name)
    missing = [source for source in sources if not any(map(source.digest.startswith, digests))]
    if missing:
        raise TrustError(
            f"{where} has code of its own, which can do anything on this machine: {', '.join(map(_name, missing))}."
            f" Read it and, if you trust it, add{trust_option(sources)}"
        )


def trust_option(sources: Sequence[SourceFile]) -> str:
    """` --trust 3f0c9a1b,77ab01c2`, to be added to a command; empty where there is no code."""
    named = ",".join(source.digest[:LEAST_DIGITS] for source in sorted(sources, key=_name))
    return f" --trust {named}" if named else ""


def _name(source: SourceFile) -> str:
    return f"{FOLDER}/{Path(source.path).name}"
