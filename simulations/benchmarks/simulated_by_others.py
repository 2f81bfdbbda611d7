"""The other systems that simulation.py compares with ours in clients per second.

Each trains the same model on the same rows: `plain` is a loop in PyTorch, `flower_ray` is Flower on Ray, `pfl` is
Apple's. Their libraries are imported where they are used: each is measured in a process of its own.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ROWS, FEATURES, BATCH, LEARNING_RATE = 64, 13, 32, 0.1
CLIP = 1.0

Finished = Callable[[float], None]  # called after each round with its seconds


@dataclass(frozen=True)
class Trial:
    """The rounds to be measured: of how many clients, with or without privacy, and how many."""

    clients: int
    private: bool
    rounds: int


def data_of(client: int) -> tuple[Any, Any]:
    """Return 64 rows with an outcome along a shared direction; each client's rows are shifted a little."""
    import numpy as np

    rng = np.random.default_rng(1000 + client)
    x = rng.normal(size=(ROWS, FEATURES)).astype("f4") + 0.3 * rng.normal(size=FEATURES).astype("f4")
    direction = np.random.default_rng(0).normal(size=FEATURES)
    return x, ((x @ direction + rng.normal(size=ROWS)) > 0).astype("f4")


def _model() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))


def _trained(model: Any, x: Any, y: Any, *, private: bool) -> Any:
    if private:
        return _train_with_opacus(model, x, y)
    _train_plainly(model, x, y)
    return model


def _train_plainly(model: Any, x: Any, y: Any) -> None:
    import torch

    optimizer, loss = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE), torch.nn.BCEWithLogitsLoss()
    order = torch.randperm(len(x))
    for start in range(0, len(x), BATCH):
        rows = order[start : start + BATCH]
        optimizer.zero_grad()
        loss(model(x[rows]), y[rows]).backward()
        optimizer.step()


def _train_with_opacus(model: Any, x: Any, y: Any) -> Any:
    import torch
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    optimizer, loss = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE), torch.nn.BCEWithLogitsLoss()
    private, optimizer, loader = PrivacyEngine(accountant="rdp").make_private(
        module=model,
        optimizer=optimizer,
        data_loader=DataLoader(TensorDataset(x, y), batch_size=BATCH),
        noise_multiplier=1.0,
        max_grad_norm=CLIP,
    )
    for batch_x, batch_y in loader:
        if len(batch_x):
            optimizer.zero_grad()
            loss(private(batch_x), batch_y).backward()
            optimizer.step()
    return private._module


def _tensors(clients: int) -> list[tuple[Any, Any]]:
    import torch

    torch.set_num_threads(1)
    return [(torch.from_numpy(x), torch.from_numpy(y)[:, None]) for x, y in map(data_of, range(clients))]


def plain(trial: Trial, finished: Finished) -> None:
    """Train in a loop over the clients, with a running average."""
    data, shared = _tensors(trial.clients), _model().state_dict()
    for _ in range(trial.rounds):
        begin = time.perf_counter()
        sums: dict[str, Any] = {}
        for x, y in data:
            model = _model()
            model.load_state_dict(shared)
            model = _trained(model, x, y, private=trial.private)
            state = {name: value.detach() for name, value in model.state_dict().items()}
            sums = {name: sums[name] + value for name, value in state.items()} if sums else state
        shared = {name: value / trial.clients for name, value in sums.items()}
        finished(time.perf_counter() - begin)


def flower_ray(trial: Trial, finished: Finished) -> None:
    """Train with Flower as its tutorials use it: its FedAvg on its Ray runtime, and the plain loop in a ClientApp."""
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    from simulations.engines import quiet_flower

    class Timed(FedAvg):
        begin = 0.0

        def configure_train(self, *arguments: Any, **named: Any) -> Any:
            self.begin = time.perf_counter()
            return super().configure_train(*arguments, **named)

        def aggregate_train(self, *arguments: Any, **named: Any) -> Any:
            aggregated = super().aggregate_train(*arguments, **named)
            finished(time.perf_counter() - self.begin)
            return aggregated

    server, client = ServerApp(), ClientApp()

    @server.main()
    def serve(grid: Grid, _context: Context) -> None:
        strategy = Timed(fraction_evaluate=0.0, min_train_nodes=trial.clients, min_available_nodes=trial.clients)
        strategy.start(grid=grid, initial_arrays=ArrayRecord(_model().state_dict()), num_rounds=trial.rounds)

    @client.train()
    def train(message: Message, context: Context) -> Message:
        import torch

        torch.set_num_threads(1)
        x, y = data_of(int(context.node_config["partition-id"]))
        model = _model()
        model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        inputs, targets = torch.from_numpy(x), torch.from_numpy(y)[:, None]
        model = _trained(model, inputs, targets, private=trial.private)
        metrics = MetricRecord({"num-examples": ROWS})
        return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)

    quiet_flower()
    run_simulation(server, client, trial.clients, backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}})


def pfl(trial: Trial, finished: Finished) -> None:
    """Train with pfl as its documentation has it: FederatedAveraging in simulation, every user in every cohort."""
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam.base import NNTrainHyperParams
    from pfl.model.pytorch import PyTorchModel

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack, self.criterion = _model(), torch.nn.BCEWithLogitsLoss()

        def loss(self, x: Any, y: Any, **_options: Any) -> Any:
            return self.criterion(self.stack(x), y)

        def metrics(self, *_batch: Any, **_options: Any) -> dict[str, Any]:
            return {}

    class Timer(TrainingProcessCallback):  # type: ignore[misc]
        begin = 0.0

        def on_train_begin(self, **_state: Any) -> Any:
            from pfl.metrics import Metrics

            self.begin = time.perf_counter()
            return Metrics()

        def after_central_iteration(self, *_state: Any, **_iteration: Any) -> Any:
            from pfl.metrics import Metrics

            now = time.perf_counter()
            finished(now - self.begin)
            self.begin = time.perf_counter()
            return False, Metrics()

    data, module = _tensors(trial.clients), Module()
    dataset = FederatedDataset(
        lambda user: Dataset(list(data[user])), get_user_sampler("minimize_reuse", list(range(trial.clients)))
    )
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=trial.rounds,
            evaluation_frequency=10**9,
            train_cohort_size=trial.clients,
            val_cohort_size=0,
        ),
        SimulatedBackend(dataset, None),
        PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0)),
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=LEARNING_RATE, local_batch_size=BATCH),
        None,
        callbacks=[Timer()],
    )
