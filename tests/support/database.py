"""The table of snapshots: its rows, and statements that make it fail."""

from django.db import connections

from services.models import StoredSnapshot

TABLE = "services_storedsnapshot"
FULL = f"""
CREATE OR REPLACE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
END $$;
CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {TABLE} EXECUTE FUNCTION full_disk();
"""
NOT_FULL = f"DROP TRIGGER IF EXISTS full_disk ON {TABLE}"
GONE = f"ALTER TABLE {TABLE} RENAME TO gone"
BACK = f"ALTER TABLE gone RENAME TO {TABLE}"


def execute(using: str, statements: tuple[str, ...]) -> None:
    with connections[using].cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def rows(using: str) -> list[StoredSnapshot]:
    return list(StoredSnapshot.objects.using(using).all())
