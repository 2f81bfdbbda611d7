"""The rules by which a hospital trusts a message and lets its study run.

Pure functions from facts to a verdict: no disk, no clock, no network. The rules, in the order in which they are asked.
The node asks all but the last, the worker 9 to 17 again: each reads its facts by itself, and neither believes the
other.

 1. The coordinator's key, as the welcome has it, signed the message's statement (`unseal`).
 2. The statement is from the coordinator, to this hospital, and answers nothing.
 3. The message was not used before.
 4. Its type is one that a hospital receives.
 5. Its study was proposed here, or the message proposes it.
 6. Its content is about the study and the round that were signed.
 7. Its content is the one that was signed, and it has not expired.
 8. The run's bundle holds the study and no code, and no settings stand beside it.
 9. site.yaml names a data set for the study.
10. The policy allows the study's privacy mode.
11. The policy allows the size of the study's messages.
12. The policy allows the number of patients that the study announces here.
13. The study's kit, where it needs one, is here to the byte, and a person approved it.
14. A person at the hospital approved the study, or site.yaml lets every one in that the policy allows.
15. The message asks for what the study asks for.
16. The policy lets figures of test patients leave, where the message asks for them.
17. What is left of the data set's budget lasts until the study is over.

A message that breaks one of the first three is not the coordinator's: it is not answered. Any other is answered by the
code of its error (client/egress.py). Afterwards the ledger has the last word: client/ledger.py books each release once.

>>> statement = Statement(COORDINATOR, "lille", "run", 1, "ab", "cd", "ef", "", 0, "", "")
>>> hear(Arrival(statement, site="lille", used=True))
Verdict(rule=3, error=SealError('seal: expected a new message, found one that was used before; it was repeated'))
>>> hear(Arrival(statement, site="lille", used=False)).require()
"""

from dataclasses import dataclass

from client.policy import Deny, Request, Spending, afford, decide, require_figures
from configs.bundle import check_bundle
from configs.errors import AdmissionError, ArchipelError, PolicyError, SealError, WireError
from configs.schema import Study
from configs.seal import COORDINATOR, Statement
from configs.site import Policy, SiteConfig
from strategies.releases.registry import release_of, study_bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first rule that is broken with its error, or 0 and None where none is."""

    rule: int = 0
    error: ArchipelError | None = None

    def require(self) -> None:
        """Go on only where no rule is broken.

        Raises:
            ArchipelError: the broken rule's.
        """
        if self.error is not None:
            raise self.error


TRUSTED = Verdict()


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message with a valid signature. `used`: its id was received before."""

    statement: Statement
    site: str
    used: bool


def hear(arrival: Arrival) -> Verdict:
    """Judge by rules 2 and 3 whether a signed message is meant for this hospital, now."""
    try:
        arrival.statement.require(sender=COORDINATOR, to=arrival.site, answers="")
    except SealError as error:
        return Verdict(2, error)
    if arrival.used:
        return Verdict(3, SealError("seal: expected a new message, found one that was used before; it was repeated"))
    return TRUSTED


@dataclass(frozen=True, slots=True)
class Subject:
    """A message's facts before its content is read.

    Attributes:
        form: of configs/wire.py for the message's type; None where no hospital receives such a message.
        proposed: whether its study was proposed here before.
    """

    form: str | None
    proposed: bool


def know(subject: Subject) -> Verdict:
    """Judge by rules 4 and 5 whether the content can be read at all."""
    if subject.form is None:
        return Verdict(4, WireError("message: expected a proposal or a model, found another kind"))
    if subject.form != "hello" and not subject.proposed:
        return Verdict(5, AdmissionError("the study was not proposed to this hospital", waiting=True))
    return TRUSTED


@dataclass(frozen=True, slots=True)
class Content:
    """A message's content as it was read: which study and round (0: none) it names, its hash, and the time."""

    statement: Statement
    study: str
    round: int
    sha256: str
    now: float


def match(content: Content) -> Verdict:
    """Judge by rules 6 and 7 whether the content is the one that was signed."""
    signed = content.statement
    if (content.study, content.round) != (signed.study, signed.round):
        why = "seal: the message is about another study or round than its signature; it was changed"
        return Verdict(6, SealError(why))
    try:
        signed.require(sender=signed.sender, to=signed.to, content=content.sha256, now=content.now)
    except SealError as error:
        return Verdict(7, error)
    return TRUSTED


@dataclass(frozen=True, slots=True)
class Bundle:
    """The run of a message: its bundle. `overridden`: settings stand beside the bundle."""

    study: Study
    content: bytes
    overridden: bool


def enclose(bundle: Bundle) -> Verdict:
    """Judge by rule 8 whether the run holds the study and nothing else."""
    try:
        check_bundle(bundle.content, bundle.study)
    except WireError as error:
        return Verdict(8, error)
    if bundle.overridden:
        why = "bundle: expected no settings beside the study, found some; nothing of it was executed"
        return Verdict(8, WireError(why))
    return TRUSTED


@dataclass(frozen=True, slots=True)
class Admission:
    """A study, what a message asks of it, and what the hospital has decided so far.

    Attributes:
        state: waiting, approved or refused (client/admission.py).
        patients: the number that the study announces for this hospital, None where it announces none.
        kit: why the kit that the study needs may not run here; None where it may, or it needs none.
    """

    study: Study
    form: str
    state: str
    policy: Policy
    has_dataset: bool
    patients: int | None
    kit: Deny | None = None

    @classmethod
    def at(cls, config: SiteConfig, study: Study, form: str, state: str, kit: Deny | None = None) -> "Admission":
        """Return the facts as site.yaml has them; where a person refused the study, its kit is not asked for."""
        has_dataset, kit = config.dataset(study.name) is not None, None if state == "refused" else kit
        return cls(study, form, state, config.policy, has_dataset, study.announced_patients(config.site), kit)


_POLICY_RULES = {112: 9, 113: 10, 115: 11, 116: 12}


def admit(admission: Admission) -> Verdict:
    """Judge by rules 9 to 16 whether the study may run here, and whether it asks for this."""
    study, form, policy = admission.study, admission.form, admission.policy
    request = Request(study.privacy.keys, admission.has_dataset, study_bytes(study), admission.patients)
    if isinstance(denial := decide(request, policy), Deny):
        return Verdict(_POLICY_RULES[denial.code], PolicyError(denial.reason, code=denial.code))
    if admission.kit is not None:
        return Verdict(13, PolicyError(admission.kit.reason, code=admission.kit.code))
    if admission.state == "refused":
        return Verdict(14, AdmissionError("the hospital refused this study", waiting=False))
    if admission.state != "approved" and policy.require_approval:
        return Verdict(14, AdmissionError("the hospital has not approved this study yet", waiting=True))
    if (kind := release_of(form)) is None:
        return TRUSTED
    try:
        kind.require_asked(study)
    except WireError as error:
        return Verdict(15, error)
    try:
        if kind.of_test:
            require_figures(policy)
    except PolicyError as error:
        return Verdict(16, error)
    return TRUSTED


def spend(spending: Spending, policy: Policy) -> Verdict:
    """Judge by rule 17 whether the data set's budget lasts."""
    if isinstance(denial := afford(spending, policy), Deny):
        return Verdict(17, PolicyError(denial.reason, code=denial.code))
    return TRUSTED
