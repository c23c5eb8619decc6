"""Pages of the list."""

from django.http import QueryDict
from hypothesis import given
from hypothesis import strategies as st

from movies.query.pagination import paginate
from movies.query.parameters import Query, parse_query
from services.catalogue.entities import Movie
from tests.support.catalogue import MOVIES, make_movie

URL = "https://t.example/movies/"


@given(total=st.integers(0, 60), limit=st.integers(1, 250), offset=st.integers(0, 100))
def test_a_page_holds_its_movies_and_links_to_the_pages_beside_it(
    total: int, limit: int, offset: int
) -> None:
    movies = [make_movie(id=str(n)) for n in range(total)]
    page = paginate(movies, Query(limit=limit, offset=offset), URL)

    assert [int(movie.id) for movie in page.movies] == list(range(total))[offset : offset + limit]
    assert (page.next is None) == (offset + limit >= total)
    assert (page.previous is None) == (offset == 0)


@given(total=st.integers(0, 60), limit=st.integers(1, 250))
def test_following_next_visits_every_movie_once(total: int, limit: int) -> None:
    movies = [make_movie(id=str(n)) for n in range(total)]
    page = paginate(movies, Query(limit=limit, offset=0), URL)
    visited: list[Movie] = [*page.movies]
    while page.next:
        page = paginate(movies, parse_query(QueryDict(page.next.partition("?")[2])), URL)
        visited += page.movies

    assert visited == movies


def test_links_have_the_other_parameters() -> None:
    query = parse_query(QueryDict("limit=2&search=kondō&fields=id,title&ordering=-title&x=1"))
    page = paginate(MOVIES, query, URL)

    assert page.next == (
        "https://t.example/movies/?limit=2&offset=2&search=kond%C5%8D&ordering=-title"
        "&fields=id,title"
    )
    assert page.link_header.count("rel=") == 3
    assert parse_query(QueryDict(page.next.partition("?")[2])) == query._replace(offset=2)
