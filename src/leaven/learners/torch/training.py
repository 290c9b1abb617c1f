"""How does a network learn from rows, so that the same state, rows and settings give the same bits?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leaven.learners.torch.losses import consolidation, distillation, fisher_information, loss_of
from leaven.learners.torch.state import State
from leaven.learners.torch.surgery import Module, Tensor, torch_library
from leaven.training.learner import CannotLearn

Schedule = Literal["constant", "cosine"]
MOMENTUM = 0.9


@dataclass(frozen=True, slots=True)
class Rows:
    """What a network learns from, as tensors in single precision."""

    task: str
    numbers: Tensor  # shape (rows, width)
    codes: Tensor  # shape (rows, categories)
    target: Tensor  # shape (rows,)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long and how fast."""

    epochs: int
    batch_size: int
    learning_rate: float
    schedule: Schedule
    warmup: int


@dataclass(frozen=True, slots=True)
class Ties:
    """What holds an update to its parent."""

    ewc: float = 0.0
    lwf: float = 0.0
    temperature: float = 1.0


@contextmanager
def repeatable(threads: int) -> Iterator[None]:
    """Let PyTorch compute with this many threads and only what comes out the same every time.

    Its own source of chance, and these settings, are the process's again afterwards.
    """
    torch = torch_library()
    had = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error")
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(had[0])
        torch.set_deterministic_debug_mode(had[1])


def check_outputs(network: Module, rows: Rows, *, outputs: int) -> None:
    """Refuse a network, made by code that is not ours, that does not give what is asked of it.

    Raises:
        CannotLearn: it fails on the first rows, or gives another shape.
    """
    asked = rows.numbers[:2], rows.codes[:2]
    mend = "See leaven.learners.torch.network.NetworkInputs for what it gets."
    try:
        with torch_library().no_grad():
            shape = tuple(network.eval()(*asked).shape)
    except Exception as error:  # whatever the code of others raises
        why = f"the network fails on rows as it is to take them ({type(error).__name__}: {error})"
        raise CannotLearn("Torch", why.splitlines()[0], mend) from error
    if shape != (len(asked[0]), outputs):
        raise CannotLearn("Torch", f"the network gives {shape} for {len(asked[0])} rows, not {outputs} each", mend)


def begin(build: Callable[[], Module], optimizer: Callable[[Module], Any], *, seed: int) -> State:
    """Return a network with the initial parameters that `seed` gives, and nothing learnt."""
    torch = torch_library()
    first, second = np.random.SeedSequence(seed).generate_state(2).tolist()
    torch.default_generator.manual_seed(first)
    network = build()
    sampler = torch.Generator().manual_seed(second)
    return State(network, optimizer(network), torch.get_rng_state(), sampler)


def optimizer_of(name: str, network: Module, *, weight_decay: float) -> Any:
    """Return PyTorch's own optimizer; its rate is set before each step."""
    torch = torch_library()
    if name == "sgd":
        return torch.optim.SGD(network.parameters(), lr=0.0, momentum=MOMENTUM, weight_decay=weight_decay)
    return torch.optim.AdamW(network.parameters(), lr=0.0, weight_decay=weight_decay)


def tensors(task: str, numbers: NDArray[np.float64], codes: NDArray[np.int64], target: NDArray[np.float64]) -> Rows:
    """Return prepared rows as a network takes them."""
    torch = torch_library()
    return Rows(
        task,
        torch.from_numpy(numbers.astype(np.float32)),
        torch.from_numpy(codes),
        torch.from_numpy(target.astype(np.float32)),
    )


def learn(state: State, rows: Rows, pace: Pace, ties: Ties) -> None:
    """Let the network learn from `rows`; the state is moved on, and what it must remember of them is noted.

    Raises:
        CannotLearn: it diverged, or knows nothing of the past that it is to be tied to.
    """
    torch = torch_library()
    torch.set_rng_state(state.chance)
    teacher = _outputs(state.network, rows) if ties.lwf else None
    anchor = {name: each.detach().clone() for name, each in state.network.named_parameters()} if ties.ewc else {}
    if ties.ewc and state.fisher is None:
        why = "it was fitted without ewc=…, so it is not known which parameters its past depends on"
        raise CannotLearn("Torch", f"the parent cannot be consolidated: {why}", "Fit a version from scratch with it.")
    parts = math.ceil(len(rows.target) / pace.batch_size)
    state.network.train()
    for step, batch in enumerate(_batches(state.sampler, len(rows.target), parts, pace.epochs)):
        rate = learning_rate(pace, step=step, steps=parts * pace.epochs, taken=state.steps)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        outputs = state.network(rows.numbers[batch], rows.codes[batch])
        loss = loss_of(rows.task, outputs, rows.target[batch])
        if teacher is not None:
            told = distillation(rows.task, outputs, teacher[batch], temperature=ties.temperature)
            loss = loss + ties.lwf * told
        if ties.ewc:
            loss = loss + ties.ewc * consolidation(state.network, anchor, state.fisher or {})
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        state.steps += 1
    state.network.eval()
    state.chance = torch.get_rng_state()
    if not all(bool(each.isfinite().all()) for each in state.network.state_dict().values()):
        raise CannotLearn("Torch", "the network diverged: a parameter is no number", "Lower learning_rate, or ewc.")


def remember(state: State, rows: Rows) -> None:
    """Note which parameters the answers to `rows` depend on, beside what was noted before; a mean over all rows."""
    new = fisher_information(rows.task, state.network, rows.numbers, rows.codes, sampler=state.sampler)
    had, come = state.rows, len(rows.target)
    if state.fisher is not None:
        new = {name: (state.fisher[name] * had + one * come) / (had + come) for name, one in new.items()}
    state.fisher = new


def shrink_and_perturb(state: State, *, keep: float, noise: float) -> None:
    """Draw every parameter towards 0, add noise, and let the optimizer begin anew.

    theta = keep · theta + N(0, noise^2). Source: J. Ash and R. Adams, "On Warm-Starting Neural Network Training"
    (NeurIPS 2020), section 5.
    """
    torch = torch_library()
    torch.set_rng_state(state.chance)
    with torch.no_grad():
        for each in state.network.parameters():
            each.mul_(keep).add_(noise * torch.randn(each.shape, dtype=each.dtype))
    state.optimizer.state.clear()
    state.chance = torch.get_rng_state()


def learning_rate(pace: Pace, *, step: int, steps: int, taken: int) -> float:
    """Return the rate of one step.

    Args:
        pace: The highest rate, and how it goes.
        step: Of this fit or update, from 0.
        steps: How many it has.
        taken: Steps since the network began, over all fits and updates: warming up goes on where it stopped.
    Source:
        Cosine: I. Loshchilov and F. Hutter, "SGDR" (ICLR 2017), equation 5, with a restart at every update.
    """
    rate = pace.learning_rate * min(1.0, (taken + 1) / pace.warmup if pace.warmup else 1.0)
    return rate * (1 + math.cos(math.pi * step / steps)) / 2 if pace.schedule == "cosine" else rate


def _batches(sampler: Any, rows: int, parts: int, epochs: int) -> Iterator[Tensor]:
    """Rows in a new order in every epoch, in parts of one size, give or take one."""
    torch = torch_library()
    for _ in range(epochs):
        yield from torch.tensor_split(torch.randperm(rows, generator=sampler), parts)


def _outputs(network: Module, rows: Rows) -> Tensor:
    """What the network, as it is, gives for all rows."""
    network.eval()
    with torch_library().no_grad():
        return network(rows.numbers, rows.codes)
