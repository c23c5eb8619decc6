from benchmarks.catalogue import multiplied
from services.catalogue import bundled, merge


def test_a_multiplied_catalogue_has_as_many_movies_each_with_its_people() -> None:
    catalogue = bundled.load()
    once = merge.build(catalogue.films, catalogue.people).movies
    larger = multiplied(catalogue, 3)

    # Not merge.build, which refuses more people than the Ghibli API ever returns.
    films = [merge._film(record) for record in larger["films"]]
    people = [merge._person(record) for record in larger["people"]]
    movies, unknown = merge.merge(films, people)

    assert unknown == 0
    assert movies[: len(once)] == once
    assert len({movie.id for movie in movies}) == 3 * len(once)
    assert [len(movie.people) for movie in movies] == 3 * [len(movie.people) for movie in once]


def test_a_multiplied_catalogue_is_always_the_same() -> None:
    catalogue = bundled.load()

    assert multiplied(catalogue, 2) == multiplied(catalogue, 2)
