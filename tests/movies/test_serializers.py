"""Sparse fields."""

from typing import Any

import pytest

from movies.serializers import sparse


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((), {"id": "1", "title": "T", "people": [{"id": "2", "name": "N"}]}),
        (("title", "id"), {"id": "1", "title": "T"}),
        (("people",), {"people": [{"id": "2", "name": "N"}]}),
        (("people.name",), {"people": [{"name": "N"}]}),
        (("id", "people.id", "people"), {"id": "1", "people": [{"id": "2", "name": "N"}]}),
    ],
)
def test_only_the_fields_asked_for_are_kept_in_the_movies_order(
    fields: tuple[str, ...], expected: dict[str, Any]
) -> None:
    movie = {"id": "1", "title": "T", "people": [{"id": "2", "name": "N"}]}

    chosen = sparse(movie, fields)
    assert chosen == expected
    assert list(chosen) == [name for name in movie if name in chosen]
