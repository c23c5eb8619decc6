"""What views call: the movies, and one movie."""

from functools import cache

from django.conf import settings

from services.catalogue.entities import Movie
from services.exceptions import MovieNotFound
from services.freshness import Answer, Freshness, Health, Policy
from services.ghibli.client import GhibliClient
from services.persistence import DatabaseStore
from services.redis_store import RedisStore
from services.refresher import Refresher
from services.sharing import ProcessStore, SharedStore


class MovieService:
    def __init__(self, refresher: Refresher) -> None:
        self._refresher = refresher

    def list(self) -> Answer:
        """The answer that holds every movie; MoviesUnavailable if there is none."""
        return self._refresher.answer()

    def get(self, movie_id: str) -> tuple[Movie, Answer]:
        """One movie of that answer, by its id in upper or lower case; else MovieNotFound."""
        answer = self._refresher.answer()
        try:
            return answer.snapshot.by_id[movie_id.lower()], answer
        except KeyError:
            raise MovieNotFound(movie_id) from None

    def health(self) -> Health:
        return self._refresher.freshness.health()

    def close(self) -> None:
        self._refresher.close()


def policy() -> Policy:
    return Policy(
        settings.CACHE_TTL,
        settings.REFRESH_AHEAD,
        settings.STALE_IF_ERROR,
        most_waiting=settings.REQUEST_THREADS // 2,
    )


def shared_store() -> SharedStore:
    return RedisStore(remember=settings.STALE_IF_ERROR) if settings.REDIS_URL else ProcessStore()


@cache
def movie_service() -> MovieService:
    """The service of this process, put together from the settings."""
    store, database = shared_store(), DatabaseStore(history=settings.SNAPSHOT_HISTORY)
    client = GhibliClient(settings.GHIBLI_API_BASE_URL)
    return MovieService(Refresher(Freshness(store, database, policy()), client, store))
