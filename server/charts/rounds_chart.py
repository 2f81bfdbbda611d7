"""Charts of the rounds: privacy spent, bytes sent, and each hospital's attendance.

>>> runs("AAB")
[('A', 0, 2), ('B', 2, 1)]
"""

from collections.abc import Mapping, Sequence, Set
from itertools import groupby

from server.charts import svg
from server.charts.markup import Html, decimal, el, join
from server.charts.quality import round_ticks
from server.result.finished import Points, Run, Site
from server.result.wording import cut, epsilon, plural, size

ALIKE = 0.02  # of the axis: curves so close are one line to the eye, and get one label
LABELS = 6
STATES = {"all": "contributed", "some": "in part of these rounds", "none": "missing", "future": "not reached"}


def spending(run: Run) -> Html | None:
    """Return a chart of epsilon spent after each round, a line for each hospital, under the budget."""
    members = {site.name for site in run.took_part}
    curves = {site: points for site, points in run.epsilon_by_round.items() if points and site in members}
    return svg.both(lambda width: _spending(run, curves, width)) if run.private and curves else None


def _spending(run: Run, curves: dict[str, Points], width: int) -> Html:
    wide = width == svg.WIDE
    height, start, end = (290.0, 44.0, width - 150.0) if wide else (250.0, 40.0, width - 96.0)
    budget = run.privacy.epsilon
    last = max(run.rounds_planned, *(points[-1][0] for points in curves.values()))
    highest = max([value for points in curves.values() for _, value in points] + [budget or 0.0])
    bounds = (0.0, highest * 1.1 or 1.0)
    x, y = svg.Scale((0.0, float(max(1, last))), (start, end)), svg.Scale(bounds, (height, 34.0))
    values, rounds = (
        svg.ticks(*bounds, 5),
        [0.0, *(t for t in round_ticks(last, 7 if wide else 4) if t > 1 or last == 1)],
    )
    return svg.canvas(
        "spending",
        width,
        height + 46,
        "Epsilon spent, by round",
        "; ".join(f"{site}: {epsilon(points[-1][1])}" for site, points in curves.items()),
        svg.axis_y(y, start, end, "Epsilon spent per patient (no unit)", values, svg.number(values)),
        svg.axis_x(x, height, height, "Round", rounds, svg.number(rounds)),
        *(svg.path([(x(0), y(0)), *((x(n), y(v)) for n, v in svg.thinned(p))], "curve spent") for p in curves.values()),
        svg.line(start, y(budget), end, y(budget), "budget") if budget else None,
        svg.text(start + 8, y(budget) - 7, f"budget {epsilon(budget)}", "t strong budget-name") if budget else None,
        _spending_labels(curves, x, y, 20 if wide else 11),
    )


def _spending_labels(curves: dict[str, Points], x: svg.Scale, y: svg.Scale, room: int) -> Html:
    """Draw a name at each line's end; one for lines that lie on each other; the extremes only where there are many."""
    groups = _alike(curves, (y.domain[1] - y.domain[0]) * ALIKE)
    groups = groups if len(groups) <= LABELS else [groups[0], groups[-1]]
    ends = [curves[group[0]][-1] for group in groups]
    places = svg.spread([y(value) for _, value in ends], 30.0, y.pixels[1], y.pixels[0])
    parts: list[Html] = []
    for group, (number, value), place in zip(groups, ends, places, strict=True):
        name = group[0] if len(group) == 1 else _together(len(group), len(curves), room)
        parts.append(el("circle", cx=x(number), cy=y(value), r=4, class_="m spent"))
        parts.append(svg.text(x(number) + 10, place + 1, cut(name, room), "t strong"))
        parts.append(svg.text(x(number) + 10, place + 16, epsilon(value), "t"))
    return join(parts)


def _together(count: int, of: int, room: int) -> str:
    """Return the label of lines that lie on each other."""
    return f"{'all ' if count == of else ''}{count}{' hospitals' if room > 12 else ''}"


def _alike(curves: dict[str, Points], near: float) -> list[list[str]]:
    """Return groups of hospitals with curves that end at nearly the same place, from the highest end to the lowest."""
    groups: list[list[str]] = []
    for site in sorted(curves, key=lambda site: -curves[site][-1][1]):
        first = curves[groups[-1][0]][-1] if groups else None
        if first and first[0] == curves[site][-1][0] and first[1] - curves[site][-1][1] <= near:
            groups[-1].append(site)
        else:
            groups.append([site])
    return groups


def bytes_sent(run: Run) -> Html | None:
    """Draw a bar for each hospital's bytes, with its messages."""
    sites = [site for site in run.sites if site.bytes_sent]
    return svg.both(lambda width: _bytes(sites, width)) if sites else None


def _bytes(sites: Sequence[Site], width: int) -> Html:
    wide = width == svg.WIDE
    step, bar = (26.0, 14.0) if wide else (42.0, 12.0)
    most = max(site.bytes_sent or 0 for site in sites)
    unit, factor = next(
        (u, f) for u, f in (("bytes", 1), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9)) if most < 1000 * f or f == 1e9
    )
    bounds = (0.0, max(most / factor, 1e-9))
    x = svg.Scale(bounds, (190.0, width - 180.0) if wide else (8.0, width - 16.0))
    bottom = step * len(sites) + 4
    values = svg.ticks(*bounds, 5 if wide else 4)
    return svg.canvas(
        "bytes",
        width,
        bottom + 50,
        "Bytes sent by each hospital",
        "; ".join(f"{site.name}: {size(site.bytes_sent or 0)}" for site in sites),
        svg.axis_x(x, 0, bottom, f"Sent in the whole study ({unit})", values, svg.number(values)),
        *(_bar(site, n * step, bar, x, factor, width) for n, site in enumerate(sites)),
    )


