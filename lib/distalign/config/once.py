"""Values computed once per object and arguments: a workflow of thousands of jobs asks for the same ones again."""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

Owner = TypeVar("Owner")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def once(
    method: Callable[Concatenate[Owner, Arguments], Result],
) -> Callable[Concatenate[Owner, Arguments], Result]:
    """Decorate a method of an immutable object: what it gives is kept, shared by all who ask, and not to be changed.

    Arguments are hashable and given by position.
    """

    @functools.wraps(method)
    def remembered(self: Owner, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        known: dict[Any, Result] = vars(self).setdefault(f"_{method.__name__}_known", {})
        if args not in known:
            known[args] = method(self, *args, **kwargs)
        return known[args]

    return remembered
