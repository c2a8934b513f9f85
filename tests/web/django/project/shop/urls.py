"""`/do?set=a:1` puts a value into the session, and answers with what it holds then and with who is logged in."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, JsonResponse
from django.urls import path


def do(request: HttpRequest) -> JsonResponse:
    if "set" in request.GET:
        key, value = request.GET["set"].split(":")
        request.session[key] = int(value)
    values = {key: value for key, value in request.session.items() if not key.startswith("_")}
    return JsonResponse({"values": values, "user": request.user.get_username()})


urlpatterns = [path("do", do), path("admin/", admin.site.urls)]
