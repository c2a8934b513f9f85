from __future__ import annotations

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import models


class Person(AbstractBaseUser):
    """A user whose key is a name."""

    name: models.CharField[str, str] = models.CharField(primary_key=True, max_length=100)
    last_login = None  # type: ignore[assignment]
    USERNAME_FIELD = "name"
