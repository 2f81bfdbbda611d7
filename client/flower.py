"""The hospital's ClientApp for a stock `flower-supernode`, for consortia that run plain Flower.

The study still has to be approved (`archipel-site review`), the policy and the ledger still decide, and the egress
guard still checks. What is lost: the process that sees patients is the one that talks to the coordinator; a stock node
runs whatever code the SuperLink sends beside this app; messages carry no seal, and no journal keeps what left.

    ARCHIPEL_SITE=/srv/archipel-site flower-supernode --superlink coord.example.org:8000 ...
"""

import json
import os
from functools import lru_cache
from pathlib import Path

from flwr.app import Context

from client import trust
from client.admission import Admissions
from client.app import make_app
from client.id_hashes import prepare_hashes
from client.ledger import Ledger
from client.site import Site
from client.site_file import load_site
from client.worker import open_site
from configs.errors import ConfigError, WireError
from configs.load import study_from
from strategies.privacy.plan import Budget

FOLDER = "ARCHIPEL_SITE"


def site_of(context: Context) -> Site:
    """Return the hospital of `ARCHIPEL_SITE`, in the study of the run.

    Raises:
        AdmissionError: a person has not approved the study. ConfigError: the folder is not named.
    """
    if not os.environ.get(FOLDER):
        raise ConfigError(FOLDER, ["expected the folder of site.yaml in this variable, found none; set it"])
    return _open(os.environ[FOLDER], str(context.run_config.get("study", "")))


@lru_cache(maxsize=1)
def _open(folder: str, canonical: str) -> Site:
    config = load_site(Path(folder))
    try:
        study = study_from(json.loads(canonical), source="run config")
    except (ValueError, RecursionError):
        raise WireError("run config: expected a study in its canonical form, found something else") from None
    admissions = Admissions.open(config.admissions)
    try:
        admissions.propose(study.sha256, study.name, study.canonical)
        if not config.policy.require_approval:
            admissions.decide(study.sha256, "approved", "site.yaml: require_approval: false")
        approved = admissions.approved(study.sha256)
    finally:
        admissions.close()
    prepare_hashes(config)
    ledger = Ledger.open(config.ledger, cap=Budget(config.policy.max_epsilon, config.policy.delta))
    trust.admit(trust.Admission.at(config, approved, "hello", "approved")).require()
    return open_site(config, ledger, approved, seeded=False)[0]


app = make_app(site_of, paced=True)
