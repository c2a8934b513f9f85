"""A Django project before and after its move, as the environment says; its users are in no database."""

import json
import os

from psycopg.conninfo import conninfo_to_dict

from tests.web.moving.page import snippet

_asked = json.loads(os.environ["PGSESSION_TEST_PROJECT"])
_place = conninfo_to_dict(_asked["dsn"])
_people = "tests.web.rules.people"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _place["dbname"],
        "USER": _place.get("user", ""),
        "PASSWORD": _place.get("password", ""),
        "HOST": _place.get("host", ""),
        "PORT": _place.get("port", ""),
    }
}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    _people,
]
AUTH_USER_MODEL = "people.Person"
AUTHENTICATION_BACKENDS = [f"{_people}.Everybody"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "tests.web.moving.django_site"
SECRET_KEY = "s" * 50
ALLOWED_HOSTS = ["*"]
USE_TZ = True
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

if _asked["version"] == "after":
    exec(snippet("Django"))
globals().update(_asked.get("settings", {}))
