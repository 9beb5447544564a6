"""The files of a report: ablation.json, ablation.md, ablation.html and ablation.png."""

from __future__ import annotations

import html
import json
from pathlib import Path

from ganzoo import files
from ganzoo.ablation import plot
from ganzoo.ablation.summary import Summary
from ganzoo.ablation.tables import Table, all_tables, unfinished


def write(summary: Summary, out: Path) -> None:
    """Write all four into ``out``, replacing those of an earlier report."""
    texts = {
        "ablation.json": json.dumps(summary.state(), indent=1) + "\n",
        "ablation.md": markdown(summary),
        "ablation.html": page(summary),
    }
    for name, text in texts.items():
        with files.atomic(out / name, "w", encoding="utf-8") as file:
            file.write(text)
    with files.atomic(out / "ablation.png") as file:
        file.write(plot.png(summary))


def markdown(summary: Summary) -> str:
    """The report as Markdown, with the picture beside it."""
    lines = [f"# Ablation of {summary.plan.base}", "", introduction(summary), ""]
    for table in all_tables(summary):
        lines += [f"## {table.title}", "", *_markdown_table(table), "", table.note, ""]
    lines += ["![Scores over the run, and differences to the base](ablation.png)", "", _CAPTION, ""]
    if bad := unfinished(summary):
        lines += ["## Runs that did not finish", "", *(f"- {line}" for line in bad), ""]
    return "\n".join([*lines, _provenance(summary), ""])


def page(summary: Summary) -> str:
    """The report as one HTML file, readable on a light and on a dark screen."""
    title = html.escape(f"Ablation of {summary.plan.base}")
    parts = [f"<h1>{title}</h1>", f"<p>{html.escape(introduction(summary))}</p>"]
    parts += [_html_table(table) for table in all_tables(summary)]
    parts += [f'<div class="wide plot">{plot.svg(summary)}</div>', f'<p class="note">{_CAPTION}</p>']
    if bad := unfinished(summary):
        items = "".join(f"<li>{html.escape(line)}</li>" for line in bad)
        parts.append(f"<h2>Runs that did not finish</h2><ul>{items}</ul>")
    parts.append(f'<p class="note">{html.escape(_provenance(summary))}</p>')
    return _PAGE.format(title=title, body="\n".join(parts))


def introduction(summary: Summary) -> str:
    """What was compared."""
    plan = summary.plan
    num = len(plan.variations) - 1
    seeds = ", ".join(map(str, plan.seeds))
    return (
        f"{num} variation{'s' * (num != 1)} and the base, each with the seed{'s' * (len(plan.seeds) != 1)} {seeds}. A "
        "variation and the base with the same seed start from the same random numbers and are compared as a pair. "
        "Final: the last value of a run; best: its best value."
    )


def _provenance(summary: Summary) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in summary.versions.items())
    hashes = ", ".join(f"{v.name} {v.config_hash[:12]}" for v in summary.variations)
    return f"Versions: {versions}. Machine: {summary.machine}. Hashes of the settings: {hashes}."


def _markdown_table(table: Table) -> list[str]:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rows = [[f"`{cell}`" if i == table.code and cell else cell for i, cell in enumerate(row)] for row in table.rows]
    return [line(table.header), line(["---"] * len(table.header)), *map(line, rows)]


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = []
    for row in table.rows:
        cells = []
        for i, cell in enumerate(row):
            text = html.escape(cell)
            cells.append(
                f"<th>{text}</th>" if i == 0 else f"<td>{f'<code>{text}</code>' if i == table.code else text}</td>"
            )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return (
        f"<h2>{html.escape(table.title)}</h2>\n"
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n'
        f'<p class="note">{html.escape(table.note)}</p>'
    )


_CAPTION = (
    "Above: each line is a run, those of the base in grey; a cross ends one that diverged or failed. Below: each dot "
    "is a pair with the same seed, the tick their mean, the bar its interval."
)

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1b1b1b; --page: #ffffff; --line: #d0d0d0; --soft: #5c5c5c; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e8e8e8; --page: #16181b; --line: #3c4046; --soft: #a8adb4; }}
}}
body {{ color: var(--ink); background: var(--page); font: 16px/1.5 system-ui, sans-serif;
  max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin: 2rem 0 .5rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }}
td:last-child {{ white-space: normal; overflow-wrap: anywhere; min-width: 16rem; }}
thead th {{ font-weight: 600; color: var(--soft); }} tbody th {{ font-weight: 600; }}
.wide {{ overflow-x: auto; }} .note {{ color: var(--soft); font-size: .9rem; max-width: 50rem; }}
.plot {{ margin-top: 2rem; }} .plot svg {{ width: 100%; min-width: 40rem; height: auto; color: var(--ink); }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
