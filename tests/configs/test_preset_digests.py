"""The identity of a study outlives every release: digests of the presets, as they were first approved."""

from pathlib import Path

import pytest

from configs.load import study_from
from simulations.complete import completed

PRESETS = Path(__file__).resolve().parents[2] / "configs" / "presets"
DIGESTS = {
    "brain_seg": "216bddc0c6b9e452686f508e73f97e734edbf5da6f2364b01712ade68bf44048",
    "counts": "b2600906cf7d919b662c8845757130632e0fd479ea8ce438950a17d9ffe567e6",
    "flamby_heart": "d1917936e0d3ce670e10533753c040c85d8dbd34bec8b4de557376981bb530d1",
    "heart_auto": "bed7d9988e1d928eefc6c4d73c30d7e1944de9ab8f347718aab552c761335a1f",
    "heart_disease": "0904527848be41eddb2bd54b4912b8bc5762494a8f24731d096aeed542870b0c",
    "heart_disease_none": "822151ab3832e9e9608d5e0586f1994b8ea30f15b9540092a6aea15c4f602db9",
    "heart_statistics": "59706ac9987e37faf0578648f47738d2b2ff62898b5be746b3e07a4de3af659c",
    "kit": "ecd665c2fe37c0b569cdd8c8ff57f149f0ed37e7ca25769472e9e8de7916f4ea",
    "omop_risk": "e5e8e06b057e760e6227a2bf2e680a061e9dc570e26220198b312997e5bbdabc",
    "survival": "63eaacf49356843685986809c33eaa6d73b30eeec8e50a6589214c84c3c105d8",
    "rehearsal": "f3b301c530a6f2d77de67dcdc5e757c8010d884bba2b912dc05efe775914df0e",
}


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_a_preset_has_the_digest_that_hospitals_approved(name: str) -> None:
    assert completed(PRESETS / f"{name}.yaml").study.sha256 == DIGESTS[name]


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_the_canonical_form_of_a_preset_is_read_back_with_the_same_digest(name: str) -> None:
    study = completed(PRESETS / f"{name}.yaml").study
    assert study_from(study.to_dict()).sha256 == DIGESTS[name]


def test_every_preset_has_its_digest_here() -> None:
    assert {path.stem for path in PRESETS.glob("*.yaml")} == set(DIGESTS)
