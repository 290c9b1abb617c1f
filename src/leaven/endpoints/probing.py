"""Does a server answer for a loop's rows, and how is it to be asked?

It is asked what it says about its model, which settles whatever the description leaves open; then it is asked for the
answers to a few rows, which proves the rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.endpoints.asking import Asking, names_of
from leaven.endpoints.description import MOST_SECONDS, Endpoint
from leaven.endpoints.failures import EndpointFailed
from leaven.endpoints.numbers import DTYPES, WhichAnswer
from leaven.endpoints.oip import Column, Matrix, OipMapping
from leaven.errors import LeavenError
from leaven.events.labels import Task
from leaven.loop import Schema
from leaven.settings import variable

Columns = Mapping[str, NDArray[Any]]

_DATATYPE_OF = {"category": "BYTES", "text": "BYTES", "float": "FP64", "int": "INT64", "bool": "BOOL"}
_PROBABILITIES = ("predict_proba", "probabilities", "output_probability")  # what servers call them
_TIMED = 3  # questions after the first, which may wait for a model to wake


class EndpointUnfit(LeavenError, ValueError):
    """A server cannot answer for a loop as it was described."""

    def __init__(self, url: str, what: str, mend: str) -> None:
        super().__init__(url, what, mend)
        self.url, self.what, self.mend = url, what, mend

    def __str__(self) -> str:
        return f"the endpoint {self.url} {self.what}. {self.mend}"


class Probe(msgspec.Struct, frozen=True):
    """What a server answered to a few rows."""

    answers: list[float]
    seconds: float  # of a typical request
    notes: list[str]


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int] = []

    def __str__(self) -> str:
        return f"{self.name} ({self.datatype} {self.shape})"


class _About(msgspec.Struct):
    inputs: list[_Tensor] | None = None
    outputs: list[_Tensor] | None = None


async def settled(endpoint: Endpoint, schema: Schema, columns: Columns, count: int) -> tuple[Endpoint, Probe]:
    """Return the endpoint with all that was left open, and what it answered to `count` rows of `columns`.

    Raises:
        EndpointUnfit: it cannot be reached, or does not fit the loop; the text says what to do.
    """
    with _asked(endpoint) as asking:
        mapping = endpoint.mapping
        if isinstance(mapping, OipMapping):
            mapping = _checked(await _completed(asking, mapping, schema), endpoint, schema)
        failures = list[EndpointFailed]()
        for candidate in _candidates(mapping, schema.task):
            tried = msgspec.structs.replace(endpoint, mapping=candidate)
            try:
                return await _proven(tried, schema.task, columns, count)
            except EndpointFailed as failed:
                failures.append(failed)
    raise _unfit(endpoint, failures[0])


async def probed(endpoint: Endpoint, task: Task, columns: Columns, count: int) -> Probe:
    """Return what an endpoint answers to `count` rows of `columns`, asked as it is described.

    Raises:
        EndpointUnfit: it does not answer, or what it answers cannot be an answer.
    """
    try:
        return (await _proven(endpoint, task, columns, count))[1]
    except EndpointFailed as failed:
        raise _unfit(endpoint, failed) from None


async def _proven(endpoint: Endpoint, task: Task, columns: Columns, count: int) -> tuple[Endpoint, Probe]:
    """The endpoint, with the number of a reply that is the answer, and its answers.

    Raises:
        EndpointFailed: it does not answer.
        EndpointUnfit: what it answers cannot be an answer.
    """
    notes = list(_gaps(endpoint.mapping))
    try:
        answers = (await _asked_times(endpoint, columns, count, times=1))[0]
    except WhichAnswer as which:
        if task != "binary" or which.width != 2:
            raise
        named = {"answer": 1} if isinstance(endpoint.mapping, OipMapping) else {"column": 1}
        mapping = msgspec.structs.replace(endpoint.mapping, **named)
        endpoint = msgspec.structs.replace(endpoint, mapping=mapping)
        notes.append("of the two numbers per row, the second is taken: the probability of class 1")
        answers = (await _asked_times(endpoint, columns, count, times=1))[0]
    _check_answers(endpoint, task, answers)
    _, seconds = await _asked_times(endpoint, columns, count, times=1 + _TIMED)
    if seconds > endpoint.timeout / 2:
        notes.append(f"it took {seconds:.3f} s, and has {endpoint.timeout:g} s: give it more, or expect failures")
    return endpoint, Probe(answers.tolist(), seconds, notes)


def _gaps(mapping: Any) -> Iterator[str]:
    """What is to be known of features that may be missing."""
    if isinstance(mapping, OipMapping):
        whole = [c.feature for c in mapping.columns if c.datatype[0] in "IUB" and c.datatype != "BYTES"]
        open_ones = [c.feature for c in mapping.columns if c.feature in whole and c.missing is None]
        if open_ones:
            yield (f"whole numbers cannot say what is missing: requests fail in which only some rows have "
                   f"{names_of(open_ones)}, unless the mapping says what stands in (`missing`)")  # fmt: skip


async def _asked_times(
    endpoint: Endpoint, columns: Columns, count: int, *, times: int
) -> tuple[NDArray[np.float64], float]:
    """The answers, and the median of the seconds that they took over one connection; the first has to make it."""
    took = list[float]()
    with _asked(endpoint) as asking:
        for _ in range(times):
            began = time.perf_counter()
            answers = await asking.answers(columns, count, seconds=MOST_SECONDS)
            took.append(time.perf_counter() - began)
    return answers, sorted(took[1:] or took)[len(took[1:]) // 2]


class _asked:  # noqa: N801 - reads as a phrase: with _asked(endpoint)
    """Asks an endpoint within a block."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._asking = Asking(endpoint, variable=variable, timer=time.monotonic)

    def __enter__(self) -> Asking:
        return self._asking

    def __exit__(self, *_: object) -> None:
        self._asking.pool.close()


