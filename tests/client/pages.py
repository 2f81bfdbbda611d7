"""A study's page as `archipel-site review` prints it."""

from client.admission import Admission
from client.folder import SiteFolder
from client.views import review, text
from configs.site import SiteConfig


def page(config: SiteConfig, admission: Admission) -> str:
    """Return the page's text."""
    return text.page(review.study_page(SiteFolder(config, config.folder), admission))
