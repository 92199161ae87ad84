"""The built site: whole, and free of anything that a reader's browser would have to fetch from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import attlas

ROOT = Path(__file__).parents[2]
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preconnect|preload|icon|dns-prefetch))[^>]*\bhref=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|@import\s+(?:url\()?["']?((?:https?:)?//[^"')]+)"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_the_site_builds_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 10
    foreign = {
        f"{page.relative_to(site)}: {address}"
        for page in [*pages, *site.rglob("*.css")]
        for match in LOADED.finditer(page.read_text(encoding="utf-8"))
        for address in match.groups()
        if address
    }
    assert foreign == set()


@pytest.mark.parametrize("name", sorted(set(attlas.__all__) - {"__version__"}))
def test_every_public_name_has_its_place_in_the_reference(site: Path, name: str) -> None:
    reference = (site / "reference" / "api" / "index.html").read_text(encoding="utf-8")
    assert re.search(rf'id="attlas\.(?:\w+\.)*{name}"', reference), (
        f"docs/reference/api.md does not document attlas.{name}"
    )
