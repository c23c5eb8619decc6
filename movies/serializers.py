"""The shape of what clients see: for rendering, and for the OpenAPI document."""

from datetime import datetime
from typing import Any

from rest_framework import serializers


class TimestampField(serializers.DateTimeField):
    """ISO 8601 in UTC with microseconds and `+00:00`, where DRF's own field writes `Z`."""

    def to_representation(self, value: datetime) -> str:
        return value.isoformat(timespec="microseconds")


class PersonSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    name = serializers.CharField()
    gender = serializers.CharField()
    age = serializers.CharField(help_text="As the Ghibli API gives it, so not always a number.")
    eye_color = serializers.CharField()
    hair_color = serializers.CharField()
    films = serializers.ListField(
        child=serializers.CharField(), help_text="Links of the Ghibli API to the person's films."
    )
    species = serializers.CharField(help_text="A link of the Ghibli API.")
    url = serializers.CharField(help_text="A link of the Ghibli API; not unique.")

    class Meta:
        ref_name = "Person"


class MovieSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    title = serializers.CharField()
    original_title = serializers.CharField()
    original_title_romanised = serializers.CharField()
    description = serializers.CharField()
    director = serializers.CharField()
    producer = serializers.CharField()
    release_date = serializers.CharField(help_text="The year, as a string.")
    running_time = serializers.CharField(help_text="Minutes, as a string.")
    rt_score = serializers.CharField(help_text="Rotten Tomatoes' score, 0 to 100, as a string.")
    image = serializers.CharField()
    movie_banner = serializers.CharField()
    url = serializers.CharField(help_text="A link of the Ghibli API.")
    people = PersonSerializer(many=True, help_text="Who appears in the movie; often nobody.")

    class Meta:
        ref_name = "Movie"


TIMESTAMP_HELP = "The UTC instant just before the Ghibli API was asked for this data."


class MovieListSerializer(serializers.Serializer[Any]):
    """The envelope of all movies."""

    api_data = MovieSerializer(many=True)
    timestamp = TimestampField(help_text=TIMESTAMP_HELP)

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
