"""What views call: the movies, and one movie."""

from functools import cache

from django.conf import settings

from services.catalogue.entities import Movie
from services.exceptions import MovieNotFound
from services.freshness.cache import CacheResult, MovieCache
from services.freshness.health import Health
from services.freshness.policy import Policy
from services.freshness.redis_store import RedisStore
from services.freshness.store import InMemoryStore
from services.ghibli.client import GhibliClient
from services.persistence import DatabaseStore


class MovieService:
    def __init__(self, movies: MovieCache) -> None:
        self._cache = movies

    def list(self) -> CacheResult:
        """Return the result that holds every movie; MoviesUnavailable if there is none."""
        return self._cache.get()

    def get(self, movie_id: str) -> tuple[Movie, CacheResult]:
        """Return one movie, by its id in upper or lower case; MovieNotFound if there is none."""
        result = self._cache.get()
        try:
            return result.snapshot.by_id[movie_id.lower()], result
        except KeyError:
            raise MovieNotFound(movie_id) from None

    def health(self) -> Health:
        return self._cache.health()

    def close(self) -> None:
        self._cache.close()


def policy() -> Policy:
    return Policy(
        settings.CACHE_TTL,
        settings.REFRESH_AHEAD,
        settings.STALE_IF_ERROR,
        max_waiting=settings.REQUEST_THREADS // 2,
    )


def shared_store() -> InMemoryStore:
    return RedisStore(policy()) if settings.REDIS_URL else InMemoryStore()


@cache
def movie_service() -> MovieService:
    """The service of this process, put together from the settings."""
    return MovieService(
        MovieCache(
            shared_store(),
            DatabaseStore(history=settings.SNAPSHOT_HISTORY),
            GhibliClient(settings.GHIBLI_API_BASE_URL),
            policy(),
        )
    )
