from django.db import models


class KeptSnapshot(models.Model):
    """A good answer of the Ghibli API, kept for when it is away.

    One row for each time that the data changed; `timestamp` moves on while it stays the same.
    """

    timestamp = models.DateTimeField(db_index=True)
    digest = models.CharField(max_length=64)
    body = models.TextField()

    class Meta:
        ordering = ("-timestamp",)

    def __str__(self) -> str:
        return f"{self.timestamp.isoformat()} {self.digest[:12]}"
