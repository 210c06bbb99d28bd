"""What `classwise bench` found, for people: ruled and coloured on a terminal, plain lines elsewhere."""

import sys
from typing import Any

from classwise.bench.result import READING, Bench, Stage

NOTHING = "nothing stands out: this is as fast as this model trains here"


def bench_text(found: Bench) -> str:
    """Plain lines: a row a stage, the sums beside the whole, and what would help."""
    width = max(len(stage.name) for stage in found.stages)
    lines = [f"{'stage':<{width}}  ms an image  share"]
    for stage in found.stages:
        cells = f"{stage.name:<{width}}  {_milliseconds(stage):>12}  {_share(found, stage):>5}"
        lines.append(f"{cells}  {stage.what}".rstrip())
    lines += ["", *(f"{name:<9} {value:>9.3f} ms  {what}" for name, value, what in _sums(found))]
    if found.plans:
        lines += ["", _PLANS, *(f"  {plan}" for plan in found.plans)]
    return "\n".join([*lines, "", _bound(found), *(f"- {hint}" for hint in found.hints or (NOTHING,))])


def print_bench(found: Bench) -> None:
    """To stdout."""
    if not sys.stdout.isatty():
        print(bench_text(found))
        return
    from rich.console import Console as Rich
    from rich.padding import Padding
    from rich.text import Text

    rich = Rich(highlight=False)
    rich.print(_stage_table(found, min(40, max(6, rich.width - 68))))
    for name, value, what in _sums(found):
        rich.print(Text.assemble(f"{name:<11}", (f"{value:>8.3f} ms", "bold"), f"  {what}"))
    if found.plans:
        rich.print("\n" + _PLANS)
        for i, plan in enumerate(found.plans):
            rich.print(Padding(Text(str(plan), style="" if i == 0 else "dim"), (0, 0, 0, 2)))
    rich.print(Text("\n" + _bound(found), style="bold"))
    rich.print(_hint_table(found.hints or (NOTHING,)))


_PLANS = "ways to train that were measured, the fastest first:"


def _stage_table(found: Bench, length: int) -> Any:
    """With bars of that length at most."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", min_width=10)
    table.add_column("ms an image", justify="right", min_width=12)
    table.add_column("share", justify="right", min_width=5)
    table.add_column("", min_width=length)
    table.add_column("", no_wrap=True, overflow="ellipsis")
    longest = max(stage.milliseconds for stage in found.stages)
    for stage in found.stages:
        colour = "cyan" if stage.name in READING else "dim" if _share(found, stage) == "" else "green"
        bar = _bar(stage.milliseconds / longest if longest else 0.0, length)
        cells = (_milliseconds(stage), _share(found, stage))
        table.add_row(stage.name, *cells, Text(bar, style=colour), Text(stage.what, style="dim"))
    return table


def _hint_table(hints: tuple[str, ...]) -> Any:
    """A list whose long lines are indented."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for hint in hints:
        table.add_row("-", Text(hint))
    return table


def _bar(share: float, length: int) -> str:
    """To an eighth of a character; nothing at all below a quarter of one."""
    eighths = round(8 * length * share)
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8] * (eighths > 1)


def _milliseconds(stage: Stage) -> str:
    return "< 0.001" if 0 < stage.milliseconds < 0.0005 else f"{stage.milliseconds:.3f}"


def _share(found: Bench, stage: Stage) -> str:
    share = found.share(stage)
    return "" if share is None else f"{100 * share:.0f} %"


def _bound(found: Bench) -> str:
    return f"bound by {found.bound}" if found.bound else "bound by no stage alone"


def _sums(found: Bench) -> list[tuple[str, float, str]]:
    readers = f"{found.workers} worker{'' if found.workers == 1 else 's'}"
    threads = f"{found.threads} thread{'' if found.threads == 1 else 's'}"
    where = f"a reader; {readers} beside the model" if found.workers else "in turn with the model"
    how = "the slower of the two" if found.workers else "one after the other"
    speed = f", {1000 / found.whole:,.0f} images/s" if found.whole else ""
    return [
        ("reading", found.reading, where),
        ("computing", found.computing, f"{found.precision}, {threads} on {found.device}"),
        ("expected", found.expected, how),
        ("measured", found.whole, f"whole updates{speed}; the stages explain {100 * found.explained:.0f} %"),
    ]
