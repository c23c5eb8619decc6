"""What a browser shows of the list: the page for people, prepared for its template. Pure."""

from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit
from zlib import crc32

from movies.query import pagination
from movies.query.filters import FILTERS
from movies.query.pagination import Page, paginate
from movies.query.params import Query
from movies.serializers import TimestampField
from services.catalogue.entities import Movie, Person
from services.catalogue.snapshot import Snapshot

# Where the Ghibli API keeps its pictures. The page shows none from elsewhere: whoever got hold of
# that API could watch our readers by them.
PICTURE_HOSTS = ("image.tmdb.org", "www.themoviedb.org")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    f" img-src 'self' {' '.join(f'https://{host}' for host in PICTURE_HOSTS)};"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

ORDERINGS = {
    "": "As the Ghibli API lists them",
    "release_date": "Oldest first",
    "-release_date": "Newest first",
    "title": "Title, A to Z",
    "director": "Director, A to Z",
    "-rt_score": "Best score first",
    "running_time": "Shortest first",
    "-running_time": "Longest first",
}
FACTS = {"gender": "Gender", "age": "Age", "eye_color": "Eyes", "hair_color": "Hair"}
# How the Ghibli API says that it does not know.
NO_FACT = {"", "na", "n/a", "unknown"}
# Colours of posters without their picture; list.css has as many.
TINTS = 6
# People named before the list of them is opened.
NAMED = 3


class Chip(NamedTuple):
    """An active filter as the page shows it, and the address of the list without it."""

    name: str
    label: str
    value: str
    without: str


class Card(NamedTuple):
    """A movie as the page shows it; empty or None is not shown."""

    movie: Movie
    picture: str
    initials: str
    tint: int
    running_time: str
    score: int | None
    by_director: str
    cast: str
    people: list[tuple[str, list[tuple[str, str]]]]


def show(snapshot: Snapshot, query: Query, *, is_stale: bool) -> dict[str, Any]:
    """All that the template asks for."""
    found = query.select(snapshot.movies)
    page = paginate(found, query)
    ordering = ",".join(query.ordering)
    return {
        "cards": [card(movie) for movie in (page.movies if query.is_paged else found)],
        "links": pagination.links(page, query, "") if query.is_paged else None,
        "count": count(page, len(snapshot.movies), ordering),
        "total": len(snapshot.movies),
        "search": query.search,
        "ordering": ordering,
        "orderings": ORDERINGS if ordering in ORDERINGS else {**ORDERINGS, ordering: ordering},
        "filters": chips(query),
        "timestamp": snapshot.timestamp,
        "machine_timestamp": TimestampField().to_representation(snapshot.timestamp),
        "is_stale": is_stale,
    }


def count(page: Page, total: int, ordering: str) -> str:
    movies = "movie" if total == 1 else "movies"
    told = f"{total} {movies}" if page.total == total else f"{page.total} of {total} {movies}"
    if len(page.movies) < page.total:
        last = page.offset + len(page.movies)
        told = f"{page.offset + 1} to {last} of {told}" if page.movies else f"None of {told}"
    label = ORDERINGS.get(ordering, "") if ordering else ""
    return f"{told}, {label[0].lower()}{label[1:]}" if label else told


def chips(query: Query) -> list[Chip]:
    given = query._replace(limit=None, offset=None, fields=()).parameters()
    return [
        Chip(
            each.name,
            each.label,
            given[each.name],
            address({name: value for name, value in given.items() if name != each.name}),
        )
        for each in FILTERS
        if each.name in given
    ]


def address(parameters: dict[str, str]) -> str:
    """Relative to the list; `./` is the list itself."""
    return f"?{urlencode(parameters, safe=',')}" if parameters else "./"


def card(movie: Movie) -> Card:
    return Card(
        movie=movie,
        picture=picture(movie.image),
        initials=initials(movie.title),
        tint=crc32(movie.id.encode()) % TINTS,
        running_time=duration(movie.running_time),
        score=int(movie.rt_score) if is_number(movie.rt_score, most=100) else None,
        by_director=address({"director": movie.director}),
        cast=cast(movie.people),
        people=[(person.name, facts(person)) for person in movie.people],
    )


def picture(url: str) -> str:
    """The URL if the page may show what is there, else nothing."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme == "https" and parts.netloc in PICTURE_HOSTS else ""


def initials(title: str) -> str:
    words = title.split()
    return "".join(word[0] for word in [w for w in words if w[0].isupper()] or words)[:2].upper()


def duration(minutes: str) -> str:
    """Hours and minutes; as it is what is not a sensible number of minutes."""
    if not is_number(minutes, most=10_000):
        return minutes
    hours, rest = divmod(int(minutes), 60)
    return " ".join(
        part for part in (f"{hours} h" * (hours > 0), f"{rest} min" * (rest > 0)) if part
    )


def is_number(text: str, *, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most


def cast(people: tuple[Person, ...]) -> str:
    """A few names, and how many more there are."""
    names = [person.name for person in people]
    if len(names) <= NAMED + 1:
        return ", ".join(names)
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"


def facts(person: Person) -> list[tuple[str, str]]:
    told = [(label, getattr(person, name)) for name, label in FACTS.items()]
    return [(label, value) for label, value in told if value.strip().lower() not in NO_FACT]
