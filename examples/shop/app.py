"""The shop: one ASGI application. What concerns sessions is in the handlers; the pages are in `templates/`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from pgsession import AsyncSessionManager, Config, RevocationNotConfirmed, Signer
from pgsession.contrib.asgi import AsgiSession, SessionMiddleware

from .devices import Device
from .passwords import is_right
from .same_origin import SameOrigin

FOLDER = Path(__file__).parent
TEMPLATES = Jinja2Templates(FOLDER / "templates")  # they escape what is put in
HEADERS = {
    "Cache-Control": "no-store",  # after a logout the button "back" shows nothing of before
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
}
PATIENCE = 5  # seconds for all nodes to say that they know of what was ended


class Product(NamedTuple):
    name: str
    price: int  # in cents


PRODUCTS = {
    "tea": Product("Green tea", 450),
    "mug": Product("Blue mug", 990),
    "book": Product("A book about tea", 1800),
}


def session_of(request: Request) -> AsgiSession:
    session: AsgiSession = request.scope["session"]
    return session


def page(request: Request, template: str, status: int = 200, **shown: Any) -> Response:
    """Every page shows who is logged in, how many things are in the cart, and the messages, each of them once."""
    session = session_of(request)
    shown |= {
        "user": session.user_id,
        "in_cart": sum(cart_of(session).values()),
        "flashes": session.flashes(),
    }
    return TEMPLATES.TemplateResponse(request, template, shown, status, HEADERS)


async def fields(request: Request) -> dict[str, str]:
    """What a form has sent; no page here sends files."""
    async with request.form(max_files=0) as form:
        return {name: value for name, value in form.items() if isinstance(value, str)}


def go_to(path: str) -> Response:
    """After a form the browser gets another page, so that loading that again sends nothing twice."""
    return RedirectResponse(path, 303)


# The cart: a visitor has one, too, and keeps it at the login


def cart_of(session: AsgiSession) -> dict[str, int]:
    """Each product has a key of its own: two tabs that put different things in at the same moment keep both."""
    return {key: count for key in PRODUCTS if (count := session.get(f"cart:{key}", 0))}


async def show_products(request: Request) -> Response:
    return page(request, "products.html", products=PRODUCTS)


async def show_cart(request: Request) -> Response:
    chosen = [(key, PRODUCTS[key], count) for key, count in cart_of(session_of(request)).items()]
    total = sum(product.price * count for _, product, count in chosen)
    return page(request, "cart.html", chosen=chosen, total=total)


async def put_into_cart(request: Request) -> Response:
    session, key = session_of(request), (await fields(request)).get("product", "")
    if key not in PRODUCTS:
        return Response("There is no such product.", 404)
    session[f"cart:{key}"] = session.get(f"cart:{key}", 0) + 1
    session.flash(f"{PRODUCTS[key].name} is in your cart.")
    return go_to("/")


async def take_out_of_cart(request: Request) -> Response:
    session_of(request).pop(f"cart:{(await fields(request)).get('product')}", None)
    return go_to("/cart")


# Logging in and out


async def show_login(request: Request) -> Response:
    return page(request, "login.html")


async def log_in(request: Request) -> Response:
    session, form = session_of(request), await fields(request)
    name, password = form.get("name", ""), form.get("password", "")
    if not await run_in_threadpool(is_right, name, password):  # yours also limits how often that is tried
        return page(request, "login.html", 401, name=name, wrong=True)
    session.log_in(name, remember="remember" in form)  # a new token; what the visitor had in the cart stays
    session["device"] = Device.of(request)
    session.flash(f"Welcome, {name}.")
    return go_to("/")


async def log_out(request: Request) -> Response:
    session_of(request).log_out()
    return go_to("/")


# Your devices: the user's sessions


def for_users(handler: Callable[[Request, str], Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """Call the handler with who is logged in; visitors get the login page."""

    async def checked(request: Request) -> Response:
        user = session_of(request).user_id
        return go_to("/login") if user is None else await handler(request, user)

    return checked


@for_users
async def show_devices(request: Request, user: str) -> Response:
    sessions: AsyncSessionManager = request.state.sessions
    live = await sessions.list_user_sessions(user)
    devices = [(each, each.get("device", type=Device)) for each in live]
    return page(request, "devices.html", devices=devices, this=session_of(request).session_id)


@for_users
async def log_out_device(request: Request, user: str) -> Response:
    sessions: AsyncSessionManager = request.state.sessions
    chosen = (await fields(request)).get("session")
    for device in await sessions.list_user_sessions(user):  # nobody ends those of others
        if str(device.id) == chosen:
            await sessions.delete_session(device.id, wait=PATIENCE)
            session_of(request).flash("That device is logged out.")
    return go_to("/devices")


@for_users
async def log_out_others(request: Request, user: str) -> Response:
    session, sessions = session_of(request), request.state.sessions
    count = await sessions.delete_user_sessions(user, keep=session.session_id, wait=PATIENCE)
    session.flash(f"Logged out elsewhere: {count}.")
    return go_to("/devices")


@for_users
async def log_out_everywhere(request: Request, user: str) -> Response:
    session, sessions = session_of(request), request.state.sessions
    session.log_out()
    await session.save()
    await sessions.delete_user_sessions(user, wait=PATIENCE)
    return go_to("/login")


async def not_confirmed(request: Request, error: Exception) -> Response:
    """The sessions have ended, but a node does not answer: it may show their pages for some seconds more."""
    assert isinstance(error, RevocationNotConfirmed)
    session_of(request).flash(f"Logged out: certain in {error.certain_in:.0f} seconds.", "warning")
    return go_to("/devices")


# The application


async def show_style(request: Request) -> Response:
    return FileResponse(FOLDER / "style.css")


ROUTES = [
    Route("/", show_products),
    Route("/cart", show_cart),
    Route("/cart", put_into_cart, methods=["POST"]),
    Route("/cart/remove", take_out_of_cart, methods=["POST"]),
    Route("/login", show_login),
    Route("/login", log_in, methods=["POST"]),
    Route("/logout", log_out, methods=["POST"]),
    Route("/devices", show_devices),
    Route("/devices/log-out", log_out_device, methods=["POST"]),
    Route("/devices/log-out-others", log_out_others, methods=["POST"]),
    Route("/devices/log-out-everywhere", log_out_everywhere, methods=["POST"]),
    Route("/style.css", show_style),
]


def make_app(database: str, key: bytes, config: Config, **node: str) -> Starlette:
    """Make the application of a node; what is said of the node its pages show."""
    sessions = AsyncSessionManager(database, config, signer=Signer(key))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with sessions:
            yield {"sessions": sessions, "node": node}  # request.state has them

    return Starlette(
        routes=ROUTES,
        lifespan=lifespan,
        middleware=[Middleware(SameOrigin), Middleware(SessionMiddleware, manager=sessions)],
        exception_handlers={RevocationNotConfirmed: not_confirmed},
    )
