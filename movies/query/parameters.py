"""The query parameters of the list and of a movie, and the query that they make."""

from collections.abc import Iterable
from copy import deepcopy
from functools import cache, lru_cache
from typing import Any, NamedTuple

from django.http import QueryDict
from rest_framework import serializers

from movies.query.filters import FILTERS, filter_movies
from movies.query.ordering import ORDERINGS, sort_movies
from movies.query.parameter_types import IntegerParameter, NamesParameter, TextParameter
from movies.serializers import MovieSerializer, PersonSerializer
from services.catalogue.entities import Movie

# As many as the Ghibli API returns at once.
MAX_LIMIT = 250
# Each takes at most 8 KB, because URLs are no longer.
MAX_CACHED_QUERIES = 256


class Query(NamedTuple):
    """Validated parameters; an absent one is None or empty. Hashable, and equal if it means the same."""

    limit: int | None = None
    offset: int | None = None
    search: str = ""
    # Pairs of name and value in the order of FILTERS.
    filters: tuple[tuple[str, str | int], ...] = ()
    ordering: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    @property
    def is_paged(self) -> bool:
        return self.limit is not None or self.offset is not None

    def parameters(self) -> dict[str, str]:
        """Return the query parameters that make this query."""
        values = {
            "limit": self.limit,
            "offset": self.offset,
            "search": self.search,
            **dict(self.filters),
            "ordering": ",".join(self.ordering),
            "fields": ",".join(self.fields),
        }
        return {name: str(value) for name, value in values.items() if value not in (None, "")}

    def select(self, movies: Iterable[Movie]) -> list[Movie]:
        """Return the movies of all pages: filtered and sorted."""
        return sort_movies(filter_movies(movies, dict(self.filters), self.search), self.ordering)


class DetailQuerySerializer(serializers.Serializer[Any]):
    """The parameters of a movie."""

    fields = NamesParameter(  # type: ignore[assignment]  # DRF removes it from the class
        (*MovieSerializer().fields, *(f"people.{name}" for name in PersonSerializer().fields)),
        help_text="Returns only these fields. Use `people.name` for a field of the people.",
        example="id,title,people.name",
    )


class ListQuerySerializer(DetailQuerySerializer):
    """The parameters of the list."""

    limit = IntegerParameter(
        1, MAX_LIMIT, help_text="Returns a page of at most this many movies.", example=5
    )
    offset = IntegerParameter(
        0, 1_000_000, help_text="Returns a page that starts after this many movies.", example=10
    )
    search = TextParameter(
        help_text="Returns movies with all of these words in the titles, the director, the producer"
        " or the people's names. All text parameters ignore case and accents: `kondo` finds Kondō.",
        example="kondo",
    )
    ordering = NamesParameter(
        ORDERINGS,
        help_text="Sorts by these fields, in descending order after a `-`. Values that are not"
        " numbers come last.",
        allow_blank=True,
        example="-rt_score,title",
    )

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), **deepcopy(FILTERS)}


def parse_query(
    parameters: QueryDict, serializer: type[serializers.Serializer[Any]] = ListQuerySerializer
) -> Query:
    """Return the query that the parameters make. Unknown parameters are ignored.

    Raise ValidationError for an invalid value or a repeated parameter.
    """
    names = sorted(parameter_names(serializer) & parameters.keys())
    if repeated := [name for name in names if len(parameters.getlist(name)) > 1]:
        raise serializers.ValidationError({name: ["Can be given only once."] for name in repeated})
    return _validate(serializer, tuple((name, parameters[name]) for name in names))


@cache
def parameter_names(serializer: type[serializers.Serializer[Any]]) -> frozenset[str]:
    return frozenset(serializer().fields)


# Cached because DRF copies all fields for each validation, which takes longer than the response.
@lru_cache(MAX_CACHED_QUERIES)
def _validate(
    serializer: type[serializers.Serializer[Any]], parameters: tuple[tuple[str, str], ...]
) -> Query:
    validation = serializer(data=dict(parameters))
    validation.is_valid(raise_exception=True)
    values = {name: value for name, value in validation.validated_data.items() if value != ""}
    filters = tuple((name, values.pop(name)) for name in FILTERS if name in values)
    return Query(filters=filters, **values)