def _check_answers(endpoint: Endpoint, task: Task, answers: NDArray[np.float64]) -> None:
    if not np.isfinite(answers).all():
        raise EndpointUnfit(endpoint.url, f"answered {answers.tolist()}, not all of which are numbers",
                            "Look at the model there, or probe with a row of your own: --row.")  # fmt: skip
    if task == "binary" and ((answers < 0) | (answers > 1)).any():
        what = f"answered {answers.tolist()}, while the loop needs the probability of class 1"
        raise EndpointUnfit(endpoint.url, what, "Name the output, and which of its numbers it is: --output, --answer.")


def _unfit(endpoint: Endpoint, failed: EndpointFailed) -> EndpointUnfit:
    mend = {
        "no connection": "Start it, or mend the address (--url) or the certificates (--ca).",
        "too slow": "Make it faster: nothing may take longer than 5 s.",
        "refused": "Look at what it takes, and describe it: --mapping; or probe with a row of your own: --row.",
        "server error": "Look at its log; if it is the made-up row, probe with one of your own: --row.",
        "not asked": "Set what is missing, or describe the inputs: --mapping.",
    }.get(failed.reason, "Describe its inputs and its answer: --mapping, --output, --answer.")
    return EndpointUnfit(endpoint.url, failed.what, mend)


def _candidates(mapping: Any, task: Task) -> Iterator[Any]:
    """In which ways to ask; a server that tells of no outputs may have probabilities beside classes."""
    if isinstance(mapping, OipMapping) and mapping.output is None and task == "binary":
        yield msgspec.structs.replace(mapping, output=_PROBABILITIES[0])
    yield mapping


async def _completed(asking: Asking, mapping: OipMapping, schema: Schema) -> OipMapping:
    """The mapping, with what the server says of itself."""
    endpoint = asking.endpoint
    about = await _about(asking, mapping, needed=mapping.is_open)
    if mapping.is_open:
        mapping = msgspec.structs.replace(mapping, **_inputs(endpoint, schema, about.inputs or []))
    else:
        _check_inputs(endpoint, mapping, about.inputs or [])
    if mapping.output is None and about.outputs:
        mapping = msgspec.structs.replace(mapping, output=_output(endpoint, about.outputs, schema.task))
    elif mapping.output is not None and about.outputs and mapping.output not in {o.name for o in about.outputs}:
        raise EndpointUnfit(endpoint.url, f"has no output {mapping.output!r}, but {names_of(about.outputs)}",
                            "Name one of them: --output.")  # fmt: skip
    if not mapping.binary and await _knows_raw_tensors(asking):
        mapping = msgspec.structs.replace(mapping, binary=True)
    return mapping


async def _about(asking: Asking, mapping: OipMapping, *, needed: bool) -> _About:
    """What the server says about the model."""
    try:
        return msgspec.convert(await asking.facts(mapping.below, seconds=MOST_SECONDS), _About)
    except EndpointFailed as failed:
        if failed.reason != "refused":
            raise _unfit(asking.endpoint, failed) from None
        if needed:
            what = f"tells nothing of a model {mapping.model!r}: it {failed.what}"
            mend = "Mend --model or --model-version, or describe its inputs: --mapping."
            raise EndpointUnfit(asking.endpoint.url, what, mend) from None
    except msgspec.ValidationError as error:
        if needed:
            what = f"tells of its model what is not of the protocol: {error}"
            mend = "Describe its inputs: --mapping; or use --protocol json."
            raise EndpointUnfit(asking.endpoint.url, what, mend) from None
    return _About()


