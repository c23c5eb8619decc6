"""Spans of work that no request does. By default there are none: totoro/observability/tracing.py makes them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Attributes = dict[str, str]


@contextmanager
def untraced(name: str) -> Iterator[Attributes]:
    yield {}


# Call it as `tracing.span(name)`: it is replaced if traces are on. The attributes that the block sets
# become those of the span.
span: Callable[[str], AbstractContextManager[Attributes]] = untraced
