"""The registered renderers of further releases.

>>> from server.result.read import read
>>> run = read('{"study": "a", "study_sha256": "", "outcome": "COMPLETE", "rounds_completed": 1, "releases": {"n": 3}}')
>>> [result.section().key for result in released_results(run)]
['release-n']
"""

from configs.kinds import Registry
from server.report.released.base import ReleasedResult, Renderer
from server.report.released.inference import InferenceRenderer
from server.report.released.kaplan_meier import KaplanMeierRenderer
from server.report.released.score_sum import ScoreSumRenderer
from server.report.released.subgroups import SubgroupsRenderer
from server.result.finished import Run

RENDERERS: Registry[Renderer] = Registry(
    "renderer of a release",
    ("reading", "about", "body", "card"),
    [InferenceRenderer(), SubgroupsRenderer(), KaplanMeierRenderer(), ScoreSumRenderer()],
)


def released_results(run: Run) -> list[ReleasedResult]:
    """Return the run's further releases in order, also those of which no hospital released anything."""
    names = sorted({*run.releases, *run.releases_missing})
    return [ReleasedResult(run, RENDERERS[name] if name in RENDERERS else Renderer(name)) for name in names]


def has_groups(run: Run) -> bool:
    """Return whether a release of the run gives figures of groups of patients, such as by sex or age."""
    return any(result.renderer.of_groups and result.renderer.name in run.releases for result in released_results(run))
