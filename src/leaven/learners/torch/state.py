"""What is kept of a network so that training goes on exactly where it stopped, and in which files?

`model.npz` holds the tensors by which the network answers; `training.npz` what only training needs: the optimizer's
state, both sources of chance (dropout's and the sampler's), and what elastic weight consolidation knows of the past.
`network.json` says what network it is, what it takes, and how far training has come. All of it is numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from typing import Any
from zipfile import BadZipFile

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.learners.formats import ModelDamaged
from leaven.learners.guards import whole_file
from leaven.learners.torch.rows import Preparation
from leaven.learners.torch.surgery import Module, Tensor, torch_library
from leaven.training.learner import CannotLearn, Files

FORMAT = "torch-npz"
MODEL_FILE, TRAINING_FILE, SHEET_FILE = "model.npz", "training.npz", "network.json"
_FRESH = "Fit a version from scratch instead."
Arrays = Mapping[str, NDArray[Any]]


class Sheet(msgspec.Struct, frozen=True):
    """What a stored network is, beside its numbers."""

    preparation: Preparation
    outputs: int
    hidden: tuple[int, ...]
    activation: str
    dropout: float
    embedding: int
    module: str = ""  # of the owner's own network: the function that builds it
    code: str = ""  # digest of the module that function came from
    steps: int = 0  # that the optimizer has taken: how far warming up has come
    rows: int = 0  # that the network was trained on, each counted once per fit or update
    training: str = ""  # digest of the training file


@dataclass(slots=True)
class State:
    """A network in training, with all that its next step depends on."""

    network: Module
    optimizer: Any
    chance: Tensor  # state of PyTorch's own generator, from which dropout is drawn
    sampler: Any  # the torch.Generator by which rows are shuffled
    steps: int = 0
    rows: int = 0
    fisher: dict[str, Tensor] | None = None  # by parameter: how much the answers so far depend on it

    def training_bytes(self) -> bytes:
        """Return what `restore` reads."""
        arrays: dict[str, NDArray[Any]] = {"chance": _array(self.chance), "sampler": _array(self.sampler.get_state())}
        for name, parameter in self.network.named_parameters():
            held = self.optimizer.state.get(parameter, {})
            arrays |= {f"optimizer/{name}/{key}": _array(one) for key, one in held.items() if one is not None}
            if self.fisher is not None:
                arrays[f"fisher/{name}"] = _array(self.fisher[name])
        return _npz(arrays)

    def restore(self, stored: Arrays) -> None:
        """Take over what `training_bytes` wrote.

        Raises:
            CannotLearn: something is missing or belongs to another network.
        """
        torch = torch_library()
        if not {"chance", "sampler"} <= set(stored):
            raise CannotLearn("Torch", "the parent's random state is missing", _FRESH)
        self.chance = torch.from_numpy(stored["chance"])
        self.sampler.set_state(torch.from_numpy(stored["sampler"]))
        for name, parameter in self.network.named_parameters():
            held = {key: torch.from_numpy(one) for key, one in _below(f"optimizer/{name}/", stored).items()}
            if any(one.ndim and one.shape != parameter.shape for one in held.values()):
                raise CannotLearn("Torch", f"the parent's optimizer state of {name} is of another shape", _FRESH)
            if held:
                self.optimizer.state[parameter] = held
        if not self.optimizer.state:
            raise CannotLearn("Torch", "the parent's optimizer state is missing", _FRESH)
        fisher = {name: torch.from_numpy(one) for name, one in _below("fisher/", stored).items()}
        self.fisher = fisher or None


def network_bytes(network: Module) -> bytes:
    """Return the tensors by which a network answers."""
    return _npz({name: _array(each) for name, each in network.state_dict().items()})


def load_network(network: Module, stored: bytes | memoryview) -> None:
    """Give a network the tensors that were kept.

    Raises:
        ModelDamaged: they are of another network, or cannot be read.
    """
    torch = torch_library()
    arrays = read_arrays(stored, MODEL_FILE)
    try:
        network.load_state_dict({name: torch.from_numpy(each) for name, each in arrays.items()})
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise ModelDamaged(FORMAT, f"the tensors are not those of this network ({why:.300})") from error


def training_in(files: Files, sheet: Sheet) -> Arrays:
    """Return what only training needs, as it was stored.

    Raises:
        CannotLearn: it is not there.
        ModelDamaged: it is not what was stored.
    """
    if TRAINING_FILE not in files:
        why = f"the parent's optimizer state is missing: there is no {TRAINING_FILE}"
        raise CannotLearn("Torch", why, _FRESH)
    if sha256(files[TRAINING_FILE]).hexdigest() != sheet.training:
        raise ModelDamaged(FORMAT, f"{TRAINING_FILE} is not what it was when it was stored")
    return read_arrays(files[TRAINING_FILE], TRAINING_FILE)


def sheet_in(files: Files) -> Sheet:
    """Return what the stored network is.

    Raises:
        ModelDamaged: it cannot be read.
    """
    whole_file(files, MODEL_FILE, FORMAT)
    try:
        return msgspec.json.decode(files[SHEET_FILE], type=Sheet)
    except (KeyError, msgspec.DecodeError) as error:
        raise ModelDamaged(FORMAT, f"{SHEET_FILE}: {error}") from error


def read_arrays(stored: bytes | memoryview, name: str) -> Arrays:
    """Return the arrays of a file; nothing in it is run.

    Raises:
        ModelDamaged: it cannot be read.
    """
    try:
        with np.load(BytesIO(stored), allow_pickle=False) as found:
            return {each: found[each] for each in found.files}
    except (BadZipFile, ValueError, OSError, EOFError) as error:
        raise ModelDamaged(FORMAT, f"{name}: {error}") from error


def _below(start: str, stored: Arrays) -> Arrays:
    """What is stored under names that begin so, by the rest of the name."""
    return {name.removeprefix(start): one for name, one in stored.items() if name.startswith(start)}


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.array(tensor.detach().cpu().numpy())


def _npz(arrays: Arrays) -> bytes:
    kept = BytesIO()
    np.savez(kept, allow_pickle=False, **arrays)
    return kept.getvalue()
