from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import OperationalError, connections

from services.management.output import one_line


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        """Migrate, or fail with one line if the database cannot be reached."""
        try:
            connections[options["database"]].ensure_connection()
        except OperationalError as error:
            reason = one_line(error)
            if "password authentication" in reason:
                reason += "; a database keeps the password that it was made with: use that one"
            raise CommandError(f"DATABASE_URL: {reason}") from error
        super().handle(*args, **options)
