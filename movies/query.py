"""What a client may ask of the list and of one movie: the query parameters, checked."""

from functools import cache, lru_cache
from typing import Any, NamedTuple

from django.http import QueryDict
from rest_framework import serializers

from movies.serializers import MovieSerializer, PersonSerializer

# As many as the Ghibli API gives at once.
MOST = 250
# Of one parameter.
MOST_NAMES = 50
# Queries whose check is remembered: at most 8 KB each, as addresses are no longer.
REMEMBERED = 256
ORDERINGS = ("title", "director", "release_date", "running_time", "rt_score")
MOVIE_FIELDS = tuple(MovieSerializer().fields)
PERSON_FIELDS = tuple(f"people.{name}" for name in PersonSerializer().fields)


class Query(NamedTuple):
    """A checked query; what was not asked for is None or empty. Equal for equal questions."""

    limit: int | None = None
    offset: int | None = None
    search: str = ""
    title: str = ""
    director: str = ""
    producer: str = ""
    person: str = ""
    release_date: int | None = None
    release_date_min: int | None = None
    release_date_max: int | None = None
    rt_score_min: int | None = None
    ordering: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    @property
    def is_paged(self) -> bool:
        return self.limit is not None or self.offset is not None

    def parameters(self) -> dict[str, str]:
        """The parameters that ask for this."""
        given = {
            name: value for name, value in self._asdict().items() if value not in (None, "", ())
        }
        return {
            name: ",".join(value) if isinstance(value, tuple) else str(value)
            for name, value in given.items()
        }


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
        if len(names) > MOST_NAMES:
            raise serializers.ValidationError(f"Must be at most {MOST_NAMES} names.")
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
        1, MOST, "At most so many movies, as a page with `pagination` and `Link`.", example=5
    )
    offset = Whole(0, 1_000_000, "Start the page after so many movies.", example=10)
    search = Words(
        "Words that all appear in a movie's titles, director, producer or people's names."
        " Here and below case and accents do not count: `kondo` finds Kondō.",
        example="kondo",
    )
    title = Words("Contained in the title or one of the original titles.", example="castle")
    director = Words("Contained in the director's name.", example="miyazaki")
    producer = Words("Contained in the producers' names.", example="suzuki")
    person = Words("Contained in the name of one of the people.", example="totoro")
    release_date = Whole(0, 9999, "Released in this year.", example=1988)
    release_date_min = Whole(0, 9999, "Released in this year or later.", example=2001)
    release_date_max = Whole(0, 9999, "Released in this year or earlier.", example=1999)
    rt_score_min = Whole(0, 100, "With this score or a better one.", example=95)
    ordering = Names(
        tuple(sign + name for name in ORDERINGS for sign in ("", "-")),
        "Sort by these, `-` for descending. What is no number comes last.",
        blank=True,
        example="-rt_score,title",
    )


def read(
    given: QueryDict, serializer: type[serializers.Serializer[Any]] = ListQuerySerializer
) -> Query:
    """The query that the parameters make; ValidationError for what they may not be.

    A parameter that the serializer does not know is ignored.
    """
    known = sorted(_names(serializer) & given.keys())
    if twice := [name for name in known if len(given.getlist(name)) > 1]:
        raise serializers.ValidationError({name: ["May be given once only."] for name in twice})
    return _checked(serializer, tuple((name, given[name]) for name in known))


# DRF copies all fields for each request, which costs more than all the rest of it.
@lru_cache(REMEMBERED)
def _checked(
    serializer: type[serializers.Serializer[Any]], given: tuple[tuple[str, str], ...]
) -> Query:
    checked = serializer(data=dict(given))
    checked.is_valid(raise_exception=True)
    return Query(**checked.validated_data)


@cache
def _names(serializer: type[serializers.Serializer[Any]]) -> frozenset[str]:
    return frozenset(serializer().fields)
