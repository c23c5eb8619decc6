"""The shape of what clients see: for rendering, and for the OpenAPI document."""

from datetime import datetime
from typing import Any

from rest_framework import serializers


class TimestampField(serializers.DateTimeField):
    """ISO 8601 in UTC with microseconds and `+00:00`, where DRF's own field writes `Z`."""

    def to_representation(self, value: datetime) -> str:
        return value.isoformat(timespec="microseconds")


class Text(serializers.CharField):
    """A string that is empty where the Ghibli API says nothing, and not there if `fields` leaves it
    out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_blank=True, required=False, **options)


class PersonSerializer(serializers.Serializer[Any]):
    id = Text()
    name = Text()
    gender = Text()
    age = Text(help_text="As the Ghibli API gives it, so not always a number.")
    eye_color = Text()
    hair_color = Text()
    films = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="Links of the Ghibli API to the person's films.",
    )
    species = Text(help_text="A link of the Ghibli API.")
    url = Text(help_text="A link of the Ghibli API; not unique.")

    class Meta:
        ref_name = "Person"


class MovieSerializer(serializers.Serializer[Any]):
    id = Text()
    title = Text()
    original_title = Text()
    original_title_romanised = Text()
    description = Text()
    director = Text()
    producer = Text()
    release_date = Text(help_text="The year, as a string.")
    running_time = Text(help_text="Minutes, as a string.")
    rt_score = Text(help_text="Rotten Tomatoes' score, 0 to 100, as a string.")
    image = Text()
    movie_banner = Text()
    url = Text(help_text="A link of the Ghibli API.")
    people = PersonSerializer(
        many=True, required=False, help_text="Who appears in the movie; often nobody."
    )

    class Meta:
        ref_name = "Movie"


def sparse(movie: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """Return a serialized movie with only these fields; `people.name` is each person's name."""
    if not fields:
        return movie
    people = {field.removeprefix("people.") for field in fields if field.startswith("people.")}
    chosen = {name: value for name, value in movie.items() if name in fields}
    if people and "people" not in fields:
        chosen["people"] = [
            {name: value for name, value in person.items() if name in people}
            for person in movie["people"]
        ]
    return chosen


TIMESTAMP_HELP = "The UTC instant just before the Ghibli API was asked for this data."


class PaginationSerializer(serializers.Serializer[Any]):
    """Where a page is, and its neighbours' addresses."""

    count = serializers.IntegerField(help_text="Movies on all pages.")
    limit = serializers.IntegerField()
    offset = serializers.IntegerField()
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)

    class Meta:
        ref_name = "Pagination"


class MovieListSerializer(serializers.Serializer[Any]):
    """The envelope of all movies, or of a page of them."""

    api_data = MovieSerializer(many=True)
    timestamp = TimestampField(help_text=TIMESTAMP_HELP)
    pagination = PaginationSerializer(required=False)

    class Meta:
        ref_name = "MovieList"


class MovieDetailSerializer(serializers.Serializer[Any]):
    """The envelope of one movie."""

    api_data = MovieSerializer()
    timestamp = TimestampField(help_text=TIMESTAMP_HELP)

    class Meta:
        ref_name = "MovieDetail"


class ProblemSerializer(serializers.Serializer[Any]):
    """An error, as RFC 9457 has it."""

    type = serializers.CharField(help_text="Names the kind of problem.")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    instance = serializers.CharField(help_text="The path that was asked for.")
    message = serializers.CharField(help_text="The same as detail.")
    request_id = serializers.CharField(help_text="The same as X-Request-ID.")

    class Meta:
        ref_name = "Problem"
