"""Lets Totoro accept more than 250 movies, which the Ghibli API never returns. Through PYTHONPATH."""

from services.catalogue import merge

merge.PAGE_LIMIT = 100_000
