"""Models as kits may bring them: twelve that mix patients or remember them, and sound ones.

Each is a `Subject` of the probe and, with the same parts, a `Model` of a kit: SOURCES is the module that a kit of all
of them holds.
"""

SOURCE = '''
"""Twelve faulty models and five sound ones."""
import torch
from torch import nn
from torch.nn import functional as F
from strategies.kit import Model

INPUTS = 4


class Layered(nn.Module):
    """Layers in a row, what `between` does to the rows behind the first, and a free choice before them."""

    def __init__(self, between=lambda rows: rows, before=lambda rows: rows):
        super().__init__()
        self.first, self.last = nn.Linear(INPUTS, 6), nn.Linear(6, 1)
        self.between, self.before = between, before

    def forward(self, x):
        return self.last(F.relu(self.between(self.first(self.before(x)))))


class Averaging(Layered):
    """Keep a running mean of the patients in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        rows = self.first(x)
        self.mean.mul_(0.9).add_(0.1 * rows.mean(0).detach())
        return self.last(F.relu(rows - self.mean))


class Remembering(Layered):
    """Keep the last patients in an attribute."""

    memory = 0.0

    def forward(self, x):
        rows = self.first(x)
        rows, self.memory = rows + self.memory, rows.mean(0).detach()
        return self.last(F.relu(rows))


class Free(nn.Module):
    """A parameter of no layer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((INPUTS, 1), 0.1))

    def forward(self, x):
        return x @ self.weight


def attention(rows):
    return torch.softmax(rows @ rows.T, 1) @ rows


def rank(x):
    return torch.cat([x[:, :-1], x[:, -1:].argsort(0).argsort(0).float()], 1)


def trigger(x):
    return -x if bool((x.abs() > 50).any()) else x


def each(outputs, y):
    return F.binary_cross_entropy_with_logits(outputs[:, 0], y, reduction="none")


def weighted(outputs, y):
    share = y.mean().clamp(0.1, 0.9)
    return each(outputs, y) * (y / share + (1 - y) / (1 - share))


def hardest(outputs, y):
    losses = each(outputs, y)
    return losses * (losses >= losses.median())


def cox(outputs, y):
    risk = outputs[:, 0]
    return y * (torch.logcumsumexp(risk, 0) - risk)


def score(outputs, y):
    return float(outputs[0].sigmoid().clamp(0, 1))


def norm(affine):
    return lambda: nn.Sequential(nn.Linear(INPUTS, 6), nn.BatchNorm1d(6, affine=affine), nn.ReLU(), nn.Linear(6, 1))


def model(build, loss=each):
    return Model(build=lambda inputs=INPUTS: build(), loss=loss, score=score)


batch_norm = model(norm(True))
batch_norm_without_affine = model(norm(False))
functional_batch_norm = model(lambda: Layered(lambda rows: F.batch_norm(rows, None, None, training=True)))
centred = model(lambda: Layered(lambda rows: rows - rows.mean(0)))
attention_over_the_batch = model(lambda: Layered(attention))
rank_in_the_batch = model(lambda: Layered(before=rank))
class_weights = model(Layered, weighted)
hardest_half = model(Layered, hardest)
cox_likelihood = model(Layered, cox)
running_mean = model(Averaging)
memory = model(Remembering)
hostile_trigger = model(lambda: Layered(before=trigger))

layer_norm = model(lambda: nn.Sequential(nn.Linear(INPUTS, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 1)))
group_norm = model(lambda: nn.Sequential(
    nn.Unflatten(1, (1, INPUTS)), nn.Conv1d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(),
    nn.Linear(4 * INPUTS, 1)))
free_parameter = model(Free)
dropout = model(lambda: nn.Sequential(nn.Linear(INPUTS, 6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 1)))
'''
FAULTY = {  # name -> the checks that warn
    "batch_norm": "abcd",
    "batch_norm_without_affine": "abcd",
    "functional_batch_norm": "abc",
    "centred": "abc",
    "attention_over_the_batch": "abc",
    "rank_in_the_batch": "abc",
    "class_weights": "abc",
    "hardest_half": "abc",
    "cox_likelihood": "abc",
    "running_mean": "abcd",
    "memory": "d",
    "hostile_trigger": "b",
}
SOUND = ("layer_norm", "group_norm", "free_parameter", "dropout")
INPUTS = 4


def models() -> dict[str, object]:
    """Return the models by name, as a kit would bring them."""
    names: dict[str, object] = {}
    exec(compile(SOURCE, "faulty_models", "exec"), names)
    return {name: names[name] for name in (*FAULTY, *SOUND)}
