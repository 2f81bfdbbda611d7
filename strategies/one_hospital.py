"""The rounds of a study where one hospital is the only one: the coordinator's arithmetic, without messages over a wire.

For a rehearsal at the hospital itself (client/rehearsal.py). The strategy, the average of the last iterates and the
privacy mode's half at the coordinator are those of a deployed run.
"""

from collections.abc import Callable

from flwr.app import ConfigRecord, Message, RecordDict

from configs import wire
from configs.errors import RunError
from configs.schema import Study
from strategies.exchange.arrays import Arrays, from_record, to_record
from strategies.exchange.messages import arrays_in
from strategies.federated import mean
from strategies.federated.registry import strategy_of
from strategies.learning import learning_of
from strategies.models.registry import shared_parameters
from strategies.privacy.modes.registry import mode_of
from strategies.releases.registry import MODEL_UPDATE

NODE = 1
Update = Callable[[int, Arrays], Arrays]  # round, what the hospital is sent -> what it sends back


def trained_alone(study: Study, site: str, update: Update) -> Arrays:
    """Return the study's final model as one hospital alone makes it.

    Args:
        update: makes the hospital's model update of a round; what it is sent may hold arrays of the strategy too.

    Raises:
        RunError: the strategy makes no model of one hospital's updates. Whatever `update` raises.
    """
    weights, shared = mean.site_weights(study, [site]), shared_parameters(study)
    strategy = strategy_of(study, {site: NODE}, weights)
    model = learning_of(study).initial(study.seed)
    sums: mean.Sums = {}
    averaged = 0
    for number in range(1, study.training.rounds + 1):
        start = to_record({name: model[name] for name in shared})
        (instruction,) = strategy.configure_train(number, start, ConfigRecord(), None)  # type: ignore[arg-type]
        sent = from_record(arrays_in(instruction.content), MODEL_UPDATE.instructed(study))
        reply = RecordDict({wire.ARRAYS: to_record(update(number, sent))})
        aggregated, _ = strategy.aggregate_train(number, [Message(reply, reply_to=instruction)])
        if aggregated is None:
            raise RunError(f"round {number}: strategy {study.training.strategy.name} makes no model of one hospital's")
        combined = from_record(aggregated, shared)
        model = {**model, **mode_of(study).combine(study, combined, weights, number, seeded=False)}
        if number > study.training.rounds - study.averaged_rounds:
            sums, averaged = mean.add(sums, model), averaged + 1
    return mean.mean_of(sums, averaged) if averaged else model
