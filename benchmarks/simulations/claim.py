"""A claim about a number that classwise reports, and what a simulation found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One line of docs/results/honesty.md.

    `setting`: what was simulated; `found`: the number, with its unit; `allowed`: what it has to be; `count`: the number
    of simulated data sets (or runs) behind it; `holds`: None where nothing is claimed.
    """

    setting: str
    found: str
    allowed: str
    count: int
    holds: bool | None


def within(setting: str, value: float, low: float, high: float, count: int, unit: str = "") -> Claim:
    """A number that has to lie in [low, high]."""
    allowed = f"{low:g} to {high:g}{unit}"
    return Claim(setting, f"{value:.3g}{unit}", allowed, count, holds=low <= value <= high)


def at_most(setting: str, value: float, limit: float, count: int, unit: str = "") -> Claim:
    """A number that must not be larger than `limit`."""
    return Claim(setting, f"{value:.3g}{unit}", f"at most {limit:g}{unit}", count, holds=value <= limit)


def for_information(setting: str, value: float, count: int, unit: str = "") -> Claim:
    """A number that is no claim, such as what the method of before comes to."""
    return Claim(setting, f"{value:.3g}{unit}", "(for information)", count, holds=None)


def markdown(claims: list[Claim]) -> str:
    """The claims as a table."""
    words = {True: "yes", False: "NO", None: "–"}
    lines = ["| setting | found | allowed | data sets | holds |", "|---|---|---|---|---|"]
    lines += [
        f"| {claim.setting} | {claim.found} | {claim.allowed} | {claim.count:,} | {words[claim.holds]} |"
        for claim in claims
    ]
    return "\n".join(lines)
