"""Films, people and movies, with the field names and order of the Ghibli API.

They hold no cycles, so that the garbage collector need not look at them (`gc=False`).
"""

import msgspec


class Person(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A person as the Ghibli API gives it; what it lacks is empty."""

    id: str
    name: str
    gender: str = ""
    age: str = ""
    eye_color: str = ""
    hair_color: str = ""
    films: tuple[str, ...] = ()
    species: str = ""
    url: str = ""


class Film(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A film as the Ghibli API gives it, without its links."""

    id: str
    title: str
    original_title: str = ""
    original_title_romanised: str = ""
    description: str = ""
    director: str = ""
    producer: str = ""
    release_date: str = ""
    running_time: str = ""
    rt_score: str = ""
    image: str = ""
    movie_banner: str = ""
    url: str = ""


class Movie(Film, frozen=True, forbid_unknown_fields=True, gc=False):
    """A film with its people."""

    people: tuple[Person, ...] = ()


FILM_FIELDS = Film.__struct_fields__
PERSON_FIELDS = Person.__struct_fields__
