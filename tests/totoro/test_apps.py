"""Requests need nothing of what Django does before and after each for the database."""

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("upstream")
@pytest.mark.parametrize("path", ["/movies/", "/movies/none/", "/readyz", "/problems/", "/"])
def test_a_request_makes_no_query_in_its_own_thread(
    path: str, api: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        assert api.get(path).status_code in (200, 404)
