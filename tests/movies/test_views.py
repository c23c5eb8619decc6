"""The API as its clients see it, over the whole stack down to the Ghibli API's socket."""

import pytest
from django.test import Client

from upstream import StandIn

CASTLE = "2baf70d1-42bb-4437-b551-e5fed5a87abe"
MOVIE_KEYS = [
    "id",
    "title",
    "original_title",
    "original_title_romanised",
    "description",
    "director",
    "producer",
    "release_date",
    "running_time",
    "rt_score",
    "image",
    "movie_banner",
    "url",
    "people",
]
PERSON_KEYS = ["id", "name", "gender", "age", "eye_color", "hair_color", "films", "species", "url"]

pytestmark = pytest.mark.django_db


def test_the_list_holds_every_movie_with_its_people(api: Client, upstream: StandIn) -> None:
    response = api.get("/movies/")

    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert len(response.json()["api_data"]) == 22
    assert sum(len(movie["people"]) for movie in response.json()["api_data"]) == 59
