import json
from typing import Any

from django.core.management.base import BaseCommand
from django.test import Client


class Command(BaseCommand):
    help = "Print the OpenAPI document, as served at /swagger.json."

    def handle(self, *args: Any, **options: Any) -> None:
        document = Client(headers={"Host": "localhost"}).get("/swagger.json").json()
        self.stdout.write(json.dumps(document, ensure_ascii=False, indent=2))
