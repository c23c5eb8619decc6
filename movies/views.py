from drf_yasg import openapi
from drf_yasg.utils import swagger_auto_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from movies import caching
from movies.serializers import MovieDetailSerializer, MovieListSerializer, ProblemSerializer
from services.movies import movie_service

UNAVAILABLE = openapi.Response(
    "The Ghibli API cannot be used and no earlier answer is kept. `Retry-After` says when to ask"
    " again, `type` what is wrong.",
    ProblemSerializer,
)
UNACCEPTABLE = openapi.Response("Only JSON is on offer.", ProblemSerializer)
NO_SUCH_MOVIE = openapi.Response("No movie has this id.", ProblemSerializer)
MOVIE_ID = openapi.Parameter(
    "movie_id",
    openapi.IN_PATH,
    type=openapi.TYPE_STRING,
    description="A movie's `id`, in upper or lower case.",
    required=True,
)


class MovieListView(APIView):
    http_method_names = ["get", "head", "options"]

    @swagger_auto_schema(
        operation_id="listMovies",
        operation_summary="All movies with their people",
        tags=["movies"],
        responses={200: MovieListSerializer, 406: UNACCEPTABLE, 503: UNAVAILABLE},
    )
    def get(self, request: Request) -> Response:
        """Every Studio Ghibli movie, each with the people who appear in it, oldest movie first."""
        answer = movie_service().list()
        envelope = MovieListSerializer(
            {"api_data": answer.snapshot.movies, "timestamp": answer.snapshot.timestamp}
        )
        return Response(envelope.data, headers=caching.headers(answer))


class MovieDetailView(APIView):
    http_method_names = ["get", "head", "options"]

    @swagger_auto_schema(
        operation_id="getMovie",
        operation_summary="One movie with its people",
        tags=["movies"],
        manual_parameters=[MOVIE_ID],
        responses={
            200: MovieDetailSerializer,
            404: NO_SUCH_MOVIE,
            406: UNACCEPTABLE,
            503: UNAVAILABLE,
        },
    )
    def get(self, request: Request, movie_id: str) -> Response:
        """The same object that the list holds."""
        movie, answer = movie_service().get(movie_id)
        envelope = MovieDetailSerializer(
            {"api_data": movie, "timestamp": answer.snapshot.timestamp}
        )
        return Response(envelope.data, headers=caching.headers(answer))
