"""What the researcher reads in the terminal after a run, a plan or a comparison."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from configs.errors import RunError
from simulations.planning import StudyPlan

COLUMNS = (  # key in metrics.json, column title
    ("local_only", "alone"),
    ("pooled", "pooled"),
    ("federated_without_privacy", "together, no privacy"),
    ("federated", "together, private"),
)
UNDEFINED = "undefined"


def read_metrics(run: Path) -> dict[str, Any]:
    """A finished run's metrics.json.

    Raises:
        RunError: missing or not a run's.
    """
    path = run / "metrics.json"
    try:
        metrics = json.loads(path.read_bytes())
        metrics["sites"], metrics["models"]
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}; give the folder of a finished run") from None
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{path}: expected a run's metrics, found something else; run the study again") from None
    return dict(metrics)


def print_run(run: Path) -> int:
    """The run's table and where its files are; 1 for an incomplete study."""
    metrics, console = read_metrics(run), _console()
    console.print(_run_table(metrics))
    for line in _footnotes(metrics):
        console.print(line, style="dim", highlight=False)
    console.print(f"\n{metrics['outcome']} after {metrics['rounds_completed']} rounds, {metrics['seconds']:.1f} s")
    if metrics["why"]:
        console.print(metrics["why"])
    console.print(f"report  {_short(run / 'report.html')}", highlight=False, soft_wrap=True)
    return 0 if metrics["outcome"] == "COMPLETE" else 1


def _run_table(metrics: dict[str, Any]) -> Table:
    name = metrics["primary_metric"]
    table = Table(title=f"{metrics['study']}: {name.upper()} on test patients, 95 % interval", title_justify="left")
    table.add_column("hospital")
    shown = [(key, title) for key, title in COLUMNS if metrics["models"].get(key) and _is_own(metrics, key)]
    for _, title in shown:
        table.add_column(title, justify="right")
    for title in ("patients", "epsilon", "sent"):
        table.add_column(title, justify="right")
    for site in metrics["sites"]:
        cells = [_estimate(metrics["models"][key]["per_site"].get(site["site"])) for key, _ in shown]
        table.add_row(site["site"], *cells, *_site_cells(site))
    table.add_section()
    whole = [_estimate(metrics["models"][key]["metrics"][name]) for key, _ in shown]
    total = {
        key: sum(site[key] for site in metrics["sites"]) for key in ("patients_train", "patients_test", "bytes_sent")
    }
    spent = [site["epsilon"] for site in metrics["sites"] if site["epsilon"] is not None]
    table.add_row("all together", *whole, *_site_cells(total | {"epsilon": max(spent) if spent else None}))
    return table


def _is_own(metrics: dict[str, Any], key: str) -> bool:
    """Without privacy the federated model is the one without privacy: one column is enough."""
    return metrics["privacy"]["mode"] != "none" or key != "federated"


def _site_cells(site: dict[str, Any]) -> tuple[str, str, str]:
    spent = "-" if site["epsilon"] is None else f"{site['epsilon']:.2f}"
    return f"{site['patients_train']} + {site['patients_test']}", spent, _size(site["bytes_sent"])


def _footnotes(metrics: dict[str, Any]) -> list[str]:
    notes = ["patients: training + test. alone, all together: mean of the hospitals' own models on all test patients."]
    if metrics["privacy"]["mode"] != "none":
        notes.append(
            f"epsilon per patient for the whole study, delta {metrics['privacy']['delta']:g}, add or remove one; "
            "each hospital protects its own patients."
        )
    if any(None in model["per_site"].values() for model in metrics["models"].values() if model):
        notes.append("undefined: fewer than two test patients with or without the outcome, so no rate exists.")
    return notes


def print_plan(plan: StudyPlan) -> None:
    """Each hospital's noise, steps, epsilon and verdict; then epsilon against rounds; then bytes and time."""
    console = _console()
    table = Table(title=f"{plan.study}: plan, before any data is read", title_justify="left")
    for title in ("hospital", "training patients", "batch", "steps", "noise multiplier", "epsilon", "verdict"):
        table.add_column(title, justify="left" if title in ("hospital", "verdict") else "right", overflow="fold")
    for site in plan.sites:
        table.add_row(
            site.site,
            f"{site.patients}",
            f"{site.batch:.0f} ({site.sampling_rate:.0%})",
            f"{site.steps}",
            "-" if site.noise_multiplier is None else f"{site.noise_multiplier:.4f}",
            "-" if site.epsilon is None else f"{site.epsilon:.3f}",
            site.verdict,
        )
    console.print(table)
    if plan.curve:
        _print_curve(console, plan)
    for line in plan.notes:
        console.print(line, highlight=False)


def _print_curve(console: Console, plan: StudyPlan) -> None:
    table = Table(title="epsilon against rounds, with this noise", title_justify="left")
    table.add_column("rounds", justify="right")
    for site in plan.sites:
        table.add_column(site.site, justify="right")
    for rounds, values in plan.curve:
        table.add_row(str(rounds), *(f"{value:.2f}" for value in values))
    console.print(table)


def print_comparison(runs: Sequence[Path]) -> None:
    """One row a run."""
    table = Table(title="runs side by side", title_justify="left")
    names = (
        "study",
        "digest",
        "seed",
        "engine",
        "outcome",
        "epsilon",
        "together, private",
        "no privacy",
        "pooled",
        "sent",
        "model",
    )
    for name in ("run", *names):
        table.add_column(name, overflow="fold")
    for run in runs:
        table.add_row(run.resolve().name, *_comparison_cells(read_metrics(run)))
    _console().print(table)


def _comparison_cells(metrics: dict[str, Any]) -> list[str]:
    spent = [site["epsilon"] for site in metrics["sites"] if site["epsilon"] is not None]
    name = metrics["primary_metric"]
    whole: Callable[[str], str] = lambda key: _estimate((metrics["models"].get(key) or {}).get("metrics", {}).get(name))  # noqa: E731
    return [
        metrics["study"],
        metrics["study_sha256"][:8],
        str(metrics["seed"]),
        metrics["engine"],
        metrics["outcome"],
        f"{max(spent):.2f}" if spent else "-",
        whole("federated") if spent else "-",
        whole("federated_without_privacy"),
        whole("pooled"),
        _size(sum(site["bytes_sent"] for site in metrics["sites"])),
        metrics["model_sha256"][:8],
    ]


def _estimate(found: dict[str, float] | None) -> str:
    """Value and interval, or the word for none: a rate of so few patients is no rate."""
    return f"{found['value']:.3f} ({found['low']:.2f} to {found['high']:.2f})" if found else UNDEFINED


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _console() -> Console:
    return Console(width=None if Console().is_terminal else 140)
