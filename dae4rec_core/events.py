"""Progress as events: a trainer or sampler reports, and bars, tables and plots listen."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd
from tqdm.auto import tqdm


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
    """One bar a stage, with the newest metrics behind it."""

    def __init__(self, **options: Any):
        self.options = options  # passed on to tqdm
        self.bar: tqdm | None = None
        self.stage = ""

    def __call__(self, event: Event) -> None:
        if event.stage != self.stage or self.bar is None:
            self.bar, self.stage = tqdm(total=event.total, desc=event.stage, **self.options), event.stage
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in event.metrics.items()}, refresh=False)
        self.bar.update(event.step - self.bar.n)
        if event.step == event.total:
            self.bar.close()
            self.bar = None
