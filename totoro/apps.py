from django.apps import AppConfig


class TotoroConfig(AppConfig):
    name = "totoro"
