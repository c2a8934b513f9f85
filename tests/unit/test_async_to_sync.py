"""The converter that makes the sync shells: what it renames, and what it leaves alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "async_to_sync.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("async_to_sync", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def needs_ruff(tool: ModuleType) -> None:
    if not tool.RUFF.exists():
        pytest.skip("ruff is not installed")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("async def get(self) -> AsyncLock:", "def get(self) -> Lock:"),
        ("    async with a, b:\n        async for x in y:", "    with a, b:\n        for x in y:"),
        ("return await self._load(await key())", "return self._load(key())"),
        ("[x async for x in y]", "[x for x in y]"),
        ("await (\n    a\n)", "(\n    a\n)"),
        ("class _AsyncLoop(AsyncReader): pass", "class _Loop(Reader): pass"),
        ("await async_sleep(1)", "sleep(1)"),
        ("from pgsession._async.store import AsyncStore", "from pgsession._sync.store import Store"),
        ("async def __aenter__(self): ...", "def __enter__(self): ..."),
        ("from psycopg_pool import AsyncConnectionPool", "from psycopg_pool import ConnectionPool"),
        ("except StopAsyncIteration:", "except StopIteration:"),
        ("@pytest_asyncio.fixture", "@pytest.fixture"),
        ("stack.push_async_callback(x.aclose)", "stack.callback(x.close)"),
    ],
)
def test_code_is_renamed(tool: ModuleType, given: str, expected: str) -> None:
    assert tool.convert(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("# callers await the AsyncLock, not async work", "# callers await the Lock, not async work"),
        (
            '"""Await a `AsyncSessionManager`; await no more."""',
            '"""Await a `SessionManager`; await no more."""',
        ),
        ("'it\\'s await x' + await y", "'it\\'s await x' + y"),
        ('f"{await x} AsyncLock"', 'f"{x} Lock"'),
        ('rb"await x"', 'rb"await x"'),
        ("x = 'a' # 'await b\nawait c", "x = 'a' # 'await b\nc"),
        ("asyncio.timeout(1); awaitable; is_async", "asyncio.timeout(1); awaitable; is_async"),
    ],
)
def test_prose_keeps_its_verbs(tool: ModuleType, given: str, expected: str) -> None:
    assert tool.convert(given) == expected


def test_imports_are_put_in_order(tool: ModuleType) -> None:
    needs_ruff(tool)
    imports = "import asyncio\nimport pytest\nimport pytest_asyncio\nfrom b import x\nfrom a import AsyncX\n"
    text = tool.tidy(tool.convert(imports + "x(AsyncX, pytest)\n"), TOOL)
    assert text == "import pytest\nfrom a import X\nfrom b import x\n\nx(X, pytest)\n"


def test_a_file_that_nothing_generates_is_found(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_ruff(tool)
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "FOLDERS", {"aio": "sync"})
    (tmp_path / "aio").mkdir()
    (tmp_path / "aio" / "a.py").write_text("await x\n")
    (tmp_path / "aio" / "b.py").write_text("# asyncio only: cancellation\nawait x\n")
    monkeypatch.setattr("sys.argv", ["async_to_sync.py"])
    assert tool.main() == 0
    assert [path.name for path in (tmp_path / "sync").iterdir()] == ["a.py"]
    monkeypatch.setattr("sys.argv", ["async_to_sync.py", "--check"])
    assert tool.main() == 0
    (tmp_path / "sync" / "left.py").touch()
    assert tool.main() == 1
    (tmp_path / "sync" / "left.py").unlink()
    (tmp_path / "aio" / "a.py").write_text("await y\n")
    assert tool.main() == 1
