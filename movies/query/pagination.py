"""Pages of the list."""

from collections.abc import Sequence
from dataclasses import dataclass

from movies.query.parameters import MAX_LIMIT, Query
from services.catalogue.entities import Movie


@dataclass(frozen=True)
class Page:
    movies: Sequence[Movie]
    count: int  # of the movies on all pages
    limit: int
    offset: int
    previous: str | None
    next: str | None
    link_header: str  # RFC 8288


def paginate(movies: Sequence[Movie], query: Query, url: str) -> Page:
    """Return the page that the query's `limit` and `offset` select; `url` is the list's own."""
    count, limit, offset = len(movies), query.limit or MAX_LIMIT, query.offset or 0

    def url_at(offset: int) -> str:
        return url + query._replace(limit=limit, offset=offset).query_string

    urls = {
        "first": url_at(0),
        "prev": url_at(max(offset - limit, 0)) if offset > 0 else None,
        "next": url_at(offset + limit) if offset + limit < count else None,
        "last": url_at(max(count - 1, 0) // limit * limit),
    }
    return Page(
        movies=movies[offset : offset + limit],
        count=count,
        limit=limit,
        offset=offset,
        previous=urls["prev"],
        next=urls["next"],
        link_header=", ".join(f'<{each}>; rel="{name}"' for name, each in urls.items() if each),
    )
