"""The admin has a page of the live sessions, all or those of one user, on which they can be ended."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.auth import SESSION_KEY, logout
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext, ngettext

from pgsession import Admin, ShardedAdmin
from pgsession.contrib.django import configuration
from pgsession.contrib.django.manager import session_manager
from pgsession.contrib.django.models import LiveSession

_PAGE = 100
if TYPE_CHECKING:
    _Base = admin.ModelAdmin[LiveSession]
else:
    _Base = admin.ModelAdmin


@admin.register(LiveSession)
class LiveSessionAdmin(_Base):
    """Shows live sessions as the database has them, never what they hold, and ends them.

    To look takes the permission `pgsession.view_livesession`, to end them `pgsession.delete_livesession`.
    """

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: browsers begin sessions."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: LiveSession | None = None) -> bool:
        """Return False: nothing of a session is changed here."""
        return False

    def get_urls(self) -> list[URLPattern]:
        """Return the one page; the others of a model look for its table."""
        view = self.admin_site.admin_view(self.changelist_view)
        return [path("", view, name="pgsession_livesession_changelist")]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, object] | None = None
    ) -> HttpResponse:
        """Show a page of sessions; end those that were chosen."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return self._end(request)
        user, after = request.GET.get("user_id", "").strip(), _id_of(request.GET.get("after", ""))
        try:
            found = _admin().list_sessions(user_id=user or None, after=after, limit=_PAGE)
        except ValueError:  # no user can have this id
            found = []
        context = {
            **self.admin_site.each_context(request),
            "title": "Live sessions",
            "opts": self.opts,
            "sessions": found,
            "user_id": user,
            "after": found[-1].id if len(found) == _PAGE else None,
            "this_one": getattr(request.session, "session_id", None),
            "can_end": self.has_delete_permission(request),
            **(extra_context or {}),
        }
        return TemplateResponse(request, "admin/pgsession/livesession/change_list.html", context)

    def _end(self, request: HttpRequest) -> HttpResponse:
        if not self.has_delete_permission(request):
            raise PermissionDenied
        own, me = getattr(request.session, "session_id", None), request.session.get(SESSION_KEY)
        user = request.POST.get("all_of_user", "")
        if user:
            count = self._end_all_of(request, user)
            ends_own = user == me
        else:
            chosen = [id for id in map(_id_of, request.POST.getlist("session")) if id is not None]
            ended = [id for id in chosen if session_manager().delete_session(id)]
            logged = [LiveSession(id=id) for id in ended]
            self.log_deletions(request, logged)  # type: ignore[arg-type]  # it only asks for their ids and names
            count = len(ended)
            ends_own = own in ended
        if ends_own:
            logout(request)  # what is put in the session from here on, such as the message, begins a new one
        messages.success(request, ngettext("%d session ended.", "%d sessions ended.", count) % count)
        return HttpResponseRedirect(request.get_full_path())

    def _end_all_of(self, request: HttpRequest, user: str) -> int:
        try:
            count = session_manager().delete_user_sessions(user)
        except ValueError:  # no user can have this id
            return 0
        if count:
            LogEntry.objects.create(
                user_id=request.user.pk,
                content_type_id=ContentType.objects.get_for_model(LiveSession).pk,
                object_id=user,
                object_repr=(gettext("all of user %s") % user)[:200],
                action_flag=DELETION,
            )
        return count


def _admin() -> Admin:
    settings = configuration.read()
    database = settings.database() if callable(settings.database) else settings.database
    if isinstance(database, str):
        return Admin(database, settings.config)
    return ShardedAdmin(database, settings.config)


def _id_of(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
