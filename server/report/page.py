"""report.html: a single file without script that loads nothing else.

Its content policy forbids everything but its own style.

>>> from server.result.read import read
>>> run = read('{"study": "<b>", "study_sha256": "", "outcome": "COMPLETE", "rounds_completed": 1}')
>>> "<h1>&lt;b&gt;</h1>" in render(run), "<script" in render(run)
(True, False)
"""

import base64
import hashlib
from importlib import resources
from string import Template

from server.charts.markup import Html, el
from server.charts.sea import sea
from server.report import counting_sections
from server.report.sections.registry import sections_of
from server.result import counting, sentences
from server.result.finished import Run
from server.result.flaws import flaws
from server.result.wording import (
    NONE,
    duration,
    epsilon,
    figure,
    headline_of,
    main_unit,
    one_in,
    plural,
    size,
    some,
)

TICK, STOP = "M2 7.5 5.5 11 12 3.5", "M7 1.5v7.5M7 12.2v.3"


def render(run: Run) -> str:
    """Return the whole page."""
    return document(f"{run.study}: study report", el("div", *_body(run), class_="page"))


def document(title: str, body: Html) -> str:
    """Return one file around a page's body: its own style, no script, and a policy that forbids everything else."""
    style = _read("page.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = Template(_read("page.html"))
    return page.substitute(style_hash=f"sha256-{digest}", title=el("title", title), style=style, body=body)


def _read(name: str) -> str:
    return resources.files("server.report").joinpath(name).read_text("utf-8")


def _body(run: Run) -> list[Html]:
    shown = sections_of(run) if run.trains else counting_sections.SECTIONS
    links = [el("li", el("a", section.short, href=f"#{section.key}")) for section in shown]
    sections = [section.render(run, number) for number, section in enumerate(shown, 1)]
    return [
        el("header", *_headline(run)),
        el("nav", el("ol", *links), aria_label="Contents"),
        el("main", *sections),
        _footer(run),
    ]


def _headline(run: Run) -> list[Html]:
    kind = "Simulation report" if run.simulated else "Study report"
    brand = el("span", el("b", "Archipel"), f" · {kind}", f" · {run.started[:10]}" if run.started else "")
    words = [
        el("h1", run.study or "Unnamed study"),
        el("p", run.purpose, class_="purpose") if run.purpose else None,
        el("p", (sentences if run.trains else counting).verdict(run), class_="verdict"),
    ]
    picture = el("figure", sea(run)) if run.sites else None
    return [
        el("div", brand, _badge(run), class_="mast"),
        el("div", el("div", *words), picture, class_="hero"),
        *_alerts(run),
        el("dl", *(_key(name, value, note) for name, value, note in _key_figures(run)), class_="key"),
    ]


def _badge(run: Run) -> Html:
    good = run.complete and not flaws(run)
    drawing = el("svg", el("path", d=TICK if good else STOP), viewBox="0 0 14 14", aria_hidden="true")
    word = "Incomplete" if run.outcome == "INCOMPLETE" else run.outcome[:40] or "Unknown"
    if run.complete:
        word = "Complete" if good else "Complete, with a warning"
    return el("span", drawing, word, class_="badge" if good else "badge stopped")


def _alerts(run: Run) -> list[Html]:
    """Return what must not be overlooked, before any figure."""
    lines = []
    if not run.complete and run.why:
        lines.append((f"Why it stopped: {run.why.rstrip('.')}.", "alert"))
    if not run.private:
        lines.append(
            ("This model was trained without differential privacy: use it to compare, never release it.", "alert")
        )
    if sentences.overspent(run):
        lines.append((sentences.privacy(run), "alert"))
    if run.trains:
        lines += [(line, "alert") for section in sections_of(run) for line in section.alerts(run)]
    if run.rounds_completed:
        lines += [(line, "alert calm") for line in sentences.away(run)]
    if run.seeded:
        lines.append(
            (
                "A rehearsal: who knows the seed can repeat the noise. Only a deployed study protects patients.",
                "alert calm",
            )
        )
    return [el("div", el("p", line), class_=kind) for line, kind in lines]


def _key(name: str, value: str, note: str) -> Html:
    return el("div", el("dt", name), el("dd", value, el("small", note) if note else None))


def _key_figures(run: Run) -> list[tuple[str, str, str]]:
    first = [_quality(run), _patients(run)] if run.trains else counting.key_figures(run)
    return [*first, _privacy(run), _sent(run)]


def _quality(run: Run) -> tuple[str, str, str]:
    model, meant = run.model(run.shared), headline_of(run)
    name = f"{meant.label}{', with privacy' if run.private else ''}"
    if run.unmeasured:
        return "Rounds", f"{run.rounds_completed:,}", "each with its quorum" if run.complete else ""
    if model is None or model.main is None:
        why = "the study keeps no test patients" if run.untested else "undefined on these test patients"
        return name, NONE, why if model else "not measured yet"
    estimate, unit = model.main, main_unit(run)
    value, low, high = (figure(v, bounded=meant.is_bounded) for v in (estimate.value, estimate.low, estimate.high))
    return name, f"{value}{f' {unit}' if unit else ''}", f"{low} to {high}, 95 % interval"


def _patients(run: Run) -> tuple[str, str, str]:
    train, test = run.total("patients_train"), run.total("patients_test")
    if train is None and test is None:
        of = f"of {len(run.sites):,} in the study" if run.away else ""
        return "Hospitals", f"{len(run.contributors):,}" if run.sites else NONE, of if run.sites else "not recorded"
    train = sum(site.patients_train or 0 for site in run.contributors)
    note = f"{train:,} to learn from, at {sentences.contributors(run)}; {test or 0:,} to test, at {_testing(run)}"
    return "Patients", f"{train + (test or 0):,}", note


def _testing(run: Run) -> str:
    return some(sum(bool(site.patients_test) for site in run.sites), len(run.sites))


def _privacy(run: Run) -> tuple[str, str, str]:
    if not run.private:
        return "Differential privacy", "none", "what left is not protected"
    spent = [site.epsilon for site in run.sites if site.epsilon is not None]
    value = f"ε {epsilon(max(spent))}" if spent else f"ε {epsilon(run.privacy.epsilon)}"
    chance = f"; δ {one_in(run.privacy.delta)}" if run.privacy.delta else ""
    used = f"of {epsilon(run.privacy.epsilon)} allowed" if spent else "allowed"
    return "Privacy spent", value, f"{used} in the whole study{chance}"


def _sent(run: Run) -> tuple[str, str, str]:
    sent, messages = run.total("bytes_sent"), run.total("messages_sent")
    if sent is None:
        return "Left the hospitals", NONE, "not recorded"
    return "Left the hospitals", size(sent), f"in {plural(messages, 'message')}, all listed below" if messages else ""


def _footer(run: Run) -> Html:
    took = f" The study took {duration(run.seconds)}." if run.seconds is not None else ""
    return el("footer", f"Written by Archipel from metrics.json. This page loads nothing and runs no script.{took}")
