"""Do the numbers mean what they say? Every claim of docs/results/honesty.md, tested by simulation.

    python benchmarks/honesty.py [NAME ...] [--quick] [--write]

Each simulation draws data sets in which the truth is known (two learners that are equally good, scores of a known
distribution, copies of known images) and counts how often what classwise says is right. Without a NAME all run, one
after the other. `--quick` is the version of the tests: fewer data sets, wider limits. `--write` puts the tables into
docs/results/honesty.md. Exits with 1 if a claim does not hold.
"""

import argparse
import importlib
import sys
import time
from pathlib import Path

from simulations.claim import Claim, markdown

SIMULATIONS: dict[str, str] = {
    "intervals": "95 % intervals of scores, over few rows and few groups",
    "leaks": "copies of images, and what the split promises",
    "compare": "are variants called different that are equally good?",
    "weights": "class weights act in training as given",
    "batch_norm": "gradients under accumulation, with batch norm and without",
    "prior": "scores and predictions at other class shares",
    "optimism": "how much too good the score of a selected epoch is, and which epochs to select from",
}
"""By name: what the simulation is about. Each is a module in simulations/ with `simulate(quick) -> list[Claim]`."""

PAGE = Path(__file__).parents[1] / "docs" / "results" / "honesty.md"


def simulate(name: str, quick: bool) -> list[Claim]:
    """The claims of one simulation."""
    claims: list[Claim] = importlib.import_module(f"simulations.{name}").simulate(quick)
    return claims


def write(name: str, table: str) -> None:
    """Put the table between `<!-- NAME -->` and `<!-- end NAME -->` of the page."""
    head, rest = PAGE.read_text(encoding="utf-8").split(f"<!-- {name} -->")
    _, tail = rest.split(f"<!-- end {name} -->")
    PAGE.write_text(f"{head}<!-- {name} -->\n{table}\n<!-- end {name} -->{tail}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SIMULATIONS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.names) - set(SIMULATIONS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; allowed: {', '.join(SIMULATIONS)}")

    failed = 0
    for name in options.names or SIMULATIONS:
        started = time.monotonic()
        claims = simulate(name, options.quick)
        table = markdown(claims)
        print(f"\n{name}: {SIMULATIONS[name]} ({time.monotonic() - started:.0f} s)\n{table}", flush=True)
        failed += sum(claim.holds is False for claim in claims)
        if options.write and not options.quick:
            write(name, table)
    print(f"\n{failed} claims do not hold" if failed else "\nevery claim holds")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
