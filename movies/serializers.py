"""The shape of responses, for the OpenAPI document and for `encode`, which writes them as JSON.

The Structs of movies and people have exactly the fields that their serializers declare, as the tests
hold. So a serializer represents a Struct by itself, and `encode` writes it as DRF would field by field,
in a hundredth of the time.
"""

import re
from typing import Any, ClassVar

import msgspec
from rest_framework import serializers

from services.catalogue.entities import PERSON_FIELDS, Movie, Person


class EntitySerializer(serializers.Serializer[Any]):
    """Serialize all fields of `entity` in its order. A field that is not declared is a text."""

    entity: ClassVar[type[msgspec.Struct]]

    def get_fields(self) -> dict[str, Any]:
        declared = super().get_fields()
        return {name: declared.get(name, TextField()) for name in self.entity.__struct_fields__}

    def to_representation(self, instance: Any) -> Any:
        return instance


class TextField(serializers.CharField):
    """A text: empty where the Ghibli API has none, absent where `fields` leaves it out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_blank=True, required=False, **options)


class PersonSerializer(EntitySerializer):
    entity = Person

    age = TextField(help_text="Free text, not always a number.")
    films = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="URLs of the person's films in the Ghibli API.",
    )
    species = TextField(help_text="URL of the species in the Ghibli API.")
    url = TextField(help_text="URL in the Ghibli API. Not unique: `id` identifies a person.")


class MovieSerializer(EntitySerializer):
    entity = Movie

    release_date = TextField(help_text="The year of release, as a string.")
    running_time = TextField(help_text="The running time in minutes, as a string.")
    rt_score = TextField(help_text="The Rotten Tomatoes score from 0 to 100, as a string.")
    url = TextField(help_text="URL of the film in the Ghibli API.")
    people = PersonSerializer(
        many=True, required=False, help_text="The people who appear in the movie. Can be empty."
    )

    def to_representation(self, instance: Any) -> Any:
        return select_fields(instance, self.context.get("fields", ()))


def select_fields(movie: Movie, fields: tuple[str, ...]) -> Movie | dict[str, Any]:
    """Return only these fields of a movie, in its order, or the movie if there are none.

    `people.name` selects the name of each person.
    """
    if not fields:
        return movie
    selected = {name: getattr(movie, name) for name in Movie.__struct_fields__ if name in fields}
    of_people = [name for name in PERSON_FIELDS if f"people.{name}" in fields]
    if of_people and "people" not in fields:
        selected["people"] = [
            {name: getattr(person, name) for name in of_people} for person in movie.people
        ]
    return selected


# Always with microseconds, and with the offset where DRF writes `Z`.
TIMESTAMP_FORMAT = "%Y-%m-%dT%H:%M:%S.%f+00:00"
TIMESTAMP_HELP = "The UTC time just before this data was requested from the Ghibli API."


class PaginationSerializer(serializers.Serializer[Any]):
    """The position of a page in the list."""

    count = serializers.IntegerField(help_text="The number of movies on all pages.")
    limit = serializers.IntegerField(help_text="The maximum number of movies on this page.")
    offset = serializers.IntegerField(help_text="The number of movies before this page.")
    next = serializers.CharField(allow_null=True, help_text="URL of the next page, or null.")
    previous = serializers.CharField(
        allow_null=True, help_text="URL of the previous page, or null."
    )


class MovieListSerializer(serializers.Serializer[Any]):
    """All movies, or a page of them."""

    api_data = MovieSerializer(many=True)
    timestamp = serializers.DateTimeField(TIMESTAMP_FORMAT, help_text=TIMESTAMP_HELP)
    pagination = PaginationSerializer(required=False, help_text="Only on a page.")


class MovieDetailSerializer(serializers.Serializer[Any]):
    """A movie."""

    api_data = MovieSerializer()
    timestamp = serializers.DateTimeField(TIMESTAMP_FORMAT, help_text=TIMESTAMP_HELP)


# In JavaScript before 2019 these two ended a line, so JSONRenderer escapes them.
ESCAPES = {"\u2028".encode(): rb"\u2028", "\u2029".encode(): rb"\u2029"}
ESCAPED = re.compile(b"|".join(ESCAPES))


def encode(contents: dict[str, Any]) -> bytes:
    """Return what DRF's JSONRenderer makes of serialized contents, which may be Structs."""
    return ESCAPED.sub(lambda found: ESCAPES[found[0]], msgspec.json.encode(contents))


class ProblemSerializer(serializers.Serializer[Any]):
    """An error (RFC 9457)."""

    type = serializers.CharField(help_text="URL of the problem type, which explains it.")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    instance = serializers.CharField(help_text="The path of the request.")
    message = serializers.CharField(help_text="The same as `detail`.")
    request_id = serializers.CharField(help_text="The same as the header `X-Request-ID`.")
