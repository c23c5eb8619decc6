"""Pages of the list, as pure functions."""

from typing import Any

from django.http import QueryDict
from hypothesis import given
from hypothesis import strategies as st

from movies.query import pagination
from movies.query.params import Query, read_query
from services.catalogue import bundled, merge
from services.catalogue.entities import Movie

FACTS = bundled.load()
MOVIES = merge.build(FACTS.films, FACTS.people).movies


def make_movie(**given: Any) -> Movie:
    return Movie(**({"id": "1", "title": "T"} | given))


@given(total=st.integers(0, 60), limit=st.integers(1, 250), offset=st.integers(0, 100))
def test_pages_cover_everything_once_and_know_their_neighbours(
    total: int, limit: int, offset: int
) -> None:
    movies = [make_movie(id=str(n)) for n in range(total)]
    page = pagination.paginate(movies, Query(limit=limit, offset=offset))
    links = pagination.links(page, Query(limit=limit, offset=offset), "https://t.example/movies/")

    assert [int(movie.id) for movie in page.movies] == list(range(total))[offset : offset + limit]
    assert (links.next is None) == (offset + limit >= total)
    assert (links.previous is None) == (offset == 0)
    walked: list[Movie] = []
    current = Query(limit=limit, offset=0)
    while True:
        walked += pagination.paginate(movies, current).movies
        following = pagination.links(pagination.paginate(movies, current), current, "").next
        if following is None:
            break
        current = read_query(QueryDict(following.removeprefix("?")))
    assert walked == movies


def test_links_keep_the_other_parameters() -> None:
    asked = read_query(QueryDict("limit=2&search=kondō&fields=id,title&ordering=-title&x=1"))
    page = pagination.paginate(MOVIES, asked)
    links = pagination.links(page, asked, "https://t.example/movies/")

    assert links.next == (
        "https://t.example/movies/?limit=2&offset=2&search=kond%C5%8D&ordering=-title"
        "&fields=id,title"
    )
    assert pagination.link_header(links).count("rel=") == 3
    assert read_query(QueryDict(links.next.partition("?")[2])) == asked._replace(offset=2)
