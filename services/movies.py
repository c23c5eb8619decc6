"""What views call: the movies, and one movie."""

from functools import cache

from django.conf import settings

from services.catalogue.entities import Movie
from services.freshness.cache import CacheResult, MovieCache
from services.freshness.policy import Policy
from services.freshness.store import InMemoryStore
from services.ghibli.client import GhibliClient
from services.persistence import DatabaseStore

# These never wait for a refresh, so that other requests are served meanwhile.
FREE_THREADS = 32


class MovieService:
    def __init__(self, cache: MovieCache) -> None:
        self._cache = cache
        self.health = cache.health
        self.hit = cache.hit
        self.close = cache.close

    def list(self) -> CacheResult:
        """Return every movie; raise MoviesUnavailable if there is nothing to serve."""
        return self._cache.get()

    def get(self, movie_id: str) -> tuple[Movie, CacheResult]:
        """Return the movie with this id, which is case-insensitive; raise MovieNotFound."""
        result = self._cache.get()
        return result.snapshot.movie(movie_id), result


def movie_cache() -> MovieCache:
    """Return a cache that is put together from the settings."""
    policy = Policy(
        settings.CACHE_TTL,
        settings.REFRESH_AHEAD,
        settings.STALE_IF_ERROR,
        max_waiting=settings.REQUEST_THREADS - FREE_THREADS,
    )
    store = InMemoryStore()
    if settings.REDIS_URL:
        from services.freshness.redis_store import RedisStore  # with redis-py, 6 MB

        store = RedisStore(policy)
    return MovieCache(
        store,
        DatabaseStore(history=settings.SNAPSHOT_HISTORY),
        GhibliClient(settings.GHIBLI_API_BASE_URL),
        policy,
    )


@cache
def movie_service() -> MovieService:
    """Return the service of this process."""
    return MovieService(movie_cache())
