"""A study that cannot be trained even without privacy gets no verdict: every loss against it would be nothing."""

import pytest

from configs.errors import RunError
from simulations.display import PlainDisplay
from simulations.worth.question import Question
from simulations.worth.weigh import weigh
from tests.builders import DIVERGING, study


def test_a_study_that_diverges_without_privacy_is_refused_and_not_called_worth_it() -> None:
    with pytest.raises(RunError, match=r"without privacy, on made-up patients: .* lower the study's learning_rate"):
        weigh(study(training={"rounds": 3, **DIVERGING}), Question(repetitions=3), PlainDisplay())
