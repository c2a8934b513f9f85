"""Views that do to the session what the query says, in the order in which it says it.

`/do?set=a:1&append=cart:2&wait=40001`: each step is a name with its argument. `/async/do` does the same by the methods
that async views have. The answer is what the session holds then.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import alogin, alogout, get_user_model, login, logout, update_session_auth_hash
from django.contrib.messages import get_messages
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

PATIENCE = 30


def wait(port: str) -> None:
    """Tell the test that this request is here, and wait until it says to go on."""
    with socket.create_connection(("127.0.0.1", int(port)), PATIENCE) as gate:
        gate.recv(1)


def value_of(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def append(session: Any, argument: str) -> None:
    key, value = argument.split(":", 1)
    session.setdefault(key, []).append(value_of(value))


def put(session: Any, argument: str) -> None:
    key, value = argument.split(":", 1)
    session[key] = value_of(value)


def customer(name: str) -> Any:
    return get_user_model().objects.get_or_create(username=name)[0]


def change_password(request: HttpRequest, password: str) -> None:
    user = request.user
    user.set_password(password)
    user.save()
    update_session_auth_hash(request, user)  # type: ignore[arg-type]


STEPS: dict[str, Callable[[HttpRequest, str], object]] = {
    "set": lambda request, argument: put(request.session, argument),
    "append": lambda request, argument: append(request.session, argument),
    "get": lambda request, argument: request.session.get(argument),
    "delete": lambda request, argument: request.session.pop(argument, None),
    "wait": lambda request, argument: wait(argument),
    "login": lambda request, argument: login(request, customer(argument)),
    "logout": lambda request, argument: logout(request),
    "flush": lambda request, argument: request.session.flush(),
    "cycle": lambda request, argument: request.session.cycle_key(),
    "expiry": lambda request, argument: request.session.set_expiry(int(argument)),
    "message": lambda request, argument: messages.info(request, argument),
    "password": change_password,
}


def do(request: HttpRequest) -> HttpResponse:
    for name, argument in [pair for pair in steps_of(request) if pair[0] in STEPS]:
        STEPS[name](request, argument)
    return answer(request, dict(request.session.items()) if "untouched" not in request.GET else None)


def steps_of(request: HttpRequest) -> list[tuple[str, str]]:
    return [
        (name, argument)
        for pair in request.META["QUERY_STRING"].split("&")
        if pair
        for name, _, argument in [pair.partition("=")]
    ]


def answer(request: HttpRequest, values: dict[str, Any] | None) -> JsonResponse:
    if values is None:
        return JsonResponse({})
    shown = {key: value for key, value in values.items() if not key.startswith("_")}
    session_id = request.session.session_id  # type: ignore[attr-defined]
    return JsonResponse(
        {
            "values": shown,
            "user": request.user.get_username(),
            "session": None if session_id is None else str(session_id),
            "messages": [str(message) for message in get_messages(request)],
        }
    )


async def ado(request: HttpRequest) -> HttpResponse:
    for name, argument in steps_of(request):
        key, _, value = argument.partition(":")
        if name == "set":
            await request.session.aset(key, value_of(value))
        elif name == "append":
            (await request.session.asetdefault(key, [])).append(value_of(value))
        elif name == "get":
            await request.session.aget(argument)
        elif name == "login":
            await alogin(request, await asyncio.to_thread(customer, argument))
        elif name == "logout":
            await alogout(request)
        elif name == "cycle":
            await request.session.acycle_key()
        elif name == "flush":
            await request.session.aflush()
        elif name == "save":
            await request.session.asave()
        elif name == "wait":
            await asyncio.to_thread(wait, argument)
    user = await request.auser()
    values = {key: value for key, value in (await request.session.aitems()) if not key.startswith("_")}
    return JsonResponse({"values": values, "user": user.get_username()})


def stream(request: HttpRequest) -> HttpResponse:
    request.session["streamed"] = True
    return StreamingHttpResponse(iter(["a", "b"]))


urlpatterns = [
    path("do", do),
    path("async/do", ado),
    path("stream", stream),
    path("admin/", admin.site.urls),
]
