"""The section `check`: digests, seed and releases, by which the run can be checked."""

from collections.abc import Iterable

from server.charts.markup import Html, el
from server.report.parts import Section
from server.result import sentences
from server.result.finished import Run
from server.result.wording import plural


def _check_reading(run: Run) -> str:
    if run.simulated:
        return "The study file, these releases and this seed give the same model again, bit by bit."
    return "The digests name exactly which study ran and which model came of it."


def _check_about(_run: Run) -> str:
    return "A digest is a fingerprint: if a single character of the study or of the model changes, so does the digest."


def _check(run: Run) -> Iterable[Html | None]:
    commands = "archipel simulate study.yaml\nsha256sum model.safetensors"
    facts = [
        ("Study digest", el("span", run.study_sha256 or "not recorded", class_="digest")),
        ("Model digest", el("span", run.model_sha256 or "not recorded", class_="digest")),
        ("Model", _model_facts(run)),
        ("Seed", "not recorded" if run.seed is None else f"{run.seed}"),
        ("Engine", run.engine or "not recorded"),
        ("Privacy noise", run.privacy.noise if run.private else "none"),
        ("Releases", ", ".join(f"{name} {release}" for name, release in run.versions.items()) or "not recorded"),
    ]
    pairs = [part for name, value in facts for part in (el("dt", name), el("dd", value or "not recorded"))]
    return [el("pre", commands, tabindex="0") if run.simulated else None, el("dl", *pairs, class_="facts")]


def _model_facts(run: Run) -> str:
    parts = [run.model_name, plural(run.parameters, "parameter") if run.parameters is not None else ""]
    parts += [f"combined by {run.strategy}" if run.strategy else "", f"from {sentences.contributors(run)}"]
    return ", ".join(part for part in parts if part)


SECTION = Section("check", "Checks", "How can this be checked?", _check_reading, _check_about, _check, place=95)
