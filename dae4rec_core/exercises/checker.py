"""What all checkers share: a kind word when an answer is missing or wrong, True when it is right."""

import functools
from collections.abc import Callable
from typing import Any

import torch

Answer = Callable[..., Any]  # what a learner writes


class Unusable(Exception):
    """What an answer returned can't be judged; the message says why."""


def holds_nan(found: Any) -> bool:
    """Is a NaN among what was returned: a number, an array, a tensor, or several of them?"""
    if isinstance(found, (tuple, list)):
        return any(map(holds_nan, found))
    try:
        return bool(torch.as_tensor(found).isnan().any())
    except (TypeError, ValueError, RuntimeError):  # a network, a graph or a word
        return False


def checker(test: Callable[[Answer], None]) -> Callable[[Answer], bool]:
    """Turn a function of asserts into a checker that prints one sentence and returns whether the answer passed."""

    @functools.wraps(test)
    def check(answer: Answer) -> bool:
        if not hasattr(answer, "__name__"):
            print("Give the function itself: its name alone, without calling it.")
            return False

        @functools.wraps(answer)
        def called(*arguments: Any, **named: Any) -> Any:
            found = answer(*arguments, **named)
            if found is None:
                raise Unusable("returned nothing; is a `return` missing?")
            if holds_nan(found):
                raise Unusable(
                    "returned NaN, which is no number; look for a division by 0, the root or logarithm of a negative "
                    "number, or a softmax over nothing but -inf."
                )
            return found

        try:
            test(called)
        except Unusable as problem:
            print(f"Not quite: {answer.__name__} {problem}")
        except AssertionError as problem:
            print(f"Not quite: {problem}")
        except Exception as error:  # a learner's function may fail in any way
            if isinstance(error, NotImplementedError) and not error.args:  # torch raises it too, with words
                print(f"Not written yet: fill in {answer.__name__}, run its cell, then run this one again.")
            else:
                why = f"{type(error).__name__}: {error}".splitlines()[0]
                print(f"Your {answer.__name__}, or the use of what it returned, stopped with {why}")
        else:
            print(f"Well done: {answer.__name__} passes every check.")
            return True
        return False

    return check
