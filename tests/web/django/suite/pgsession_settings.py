"""The settings with which Django's own tests run on our engine: its databases in memory, its sessions in PostgreSQL."""

import os

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3"},
    "other": {"ENGINE": "django.db.backends.sqlite3"},
}
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False

SESSION_ENGINE = "pgsession.contrib.django"
PGSESSION = {
    "database": os.environ["PGSESSION_TEST_DSN"],
    "schema_name": os.environ["PGSESSION_TEST_SCHEMA"],
    "create_schema_if_missing": True,
}
TEST_RUNNER = "pgsession_runner.Runner"
