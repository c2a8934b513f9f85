"""A hook of MkDocs: gives the site the shape of the checkout, so that a relative link is right in both.

MkDocs itself knows only what is in `docs/`. With this hook every page has the path that it has in the checkout
(`docs/glossary.md`), the pages beside `docs/` are part of the site, and each source file or folder that a page links to
is a page of its own, on which its text can be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from posixpath import dirname, join, normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

BESIDE_DOCS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
SEARCH = '<div class="md-search" data-md-component="search" role="dialog"'
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
LANGUAGES = {
    ".pyx": "cython",
    ".pxd": "cython",
    ".pyi": "python",
    ".h": "c",
    ".py": "python",
    ".sql": "postgresql",
}


class SourcePage(File):
    """A page that shows a source file, or lists a folder."""

    def is_documentation_page(self) -> bool:
        """Return True: MkDocs takes only Markdown files for pages by itself."""
        return True

    @classmethod
    def of(cls, path: Path, root: Path, config: MkDocsConfig) -> File:
        """Return the page of a file or folder of the checkout."""
        name = path.relative_to(root).as_posix()
        page = cls(name, None, config.site_dir, True, inclusion=InclusionLevel.NOT_IN_NAV)
        page.dest_uri = f"{name}/index.html"
        page.generated_by = "docs_pages"
        page.content_string = folder(path) if path.is_dir() else source(path)
        return page


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Return the files of the site: those of `docs/` at their paths in the checkout, and what they link to."""
    root = Path(config.config_file_path).parent
    pages = [
        page(root, f"docs/{file.src_uri}", config, file.dest_uri) for file in files if of_docs(file, config)
    ]
    pages += [page(root, name, config) for name in BESIDE_DOCS]
    theme = [file for file in files if not of_docs(file, config)]
    return Files([*theme, *pages, *sources(pages, root, config)])


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Return the page with a name for the theme's search dialog, which screen readers say."""
    return output.replace(SEARCH, f'{SEARCH} aria-label="Search"')


def of_docs(file: File, config: MkDocsConfig) -> bool:
    """Return True for what is in `docs/`; the other files are the theme's."""
    return file.src_dir == config.docs_dir


def page(root: Path, name: str, config: MkDocsConfig, dest_uri: str | None = None) -> File:
    """Return the file of the site that is made of this file of the checkout."""
    return File(name, str(root), config.site_dir, True, dest_uri=dest_uri)


def sources(pages: Iterable[File], root: Path, config: MkDocsConfig) -> Iterator[File]:
    """Yield a page for every other file or folder of the checkout that these link to, and that those list."""
    waiting = [page for page in pages if page.is_documentation_page()]
    met = {page.src_uri for page in pages}
    while waiting:
        linking = waiting.pop()
        for target in LINK.findall(linking.content_string):
            name = normpath(join(dirname(linking.src_uri), target))
            path = root / name
            if name in met or name.startswith("..") or not path.exists():
                continue
            met.add(name)
            found = SourcePage.of(path, root, config)
            yield found
            if path.is_dir():
                waiting.append(found)


def folder(path: Path) -> str:
    """Return the text of a folder's page, which lists its sources."""
    files = [each for each in path.iterdir() if each.is_file() and each.suffix not in (".so", ".pyd")]
    names = sorted(each.name for each in files if not each.name.startswith("."))
    return "\n".join([front(path), *(f"- [{name}]({path.name}/{name})" for name in names)])


def source(path: Path) -> str:
    """Return the text of a source file's page."""
    text = path.read_text(encoding="utf-8")
    fence = "`" * (1 + max((len(ticks) for ticks in re.findall(r"`{3,}", text)), default=2))
    return f"{front(path)}\n{fence}{LANGUAGES.get(path.suffix, 'text')}\n{text}{fence}\n"


def front(path: Path) -> str:
    """Return what every source page begins with. The search finds pages, not sources."""
    return f"---\ntitle: {path.name}\nsearch:\n  exclude: true\n---\n\n# {path.name}\n"
