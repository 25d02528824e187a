"""Tables on the terminal, in kubectl's manner."""

from __future__ import annotations

from rich import box
from rich import table as rich_table
from rich.console import Console
from rich.text import Text

from stoker.cli.tables import Table

_PIPE_WIDTH = 1000


def show_table(table: Table) -> None:
    """Columns without lines; what is piped on is never cut or folded."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    shown = rich_table.Table(box=box.SIMPLE, show_edge=False, show_header=True, header_style="bold", pad_edge=False)
    shown.box = None
    last = len(table.titles) - 1
    for number, title in enumerate(table.titles):
        shown.add_column(title, no_wrap=number < last, overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    console.print(shown if table.rows else Text("none"))


def show_text(text: str, style: str = "") -> None:
    """A line or more, folded at the terminal's width."""
    console = Console(highlight=False)
    console.print(Text(text, style), soft_wrap=not console.is_terminal)
