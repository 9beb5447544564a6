"""docs/toy-table.md and its pictures, from the records."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from benchmarks.scores import records
from benchmarks.scores.methods import METHODS
from benchmarks.scores.protocol import PROTOCOLS, TARGETS, Protocol, Target
from benchmarks.scores.published import PUBLISHED

PAGE = records.ROOT / "docs" / "toy-table.md"
IMAGES = records.ROOT / "docs" / "images"
SPEED = {name: records.ROOT / "docs" / "records" / f"toy-speed{name}.json" for name in ("", "-unrolled")}
PANEL, MARGIN, CAPTION = 150, 8, 16  #: pixels
COLUMNS = 5
Record = dict[str, Any]

HEAD = """# The published toy table, reproduced

*Written by `python -m benchmarks.scores table` from the records in [records/toy](records/toy); not by hand.*

VEEGAN's two mixtures in the plane (Srivastava 2017) under PacGAN's protocol (Lin 2018, sec. 4.1): a grid of 25 modes
(means {-4, -2, 0, 2, 4}^2, std 0.05) and a ring of 8 (radius 1, std 0.01). From 2,500 samples of the last generator:

- **modes**: with at least one sample within 3 standard deviations;
- **high quality**: share of samples within 3 standard deviations of a mode. A perfect sampler has 98.9 % in the plane;
- **reverse KL**: KL(generated || uniform) over the modes in nats; 0 is best, 3.22 (log 25) and 2.08 (log 8) worst.
  First of high-quality samples only, as PacGAN's code counts; in brackets of all samples, each at its nearest mode.

Ours are mean +- standard deviation over seeds; the published ones are means, quoted from secondary sources, of which
`?` marks those with one source only. `-`: not published under this protocol.
"""

PROTOCOL = """## Protocol

As PacGAN's code (github.com/fjxmlzn/PacGAN): generator of ReLU layers with batch normalization on 2-D normal latents;
maxout discriminator of 5 pieces without normalization, on packs of m points; weights normal with std 0.02; batches of
100 packs (so PacGAN of degree m sees 100 m points per cycle) out of 100,000 fixed points; Adam with beta1 0.8;
non-saturating loss where the row does not say another; both players move at once, on the same fakes.

The compact learning rate is the best of 3e-4, 1e-3 and 3e-3 in a pilot of the plain GAN on the grid, with seeds 100 and
101, which the table does not have: after 10,000 cycles 19, 27 and 25 % of high quality at a reverse KL of 1.1, 1.1 and
1.9. Weights of penalties are those of the source or a round number; nothing was tuned per row.
"""

AGAIN = """Times are of the commit in the last column. Gradients by hand, which came after `b379c3add65c`, are those of
autograd but for rounding, so no row was run again for them. Beside other work they take 3/4 of its time for GAN and
D2GAN, 5/6 for the unrolled GAN, 7/8 for RpGAN with its penalties, and the same for minibatch std, which has none.
"""


def write_table(folder: Path = records.RECORDS, page: Path = PAGE, images: Path = IMAGES) -> Path:
    """Write the page and a picture per target; the page's path."""
    all_records = records.read(folder)
    parts = [HEAD]
    for protocol in PROTOCOLS.values():
        for target in TARGETS.values():
            found = [r for r in all_records if (r["protocol"], r["data"]) == (protocol.name, target.name)]
            if found or protocol.name == "compact":
                parts.append(_section(protocol, target, found, images))
    parts += [PROTOCOL, _differences(all_records), _cost(all_records)]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(parts))
    return page


def _section(protocol: Protocol, target: Target, found: list[Record], images: Path) -> str:
    modes = len(target.means)
    by_method = {record["method"]: record for record in found}
    lines = [
        f"## {target.name.capitalize()} of {modes}, {protocol.name} protocol\n",
        f"| method | modes of {modes} | high quality | reverse KL (all samples) | seeds | published: modes | high "
        "quality | reverse KL | of |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(target, name, by_method.get(name)) for name in METHODS]
    if ordered := [by_method[name] for name in METHODS if name in by_method]:
        picture = images / f"toy-{protocol.name}-{target.name}.png"
        draw(ordered, target, picture)
        lines.append(f"\n![samples](images/{picture.name})\n")
        lines.append(f"*{records.SHOWN} samples of the first seed (black) over the modes (red).*")
    lines.append("")
    return "\n".join(lines)


def _row(target: Target, name: str, record: Record | None) -> str:
    method, published = METHODS[name], PUBLISHED.get((target.name, name))
    if record is None:
        ours = ["not run", "", "", ""]
    else:
        results = record["results"]
        ours = [
            _spread(results["modes"], 1),
            _spread([100 * share for share in results["high_quality"]], 1, " %"),
            f"{_spread(results['reverse_kl'], 2)} ({statistics.fmean(results['reverse_kl_all']):.2f})",
            str(len(record["seeds"])),
        ]
    theirs = ["-", "-", "-", "-"]
    if published:
        mark = "" if published.confirmed else "?"
        kl = "-" if published.reverse_kl is None else f"{published.reverse_kl:.2f}{mark}"
        quality = f"{100 * published.high_quality:.1f} %{mark}"
        theirs = [f"{published.modes}{mark}", quality, kl, published.source]
    return f"| {method.title} | " + " | ".join(ours + theirs) + " |"


def _spread(values: Sequence[float], digits: int, unit: str = "") -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} +- {statistics.stdev(values):.{digits}f}{unit}" if len(values) > 1 else f"{mean}{unit}"


