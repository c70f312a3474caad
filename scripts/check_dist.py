"""Check what would be published: python scripts/check_dist.py DIST

`DIST` holds one wheel and one sdist. The wheel has every package with its `py.typed` and no `kodo/__init__.py`, and
both have the built page; installed by itself in a clean environment it brings no Ray, and there the client library
can be imported, and `koco` runs a registry, which serves the page, and lists what it has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import urllib.request
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["p2p", "protocol", "access", "flow", "node", "samples", "registry", "client", "web", "cli"]
SECONDS = 600

IMPORTS = """
import importlib.metadata, importlib.resources, importlib.util, sys
import kodo.client, kodo.registry.client.client, kodo.flow
assert importlib.util.find_spec("ray") is None, "the base install brings Ray"
assert importlib.metadata.version("kodo") == sys.argv[1], importlib.metadata.version("kodo")
assert (importlib.resources.files("kodo.samples") / "scope.yaml").is_file(), "no sample scope"
"""


def check(right: bool, what: str) -> None:
    """End with `what` unless it is right."""
    if not right:
        sys.exit(f"check_dist.py: {what}")


def main(dist: Path) -> None:
    """Check the wheel and the sdist in `dist`."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    wheels, sdists = list(dist.glob("*.whl")), list(dist.glob("*.tar.gz"))
    check(len(wheels) == 1 and len(sdists) == 1, f"{dist} holds {len(wheels)} wheels and {len(sdists)} sdists")

    names = set(zipfile.ZipFile(wheels[0]).namelist())
    check("kodo/__init__.py" not in names, "kodo/__init__.py is in the wheel; kodo is a namespace package")
    for package in PACKAGES:
        for name in ("__init__.py", "py.typed"):
            check(f"kodo/{package}/{name}" in names, f"kodo/{package}/{name} is not in the wheel")
    sources = {
        path.relative_to(root).as_posix()
        for root in (ROOT / folder for folder in ("p2p", "node", "registry", "client"))
        for path in (root / "kodo").rglob("*.py")
    }
    check(sources <= names, f"not in the wheel: {sorted(sources - names)}")
    page = {name for name in names if name.startswith("kodo/web/dist/")}
    check("kodo/web/dist/index.html" in page and any(name.endswith(".js") for name in page), "the page is not built")
    metadata = f"kodo-{version}.dist-info/"
    strange = [name for name in names if not name.startswith(("kodo/", metadata))]
    check(not strange, f"in the wheel and not kodo's: {strange}")
    check(f"{metadata}licenses/LICENSE" in names, "the licence is not in the wheel")

    with tarfile.open(sdists[0]) as sdist:
        packed = {name.partition("/")[2] for name in sdist.getnames()}
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/README.md"):
        check(name in packed, f"{name} is not in the sdist")
    check({f"client/{name}" for name in page} <= packed, "the sdist has not the page that the wheel has")
    strange = [name for name in packed if {"node_modules", ".venv", ".git"} & set(name.split("/"))]
    check(not strange, f"in the sdist and not kodo's: {strange[:5]}")

    with tempfile.TemporaryDirectory(prefix="kodo-dist-") as folder:
        clean = Path(folder, "venv")
        run([sys.executable, "-m", "venv", clean], folder)
        run([clean / "bin" / "python", "-m", "pip", "install", "--quiet", wheels[0]], folder)
        run([clean / "bin" / "python", "-I", "-c", IMPORTS, version], folder)
        run([clean / "bin" / "koco", "--help"], folder)
        use(clean / "bin" / "koco", folder)
    print(f"{wheels[0].name} and {sdists[0].name}: {len(names)} files, all there, and they work alone")


def use(koco: Path, folder: str) -> None:
    """Run a registry by the installed command, and ask it by another one, in a home of their own."""
    environment = {**os.environ, "KODO_HOME": str(Path(folder, "home"))}
    command = [str(koco), "registry", "--port", "0", "--json"]
    log = Path(folder, "registry.log")
    with (
        log.open("w") as said,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=said, text=True
        ) as registry,
    ):
        try:
            assert registry.stdout is not None
            line = registry.stdout.readline()
            check(bool(line), f"the installed koco runs no registry:\n{log.read_text()}")
            url = json.loads(line)["url"]
            listed = [koco, "nodes", "--registry", url, "--no-lan", "--json"]
            run([*listed], folder, environment)
            with urllib.request.urlopen(url, timeout=SECONDS) as answer:
                check(b'data-host="registry"' in answer.read(), "the installed registry serves no page")
        finally:
            registry.terminate()


def run(command: list[str | Path], folder: str, environment: dict[str, str] | None = None) -> None:
    """Run a command outside of the checkout; end with its output when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=SECONDS
    )
    check(done.returncode == 0, f"{' '.join(words)} ended with {done.returncode}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: check_dist.py DIST")
    main(Path(sys.argv[1]).resolve())
