"""Arguments that a caller may get wrong: each is returned as what it should be, or refused in one sentence."""

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

# what a history may be; a set or a dict has no order of its own
ORDERED = (Sequence, np.ndarray, pd.Series, pd.Index, pd.api.extensions.ExtensionArray)


def whole(name: str, value: int, least: int | None = None) -> int:
    """An argument as Python's int. Raises ValueError where it is no whole number, or one below `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} is {value!r}; give a whole number.")
    if least is not None and value < least:
        raise ValueError(f"{name} is {value}; give at least {least}.")
    return int(value)


def switch(name: str, value: bool | None, default: bool) -> bool:
    """An argument that is on or off, None being the default. Raises ValueError for anything else, "no" and 0 too."""
    if value is not None and not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} is {value!r}; give True, False or None.")
    return default if value is None else bool(value)


def listed(name: str, given: Any, content: str) -> list:
    """The elements in order, whatever their index. Raises ValueError for a text and for what has no order."""
    if isinstance(given, str | bytes) or not isinstance(given, ORDERED) or getattr(given, "ndim", 1) == 0:
        raise ValueError(f"The {name} can't be of type {type(given).__name__}; give a list of {content}.")
    return list(given)
