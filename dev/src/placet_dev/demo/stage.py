"""How the demo looks on a terminal: a line for each step as it happens, then a summary."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.status import Status
from rich.table import Table
from rich.text import Text

from placet_dev.demo.run import Report
from placet_dev.demo.steps import Result, Step
from placet_dev.demo.world import World

LOOK = {"works": ("[green]works[/]  ", "green"), "refused": ("[cyan]refused[/]", "cyan")}
INTRO = """[bold]placet demo[/]: an app's data survives an upgrade only when its owner says so.
[yellow]Software TEE: real quote formats, real TLS, real processes, and no protection from this \
machine's users.[/]
"""


class Stage:
    """Shows steps on a console as they happen. Use it as a context."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None

    def __enter__(self) -> Self:
        self._console.print(INTRO)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._quiet()

    def begin(self, number: int, step: Step[World]) -> None:
        """Show what is being done."""
        self._status = self._console.status(f"[dim]{number:2}[/] {step.name} ...")
        self._status.start()

    def end(self, result: Result) -> None:
        """Show what came of it."""
        self._quiet()
        look = LOOK[result.kind][0] if result.ok else "[bold red]FAILED[/] "
        self._console.print(f"{look}  [bold]{escape(result.name)}[/]")
        self._console.print(Padding(Text(result.detail, style="dim"), (0, 0, 0, 9)))

    def summary(self, report: Report) -> None:
        """Show all steps in a table, and what that means."""
        table = Table(title="Summary", title_justify="left", box=None, header_style="bold")
        for name, justify in (("step", "left"), ("must be", "left"), ("", "left"), ("s", "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for r in report.results:
            colour = LOOK[r.kind][1]
            verdict = "[green]as it must be[/]" if r.ok else "[bold red]FAILED[/]"
            name = f"[{colour}]{r.kind}[/]"
            table.add_row(escape(r.name), name, verdict, f"{r.seconds:.1f}")
        self._console.print()
        self._console.print(table)
        good = sum(r.ok for r in report.results)
        colour = "green" if report.ok else "bold red"
        self._console.print(
            f"\n[{colour}]{good} of {len(report.results)} steps ended as they must[/], "
            f"in {report.seconds:.0f} seconds."
        )
        if report.logs is not None:
            self._console.print(f"Logs and all else are kept in {report.logs}", soft_wrap=True)

    def _quiet(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


class Silence:
    """An audience that is shown nothing."""

    def begin(self, number: int, step: Step[World]) -> None:
        """Say nothing."""

    def end(self, result: Result) -> None:
        """Say nothing."""
