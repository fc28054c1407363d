"""What `explain` answers with: a sentence, tables and the same as plain data; as text, dict, or HTML for a notebook."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows under a title. Cells are text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def lines(self) -> list[str]:
        """Aligned columns; the last one is as wide as it is."""
        if not self.rows:
            return []
        widths = [max(len(row[n]) for row in self.rows) for n in range(len(self.columns) - 1)]
        lines = [f"{self.title}:"] if self.title else []
        for row in self.rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            lines.append("  " + "  ".join([*cells, row[-1]]).rstrip())
        return lines

    def html(self) -> str:
        head = "".join(f"<th style='text-align:left'>{escape(column)}</th>" for column in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        title = f"<caption style='text-align:left'>{escape(self.title)}</caption>" if self.title else ""
        return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if self.rows else ""


@dataclass(frozen=True)
class Explanation:
    """`subject` says what is explained, `summary` how it is in one sentence; `data` is for programs. `parts` are
    further explanations that this one rests on, such as that of the address that faulted."""

    subject: str
    summary: str
    tables: tuple[Table, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    parts: tuple[Explanation, ...] = ()

    @property
    def text(self) -> str:
        lines = [f"{self.subject}: {self.summary}"]
        for table in self.tables:
            lines += table.lines()
        for part in self.parts:
            lines += ["", *part.text.splitlines()]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text

    def as_dict(self) -> dict[str, Any]:
        """Plain data: text and numbers in dicts and lists."""
        return {
            "subject": self.subject,
            "summary": self.summary,
            **self.data,
            "tables": {
                table.title: [dict(zip(table.columns, row, strict=True)) for row in table.rows] for table in self.tables
            },
            "parts": [part.as_dict() for part in self.parts],
        }

    def _repr_html_(self) -> str:
        """For a notebook. Everything is escaped: names come from the guest."""
        parts = "".join(f"<div style='margin-left:2em'>{part._repr_html_()}</div>" for part in self.parts)
        tables = "".join(table.html() for table in self.tables)
        return f"<div><p><b>{escape(self.subject)}</b>: {escape(self.summary)}</p>{tables}{parts}</div>"
