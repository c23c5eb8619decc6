"""For operators: is the process alive, and could it answer?"""

from dataclasses import asdict
from http import HTTPStatus

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from services.movies import movie_service


class LivezView(APIView):
    """200 as long as the process answers at all; asks nothing else."""

    http_method_names = ["get", "head", "options"]
    swagger_schema = None

    def get(self, request: Request) -> Response:
        return Response({"alive": True}, headers={"Cache-Control": "no-store"})


class ReadyzView(APIView):
    """Which of cache, database and data are well; 503 only if /movies/ could not be answered."""

    http_method_names = ["get", "head", "options"]
    swagger_schema = None

    def get(self, request: Request) -> Response:
        health = movie_service().health()
        status = HTTPStatus.OK if health.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return Response(asdict(health), status=status, headers={"Cache-Control": "no-store"})
