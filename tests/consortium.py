"""A consortium and its hospitals on disk, without any process: what tests of single modules start from."""

from pathlib import Path
from typing import Any

from client.enrol import enrol, join
from configs.papers import Welcome, to_json
from configs.site import SiteConfig, load_site
from configs.strict_yaml import dump_yaml
from server.membership import Member
from server.pki import Pki, expiry
from server.recorded import versions

ADDRESS = "localhost:8443"


class Consortium:
    """An authority, and the hospitals that it admitted."""

    def __init__(self, folder: Path, passphrase: bytes | None = None) -> None:
        self.folder, self.passphrase = folder, passphrase
        self.pki = Pki(folder / "pki")
        self.pki.create("Demo", ["localhost", "127.0.0.1"], passphrase)
        self.members: dict[str, Member] = {}

    def hospital(self, site: str = "lille", **document: Any) -> SiteConfig:
        """A hospital that joined, with these entries in its site.yaml."""
        folder = self.folder / site
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "site.yaml").write_text(dump_yaml({"site": site, "coordinator": ADDRESS, **document}))
        config = load_site(folder)
        _, request = enrol(config)
        certificate, public = self.pki.sign(request, "request", self.passphrase)
        self.members[site] = Member(site, public, request.signing_key, expiry(certificate))
        paper = folder / "paper.json"
        paper.write_bytes(to_json(self.welcome(site, certificate)))
        join(config, paper)
        return config

    def welcome(self, site: str, certificate: str) -> Welcome:
        installed = versions()
        return Welcome(
            site=site,
            coordinator=ADDRESS,
            ca_certificate=self.pki.ca_certificate.read_text(),
            certificate=certificate,
            coordinator_key=self.pki.load_signing_key().public,
            version=installed["archipel"],
            flwr=installed["flwr"],
        )
