from collections.abc import Iterator

import pytest

from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """An upstream that sends complete, valid responses to both requests."""
    with ScriptedUpstream() as upstream:
        yield upstream
