"""The query parameters of the list and of one movie: their checks, and the checked query."""

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple

from django.http import QueryDict
from rest_framework import serializers

from movies.query.filters import FILTERS, NumberFilter, TextFilter, filter_movies
from movies.query.ordering import ORDERINGS, sort_movies
from movies.serializers import MovieSerializer, PersonSerializer
from services.catalogue.entities import Movie

# As many as the Ghibli API returns at once.
MAX_LIMIT = 250
# Of one parameter.
MAX_NAMES = 50
# Checked queries to remember: at most 8 KB each, because addresses are no longer.
REMEMBERED_QUERIES = 256
MOVIE_FIELDS = tuple(MovieSerializer().fields)
PERSON_FIELDS = tuple(f"people.{name}" for name in PersonSerializer().fields)


class Query(NamedTuple):
    """A checked query; an absent parameter is None or empty. Equal queries compare equal."""

    limit: int | None = None
    offset: int | None = None
    search: str = ""
    # Names and values of the active filters, in the order of FILTERS.
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
        """Return the movies that match, in the requested order, of all pages."""
        found = filter_movies(movies, dict(self.filters), self.search)
        return sort_movies(found, self.ordering)


class Whole(serializers.IntegerField):
    """Decimal digits and nothing else: no sign, no exponent, no `1.0`."""

    def __init__(self, least: int, most: int, help_text: str, *, example: int) -> None:
        super().__init__(required=False, min_value=least, max_value=most, help_text=help_text)
        self.least, self.most, self.example = least, most, example

    def to_internal_value(self, data: Any) -> int:
        text = str(data)
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(self.most))
        if not digits or not self.least <= int(text) <= self.most:
            raise serializers.ValidationError(
                f"Must be a whole number from {self.least} to {self.most}."
            )
        return int(text)


class Words(serializers.CharField):
    """A text to look for; empty as if it were not there, because forms send empty fields."""

    def __init__(self, help_text: str, *, example: str) -> None:
        super().__init__(
            required=False,
            allow_blank=True,
            max_length=100,
            help_text=help_text,
            trim_whitespace=False,  # before the length is counted
        )
        self.example = example

    def run_validation(self, data: Any = serializers.empty) -> str:
        text: str = super().run_validation(data)
        return text.strip()


class Names(serializers.CharField):
    """Comma-separated names, each of them allowed, in the client's order and once each."""

    def __init__(
        self, allowed: tuple[str, ...], help_text: str, *, blank: bool, example: str
    ) -> None:
        super().__init__(
            required=False,
            allow_blank=blank,
            help_text=help_text,
            error_messages={"blank": f"Must be one or more of {', '.join(allowed)}."},
        )
        self.allowed, self.example = allowed, example

    def run_validation(self, data: Any = serializers.empty) -> Any:
        text = super().run_validation(data)
        names = [name.strip() for name in text.split(",")] if text else []
        if len(names) > MAX_NAMES:
            raise serializers.ValidationError(f"Must be at most {MAX_NAMES} names.")
        if unknown := [name for name in names if name not in self.allowed]:
            raise serializers.ValidationError(
                f"{unknown[0]!r} is not one of {', '.join(self.allowed)}."
            )
        return tuple(dict.fromkeys(names))


class DetailQuerySerializer(serializers.Serializer[Any]):
    """The parameters of one movie."""

    fields = Names(  # type: ignore[assignment]  # DRF takes it out of the class again
        (*MOVIE_FIELDS, *PERSON_FIELDS),
        "Only these fields: names of a movie's, and `people.name` for a person's.",
        blank=False,
        example="id,title,people.name",
    )


class ListQuerySerializer(DetailQuerySerializer):
    """The parameters of the list."""

    limit = Whole(
        1, MAX_LIMIT, "At most so many movies, as a page with `pagination` and `Link`.", example=5
    )
    offset = Whole(0, 1_000_000, "Start the page after so many movies.", example=10)
    search = Words(
        "Words that all appear in a movie's titles, director, producer or people's names."
        " Here and below case and accents do not count: `kondo` finds Kondō.",
        example="kondo",
    )
    ordering = Names(
        tuple(sign + name for name in ORDERINGS for sign in ("", "-")),
        "Sort by these, `-` for descending. What is no number comes last.",
        blank=True,
        example="-rt_score,title",
    )

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), **{each.name: filter_field(each) for each in FILTERS}}


def filter_field(declared: TextFilter | NumberFilter) -> Whole | Words:
    """Return the field that checks a filter's value."""
    match declared:
        case TextFilter():
            return Words(declared.help_text, example=declared.example)
        case NumberFilter():
            return Whole(*declared.range, declared.help_text, example=declared.example)


def read_query(
    given: QueryDict, serializer: type[serializers.Serializer[Any]] = ListQuerySerializer
) -> Query:
    """Return the query that the parameters make.

    Raise ValidationError for a value that is not allowed. Parameters that the serializer does not
    know are ignored.
    """
    known = sorted(_names(serializer) & given.keys())
    if twice := [name for name in known if len(given.getlist(name)) > 1]:
        raise serializers.ValidationError({name: ["May be given once only."] for name in twice})
    return _checked(serializer, tuple((name, given[name]) for name in known))


# DRF copies all fields for each request, which costs more than all the rest of it.
@lru_cache(REMEMBERED_QUERIES)
def _checked(
    serializer: type[serializers.Serializer[Any]], given: tuple[tuple[str, str], ...]
) -> Query:
    checked = serializer(data=dict(given))
    checked.is_valid(raise_exception=True)
    return _query_of(checked.validated_data)


def _query_of(values: Mapping[str, Any]) -> Query:
    names = [each.name for each in FILTERS]
    # An empty text is an empty field of a form, so no filter.
    filters = tuple((name, values[name]) for name in names if values.get(name, "") != "")
    others = {name: value for name, value in values.items() if name not in names}
    return Query(filters=filters, **others)


@cache
def _names(serializer: type[serializers.Serializer[Any]]) -> frozenset[str]:
    return frozenset(serializer().fields)
