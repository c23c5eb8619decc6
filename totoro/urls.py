from django.conf import settings
from django.urls import include, path, re_path

import movies.urls
from totoro.views.documentation import SchemaView
from totoro.views.health import LivezView, ReadyzView
from totoro.views.metrics import MetricsView
from totoro.views.problems import ProblemListView, ProblemView

handler400 = handler403 = handler404 = "totoro.exception_handler.handle_django_exception"
handler500 = "totoro.exception_handler.handle_server_error"

urlpatterns = [
    # First, because Django tries one after the other.
    *movies.urls.urlpatterns,
    path("", SchemaView.with_ui("swagger"), name="swagger-ui"),
    path("redoc/", SchemaView.with_ui("redoc"), name="redoc"),
    re_path(r"^swagger\.(?P<format>json|yaml)$", SchemaView.without_ui(), name="swagger"),
    path("problems/", ProblemListView.as_view(), name="problems"),
    path("problems/<str:name>/", ProblemView.as_view(), name="problem"),
    path("livez", LivezView.as_view(), name="livez"),
    path("readyz", ReadyzView.as_view(), name="readyz"),
    path("metrics", MetricsView.as_view(), name="metrics"),
]

if "debug_toolbar" in settings.INSTALLED_APPS:
    # Not debug_toolbar_urls(), which has none without DEBUG.
    urlpatterns += [path("__debug__/", include("debug_toolbar.urls"))]
