"""Settings for a server with the views of broken_urls."""

from totoro import settings


class Dev(settings.Dev):
    ROOT_URLCONF = "tests.support.settings.broken_urls"


class Production(settings.Production):
    ROOT_URLCONF = "tests.support.settings.broken_urls"