async def _knows_raw_tensors(asking: Asking) -> bool:
    try:
        facts = await asking.facts("/v2", seconds=MOST_SECONDS)
    except EndpointFailed:
        return False  # it need not tell of itself; JSON is always right
    extensions = facts.get("extensions") if isinstance(facts, dict) else None
    return isinstance(extensions, list) and "binary_tensor_data" in extensions


def _inputs(endpoint: Endpoint, schema: Schema, inputs: Sequence[_Tensor]) -> dict[str, Any]:
    """How the features become the inputs that the server tells of: fields of a mapping."""
    named = {tensor.name: tensor for tensor in inputs}
    plain = all(kind not in ("category", "text") for _, kind, _ in schema.features)
    if not inputs:
        if plain:
            return {"matrix": Matrix(schema.names)}
        return {"columns": tuple(Column(name, name, _DATATYPE_OF[kind]) for name, kind, _ in schema.features)}
    if all(name in named for name in schema.names):
        wide = any(len(named[name].shape) == 2 for name in schema.names)
        return {
            "columns": tuple(Column(name, name, named[name].datatype) for name in schema.names),
            "wide": wide,
        }
    if len(inputs) == 1 and plain:
        (only,) = inputs
        width = only.shape[-1] if len(only.shape) == 2 else -1
        if only.datatype in ("FP16", "FP32", "FP64") and width in (-1, len(schema.names)):
            return {"matrix": Matrix(schema.names, only.name, only.datatype)}
    raise EndpointUnfit(endpoint.url, f"takes {names_of(inputs)}, which are not the features {names_of(schema.names)}",
                        "Write down which is which: --mapping.")  # fmt: skip


def _check_inputs(endpoint: Endpoint, mapping: OipMapping, inputs: Sequence[_Tensor]) -> None:
    """Refuse inputs that the server does not tell of, where it tells of any."""
    if not inputs:
        return
    known = {tensor.name: tensor.datatype for tensor in inputs}
    matrix = mapping.matrix
    sent = [(matrix.name, matrix.datatype)] if matrix else [(c.name, c.datatype) for c in mapping.columns]
    for name, datatype in sent:
        if name not in known:
            raise EndpointUnfit(endpoint.url, f"has no input {name!r}; it takes {names_of(inputs)}",
                                "Name the input as it does, in the mapping.")  # fmt: skip
        if known[name] != datatype:
            raise EndpointUnfit(endpoint.url, f"takes input {name!r} as {known[name]}, not {datatype}",
                                "Set this datatype in the mapping.")  # fmt: skip


def _checked(mapping: OipMapping, endpoint: Endpoint, schema: Schema) -> OipMapping:
    """Refuse a mapping that sends what the loop does not have, or as what it cannot be."""
    kinds = {name: kind for name, kind, _ in schema.features}
    strange = [name for name in mapping.features if name not in kinds]
    if strange:
        what = f"is to be sent {names_of(strange)}, and the loop has {names_of(schema.names)}"
        raise EndpointUnfit(endpoint.url, what, "Name features of the loop in the mapping.")
    for column in mapping.columns:
        if kinds[column.feature] in ("category", "text") and column.datatype != "BYTES":
            what = f"takes input {column.name!r} as {column.datatype}, and feature {column.feature!r} is a category"
            mend = "Serve a model there that takes texts (BYTES), or write a matrix with `categories`."
            raise EndpointUnfit(endpoint.url, what, mend)
    if mapping.matrix is not None:
        texts = [n for n in mapping.features if kinds[n] == "category" and n not in mapping.matrix.categories]
        if texts:
            raise EndpointUnfit(endpoint.url, f"takes one matrix of numbers, and {names_of(texts)} are categories",
                                "List their values under `categories` of the matrix, in the mapping.")  # fmt: skip
    return mapping


def _output(endpoint: Endpoint, outputs: Sequence[_Tensor], task: Task) -> str:
    """The output that the answer is in, among those that the server tells of."""
    fitting = [output.name for output in outputs if output.datatype in DTYPES]
    likely = [name for name in _PROBABILITIES if name in fitting] if task == "binary" else []
    if likely or len(fitting) == 1:
        return (likely or fitting)[0]
    why = "are several" if fitting else "are no numbers"
    raise EndpointUnfit(endpoint.url, f"gives {names_of(outputs)}, which {why}", "Name the answer's: --output.")
