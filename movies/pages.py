"""A page of movies: what it says of itself, and where its neighbours are. Pure."""

from typing import Any, NamedTuple
from urllib.parse import urlencode

from movies.query import Query
from movies.selection import Page


class Links(NamedTuple):
    """Addresses of pages, absolute; None where there is none."""

    first: str
    previous: str | None
    next: str | None
    last: str


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


def pagination(page: Page, links: Links) -> dict[str, Any]:
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
