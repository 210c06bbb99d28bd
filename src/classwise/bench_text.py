"""What `classwise bench` found, as text for a terminal."""

from classwise.bench import COMPUTING, READING, Bench

BAR = 24
"""Characters of the longest bar."""


def bench_text(found: Bench) -> str:
    """A table of the stages with bars, the whole beside their sum, and what would help."""
    reading, computing = found.milliseconds(*READING), found.milliseconds(*COMPUTING)
    longest = max(stage.milliseconds for stage in found.stages)
    width = max(len(stage.name) for stage in found.stages)
    lines = [f"{'stage':<{width}}  ms a picture"]
    for stage in found.stages:
        bar = "█" * max(
            1 if stage.milliseconds > 0.01 * longest else 0, round(BAR * stage.milliseconds / longest)
        )
        lines.append(
            f"{stage.name:<{width}}  {stage.milliseconds:>12.3f}  {bar:<{BAR}}  {stage.what}".rstrip()
        )
    readers = f"{found.workers} worker{'' if found.workers == 1 else 's'}"
    where = f"in {readers}, beside the model" if found.workers else "in turn with the model"
    threads = f"{found.threads} thread{'' if found.threads == 1 else 's'}"
    lines += [
        "",
        f"reading   {reading:8.3f} ms  {where}",
        f"computing {computing:8.3f} ms  {found.precision}, {threads} on {found.device}",
        f"together  {found.whole:8.3f} ms  measured over whole updates: {1000 / found.whole:,.0f} pictures/s"
        if found.whole
        else "together  not measured: fewer than two updates in an epoch",
    ]
    if found.plans:
        lines += [
            "",
            "ways to train that were measured, the fastest first:",
            *(f"  {plan}" for plan in found.plans),
        ]
    lines += [
        "",
        "what would help:" if found.hints else "nothing stands out: reading and computing keep pace",
    ]
    return "\n".join([*lines, *(f"  - {hint}" for hint in found.hints)])
