"""What the movie page shows: the list as HTML, for people."""

from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

from django.template.loader import render_to_string

from movies.http.representations import Representation
from movies.query.filters import FILTERS
from movies.query.pagination import Page, paginate
from movies.query.parameter_types import parse_digits
from movies.query.parameters import Query
from movies.serializers import TIMESTAMP_FORMAT
from services.catalogue.entities import Movie, Person
from services.catalogue.snapshot import Snapshot

# Where the Ghibli API stores its pictures. Pictures from other hosts are not shown: whoever controls
# that API could track our visitors with them.
PICTURE_ORIGINS = ("https://image.tmdb.org", "https://www.themoviedb.org")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    f" img-src 'self' {' '.join(PICTURE_ORIGINS)};"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

ORDERING_LABELS = {
    "": "Ghibli API order",
    "release_date": "Oldest first",
    "-release_date": "Newest first",
    "title": "Title, A to Z",
    "director": "Director, A to Z",
    "-rt_score": "Best score first",
    "running_time": "Shortest first",
    "-running_time": "Longest first",
}
PERSON_LABELS = {"gender": "Gender", "age": "Age", "eye_color": "Eyes", "hair_color": "Hair"}
# How the Ghibli API writes that it does not know.
UNKNOWN = {"", "na", "n/a", "unknown"}
# Colours of posters without a picture: as many as list.css has.
TINTS = 6
# People named before their list is opened.
MAX_CAST_NAMES = 3
# More than the Ghibli API returns.
MAX_CARDS = 256


class Chip(NamedTuple):
    """An active filter, and the URL of the list without it."""

    name: str
    label: str
    value: str | int
    url_without: str


class Card(NamedTuple):
    """A movie, with what the page shows besides its fields."""

    movie: Movie

    @property
    def picture(self) -> str:
        """The URL of the poster if the page may load it, else an empty string."""
        allowed = tuple(f"{origin}/" for origin in PICTURE_ORIGINS)
        return self.movie.image if self.movie.image.startswith(allowed) else ""

    @property
    def initials(self) -> str:
        words = self.movie.title.split()
        capitalized = [word for word in words if word[0].isupper()]
        return "".join(word[0] for word in capitalized or words)[:2].upper()

    @property
    def tint(self) -> int:
        return crc32(self.movie.id.encode()) % TINTS

    @property
    def running_time(self) -> str:
        """Hours and minutes, or the unchanged text if it is not a plausible number of minutes."""
        minutes = parse_digits(self.movie.running_time, range(10_001))
        if minutes is None:
            return self.movie.running_time
        parts = (minutes // 60, "h"), (minutes % 60, "min")
        return " ".join(f"{number} {unit}" for number, unit in parts if number)

    @property
    def score(self) -> int | None:
        return parse_digits(self.movie.rt_score, range(101))

    @property
    def cast(self) -> str:
        """The names of the first people, and the number of the others."""
        names = [person.name for person in self.movie.people]
        if len(names) <= MAX_CAST_NAMES + 1:
            return ", ".join(names)
        return f"{', '.join(names[:MAX_CAST_NAMES])} and {len(names) - MAX_CAST_NAMES} more"

    @property
    def people(self) -> list[tuple[str, list[tuple[str, str]]]]:
        return [(person.name, describe(person)) for person in self.movie.people]


def render(snapshot: Snapshot, query: Query, is_stale: bool) -> Representation:
    movies = query.select(snapshot.movies)
    page = paginate(movies, query, "") if query.is_paged else None
    ordering = ",".join(query.ordering)
    context = {
        "cards": [render_card(movie) for movie in (page.movies if page else movies)],
        "page": page,
        "summary": summarize(len(movies), len(snapshot.movies), page, ordering),
        "total": len(snapshot.movies),
        "search": query.search,
        "ordering": ordering,
        "orderings": {**ORDERING_LABELS, ordering: ORDERING_LABELS.get(ordering, ordering)},
        "chips": make_chips(query),
        "timestamp": snapshot.timestamp,
        "iso_timestamp": snapshot.timestamp.strftime(TIMESTAMP_FORMAT),
        "is_stale": is_stale,
    }
    html = render_to_string("movies/list.html", context).encode()
    return Representation(html, "text/html; charset=utf-8", {"Content-Security-Policy": POLICY})


@lru_cache(MAX_CARDS)
def render_card(movie: Movie) -> str:
    """Return the HTML of a movie, which is most of the work and seldom changes with the snapshot."""
    return render_to_string("movies/card.html", {"card": Card(movie)})


def summarize(count: int, total: int, page: Page | None, ordering: str) -> str:
    """Return for example "6 to 10 of 14 of 22 movies, newest first"."""
    text = f"{total} {'movie' if total == 1 else 'movies'}"
    if count < total:
        text = f"{count} of {text}"
    if page and len(page.movies) < count:
        last = page.offset + len(page.movies)
        text = f"{page.offset + 1} to {last} of {text}" if page.movies else f"None of {text}"
    label = ORDERING_LABELS.get(ordering, "") if ordering else ""
    return f"{text}, {label[0].lower()}{label[1:]}" if label else text


def make_chips(query: Query) -> list[Chip]:
    chips = []
    for name, value in query.filters:
        others = tuple(each for each in query.filters if each != (name, value))
        rest = query._replace(filters=others, limit=None, offset=None, fields=())
        # `./` is the list itself.
        chips.append(Chip(name, FILTERS[name].label, value, rest.query_string or "./"))
    return chips


def describe(person: Person) -> list[tuple[str, str]]:
    """Return the known facts about a person, each with its label."""
    facts = [(label, getattr(person, name)) for name, label in PERSON_LABELS.items()]
    return [(label, fact) for label, fact in facts if fact.strip().lower() not in UNKNOWN]
