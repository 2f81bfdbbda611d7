"""The apps are plain Flower apps: a stock SuperLink and stock SuperNodes run them, and a hospital still decides."""

from pathlib import Path

from configs.load import load_study
from configs.strict_yaml import dump_yaml
from server.bundle import build_bundle
from simulations.stock import StockFlower
from tests.federation.deployed import SITES, records, simulated, site_document, write_study


def test_the_same_apps_run_under_stock_flower(tmp_path: Path) -> None:
    path = write_study(tmp_path, "stock", private=True, rounds=1, quorum=2, timeout_s=75)
    environments = []
    for site in SITES:
        folder = tmp_path / site
        folder.mkdir()
        document = site_document(site, "localhost:1", ("stock",), require_approval=site == "hungary")
        (folder / "site.yaml").write_text(dump_yaml(document))
        environments.append({"ARCHIPEL_SITE": str(folder)})
    bundle, _ = build_bundle(load_study(path))
    with StockFlower(tmp_path / "flower", environments) as flower:
        assert flower.run(bundle) == "completed", flower.logs()
        (run,) = (tmp_path / "flower" / "runs").iterdir()
        (first,) = records(run / "journal.jsonl", "round")
        assert sorted(first["contributed"]) == ["cleveland", "long_beach_va"]  # nobody at hungary approved it
        reasons = [refused["reason"] for refused in records(run / "journal.jsonl", "refused")]
        assert not reasons or set(reasons) == {"the hospital has not approved this study yet"}
    assert simulated(path, tmp_path / "runs") != (run / "model.safetensors").read_bytes()
