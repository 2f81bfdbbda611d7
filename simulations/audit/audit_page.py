"""audit.html: the verdicts with their drawings, one file that loads nothing and holds no script.

>>> from simulations.audit.verdict import Audit
>>> from simulations.audit.verdict import Part, exact
>>> part = Part.of("ledger", "Booked?", "epsilon <3", "all of it", [exact("rounds", holds=True)])
>>> page = render(Audit("heart", "4f1c", None, (part,)))
>>> "psilon &lt;3" in page, "<script" in page
(True, False)
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from configs.shown import DIGITS
from server.charts.markup import Html, el
from server.charts.svg import Scale, axis_x, axis_y, both, canvas, line, number, rect, text, ticks
from server.report.page import STOP, TICK, document
from server.report.parts import folded, table
from server.result.wording import plural
from simulations.audit.verdict import FALSE_ALARMS, Audit, Check, Part

_HEIGHT, _TOP, _BOTTOM, _LEFT = 300, 34, 250, 56
_ABOUT = {
    "residual": "Noise is what was released less the sum without noise, which is computed here again.",
    "sensitivity": "The sum with one patient more, less the sum without, both with the same noise.",
    "counts": "The counts with one patient more, less the counts without: each patient is taken out once.",
    "sampler": "Privacy by sampling holds only if everybody is drawn by a coin of their own, with the booked chance.",
    "ledger": "A whole study is run on a real ledger; what was seen to leave is compared with what lies on the disk.",
    "canaries": "Made-up patients are put in or left out by coins; whoever sees what leaves guesses the coins.",
}


def render(audit: Audit) -> str:
    """Return the whole page."""
    parts = [_section(part, number) for number, part in enumerate(audit.parts, 1)]
    body = el("div", el("header", *_headline(audit)), el("main", *parts), _footer(audit), class_="page")
    return document(f"{audit.study}: privacy audit", body)


def _headline(audit: Audit) -> list[Html]:
    sentence = {
        "passed": "Nothing was found that breaks the promise of privacy.",
        "FAILED": "The promise of privacy does not hold: see what failed.",
        "cannot say": "No part of the audit could say anything.",
    }[audit.verdict]
    brand = el("span", el("b", "Archipel"), " · Privacy audit")
    figures = [el("div", el("dt", _short(part)), el("dd", part.verdict)) for part in audit.parts]
    return [
        el("div", brand, _badge(audit.verdict), class_="mast"),
        el("h1", audit.study),
        el("p", sentence, class_="verdict"),
        el("dl", *figures, class_="key five"),
    ]


def _badge(verdict: str) -> Html:
    passed = verdict == "passed"
    drawing = el("svg", el("path", d=TICK if passed else STOP), viewBox="0 0 14 14", aria_hidden="true")
    return el("span", drawing, verdict, class_="badge" if passed else "badge stopped")


def _short(part: Part) -> str:
    names = {"residual": "Noise", "sensitivity": "Clipping", "sampler": "Sampling", "ledger": "Ledger"}
    names["counts"] = "One patient"
    return names.get(part.key, "Canaries")


def _section(part: Part, place: int) -> Html:
    draw = _DRAWINGS.get(part.key)
    drawn = draw(part.drawing) if draw and part.drawing else None
    lead = [
        el("p", f"{place}", class_="number"),
        el("h2", part.title),
        el("p", _badge(part.verdict)),
        el("p", _ABOUT.get(part.key, "")),
    ]
    inner = [el("p", _sentence(part.figure), class_="reading"), el("p", _sentence(part.words), class_="note")]
    figure = el("figure", drawn) if drawn else None
    return el("section", el("div", *lead, class_="lead"), el("div", *inner, figure, _checks(part)), id=part.key)


def _checks(part: Part) -> Html:
    rows = [[check.name, "passed" if check.passed else "FAILED", _chance(check)] for check in _worst(part)]
    head = ["Check", "Verdict", "A healthy run looks so bad with chance"]
    return folded(plural(len(rows), "check"), table(head, rows, "What was asked"))


def _worst(part: Part) -> list[Check]:
    """Return one line for each name: the worst of its checks."""
    worst: dict[str, Check] = {}
    for check in part.checks:
        if check.name not in worst or check.p < worst[check.name].p:
            worst[check.name] = check
    return list(worst.values())


def _chance(check: Check) -> str:
    return "exact" if check.p in (0.0, 1.0) else f"{check.p:.2g}"


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."


def _footer(audit: Audit) -> Html:
    chance = "from the operating system" if audit.seed is None else f"seeded with {audit.seed}"
    words = (
        f"Study {audit.study_sha256[:DIGITS]}. Chance {chance}. A healthy run is accused in less than "
        f"{100 * FALSE_ALARMS:g} % of audits. An audit looks for mistakes; it does not prove that there are none."
    )
    return el("footer", el("p", words))


# Drawings


def _noise(facts: Mapping[str, Any]) -> Html:
    """Return the histogram of the noise over the Gaussian that was booked."""
    shares = facts["histogram"]
    width = 8.2 / len(shares)
    top = max(*shares, width / math.sqrt(2 * math.pi)) * 1.08

    def draw(wide: int) -> Html:
        x, y = Scale((-4.1, 4.1), (12, wide - 12)), Scale((0, top), (_BOTTOM, _TOP))
        bars = [
            rect(x(-4.1 + i * width) + 0.5, y(s), x(width) - x(0) - 1, _BOTTOM - y(s), "bar")
            for i, s in enumerate(shares)
        ]
        points = [(-4.1 + 8.2 * i / 120) for i in range(121)]
        curve = " ".join(f"{x(v):.1f},{y(width * math.exp(-v * v / 2) / math.sqrt(2 * math.pi)):.1f}" for v in points)
        axis = axis_x(x, _TOP, _BOTTOM, "noise, in booked standard deviations", [-4, -2, 0, 2, 4], lambda v: f"{v:g}")
        booked = el("polyline", points=curve, class_="curve local_only")
        name = text(x(0), _TOP - 12, "line: the booked Gaussian", "t", "middle")
        return canvas(
            "noise", wide, _HEIGHT, "Noise", "Histogram of the noise and the booked Gaussian", axis, *bars, booked, name
        )

    return both(draw)


def _moves(facts: Mapping[str, Any]) -> Html:
    """Return the largest move of each kind of patient, the clip norm as a line."""
    moves = facts["moves"][:12]
    if not moves:
        return Html("")
    most = max(1.1, min(4.0, max(m["move"] for m in moves) * 1.05))

    def draw(wide: int) -> Html:
        row, margin = 38, 8
        bottom = _TOP + row * len(moves)
        x = Scale((0, most), (margin, wide - 48))
        parts = [axis_x(x, _TOP, bottom, "largest move of the sum, in clip norms", ticks(0, most, 4), _plain)]
        for i, move in enumerate(moves):
            y = _TOP + row * i
            parts += [
                text(margin, y + 14, move["who"], "t"),
                rect(margin, y + 20, x(move["move"]) - margin, 9, "bar"),
                text(x(move["move"]) + 6, y + 29, f"{move['move']:.3g}", "t strong"),
            ]
        parts.append(line(x(1), _TOP - 6, x(1), bottom, "budget"))
        return canvas("moves", wide, bottom + 52, "Moves", "Largest move of each kind of patient", *parts)

    return both(draw)


def _sizes(facts: Mapping[str, Any]) -> Html | None:
    """Return a chart of how many steps had how many patients, with the binomial that was booked."""
    sizes, rate, people = facts["sizes"], facts["rate"], facts["patients"]
    steps = sum(sizes)
    if rate >= 1 or not steps:
        return None
    spread = math.sqrt(people * rate * (1 - rate))
    low, high = max(0, math.floor(people * rate - 5 * spread)), min(people, math.ceil(people * rate + 5 * spread))
    expected = {k: steps * _binomial(people, k, rate) for k in range(low, high + 1)}
    top = max(*sizes, *expected.values()) * 1.08

    def draw(wide: int) -> Html:
        x, y = Scale((low - 0.5, high + 0.5), (_LEFT, wide - 12)), Scale((0, top), (_BOTTOM, _TOP))
        step = x(1) - x(0)
        bars = [rect(x(k) - step / 2 + 0.5, y(sizes[k]), step - 1, _BOTTOM - y(sizes[k]), "bar") for k in expected]
        curve = el(
            "polyline",
            points=" ".join(f"{x(k):.1f},{y(v):.1f}" for k, v in expected.items()),
            class_="curve local_only",
        )
        marks = ticks(0, top, 4)
        axes = [
            axis_x(x, _TOP, _BOTTOM, "patients in a step (line: as booked)", ticks(low, high, 6), _plain),
            axis_y(y, _LEFT, wide - 12, "steps", marks, number(marks)),
        ]
        return canvas("sizes", wide, _HEIGHT, "Batch sizes", "Steps by their number of patients", *axes, *bars, curve)

    return both(draw)


def _binomial(trials: int, successes: int, chance: float) -> float:
    log = math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
    return math.exp(log + successes * math.log(chance) + (trials - successes) * math.log1p(-chance))


def _spent(facts: Mapping[str, Any]) -> Html:
    """Return a table of epsilon released and stated, a row for each hospital."""
    rows = [[site["site"], f"{site['released']:.3f}", f"{site['stated']:.3f}"] for site in facts["sites"]]
    return table(["Hospital", "Epsilon released", "Epsilon stated"], rows, "Per patient, add or remove one", 2)


def _bound(facts: Mapping[str, Any]) -> Html:
    """Return the bound on a line from 0, with the claim and the most that could be shown."""
    most = 1.1 * max(facts["claimed"], facts["ceiling"], facts["shown"])

    def draw(wide: int) -> Html:
        x = Scale((0, most), (12, wide - 24))
        y = 104
        marks = [("claimed", "claimed", 52, "budget"), ("ceiling", "most it can show", 74, "level pooled")]
        parts = [axis_x(x, y - 12, y + 22, "epsilon", ticks(0, most, 5), _plain)]
        parts.append(rect(x(0), y - 6, x(facts["shown"]) - x(0), 16, "bar"))
        for key, name, height, kind in marks:
            at = x(facts[key])
            anchor = "end" if at > wide / 2 else None
            parts += [line(at, height, at, y + 22, kind), text(at, height - 6, f"{name} {facts[key]:.2f}", "t", anchor)]
        parts.append(
            text(12, 20, f"bar: shown, {facts['shown']:.2f} ({100 * facts['confidence']:.5g} % confidence)", "t strong")
        )
        return canvas("bound", wide, 180, "Lower bound", "Lower bound on epsilon and the claim", *parts)

    return both(draw)


def _plain(value: float) -> str:
    return f"{value:g}"


_DRAWINGS: Mapping[str, Callable[[Mapping[str, Any]], Html | None]] = {
    "residual": _noise,
    "sensitivity": _moves,
    "sampler": _sizes,
    "ledger": _spent,
    "canaries": _bound,
}
