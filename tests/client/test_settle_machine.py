"""Everything that can happen to a hospital's folder, and to the coordinator: what really left never passes the cap.

Two machines. One is hostile or careless: files and whole folders are deleted, put back from copies made earlier, cloned
and used in turn, and the power fails at any step; a person settles whenever the node asks for it. The other is honest:
the power fails, nodes start again, runs are resumed with other models, the coordinator itself is put back; nothing of
that is ever a reason to refuse.
"""

import shutil
import tempfile
from contextlib import closing, suppress
from pathlib import Path

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from client.cli import main
from client.ledger import Ledger
from client.records import reasons_in
from configs import wire
from configs.errors import RunError
from configs.seal import Signed
from tests.client.ward import CAP, PowerCutError, Ward, copied, study_of, ward

STUDIES = [study_of(seed, rounds=3, epsilon_=2.0) for seed in range(3)]
FILES = ("ledger.sqlite", "journal.jsonl", "outbox", "admissions.sqlite")
cuts = st.one_of(st.just(0), st.just(0), st.integers(1, 30))
files = st.one_of(st.just({"ledger.sqlite"}), st.just(set(FILES)), st.sets(st.sampled_from(FILES), min_size=1))
rounds = st.tuples(st.sampled_from(STUDIES), st.integers(1, 3), st.integers(0, 1))


class Machine(RuleBasedStateMachine):
    """One hospital's folder, used in up to two places, of which one runs at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.room = tempfile.TemporaryDirectory()
        self.path = Path(self.room.name)
        self.statements: list[Signed | None] = []
        self.copies = 0

    @initialize()
    def begin(self) -> None:
        self.here = ward(self.path / "consortium")
        self.coordinator = self.here.coordinator
        self.here.studies |= {study.sha256: study for study in STUDIES}
        self.wards = [self.here]

    def run(self, ward_: Ward, what: tuple[object, int, int], cut: int) -> int | None:
        """Ask for a round, and cut the power before a step of it; the code, None where the power was cut."""
        study, number, nudge = what
        for other in self.wards:
            if other is not ward_:
                other.stop()
        ward_.fuse.left = cut
        try:
            if ward_.propose(study) == wire.UNSETTLED:  # type: ignore[arg-type]
                return wire.UNSETTLED
            before = len(self.coordinator.left)
            code = ward_.train(study, number, nudge)  # type: ignore[arg-type]
            if len(self.coordinator.left) > before:
                assert spent(ward_) >= self.coordinator.epsilon - 1e-9, "more has left than the ledger counts"
            return code
        except PowerCutError:
            ward_.stop()
            return None
        finally:
            ward_.fuse.left = 0

    @invariant()
    def what_left_is_within_the_cap(self) -> None:
        if hasattr(self, "coordinator"):
            assert self.coordinator.epsilon <= CAP.epsilon + 1e-6

    def teardown(self) -> None:
        for ward_ in getattr(self, "wards", []):
            ward_.stop()
        self.room.cleanup()


class Careless(Machine):
    """Files come and go as they should not."""

    def __init__(self) -> None:
        super().__init__()
        self.backups: list[Path] = []

    @rule(what=rounds)
    def train_whole(self, what: tuple[object, int, int]) -> None:
        self.run(self.here, what, 0)

    @rule(which=st.integers(0, 1), what=rounds)
    def train_either(self, which: int, what: tuple[object, int, int]) -> None:
        self.run(self.wards[which % len(self.wards)], what, 0)

    @rule(which=st.integers(0, 1), what=rounds, cut=cuts)
    def train(self, which: int, what: tuple[object, int, int], cut: int) -> None:
        self.run(self.wards[which % len(self.wards)], what, cut)

    @rule(which=st.integers(0, 1))
    def back_up(self, which: int) -> None:
        self.copies += 1
        self.backups.append(copied(self.wards[which % len(self.wards)].folder, self.path / f"backup-{self.copies}"))

    @rule(which=st.integers(0, 1), backup=st.integers(0, 5), names=files)
    def put_back(self, which: int, backup: int, names: set[str]) -> None:
        if not self.backups:
            return
        ward_ = self.wards[which % len(self.wards)]
        ward_.stop()
        for name in names:
            remove(ward_.folder / name)
            source = self.backups[backup % len(self.backups)] / name
            if source.exists():
                (shutil.copytree if source.is_dir() else shutil.copyfile)(source, ward_.folder / name)

    @rule(which=st.integers(0, 1), backup=st.integers(0, 5))
    def put_the_whole_folder_back(self, which: int, backup: int) -> None:
        if self.backups:
            ward_ = self.wards[which % len(self.wards)]
            ward_.stop()
            copied(self.backups[backup % len(self.backups)], ward_.folder)

    @rule(which=st.integers(0, 1), names=files)
    def delete(self, which: int, names: set[str]) -> None:
        ward_ = self.wards[which % len(self.wards)]
        ward_.stop()
        for name in names:
            remove(ward_.folder / name)

    @rule()
    def clone(self) -> None:
        if len(self.wards) == 1:
            self.here.stop()
            folder = copied(self.here.folder, self.path / "clone")
            self.wards.append(Ward(folder, self.coordinator, self.here.studies))

    @rule(which=st.integers(0, 1), everything=st.booleans())
    def settle(self, which: int, everything: bool) -> None:
        ward_ = self.wards[which % len(self.wards)]
        ward_.stop()
        before = spent(ward_)
        assert main(["-C", str(ward_.folder), "settle", "--yes", *(["--all"] if everything else [])]) == 0
        assert spent(ward_) >= before - 1e-9
        assert reasons_in(ward_.config) == []


class Honest(Machine):
    """What happens in a good life."""

    @rule(what=rounds, cut=cuts)
    def train(self, what: tuple[object, int, int], cut: int) -> None:
        assert self.run(self.here, what, cut) != wire.UNSETTLED
        self.statements.append(self.coordinator.statement)

    @rule()
    def restart(self) -> None:
        self.here.start()

    @rule(how_far=st.integers(0, 20))
    def put_the_coordinator_back(self, how_far: int) -> None:
        if self.statements:
            self.coordinator.statement = self.statements[-1 - how_far % len(self.statements)]

    @rule()
    def lose_what_the_coordinator_knows(self) -> None:
        self.coordinator.statement = None

    @rule()
    def move_the_whole_folder(self) -> None:
        self.here.stop()
        self.copies += 1
        folder = copied(self.here.folder, self.path / f"moved-{self.copies}")
        self.here = Ward(folder, self.coordinator, self.here.studies)
        self.wards = [self.here]

    @invariant()
    def nothing_waits_for_a_person(self) -> None:
        if hasattr(self, "here"):
            assert reasons_in(self.here.config) == []


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def spent(ward_: Ward) -> float:
    path = ward_.folder / "ledger.sqlite"
    if not path.exists():
        return 0.0
    with suppress(RunError), closing(Ledger.open(path)) as ledger:
        return ledger.spent("heart", delta=CAP.delta)
    return 0.0


Careless.TestCase.settings = Honest.TestCase.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, phases=[Phase.reuse, Phase.generate]
)
TestCareless, TestHonest = Careless.TestCase, Honest.TestCase