def _bar(site: Site, top: float, bar: float, x: svg.Scale, factor: float, width: int) -> Html:
    wide, sent = width == svg.WIDE, site.bytes_sent or 0
    y = top + (6.0 if wide else 22.0)
    note = size(sent) + (f" · {plural(site.messages_sent, 'message')}" if site.messages_sent is not None else "")
    end = x(sent / factor)
    name = el("text", el("title", site.name), cut(site.name, 24), x=8, y=top + (17 if wide else 15), class_="t strong")
    return join(
        [
            svg.rect(x.pixels[0], y, end - x.pixels[0], bar, "bar", f"{site.name}: {note}", rx=2),
            name,
            svg.text(end + 10, y + 11, note, "t") if wide else svg.text(width - 8, top + 15, note, "t", "end"),
        ]
    )


def attendance(run: Run) -> Html | None:
    """Draw a strip for each hospital, a cell for each round (or for a few rounds where there are many)."""
    return svg.both(lambda width: _attendance(run, width)) if run.rounds and run.sites else None


def _attendance(run: Run, width: int) -> Html:
    wide = width == svg.WIDE
    start, end = (190.0, width - 8.0) if wide else (8.0, width - 8.0)
    columns, each = _columns(run.rounds_planned, 120 if wide else 60)
    cell = (end - start) / columns
    dense = len(run.sites) > 12
    step, bar = ((17.0, 13.0) if dense else (26.0, 18.0)) if wide else (30.0, 10.0) if dense else (40.0, 16.0)
    contributed = {r.round: r.contributed.keys() for r in run.rounds}
    rows = [
        _strip(site.name, letters, start, n * step, bar, cell, wide=wide)
        for n, site in enumerate(run.sites)
        for letters in [states(site.name, contributed, run.rounds_planned, each)]
    ]
    bottom = step * len(run.sites) + 2
    x = svg.Scale((0.5, columns * each + 0.5), (start, end))
    numbers = round_ticks(run.rounds_planned, 8 if wide else 5)
    name = "Round" if each == 1 else f"Round (a cell is {each} rounds)"
    return svg.canvas(
        "attendance",
        width,
        bottom + 46,
        "Who contributed to each round",
        f"{plural(len(run.sites), 'hospital')}, {plural(run.rounds_planned, 'round')}.",
        *rows,
        *(svg.text(x(v), bottom + 16, f"{v:,.0f}", "t", "middle") for v in numbers),
        svg.text((start + end) / 2, bottom + 38, name, "t name", "middle"),
    )


def _columns(rounds: int, most: int) -> tuple[int, int]:
    """Return the number of cells, and how many rounds each of them stands for."""
    each = max(1, -(-rounds // most))
    return max(1, -(-rounds // each)), each


def states(site: str, contributed: Mapping[int, Set[str]], planned: int, each: int) -> str:
    """Return a letter a cell: All of its rounds, Some, None, or Future: never reached.

    >>> states("lille", {1: frozenset({"lille"}), 2: frozenset()}, 4, 1)
    'ANFF'
    """
    letters = []
    for first in range(1, planned + 1, each):
        there = [site in contributed[n] for n in range(first, min(first + each, planned + 1)) if n in contributed]
        letters.append("F" if not there else "A" if all(there) else "S" if any(there) else "N")
    return "".join(letters)


def runs(letters: str) -> list[tuple[str, int, int]]:
    """Return the stretches of one letter: the letter, where it starts, how long it is."""
    stretches, start = [], 0
    for letter, group in groupby(letters):
        length = len(list(group))
        stretches.append((letter, start, length))
        start += length
    return stretches


def _strip(site: str, letters: str, left: float, top: float, bar: float, cell: float, *, wide: bool) -> Html:
    classes = {"A": "all", "S": "some", "N": "none", "F": "future"}
    y = top if wide else top + 20
    parts: list[Html] = [
        el("text", el("title", site), cut(site, 24), x=8, y=top + (bar / 2 + 5 if wide else 14), class_="t strong")
    ]
    for letter, start, length in runs(letters):
        place, class_ = left + start * cell, classes[letter]
        parts.append(svg.rect(place, y, length * cell, bar, f"cell {class_}", f"{site}: {STATES[class_]}"))
        if letter == "N":  # a cross too: a missing round must not depend on its colour
            parts += [cross(left + (start + n + 0.5) * cell, y + bar / 2, min(cell, bar) * 0.28) for n in range(length)]
    if cell > 5:
        cuts = "".join(f"M{decimal(left + n * cell)},{decimal(y)}v{decimal(bar)}" for n in range(1, len(letters)))
        parts.append(el("path", d=cuts, class_="cut"))
    return join(parts)


def cross(x: float, y: float, r: float) -> Html:
    """Draw the mark of a missing round."""
    return join([svg.line(x - r, y - r, x + r, y + r, "cross"), svg.line(x - r, y + r, x + r, y - r, "cross")])
