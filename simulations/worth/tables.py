"""Terminal tables of a study's worth."""

from rich import box
from rich.console import Console
from rich.table import Table

from configs.schema import PER_PATIENT
from simulations.worth.answer import Worth
from simulations.worth.search import Settings


def print_worth(worth: Worth) -> None:
    """Print what was assumed, the loss by epsilon and hospitals, better settings, the cheapest epsilon, the verdict."""
    console, assumed = _console(), worth.assumed
    console.print(
        f"\nIs it worth it? Simulated in {worth.repetitions} made-up worlds; no patient was read. A planning aid, no "
        f"promise.\nAssumed: a perfect model reaches AUROC {assumed.signal:g}; {_outcomes(worth)}; hospitals "
        f"differ by {assumed.differences:g}\nof patients' standard deviation; columns go together moderately; the "
        "truth is of the model's own kind. Rarer outcomes lose more.\n"
        f"epsilon: {_unit(worth.delta)}. Figures are means over worlds with 95 % intervals.",
        highlight=False,
        soft_wrap=True,
    )
    if worth.by_epsilon:
        console.print(_epsilon_table(worth))
        console.print(_hospital_table(worth))
    for line in (*_findings(worth), *worth.notes):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"\n{worth.verdict}", style="bold", highlight=False, soft_wrap=True)


def _outcomes(worth: Worth) -> str:
    if worth.classes > 2:
        return f"the {worth.classes} classes, each judged against the rest, are equally frequent"
    source = f" ({worth.outcomes_of})" if worth.outcomes_of else ""
    return f"{worth.assumed.outcomes:.0%} of patients have the outcome{source}"


def _unit(delta: float) -> str:
    """Say what an epsilon is about, once for all that a page prints."""
    return f"{PER_PATIENT}, at each hospital, for the whole study, delta {delta:g}"


def _epsilon_table(worth: Worth) -> Table:
    title = "loss: AUROC of the same settings without privacy, less the private one's; noise: what of it is the noise's"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    judged = ["predicted less\nobserved", "called ill"] if worth.by_epsilon[0].probabilities is not None else []
    for column in ("epsilon", "AUROC", "loss", "of it noise", "9 in 10 studies\nlose less than", *judged):
        table.add_column(column, justify="right")
    for row in worth.by_epsilon:
        figures = (str(interval) for interval in (row.auroc, row.loss, row.noise))
        seen = row.probabilities
        trusted = [] if seen is None else [f"{seen.calibration.mean:+.3f}", f"{seen.called:.0%}"]
        table.add_row(f"{row.epsilon:g}", *figures, f"{row.nine_in_ten:.3f}", *trusted)
    table.add_section()
    rest = ["-"] * (2 + len(judged))
    if (clipping := worth.clipping) is not None:
        table.add_row("clipping alone", str(clipping.auroc), str(clipping.loss), *rest)
    table.add_row("without privacy", str(worth.without_privacy), "-", *rest)
    if (converged := worth.converged) is not None:
        table.add_row("all in one place, 5 x rounds", str(converged.auroc), str(converged.loss), *rest)
    return table


def _hospital_table(worth: Worth) -> Table:
    table = Table(title="loss by epsilon and hospitals, the largest first", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("epsilon", justify="right")
    for column in worth.by_hospitals:
        hospitals = "1 hospital" if column.hospitals == 1 else f"{column.hospitals} hospitals"
        table.add_column(f"{hospitals},\n{column.patients} patients", justify="right")
    for row in worth.by_epsilon:
        table.add_row(f"{row.epsilon:g}", *(str(column.losses[row.epsilon]) for column in worth.by_hospitals))
    table.add_section()
    table.add_row("AUROC without privacy", *(str(column.without_privacy) for column in worth.by_hospitals))
    return table


def _findings(worth: Worth) -> list[str]:
    lines = []
    if worth.above_largest_alone is not None:
        lines.append(f"above the largest hospital alone, which needs no noise: {worth.above_largest_alone}")
    if (advice := worth.recommended) is not None:
        shown = _settings(advice.settings)
        if advice.better:
            gain = f"{advice.gain} of AUROC above the study's own"
            above = advice.above_largest_alone
            alone = "" if above is None else f", {above} above the largest hospital alone"
            if advice.probabilities is not None:
                alone += f", predicted less observed {advice.probabilities.calibration.mean:+.3f}"
            lines.append(f"recommended: {shown}: loss {advice.loss}, {gain}{alone} ({advice.tried} settings tried)")
        elif advice.settings == worth.own:
            lines.append(f"recommended: the study's own {shown}; none of {advice.tried} settings was better")
        else:
            lines.append(
                f"recommended: the study's own {_settings(worth.own)}; the best of {advice.tried} settings ({shown}) "
                f"gains {advice.gain}, which may be nothing"
            )
    if (cheapest := worth.cheapest) is not None:
        label = f"cheapest epsilon for {cheapest.wanted}{', recommended settings' if cheapest.recommended else ''}"
        if cheapest.epsilon is None or cheapest.loss is None or cheapest.auroc is None:
            lines.append(f"{label}: none up to {cheapest.tried:g} surely does")
        else:
            less = " or less" if cheapest.or_less else ""
            lines.append(f"{label}: {cheapest.epsilon:g}{less}: loss {cheapest.loss}, AUROC {cheapest.auroc}")
    return lines


def _settings(settings: Settings) -> str:
    batch = "full" if settings.batch is None else str(settings.batch)
    return (
        f"batch {batch}, {settings.rounds} rounds, clip norm {settings.clip_norm:g}, "
        f"learning rate {settings.learning_rate:g}"
    )


def _console() -> Console:
    return Console(width=None if Console().is_terminal else 140, markup=False, emoji=False)