def _differences(all_records: list[Record]) -> str:
    """Of each protocol, then of each row."""
    lines = ["## Differences from the published protocol\n"]
    for name in PROTOCOLS:
        found = [r for r in all_records if r["protocol"] == name]
        sentences = [line for r in found for line in r["differences"] if "in place of 10." not in line]
        if found:
            sentences.append(_seeds(found))
            lines += [f"The {name} protocol:\n", *(f"- {line}" for line in dict.fromkeys(sentences)), ""]
    lines.append("Rows:\n")
    lines += [f"- {method.title}: {note}" for method in METHODS.values() for note in method.notes]
    return "\n".join(lines) + "\n"


def _seeds(found: Sequence[Record]) -> str:
    numbers = {record["data"]: len(record["seeds"]) for record in found}
    return f"Seeds: {' and '.join(f'{num} on the {data}' for data, num in numbers.items())}, in place of 10."


def _cost(all_records: list[Record]) -> str:
    lines = ["## Cost\n", "| run | seeds at once | cycles | CPU minutes | wall minutes | machine | commit |"]
    lines.append("|---|---|---|---|---|---|---|")
    lines += [
        f"| {r['protocol']}, {r['data']}, {r['title']} | {_stacks(r)} | {r['cycles']} | "
        f"{r['seconds']['cpu'] / 60:.1f} | {r['seconds']['wall'] / 60:.1f} | {r['machine']} | {r['commit']} |"
        for r in all_records
    ]
    return "\n".join([*lines, "", AGAIN, _speed()]) + "\n"


def _stacks(record: Record) -> str:
    """Seeds that one process trained at once, and beside it another."""
    return " + ".join(map(str, record.get("stacks", [len(record["seeds"])])))


def _speed() -> str:
    """What stacking is worth, from its own records: of the plain GAN, and of the dearest row."""
    if not all(path.exists() for path in SPEED.values()):
        return ""
    facts, dearest = (json.loads(path.read_text()) for path in SPEED.values())
    stacked, fit, clock = (facts[key] for key in ("one_stacked", "one_in_fit", "on_the_clock"))
    unrolled = dearest["on_the_clock"]["all_ms"]
    return (
        f"{facts['seeds']} stacked seeds of the plain GAN cost {fit['ratio']} times one seed in `Trainer.fit` "
        f"({fit['all_ms']} and {fit['one_ms']} ms of CPU time per cycle) and {stacked['ratio']} times one seed in the "
        f"stacked program itself ({stacked['all_ms']} and {stacked['one_ms']} ms). As `run` trains them, in stacks of "
        f"{' and '.join(map(str, clock['stacks']))} on a core each, they take {clock['ratio']} times as long as one "
        f"seed there ({clock['all_ms']} and {clock['one_ms']} ms on the clock). A cycle of one seed has 0.08 GFLOP "
        f"of matrix products, and these grow with the seeds: {facts['seeds']} take 5 to 6 ms at the 70 to 85 GFLOP/s "
        "that a core reaches. So the less a program spends on the rest, the nearer it is to that factor. The dearest "
        f"row, the unrolled GAN, takes {unrolled} ms on the clock for a cycle of its {dearest['seeds']} seeds: "
        f"{unrolled * PROTOCOLS['compact'].cycles / 60_000:.0f} minutes for all cycles. Medians of pairs, nothing else "
        f"ran, {facts['machine']}:\n\n"
        "```bash\npython -m benchmarks.scores speed --method gan --json docs/records/toy-speed.json\n"
        "python -m benchmarks.scores speed --method unrolled --json docs/records/toy-speed-unrolled.json\n```"
    )


def draw(ordered: list[Record], target: Target, path: Path) -> None:
    """Samples of each record over the modes, in rows of panels."""
    width, height = PANEL + MARGIN, PANEL + CAPTION + MARGIN
    num_rows = -(-len(ordered) // COLUMNS)
    image = Image.new("RGB", (min(len(ordered), COLUMNS) * width + MARGIN, num_rows * height + MARGIN), "white")
    painter = ImageDraw.Draw(image)
    for i, record in enumerate(ordered):
        row, column = divmod(i, COLUMNS)
        _panel(painter, record, target, MARGIN + column * width, MARGIN + row * height)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert("P", palette=Image.Palette.ADAPTIVE, colors=16).save(path, optimize=True)


def _panel(painter: ImageDraw.ImageDraw, record: Record, target: Target, left: int, top: int) -> None:
    painter.text((left, top - 4), record["title"], fill="black")
    top += CAPTION
    painter.rectangle((left, top, left + PANEL, top + PANEL), outline="gray")
    reach = 1.3 * max(abs(x) for mean in target.means for x in mean)
    for points, fill, color, size in ((target.means, None, "red", 3), (record["samples"], "black", "black", 1)):
        for a, b in points:
            if max(abs(a), abs(b)) < reach:
                x, y = left + _pixel(a, reach), top + PANEL - _pixel(b, reach)
                painter.ellipse((x - size, y - size, x + size, y + size), fill=fill, outline=color)


def _pixel(value: float, reach: float) -> int:
    return round((value / reach + 1) / 2 * PANEL)
