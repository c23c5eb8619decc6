"""Serializers declare what movies have, and `encode` writes exactly what DRF would with them."""

from datetime import UTC, datetime
from typing import Any, get_type_hints

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.serializers import CharField

from movies.query.pagination import paginate
from movies.query.parameter_types import NamesParameter
from movies.query.parameters import DETAIL_PARAMETERS, Query
from movies.serializers import (
    EntitySerializer,
    MovieDetailSerializer,
    MovieListSerializer,
    MovieSerializer,
    PersonSerializer,
    encode,
    select_fields,
)
from services.catalogue.entities import FILM_FIELDS, PERSON_FIELDS, Movie, Person
from tests.support.catalogue import MOVIES, make_movie
from tests.support.fakes import EPOCH


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


def test_selects_fields_in_the_order_of_the_movie() -> None:
    assert select_fields(MOVIES[0], ()) is MOVIES[0]
    selected = select_fields(MOVIES[0], ("people.name", "title", "people.id", "id"))

    assert isinstance(selected, dict)
    assert list(selected) == ["id", "title", "people"]
    assert all(list(person) == ["id", "name"] for person in selected["people"])


# Serializers with the same fields that convert each of them, as DRF does by itself.


class ConvertedPerson(PersonSerializer):
    def to_representation(self, instance: Any) -> Any:
        return serializers.Serializer.to_representation(self, instance)


class ConvertedMovie(MovieSerializer):
    people = ConvertedPerson(many=True)

    def to_representation(self, instance: Any) -> Any:
        movie = serializers.Serializer.to_representation(self, instance)
        fields = self.context["fields"]
        of_people = {name.removeprefix("people.") for name in fields if "." in name}
        if of_people and "people" not in fields:
            for person in movie["people"]:
                for name in person.keys() - of_people:
                    del person[name]
        selected = {*fields, "people"} if of_people else {*fields} or movie.keys()
        return {name: value for name, value in movie.items() if name in selected}


class ConvertedMovieList(MovieListSerializer):
    api_data = ConvertedMovie(many=True)


class ConvertedMovieDetail(MovieDetailSerializer):
    api_data = ConvertedMovie()


ODD_TEXTS = [
    "",
    "\u2028\u2029",
    "\\u2028",
    '"\\/<>&',
    "\0\b\t\n\x1f\x7f\x85",
    "🌱e\u0301ō\ufeff\uffff",
]
texts = st.text() | st.sampled_from(ODD_TEXTS)
FIELDS = DETAIL_PARAMETERS["fields"]
assert isinstance(FIELDS, NamesParameter)
persons = st.builds(
    Person,
    **dict.fromkeys(PERSON_FIELDS, texts) | {"films": st.lists(texts, max_size=3).map(tuple)},
)
movies = st.builds(
    Movie, **dict.fromkeys(FILM_FIELDS, texts), people=st.lists(persons, max_size=3).map(tuple)
)
selections = st.lists(st.sampled_from(FIELDS.allowed), max_size=5).map(tuple)
moments = st.datetimes(timezones=st.just(UTC))


@given(st.lists(movies, max_size=3), selections, moments, st.booleans(), texts)
@example([make_movie(title=text) for text in ODD_TEXTS], (), EPOCH, True, "")
def test_a_list_and_a_page_are_encoded_as_drf_renders_them(
    movies: list[Movie], fields: tuple[str, ...], timestamp: datetime, is_page: bool, url: str
) -> None:
    contents: dict[str, Any] = {"api_data": movies, "timestamp": timestamp}
    if is_page:
        contents["pagination"] = paginate(movies, Query(limit=2, offset=1, fields=fields), url)
    context = {"fields": fields}

    encoded = encode(MovieListSerializer(contents, context=context).data)
    assert encoded == JSONRenderer().render(ConvertedMovieList(contents, context=context).data)


@given(movies, selections, moments)
def test_a_movie_is_encoded_as_drf_renders_it(
    movie: Movie, fields: tuple[str, ...], timestamp: datetime
) -> None:
    contents, context = {"api_data": movie, "timestamp": timestamp}, {"fields": fields}

    encoded = encode(MovieDetailSerializer(contents, context=context).data)
    assert encoded == JSONRenderer().render(ConvertedMovieDetail(contents, context=context).data)
