"""What views call: the movies, and one movie."""

from functools import cache

from django.conf import settings

from services.catalogue import Movie
from services.exceptions import MovieNotFound
from services.freshness import Answer, Freshness, Health
from services.ghibli import GhibliClient
from services.snapshots import DatabaseStore, NoSharedStore, RedisStore


class MovieService:
    def __init__(self, freshness: Freshness) -> None:
        self._freshness = freshness

    def list(self) -> Answer:
        """The answer that holds every movie; MoviesUnavailable if there is none."""
        return self._freshness.answer()

    def get(self, movie_id: str) -> tuple[Movie, Answer]:
        """One movie of that answer, by its id in upper or lower case; else MovieNotFound."""
        answer = self._freshness.answer()
        try:
            return answer.snapshot.by_id[movie_id.lower()], answer
        except KeyError:
            raise MovieNotFound(movie_id) from None

    def health(self) -> Health:
        return self._freshness.health()


@cache
def movie_service() -> MovieService:
    """The service of this process, put together from the settings."""
    freshness = Freshness(
        GhibliClient(settings.GHIBLI_API_BASE_URL),
        RedisStore() if settings.REDIS_URL else NoSharedStore(),
        DatabaseStore(),
        ttl=settings.CACHE_TTL,
        stale_if_error=settings.STALE_IF_ERROR,
    )
    return MovieService(freshness)
