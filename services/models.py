from django.db import models


class StoredSnapshot(models.Model):
    """A snapshot in the database, the last known good when nothing newer is left.

    Its `timestamp` is updated as long as a refresh brings the same movies.
    """

    timestamp = models.DateTimeField(db_index=True)
    digest = models.CharField(max_length=64)
    body = models.TextField()

    class Meta:
        ordering = ("-timestamp",)

    def __str__(self) -> str:
        return f"{self.timestamp.isoformat()} {self.digest[:12]}"
