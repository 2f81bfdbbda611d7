"""Whether a study can still run at this hospital, or is over, for people who decide.

No row is read. What is judged is what anybody can know: the study, site.yaml, the ledger, the size that was announced,
what has left.
"""

import math
from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING

from client.kits import standing_of
from client.policy import Allow, Deny, Request, Spending, afford, decide
from configs.errors import DataError, PrivacyError, SourceError
from configs.schema import Study
from configs.site import SiteConfig

if TYPE_CHECKING:
    from client.audit import Outgoing
    from client.ledger import Ledger

NO_RELEASE = ("hello reply", "end reply")  # replies that hold nothing of a patient


def obstacle(config: SiteConfig, study: Study) -> str:
    """Return why a study cannot run here even if approved, empty where nothing is in its way."""
    from strategies.releases.registry import study_bytes

    has_dataset, cost = config.dataset(study.name) is not None, Spending(0.0, 0.0)
    if has_dataset and study.privacy.keys.budgeted:
        try:
            cost = spending(config, study)
        except PrivacyError as error:
            return str(error)
    if (denial := standing_of(config, study)) is not None:
        return denial.reason
    announced = study.announced_patients(config.site)
    verdict = decide(Request(study.privacy.keys, has_dataset, study_bytes(study), announced), config.policy)
    if isinstance(verdict, Allow):
        verdict = afford(cost, config.policy)
    return verdict.reason if isinstance(verdict, Deny) else ""


def misfit_of_header(config: SiteConfig, study: Study) -> str:
    """Return which columns of a study a file's header lacks, empty where it has them all or does not open now."""
    from client.connectors import probe

    dataset = config.dataset(study.name)
    if dataset is None or dataset.source.networked:  # the worker asks, which may reach it
        return ""
    try:
        probe(dataset.source, study)
    except SourceError:
        return ""
    except DataError as error:
        return str(error)
    return ""


def spending(config: SiteConfig, study: Study) -> Spending:
    """Return what other studies have spent of the data set, and what will be spent once this one is over too.

    Raises:
        PrivacyError: the study has no plan at this hospital.
    """
    from client.ledger import Ledger
    from strategies.privacy.accounting import epsilon
    from strategies.privacy.modes.registry import mode_of
    from strategies.privacy.plan import Budget

    dataset, cap = config.dataset(study.name), Budget(config.policy.max_epsilon, config.policy.delta)
    assert dataset is not None
    plan = mode_of(study).plan(study, config.site, figures=config.policy.metrics == "noisy")
    events = plan.events if plan else ()
    if not config.ledger.exists():
        return Spending(0.0, epsilon(events, cap.delta))
    with closing(Ledger.open(config.ledger)) as ledger:
        spent = epsilon(ledger.others(dataset.identity, study.sha256), cap.delta)
        return Spending(spent, ledger.foreseen(dataset.identity, study.sha256, events, cap))


def is_over(study: Study, site: str, outgoing: "Iterable[Outgoing]") -> bool:
    """Return whether the last of what a study asks of a hospital has left: round, statistics or figures."""
    from strategies.releases.registry import SCORE_HISTOGRAM, main_release

    kind = main_release(study) if study.trains_at(site) else SCORE_HISTOGRAM
    last = study.training.rounds if kind.repeated else 0
    return any(o.study == study.sha256 and o.form == kind.reply and o.round >= last for o in outgoing)


def contribution(config: SiteConfig, study: Study, ledger: "Ledger | None", outgoing: "Iterable[Outgoing]") -> str:
    """Return in words what this hospital has given to a study so far."""
    answers = [
        o for o in outgoing if o.study == study.sha256 and o.form.endswith(" reply") and o.form not in NO_RELEASE
    ]
    if not answers:
        return "nothing has left"
    rounds = len({o.round for o in answers if o.form == "train reply"})
    parts = [f"{rounds} round{'' if rounds == 1 else 's'}"] if rounds else []
    parts += ["its noisy counts"] if any(o.form == "statistics reply" for o in answers) else []
    parts += ["the evaluation"] if any(o.form == "evaluate reply" for o in answers) else []
    spent, dataset = 0.0, config.dataset(study.name)
    if ledger is not None and dataset is not None and study.privacy.keys.budgeted:
        spent = ledger.spent(dataset.identity, delta=study.privacy.delta, study=study.sha256)
    cost = (
        f", epsilon {spent:.2f} per patient at delta {study.privacy.delta:g}" if spent and math.isfinite(spent) else ""
    )
    return f"{' and '.join(parts)} sent, {sum(o.bytes for o in answers):,} bytes{cost}; last on {answers[-1].time[:10]}"
