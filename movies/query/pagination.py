"""Pages of the list."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from movies.query.parameters import MAX_LIMIT, Query
from services.catalogue.entities import Movie


@dataclass(frozen=True)
class Page:
    """The movies of a page, the number of movies on all pages, and the URLs of other pages."""

    movies: Sequence[Movie]
    count: int
    limit: int
    offset: int
    first: str
    previous: str | None
    next: str | None
    last: str

    @property
    def link_header(self) -> str:
        """The `Link` header of RFC 8288."""
        urls = {"first": self.first, "prev": self.previous, "next": self.next, "last": self.last}
        return ", ".join(f'<{url}>; rel="{name}"' for name, url in urls.items() if url)


def paginate(movies: Sequence[Movie], query: Query, url: str) -> Page:
    """Return the page that the query's `limit` and `offset` select; `url` is the list's own."""
    count, limit, offset = len(movies), query.limit or MAX_LIMIT, query.offset or 0

    def url_at(offset: int) -> str:
        parameters = query._replace(limit=limit, offset=offset).parameters()
        return f"{url}?{urlencode(parameters, safe=',')}"

    return Page(
        movies=movies[offset : offset + limit],
        count=count,
        limit=limit,
        offset=offset,
        first=url_at(0),
        previous=url_at(max(offset - limit, 0)) if offset > 0 else None,
        next=url_at(offset + limit) if offset + limit < count else None,
        last=url_at(max(count - 1, 0) // limit * limit),
    )
