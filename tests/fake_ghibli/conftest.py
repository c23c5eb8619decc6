from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from fake_ghibli import FakeGhibli

NOW = datetime(2026, 11, 23, 20, 40, 12, 341359, tzinfo=UTC)


@pytest.fixture
def upstream() -> Iterator[FakeGhibli]:
    with FakeGhibli(clock=lambda: NOW) as running:
        yield running
