"""The query parameters of the list and of a movie, and the query that they make."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from django.http import QueryDict
from rest_framework.exceptions import ValidationError

from movies.query.filters import FILTERS, filter_movies
from movies.query.ordering import ORDERINGS, sort_movies
from movies.query.parameter_types import IntegerParameter, NamesParameter, Parameter, TextParameter
from services.catalogue.entities import PERSON_FIELDS, Movie

# As many as the Ghibli API returns at once.
MAX_LIMIT = 250
# Of a query that has a canonical form: more than there are, and fewer than Django rejects.
MAX_PARAMETERS = 100
MAX_CACHED_QUERIES = 256

DETAIL_PARAMETERS: dict[str, Parameter] = {
    "fields": NamesParameter(
        allowed=(*Movie.__struct_fields__, *(f"people.{name}" for name in PERSON_FIELDS)),
        help_text="Returns only these fields. Use `people.name` for a field of the people.",
        example="id,title,people.name",
    ),
}
LIST_PARAMETERS: dict[str, Parameter] = {
    **DETAIL_PARAMETERS,
    "limit": IntegerParameter(
        allowed=range(1, MAX_LIMIT + 1),
        help_text="Returns a page of at most this many movies.",
        example=5,
    ),
    "offset": IntegerParameter(
        allowed=range(1_000_001),
        help_text="Returns a page that starts after this many movies.",
        example=10,
    ),
    "search": TextParameter(
        help_text="Returns movies with all of these words in the titles, the director, the producer"
        " or the people's names. All text parameters ignore case and accents: `kondo` finds Kondō.",
        example="kondo",
    ),
    "ordering": NamesParameter(
        allowed=ORDERINGS,
        help_text="Sorts by these fields, in descending order after a `-`. Values that are not"
        " numbers come last.",
        example="-rt_score,title",
        can_be_empty=True,
    ),
    **FILTERS,
}


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

    @property
    def query_string(self) -> str:
        """The query string that makes this query, with the `?`, or an empty text."""
        values = {
            "limit": self.limit,
            "offset": self.offset,
            "search": self.search,
            **dict(self.filters),
            "ordering": ",".join(self.ordering),
            "fields": ",".join(self.fields),
        }
        parameters = {name: value for name, value in values.items() if value not in (None, "")}
        return f"?{urlencode(parameters, safe=',')}" if parameters else ""

    def select(self, movies: Iterable[Movie]) -> list[Movie]:
        """Return the movies of all pages: filtered and sorted."""
        return sort_movies(filter_movies(movies, self.filters, self.search), self.ordering)


def cached_parser(declared: Mapping[str, Parameter]) -> Callable[[str], Query]:
    """Return a function that makes a query from the QUERY_STRING of a request, once for equal ones."""

    @lru_cache(MAX_CACHED_QUERIES)
    def parse(query_string: str) -> Query:
        return parse_query(QueryDict(query_string.encode("latin-1")), declared)

    return parse


def parse_query(
    parameters: QueryDict, declared: Mapping[str, Parameter] = LIST_PARAMETERS
) -> Query:
    """Return the query that the parameters make. Unknown parameters are ignored.

    Raise ValidationError for an invalid value or a repeated parameter.
    """
    values: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    for name in [name for name in declared if name in parameters]:
        text, *repeated = parameters.getlist(name)
        try:
            if repeated:
                raise ValidationError("Can be given only once.")
            values[name] = declared[name].parse(text)
        except ValidationError as error:
            errors[name] = error.detail
    if errors:
        raise ValidationError(errors)
    # Forms send the fields that are not filled in as empty texts.
    values = {name: value for name, value in values.items() if value != ""}
    filters = tuple((name, values.pop(name)) for name in FILTERS if name in values)
    return Query(filters=filters, **values)


def canonical_query(query: str) -> tuple[tuple[str, str], ...] | None:
    """Return the known parameters in order; None if Django may reject the query.

    It rejects repeated parameters and very many of them, and decodes what is not ASCII in its own way.
    """
    if query.count("&") >= MAX_PARAMETERS or not query.isascii():
        return None
    parameters = parse_qsl(query, keep_blank_values=True)
    known = sorted(pair for pair in parameters if pair[0] in LIST_PARAMETERS)
    is_repeated = len(known) > len(dict(known))
    return None if is_repeated else tuple(known)
