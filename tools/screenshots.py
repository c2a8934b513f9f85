"""`make screenshots`: the pictures of docs/shop.md, of the example shop as Chromium shows it, in docs/img."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright

from pgsession.embedded import EmbeddedServer
from tests.browser.shop import launch_options, open_shop
from tests.programs import path_of

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "img"
DESKTOP = ViewportSize(width=820, height=540)
PHONE = ViewportSize(width=390, height=540)
LAPTOP_AGENT = "Mozilla/5.0 (X11; Linux x86_64) Chrome/150.0.0.0 Safari/537.36"
PHONE_AGENT = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Safari/604.1"


def main() -> None:
    program = path_of("chromium")
    if program is None:
        raise SystemExit("needs Chromium: `sudo make system-packages` installs it")
    with EmbeddedServer() as server, open_shop(server.conninfo, "shop") as (here, there):
        with sync_playwright() as playwright:
            with playwright.chromium.launch(**launch_options(program)) as browser:
                take(browser, here, there)


def take(browser: Browser, here: str, there: str) -> None:
    """Take the pictures, in the order in which a user comes by."""
    laptop = browser.new_context(viewport=DESKTOP, user_agent=LAPTOP_AGENT)
    phone = browser.new_context(
        viewport=PHONE, user_agent=PHONE_AGENT, is_mobile=True, has_touch=True, color_scheme="dark"
    )
    tab = laptop.new_page()
    tab.goto(here)
    for product in ("Green tea", "Blue mug"):
        press(tab, f"Put into the cart {product}")
    save(tab, "shop-products")
    mobile = fill_in(phone, there)
    save(mobile, "shop-login")
    press(mobile, "Log in")
    press(fill_in(laptop, here), "Log in")
    tab.goto(f"{there}/devices")
    save(tab, "shop-devices")


def fill_in(context: BrowserContext, node: str) -> Page:
    tab = context.new_page()
    tab.goto(f"{node}/login")
    tab.get_by_label("Name").fill("alice")
    tab.get_by_label("Password").fill("wonderland")
    tab.get_by_label("Remember me").check()
    return tab


def press(tab: Page, name: str) -> None:
    tab.get_by_role("button", name=name).click()


def save(tab: Page, name: str) -> None:
    path = FOLDER / f"{name}.png"
    tab.screenshot(path=path, animations="disabled", caret="hide")
    print(f"{path.relative_to(FOLDER.parents[1])}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
