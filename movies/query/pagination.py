"""A page of movies: which movies are on it, its `pagination` and its links. Pure."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from movies.query.params import MAX_LIMIT, Query
from services.catalogue.entities import Movie


class Page(NamedTuple):
    """The movies on a page, and how many there are on all pages."""

    movies: Sequence[Movie]
    total: int
    limit: int
    offset: int


class Links(NamedTuple):
    """Addresses of pages, absolute; None where there is none."""

    first: str
    previous: str | None
    next: str | None
    last: str


def paginate(movies: Sequence[Movie], query: Query) -> Page:
    """Return the page of these movies that the query's `limit` and `offset` select."""
    limit, offset = query.limit or MAX_LIMIT, query.offset or 0
    return Page(movies[offset : offset + limit], len(movies), limit, offset)


def links(page: Page, query: Query, address: str) -> Links:
    """`address`: the list's own, without a query."""

    def to(offset: int) -> str:
        moved = query._replace(limit=page.limit, offset=offset)
        return f"{address}?{urlencode(moved.parameters(), safe=',')}"

    before, after = max(page.offset - page.limit, 0), page.offset + page.limit
    return Links(
        first=to(0),
        previous=to(before) if page.offset > 0 else None,
        next=to(after) if after < page.total else None,
        last=to(max(page.total - 1, 0) // page.limit * page.limit),
    )


def summary(page: Page, links: Links) -> dict[str, Any]:
    return {
        "count": page.total,
        "limit": page.limit,
        "offset": page.offset,
        "next": links.next,
        "previous": links.previous,
    }


def link_header(links: Links) -> str:
    """RFC 8288, with its registered names of relations."""
    relations = {
        "first": links.first,
        "prev": links.previous,
        "next": links.next,
        "last": links.last,
    }
    return ", ".join(f'<{to}>; rel="{name}"' for name, to in relations.items() if to)
