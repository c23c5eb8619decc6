from dataclasses import asdict
from http import HTTPStatus

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from services.movies import movie_service


class LivezView(APIView):
    """200 as long as the process responds; it depends on nothing else."""

    swagger_schema = None

    def get(self, request: Request) -> Response:
        return Response({"alive": True}, headers={"Cache-Control": "no-store"})


class ReadyzView(APIView):
    """The state of cache, database and upstream data; 503 only if /movies/ could not be served."""

    swagger_schema = None

    def get(self, request: Request) -> Response:
        health = movie_service().health()
        status = HTTPStatus.OK if health.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return Response(asdict(health), status=status, headers={"Cache-Control": "no-store"})
