"""What the command makes of the rows of Django's table, in a process of its own: `test_django_table` runs it."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

from tests.web.moving.command import call


class Pickles:
    """What Django had as a serializer before 5.0."""

    def dumps(self, value: object) -> bytes:
        return pickle.dumps(value)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)


PICKLES = {"SESSION_SERIALIZER": f"{__spec__.name}.Pickles"}


def begin(engine: str = "db", lasting: float | None = None, **values: object) -> str:
    """A session of one of Django's engines; its key."""
    from importlib import import_module

    store = import_module(f"django.contrib.sessions.backends.{engine}").SessionStore()
    store.update(values)
    if lasting is not None:
        store.set_expiry(lasting)
    store.save()
    return str(store.session_key)


def found(key: str) -> Any:
    """The session that was brought, as the engine of ours has it once its browser comes."""
    from pgsession.contrib.django import SessionStore
    from pgsession.web.moving import OldKey

    store = SessionStore(key)
    store.old_key = OldKey(key)
    store.load()
    return store


def expect(said: tuple[int, str], status: int, *lines: str) -> None:
    assert said[0] == status, said[1]
    for line in lines:
        assert line in said[1], said[1]


def main() -> None:
    import django

    django.setup()
    from django.contrib.sessions.models import Session
    from django.core.management import call_command
    from django.test import override_settings
    from django.utils import timezone

    from pgsession.contrib.django import session_manager
    from pgsession.web.moving import entry_id, moved_id

    call_command("migrate", verbosity=0)
    Session.objects.all().delete()
    session_manager().delete_all_sessions()
    move = call("django")

    alice, short, cached = (
        begin(_auth_user_id="7", cart=["é"]),
        begin(lasting=HOUR, n=1),
        begin("cached_db", n=2),
    )
    gone, changed = begin(n=3), begin(n=4)
    Session.objects.filter(session_key=gone).update(expire_date=timezone.now() - timedelta(seconds=1))
    with override_settings(SECRET_KEY="another" * 9):
        begin(n=5)
    Session.objects.filter(session_key=begin(n=6)).update(session_data="broken")
    Session.objects.filter(session_key=begin(n=7)).update(session_key="made-up")
    rows = list(Session.objects.order_by("session_key").values())
    expect(
        move(), 3, "7 live sessions", "4  new here", "2  left behind: it was signed by none of SECRET_KEY and",
        "1  left behind: its key is not what a server makes",
    )  # fmt: skip
    assert list(Session.objects.order_by("session_key").values()) == rows, "nothing of the table is changed"
    stored = session_manager().get_session(moved_id(entry_id(alice)))
    assert stored is not None and stored.user_id == "7" and stored["cart"] == ["é"]
    stored = session_manager().get_session(moved_id(entry_id(short)))
    assert stored is not None and abs((stored.expires_at - timezone.now()).total_seconds() - HOUR) < 60
    assert session_manager().get_session(moved_id(entry_id(gone))) is None

    assert found(alice)["cart"] == ["é"] and found(cached)["n"] == 2
    session = found(short)
    assert session.get_expiry_age() == HOUR, "what set_expiry() was told is carried"
    session.flush()
    assert dict(found(short).items()) == {}
    Session.objects.filter(session_key=changed).delete()
    expect(move(), 3, "3  left alone", "and 1 ended here")

    with override_settings(**PICKLES):
        key = begin(_auth_user_id="8", when=timezone.now().date())
        expect(move(), 3, "3  left behind: SESSION_SERIALIZER is not Django's for JSON: --unpickle")
        expect(move("--unpickle"), 3, "1  new here")
        assert found(key)["when"] == timezone.now().date()
    with override_settings(USE_TZ=False):
        expect(move(), 3, "4  left alone")
    with override_settings(INSTALLED_APPS=["pgsession.contrib.django"]):
        expect(move(), 1, "INSTALLED_APPS: django.contrib.sessions")
    with override_settings(PGSESSION={}):
        expect(move(), 1, 'PGSESSION["database"]')


HOUR = 3600

if __name__ == "__main__":
    main()
