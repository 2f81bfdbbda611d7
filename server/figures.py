"""The charts of a run as files for a paper: NAME.svg, which is readable in black and white, and NAME.csv.

A drawing is that of the report with a title, a legend and a style of its own. Texts of the run are escaped in both; in
CSV a text that a spreadsheet would take for a formula gets an apostrophe before it.

>>> cell("=1+1"), cell(0.123456789), cell(None)
("'=1+1", '0.123457', '')
"""

import csv
import io
import re
from pathlib import Path

from configs.errors import RunError
from configs.files import write_atomically
from server.charts import svg
from server.charts.figure import Cell, Figure
from server.charts.markup import Html, el, join
from server.papers import linked
from server.report.sections.registry import sections_of
from server.result.finished import Run

HEAD = 56  # pixels above the drawing, for title and legend
STYLE = """
text { font: 13px Helvetica, Arial, sans-serif; fill: #222; }
.t.strong, .t.end { font-weight: 600; fill: #000; } .t.quiet { font-style: italic; }
.halo { paint-order: stroke; stroke: #fff; stroke-width: 5px; stroke-linejoin: round; }
.grid, .rule { stroke: #ddd; } .chance, .ideal { stroke: #666; stroke-dasharray: 2 4; } .band { fill: #eee; }
.m, .whisker { stroke: #000; stroke-width: 1.5; fill: #000; } .m.local_only { fill: #888; stroke: #555; }
.whisker.local_only { stroke: #555; } .m.federated_without_privacy, .m.pooled { fill: #fff; }
.whisker.pooled { stroke-dasharray: 2 2; } .whisker.federated_without_privacy { stroke-dasharray: 5 2; }
.curve { fill: none; stroke: #000; stroke-width: 1.5; } .curve.federated { stroke-width: 2.5; }
.curve.federated_without_privacy, .curve.everybody { stroke-dasharray: 7 4; } .curve.pooled { stroke-dasharray: 2 3; }
.curve.nobody, .curve.spent { stroke: #777; } .level { stroke: #777; stroke-dasharray: 1 4; stroke-width: 2; }
.budget { stroke: #000; stroke-dasharray: 9 5; } .bin .m { fill-opacity: .6; } .bin .m.pooled { fill: none; }
.strip .dot { fill: #000; fill-opacity: .35; } .strip .middle-half { fill: #ddd; } .strip .median { stroke: #000; }
"""


def write_figures(run: Path, folder: Path, statistics: Path | None = None) -> list[Path]:
    """Write every chart of a run into a folder, which is made where it is missing; the paths.

    Args:
        statistics: as `write_papers` (server/papers.py) takes it.

    Raises:
        RunError: metrics.json is missing or malformed, the run trained no model, or the folder cannot be written.
    """
    finished = linked(run, statistics)
    if not finished.trains:
        raise RunError(
            f"{run}: expected a run that trained a model, found one of statistics: its figures are in the report"
        )
    figures = figures_of(finished)
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for figure in figures:
            texts = {"csv": table_of(figure)} | ({"svg": drawing_of(figure)} if figure.drawn else {})
            for ending, text in texts.items():
                path = folder / f"{figure.name}.{ending}"
                write_atomically(path, text.encode())
                paths.append(path)
    except OSError as error:
        raise RunError(f"{folder}: figures cannot be written there: {error.strerror}; give another folder") from None
    return paths


def figures_of(run: Run) -> list[Figure]:
    """Return the charts of all sections of the report."""
    return [figure for section in sections_of(run) for figure in section.figures(run)]


def table_of(figure: Figure) -> str:
    """Return the numbers of a chart as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(cell, figure.headings))
    writer.writerows([cell(entry) for entry in row] for row in figure.rows)
    return text.getvalue()


def cell(entry: Cell) -> str:
    """Return one cell: a number with six digits, a text that no spreadsheet takes for a formula."""
    if entry is None:
        return ""
    if isinstance(entry, str):
        return f"'{entry}" if entry.startswith(("=", "+", "-", "@", "\t", "\r")) else entry
    return f"{entry:.6g}" if isinstance(entry, float) else str(entry)


def drawing_of(figure: Figure) -> str:
    """Return a chart as an SVG file: its title and legend above the drawing, its style within."""
    assert figure.drawn is not None
    drawn = figure.drawn.replace("&nbsp;", "&#160;")  # XML knows no such name
    opening = re.search(r'viewBox="0 0 (\d+) ([\d.]+)"', drawn)
    assert opening is not None
    width, height = int(opening[1]), float(opening[2]) + HEAD
    inner = drawn[drawn.index(">") + 1 : drawn.rindex("</svg>")]
    head = join([svg.text(8, -34, figure.title, "t strong"), *_legend(figure)])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:g}" '
        f'viewBox="0 -{HEAD} {width} {height:g}" role="img">{el("style", Html(STYLE))}'
        f'<rect x="0" y="-{HEAD}" width="{width}" height="{height:g}" fill="#fff"/>{head}{inner}</svg>\n'
    )


def _legend(figure: Figure) -> list[Html]:
    parts, place = [], 8.0
    for key, name in figure.legend:
        sample = svg.line(place, -14, place + 24, -14, f"curve {key}")
        has_marks = f'class="m {key}"' in str(figure.drawn)
        parts += [sample, *([svg.mark(key, place + 12, -14, radius=4.0)] if has_marks else [])]
        parts.append(svg.text(place + 32, -10, name))
        place += 54 + 6.1 * len(name)
    return parts
