"""The fields of serialized movies."""

from typing import Any, get_type_hints

import pytest
from rest_framework.serializers import CharField

from movies.serializers import EntitySerializer, MovieSerializer, PersonSerializer, select_fields


@pytest.mark.parametrize("serializer", [MovieSerializer, PersonSerializer])
def test_a_serializer_has_the_fields_of_its_entity(serializer: type[EntitySerializer]) -> None:
    fields = serializer().get_fields()

    assert tuple(fields) == serializer.entity.__struct_fields__
    # What is declared for a field that the entity lacks would be ignored.
    assert serializer._declared_fields.keys() <= fields.keys()


@pytest.mark.parametrize("serializer", [MovieSerializer, PersonSerializer])
def test_only_texts_are_serialized_as_texts(serializer: type[EntitySerializer]) -> None:
    types = get_type_hints(serializer.entity)

    for name, field in serializer().get_fields().items():
        assert isinstance(field, CharField) == (types[name] is str), name


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
def test_selects_fields_in_the_order_of_the_movie(
    fields: tuple[str, ...], expected: dict[str, Any]
) -> None:
    movie = {"id": "1", "title": "T", "people": [{"id": "2", "name": "N"}]}

    selected = select_fields(movie, fields)
    assert selected == expected
    assert list(selected) == [name for name in movie if name in selected]
