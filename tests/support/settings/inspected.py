"""Settings for a server that shows the inside of its workers."""

from totoro import settings


class Production(settings.Production):
    ROOT_URLCONF = "tests.support.settings.inspected_urls"
