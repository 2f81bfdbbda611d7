"""A cap that is lowered in site.yaml holds at once, a higher one after a restart; the log says which."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from client.caps import CAP, Caps
from client.egress import REFUSAL
from client.ledger import Ledger, Release
from configs.errors import BudgetError
from configs.frame import Frame
from configs.site import SiteConfig, load_site
from configs.strict_yaml import dump_yaml
from strategies.privacy.plan import Budget, PrivacyPlan
from tests.builders import counting
from tests.client.test_release_of_statistics import FORM, worker

PLAN = PrivacyPlan(1.0, 8.0, 1.0, 1, 6, 1e-5, 100.0)


def written(folder: Path, **policy: Any) -> SiteConfig:
    text = dump_yaml({"site": "lille", "coordinator": "localhost:1", "policy": policy})
    part = folder / "part"
    part.write_text(text)
    os.replace(part, folder / "site.yaml")
    return load_site(folder)


@pytest.mark.parametrize(
    ("wanted", "held", "said"),
    [
        ({"max_epsilon": 2.0}, (2.0, 1e-6), "max_epsilon is 2 at delta 1e-06 from now on"),
        ({"max_epsilon": 9.0}, (4.0, 1e-6), "a higher max_epsilon or delta holds once the node is restarted"),
        ({"max_epsilon": 4.0, "delta": 1e-8}, (4.0, 1e-8), "max_epsilon is 4 at delta 1e-08 from now on"),
        ({"max_epsilon": 2.0, "delta": 1e-5}, (2.0, 1e-6), "once the node is restarted"),
        ({"max_epsilon": 4.0, "min_patients": 60}, (4.0, 1e-6), ""),
    ],
)
def test_of_a_changed_policy_the_lower_cap_is_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wanted: dict[str, float], held: tuple[float, float], said: str
) -> None:
    caplog.set_level(logging.INFO, "archipel.node")
    caps = Caps(written(tmp_path, max_epsilon=4.0))
    assert caps.look().policy.max_epsilon == 4.0
    written(tmp_path, **wanted)
    policy = caps.look().policy
    assert (policy.max_epsilon, policy.delta, policy.min_patients) == (*held, 50)
    assert said in caplog.text
    caplog.clear()
    caps.look()
    assert not caplog.text


def test_what_was_lowered_is_not_raised_again_before_a_restart(tmp_path: Path) -> None:
    caps = Caps(written(tmp_path, max_epsilon=4.0))
    written(tmp_path, max_epsilon=1.0)
    assert caps.look().policy.max_epsilon == 1.0
    written(tmp_path, max_epsilon=4.0)
    assert caps.look().policy.max_epsilon == 1.0


@pytest.mark.parametrize("text", ["site: [", "site: lille\npolicy: {max_epsilon: many}\n", None])
def test_a_site_yaml_with_mistakes_or_none_leaves_the_former_one_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    caps = Caps(written(tmp_path, max_epsilon=4.0))
    (tmp_path / "site.yaml").unlink() if text is None else (tmp_path / "site.yaml").write_text(text)
    assert caps.look().policy.max_epsilon == 4.0
    assert "the former one is followed" in caplog.text
    written(tmp_path, max_epsilon=2.0)
    assert caps.look().policy.max_epsilon == 2.0


def test_a_ledger_whose_cap_was_lowered_refuses_the_next_round() -> None:
    ledger = Ledger.in_memory(Budget(4.0, 1e-6))
    with ledger.reserve(Release("heart", "a", 1, PLAN.round_event), PLAN):
        pass
    ledger.lower(Budget(ledger.spent("heart", delta=1e-6), 1e-6))
    with pytest.raises(BudgetError), ledger.reserve(Release("heart", "a", 2, PLAN.round_event), PLAN):
        pytest.fail("trained")


def test_a_worker_that_runs_refuses_what_a_lowered_cap_does_not_allow(tmp_path: Path) -> None:
    chosen = counting()
    done = worker(tmp_path, chosen, max_epsilon=4.0)
    asked = {"study_sha256": chosen.sha256}
    status, reply = done.answer(Frame("statistics", asked | {CAP: "0.1 1e-06"}))
    assert reply.form == REFUSAL
    assert "0.1" in str(status.fields["why"])
    (tmp_path / "again").mkdir()
    again = worker(tmp_path / "again", chosen, max_epsilon=4.0)
    assert again.answer(Frame("statistics", asked | {CAP: "9.0 1e-06"}))[1].form == FORM
