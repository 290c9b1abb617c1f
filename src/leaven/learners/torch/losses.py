"""What does training make small: the error on new rows, and what else holds a network to its past?

Sources: J. Kirkpatrick and others, "Overcoming catastrophic forgetting in neural networks" (PNAS 114, 2017), equation
3; its running form: J. Schwarz and others, "Progress & Compress" (ICML 2018). Z. Li and D. Hoiem, "Learning without
Forgetting" (ECCV 2016), equations 2 and 3.
"""

from __future__ import annotations

from typing import Any

from leaven.learners.torch.surgery import Module, Tensor, torch_library

FISHER_ROWS = 256


def loss_of(task: str, outputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean negative log-likelihood.

    Args:
        task: `"binary"` (target shares of class 1), `"regression"` (unit variance), `"multiclass"` (target indices).
        outputs: Of the network, shape (rows, outputs).
        target: Shape (rows,).
    """
    functional = torch_library().nn.functional
    if task == "multiclass":
        return functional.cross_entropy(outputs, target.long())
    if task == "binary":
        return functional.binary_cross_entropy_with_logits(outputs[:, 0], target)
    return ((outputs[:, 0] - target) ** 2).mean() / 2


def distillation(task: str, outputs: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Return how far the outputs lie from the parent's on the same rows, at a temperature.

    -sum y' log p' with y' and p' the parent's and the network's probabilities, both to the power of 1 / temperature and
    made to sum to 1; of a number, half the squared difference. Classes that the parent did not know are left out.

    Args:
        task: As for `loss_of`.
        outputs: Shape (rows, outputs).
        teacher: What the parent gave, shape (rows, outputs of the parent).
        temperature: 1 or more; higher looks more at what was unlikely.
    """
    torch = torch_library()
    functional = torch.nn.functional
    if task == "multiclass":
        known = outputs[:, : teacher.shape[1]] / temperature
        return functional.cross_entropy(known, (teacher / temperature).softmax(dim=1))
    if task == "binary":
        wanted = (teacher / temperature).sigmoid()
        return functional.binary_cross_entropy_with_logits(outputs / temperature, wanted)
    return ((outputs - teacher) ** 2).mean() / 2


def consolidation(network: Module, anchor: dict[str, Tensor], fisher: dict[str, Tensor]) -> Tensor:
    """Return `sum F (theta - anchor)^2 / 2` over all parameters that have an F."""
    terms = [
        (fisher[name] * (each - anchor[name]) ** 2).sum() for name, each in network.named_parameters() if name in fisher
    ]
    return torch_library().stack(terms).sum() / 2


def fisher_information(
    task: str, network: Module, numbers: Tensor, codes: Tensor, *, sampler: Any
) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information at the network's parameters, the mean over up to 256 of the rows.

    F = E[(d log p(y | x) / d theta)^2], y from the network itself: exact for one output, drawn for several classes.

    Args:
        task: As for `loss_of`.
        network: It is asked in its evaluation mode, and left in it.
        numbers: Its inputs, shape (rows, width).
        codes: Its inputs, shape (rows, categories).
        sampler: The chance by which rows, and classes, are drawn.
    """
    torch = torch_library()
    network.eval()
    named = {name: each for name, each in network.named_parameters() if each.requires_grad}
    summed = {name: torch.zeros_like(each) for name, each in network.named_parameters()}
    rows = torch.randperm(len(numbers), generator=sampler)[:FISHER_ROWS]
    for row in rows:
        outputs = network(numbers[row : row + 1], codes[row : row + 1])
        if task == "multiclass":
            drawn = torch.multinomial(outputs.detach().softmax(dim=1)[0], 1, generator=sampler)
            told, weight = outputs.log_softmax(dim=1)[0, drawn].sum(), 1.0
        else:
            told, share = outputs[0, 0], float(outputs.detach()[0, 0].sigmoid())
            weight = share * (1 - share) if task == "binary" else 1.0
        gradients = torch.autograd.grad(told, list(named.values()), allow_unused=True)
        for name, one in zip(named, gradients, strict=True):
            if one is not None:
                summed[name] += weight * one**2
    return {name: each / len(rows) for name, each in summed.items()}
