"""Progress: a trainer or sampler reports events, to which bars, tables and plots listen, and lets itself be kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from dae4rec_core.distributed import own_rank


class Event(NamedTuple):
    """How far a stage has come, and its metrics by name."""

    stage: str  # "gae" | "diffusion" | "compensator"
    step: int  # 1 .. total
    total: int
    metrics: dict[str, float]


Callback = Callable[[Event], None]


def report(callbacks: Sequence[Callback], event: Event) -> None:
    """Tell every listener."""
    for callback in callbacks:
        callback(event)


class Keeper:
    """What a stage tells how far it is, so that it can go on after a kill. This one keeps nothing; `state.Stage` does.

    Its parts are what changes from step to step: modules, optimizers, random streams, tensors.
    """

    def resume(self, parts: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> int:
        """Put back what was kept of the parts; how many steps that were. own: parts that differ between processes."""
        return 0

    def save(self, step: int, now: bool = False) -> None:
        """Keep the parts after so many steps, if now or if it is time."""


KEEPS_NOTHING = Keeper()


class History:
    """Keeps every event; `frame(stage)` is a table with one row a step."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def frame(self, stage: str) -> pd.DataFrame:
        rows = [{"step": e.step, **e.metrics} for e in self.events if e.stage == stage]
        return pd.DataFrame(rows).set_index("step")


class ProgressBar:
    """One bar a stage, with the newest metrics behind it; of several processes the first one draws."""

    def __init__(self, **options: Any):
        self.options = options  # passed on to tqdm
        self.bar: tqdm | None = None
        self.stage = ""

    def __call__(self, event: Event) -> None:
        if event.stage != self.stage or self.bar is None:
            self.bar = tqdm(total=event.total, desc=event.stage, disable=own_rank() > 0, **self.options)
            self.stage = event.stage
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in event.metrics.items()}, refresh=False)
        self.bar.update(event.step - self.bar.n)
        if event.step == event.total:
            self.bar.close()
            self.bar = None
