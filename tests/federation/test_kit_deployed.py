"""A study of a researcher's own model between real processes; hospitals have the kit by hand, never from outside."""

from pathlib import Path
from typing import Any

from configs.strict_yaml import dump_yaml, read_yaml
from simulations import cli
from simulations.kits.project import build, lines_for_a_study
from tests.federation.deployed import (
    SEEDED_NODE,
    SITES,
    hospitals,
    model,
    records,
    simulated,
    site_journal,
    until,
    write_study,
)

NAME = "own-model"


def write_kit_study(folder: Path) -> tuple[Path, Path]:
    """The demo's study with a kit's model in the place of its own, completed; and the kit's wheel."""
    assert cli.main(["kit", "new", "heart", "--out", str(folder)]) == 0
    wheel, kit = build(folder / "heart")
    study = write_study(folder, NAME, private=True, rounds=2, release={"epsilon": 5.0, "bins": 4})
    document = read_yaml(study)
    document["task"] = {"type": "own", "target": document["task"]["target"]}
    document["model"] = {"name": "heart/risk", "options": {"width": 4}}
    text = dump_yaml(document).replace("model:", f"{lines_for_a_study(kit)}\nmodel:", 1)
    study.write_text(text)
    assert cli.main(["complete", str(study), "--kit", str(folder / "heart")]) == 0
    return study, wheel


def test_a_kit_is_waited_for_approved_and_trained_with_the_bits_of_its_simulation(tmp_path: Path) -> None:
    study, wheel = write_kit_study(tmp_path)
    policy: dict[str, Any] = {"max_epsilon": 50.0, "metrics": "noisy", "kits": "approved"}
    with hospitals(tmp_path / "fed", (NAME,), node=SEEDED_NODE, start=False, **policy) as federation:
        for site in SITES:
            with (federation.site_folder(site) / "site.yaml").open("a") as file:
                file.write("kit_run: together\n")
            federation.start_site(site)
        run = federation.submit(study)
        until(lambda: "has not the study's kit" in federation.consortium("status"), "the kit to be asked for")
        for site in SITES:
            added = federation.hospital(site, "kit", "add", str(wheel))
            digest = added.partition("digest ")[2].split()[0]
            federation.hospital(site, "kit", "approve", digest)
        line = federation.await_state(run, "COMPLETE", "INCOMPLETE")
        assert "INCOMPLETE" not in line, federation.log("coordinator")
        assert model(federation, run) == simulated(study, tmp_path / "runs")
        refused = [record for site in SITES for record in records(site_journal(federation, site), "refused")]
        assert any(record["code"] == 122 for record in refused)  # whichever was asked before it had the kit
        assert federation.metrics(run)["released"]["histograms"].keys() == set(SITES)
        assert (federation.coordinator / "runs" / run / "report.html").stat().st_size > 10_000
