"""The models that a run compares: their keys in metrics.json, and their names for people.

>>> ComparedModel.LOCAL_ONLY.words, ComparedModel("pooled").column
('each hospital alone', 'pooled')
"""

from enum import StrEnum


class ComparedModel(StrEnum):
    """A model of a run, in the order in which reports show them."""

    LOCAL_ONLY = "local_only"
    WITHOUT_PRIVACY = "federated_without_privacy"
    FEDERATED = "federated"
    POOLED = "pooled"
    POOLED_COX = "pooled_cox"
    PERSONALISED = "personalised"

    @property
    def words(self) -> str:
        """Return what reports and progress bars call it."""
        return _WORDS[self]

    @property
    def column(self) -> str:
        """Return the title of its column in a terminal's table."""
        return _COLUMNS[self]


_WORDS = {
    ComparedModel.LOCAL_ONLY: "each hospital alone",
    ComparedModel.WITHOUT_PRIVACY: "together, without privacy",
    ComparedModel.FEDERATED: "together, with privacy",
    ComparedModel.POOLED: "all data in one place",
    ComparedModel.POOLED_COX: "all data in one place, Cox",
    ComparedModel.PERSONALISED: "together, then each hospital's own",
}
_COLUMNS = {
    ComparedModel.LOCAL_ONLY: "alone",
    ComparedModel.POOLED: "pooled",
    ComparedModel.POOLED_COX: "pooled Cox",
    ComparedModel.WITHOUT_PRIVACY: "together, no privacy",
    ComparedModel.FEDERATED: "together, private",
    ComparedModel.PERSONALISED: "personalised",
}
# Those of every run that trains; others stand in metrics.json where a task type has them.
WRITTEN = (ComparedModel.FEDERATED, ComparedModel.WITHOUT_PRIVACY, ComparedModel.LOCAL_ONLY, ComparedModel.POOLED)
TABULATED = tuple(
    key for key in _COLUMNS if key is not ComparedModel.POOLED_COX
)  # in the order of a terminal's columns, as WRITTEN is that of metrics.json
