"""The commands that look at data without training."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from classwise.cli_options import Debug, Force, Quiet, parse_overrides, say_at_once
from classwise.errors import ConfigError, SevereFindings


def check(
    source: Path,
    /,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    against: Annotated[
        list[Path] | None,
        Parameter(
            help="A table or folder that should share no image with the data, such as a test; repeatable."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        Parameter(
            help="A folds directory of the same data, by whose out-of-fold predictions labels are ranked."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(help="Folder for what is written [default: runs/NAME-check]; with --apply, the new table."),
    ] = None,
    strict: Annotated[bool, Parameter(help="End with code 3 if anything severe was found.")] = False,
    write_groups: Annotated[
        bool,
        Parameter(help="Also write groups.csv: the table with a column `group` that holds copies together."),
    ] = False,
    fix: Annotated[
        bool,
        Parameter(help="Also write proposals.csv: labels to change and copies to remove, for you to accept."),
    ] = False,
    apply: Annotated[
        Path | None,
        Parameter(
            help="Write a new table, --out TABLE, with the accepted rows of a proposals.csv; nothing else."
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Look for what is wrong with data before a number is trusted: copies and leaks, labels, images, shortcuts,
    shift.

    Writes check.html, check.csv and check.json; the source is never changed. Every key of a config is also an option.

    Parameters
    ----------
    source
        A classwise.toml, a table, or a folder of images, as for init.
    """
    keys = parse_overrides(overrides)
    if apply is not None:
        others = {
            "--against": against,
            "--run": run,
            "--strict": strict,
            "--write-groups": write_groups,
            "--fix": fix,
        }
        for option in (option for option, given in others.items() if given):
            raise ConfigError(
                f"{option}: found with --apply, which writes a table and looks for nothing; leave it out"
            )
        _apply(source, apply, out, keys, force=force, quiet=quiet)
        return
    if source.exists():
        say_at_once(f"checking {source}", quiet)
    from classwise.datacheck.finding import SEVERE
    from classwise.kfold.checked import check as check_data

    found = check_data(
        source,
        against=against or (),
        run=run,
        out=out,
        overrides=keys,
        write_groups=write_groups,
        fix=fix,
        force=force,
        quiet=quiet,
    )
    if not quiet:
        print("\n".join([f"{len(found.rows)} rows checked", *found.lines]), file=sys.stderr)
    print(found.folder / "check.html")
    if strict and found.is_severe:
        severe = found.counts[SEVERE]
        raise SevereFindings(f"{severe} severe finding{'' if severe == 1 else 's'} (--strict)")


def _apply(
    source: Path, proposals: Path, out: Path | None, keys: list[tuple[str, str]], force: bool, quiet: bool
) -> None:
    """Write a new table with the accepted proposals."""
    if out is None:
        raise ConfigError("--apply: found without --out; name the new table, such as --out corrected.csv")
    from classwise.datacheck.changes import apply_to

    said = apply_to(source, proposals, out, keys, force)
    if not quiet:
        print(said, file=sys.stderr)
    print(out)


def pack(
    source: Path,
    out: Path,
    /,
    *,
    format: Annotated[
        str, Parameter(help="parquet (Hugging Face's layout), tar (WebDataset's naming) or zip.")
    ] = "parquet",
    shard_mb: Annotated[int, Parameter(name="--shard-mb", help="Megabytes of images in each shard.")] = 256,
    path: Annotated[
        str | None, Parameter(help="Column of a table with the image paths [default: path].")
    ] = None,
    images: Annotated[
        Path | None, Parameter(help="Folder that a table's paths are relative to [default: the table's own].")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Put images and their table into shards: few large files, which any disk and object store reads well.

    The shards are a source as the files were: the same rows in the same order, and training on them gives the same
    model.

    Parameters
    ----------
    source
        A classwise.toml, whose data.source is packed, a table, a folder of class folders, or other shards.
    out
        The folder for the shards, which is new or empty.
    """
    from classwise.compose.packing import pack_source

    made = pack_source(source, out, format, shard_mb, path, images, quiet)
    if not quiet:
        print(made.text, file=sys.stderr)
    print(out)
