"""Spans of work that no request does. By default there are none: totoro/observability/tracing.py makes them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Attributes = dict[str, str]


@contextmanager
def untraced(name: str) -> Iterator[Attributes]:
    yield {}


# Replaced if traces are on.
start_span: Callable[[str], AbstractContextManager[Attributes]] = untraced


def span(name: str) -> AbstractContextManager[Attributes]:
    """Trace the block; the attributes that it sets are those of the span."""
    return start_span(name)
