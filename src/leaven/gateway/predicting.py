"""What happens between the rows of a request and its reply?

The one way that every protocol takes: find what the loop is served with, predict, write the records down, and hand the
rows to the shadows once the reply has been sent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from leaven.clock import Clock
from leaven.events.log import EventLog
from leaven.events.records import Event, PredictionServed
from leaven.gateway.acknowledging import Acknowledging
from leaven.gateway.counters import Counters
from leaven.gateway.parameters import parameters_of
from leaven.gateway.refusals import HasNoModel, NotReady, OutOfService, UnknownModel, shown
from leaven.gateway.rows import Rows
from leaven.gateway.serving import Chance, Prediction, Serving, predict
from leaven.gateway.shadow import Shadows
from leaven.gateway.statistics import Statistics
from leaven.gateway.withdrawals import Withdrawal


class Predicting:
    """Answers rows and writes down what was answered."""

    def __init__(
        self,
        served: Mapping[str, Serving],
        log: EventLog,
        shadows: Shadows,
        *,
        clock: Clock,
        chance: Chance,
        counters: Counters,
        log_first: bool = False,
        durable_seconds: float = 10.0,
        withdrawn: Mapping[str, Withdrawal] | None = None,
    ) -> None:
        """Join the parts.

        Args:
            served: By loop, what it is served with now.
            log: Where predictions are written down.
            shadows: Who answers beside.
            clock: Of the loops.
            chance: Source of ids and of elapsed time.
            counters: Of this process.
            log_first: Whether a reply waits until its records are on the disk.
            durable_seconds: That the disk may take to confirm.
            withdrawn: By loop, what was taken out of service.
        """
        self.served, self.clock, self.chance = served, clock, chance
        self._log, self._shadows, self._counters = log, shadows, counters
        self._log_first, self._acknowledging = log_first, Acknowledging(log, seconds=durable_seconds)
        self.statistics = Statistics()
        self._withdrawn = withdrawn if withdrawn is not None else {}
        self.known = False  # whether it is known what is to be served

    def serving(self, model: str) -> Serving:
        """Return what `model` is served with.

        Raises:
            NotReady: nobody has said yet what is served here.
            OutOfService: somebody has unloaded it.
            UnknownModel: this model is not.
        """
        serving = self.served.get(model)
        if serving is None and model in self._withdrawn:
            raise OutOfService(model)
        if serving is None and not self.known:
            raise NotReady(f"model {shown(model)} is not known")
        if serving is None:
            raise UnknownModel(model, self.served.keys())
        return serving

    def model(self, model: str) -> Serving:
        """Return what `model` is served with, where it can be asked for answers; raises as `serving` does.

        Raises:
            HasNoModel: its versions are sets of parameters.
        """
        serving = self.serving(model)
        if parameters_of(serving, serving.table.champion.version) is not None:
            raise HasNoModel(model)
        return serving

    @property
    def loops(self) -> Collection[str]:
        """The loops that feedback is taken for: those that are served, and those that were until somebody unloaded."""
        return self.served.keys() | self._withdrawn.keys() if self._withdrawn else self.served.keys()

    def classes(self, loop: str) -> Sequence[str]:
        """Return the classes of the label of a loop that is served, or was until somebody unloaded it; none without."""
        serving = self.served.get(loop)
        if serving is not None:
            return serving.table.schema.classes
        return self._withdrawn[loop].classes if loop in self._withdrawn else ()

    async def answer(self, serving: Serving, rows: Rows, *, version: str | None, key: str | None) -> Prediction:
        """Return the answers to `rows`, written down.

        Args:
            serving: What the loop is served with.
            rows: What is asked.
            version: The one that the request names, or None.
            key: The request's own name, by which its repetition is recognised, or None.
        Raises:
            UnknownVersion: `version` is not loaded.
            Overloaded: too many rows wait.
            ModelFailed: there is no answer; what failed is written down.
            LogUnavailable: the reply was to wait for the log, which cannot keep it.
        """
        began, now = self.chance.timer(), self.clock.micros()
        prediction = await predict(serving, rows, pinned=version, at=now, chance=self.chance, key=key)
        self._count(serving.table.loop, prediction)
        self.statistics.note(serving, prediction, self.chance.timer() - began)
        await self.write_down(prediction.records)
        first = prediction.records[0]
        self._counters.took((serving.table.loop, first.arm, first.version), self.chance.timer() - began)
        if prediction.failure is not None:
            prediction.failure.records = prediction.records
            raise prediction.failure
        return prediction

    def afterwards(self, serving: Serving, prediction: Prediction) -> Callable[[], None] | None:
        """Return what is to be done once the reply has been sent, if anything is."""
        if not serving.table.shadows or not prediction.places:
            return None
        return lambda: self._shadows.offer(serving, prediction)

    async def write_down(self, records: Sequence[PredictionServed]) -> bool:
        """Hand records to the log; False where it had no room for all of them, which it counts.

        Raises:
            LogUnavailable: replies are to wait for the log, which cannot keep them.
        """
        if self._log_first:
            await self.durable(records)
            return True
        kept = [self._log.append(record) for record in records]
        return all(kept)

    async def durable(self, events: Sequence[Event]) -> None:
        """Wait until the events survive a power cut.

        Raises:
            LogUnavailable: they may not, or it takes too long to know.
        """
        await self._acknowledging.keep(events)

    def _count(self, loop: str, prediction: Prediction) -> None:
        counters = self._counters
        for record in prediction.records:
            counters.predictions[loop, record.arm, record.version] += 1
            if record.error is not None:
                counters.failures[loop, record.arm, record.version] += 1
        for row in prediction.fallbacks:
            record = prediction.records[row]
            counters.fallbacks[loop, record.arm, record.version] += 1
