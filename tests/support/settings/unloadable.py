"""Settings with which no worker can load the application."""

from totoro import settings


class Production(settings.Production):
    ROOT_URLCONF = "tests.faults.no_such_module"
