from django.urls import path

from movies.views import MovieDetailView, MovieListView

urlpatterns = [
    path("movies/", MovieListView.as_view(), name="movies"),
    path("movies/<str:movie_id>/", MovieDetailView.as_view(), name="movie"),
]
