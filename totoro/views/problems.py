"""A page for each problem type, as JSON or HTML: the `type` of an error links to it."""

from django.http import Http404
from drf_yasg import openapi
from drf_yasg.utils import swagger_auto_schema
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer, TemplateHTMLRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from movies.http.stored_documents import stored_document
from movies.openapi import problem
from totoro.problem_types import PROBLEM_TYPES, ProblemType


class ProblemTypeSerializer(serializers.Serializer[ProblemType]):
    """A problem type, explained."""

    type = serializers.CharField(source="uri", help_text="The URL of this explanation.")
    title = serializers.CharField()
    status = serializers.IntegerField()
    description = serializers.CharField(help_text="What happened.")
    solution = serializers.CharField(help_text="What to do about it.")

    class Meta:
        ref_name = "ProblemType"


class ProblemListView(APIView):
    renderer_classes = [JSONRenderer, TemplateHTMLRenderer]

    @swagger_auto_schema(
        operation_id="listProblems",
        operation_summary="List the problem types",
        responses={
            200: ProblemTypeSerializer(many=True),
            406: problem("The Accept header allows none of the media types on offer."),
        },
    )
    @stored_document
    def get(self, request: Request) -> Response:
        """Lists every `type` that an error can have."""
        problem_types = [ProblemTypeSerializer(each).data for each in PROBLEM_TYPES.values()]
        if request.accepted_renderer.format == "html":
            return Response({"problem_types": problem_types}, template_name="problems/list.html")
        return Response(problem_types)


class ProblemView(APIView):
    renderer_classes = [JSONRenderer, TemplateHTMLRenderer]

    @swagger_auto_schema(
        operation_id="getProblem",
        operation_summary="Get a problem type",
        manual_parameters=[
            openapi.Parameter(
                "name",
                openapi.IN_PATH,
                type=openapi.TYPE_STRING,
                enum=sorted(PROBLEM_TYPES),
                required=True,
            )
        ],
        responses={
            200: ProblemTypeSerializer,
            404: problem("No problem type has this name."),
            406: problem("The Accept header allows none of the media types on offer."),
        },
    )
    @stored_document
    def get(self, request: Request, name: str) -> Response:
        """Explains what happened and what to do about it. The URL is the `type` of such errors."""
        if name not in PROBLEM_TYPES:
            raise Http404
        data = ProblemTypeSerializer(PROBLEM_TYPES[name]).data
        return Response(data, template_name="problems/problem.html")
