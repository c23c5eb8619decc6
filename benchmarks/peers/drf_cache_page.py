"""Django REST framework with `cache_page` and django-redis, in one file: settings, views, WSGI."""

import os
import secrets

import django
import httpx
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from ghibli import TTL_SECONDS, URLS, merge, now

settings.configure(
    SECRET_KEY=secrets.token_hex(32),
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["rest_framework"],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.gzip.GZipMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
    CACHES={
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": os.environ["REDIS_URL"],
        }
    },
    REST_FRAMEWORK={
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "DEFAULT_AUTHENTICATION_CLASSES": [],
        "UNAUTHENTICATED_USER": None,
    },
)
django.setup()

# The settings must be there before these are imported.
from django.http import Http404
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.decorators.cache import cache_page
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


def envelope(api_data: object, timestamp: str) -> Response:
    return Response({"api_data": api_data, "timestamp": timestamp})


def fetch_movies() -> list[dict[str, object]]:
    films, people = (httpx.get(url).json() for url in URLS)
    return merge(films, people)


@method_decorator(cache_page(TTL_SECONDS), name="dispatch")
class MovieListView(APIView):
    def get(self, request: Request) -> Response:
        timestamp, movies = now(), fetch_movies()
        director = request.query_params.get("director", "").lower()
        return envelope(
            [movie for movie in movies if director in str(movie["director"]).lower()], timestamp
        )


@method_decorator(cache_page(TTL_SECONDS), name="dispatch")
class MovieDetailView(APIView):
    def get(self, request: Request, movie_id: str) -> Response:
        timestamp, movies = now(), fetch_movies()
        for movie in movies:
            if movie["id"] == movie_id:
                return envelope(movie, timestamp)
        raise Http404


urlpatterns = [
    path("movies/", MovieListView.as_view()),
    path("movies/<movie_id>/", MovieDetailView.as_view()),
]

application = get_wsgi_application()
