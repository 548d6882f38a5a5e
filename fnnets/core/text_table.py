"""Tables as text."""

from __future__ import annotations


def format_table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows of cells as aligned lines, with the first row underlined."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
