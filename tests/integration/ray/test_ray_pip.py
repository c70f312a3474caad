"""A flow with a pip requirement of its own gets a runner in an environment of its own."""

import zipfile

import pytest

pytest.importorskip("virtualenv")
pytestmark = pytest.mark.asyncio(loop_scope="module")

DIST = "needed-1.0.dist-info/"


async def test_a_flow_imports_what_it_asked_pip_for(run, tmp_path):
    wheel = tmp_path / "needed-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("needed.py", "WORD = 'installed'\n")
        archive.writestr(DIST + "METADATA", "Metadata-Version: 2.1\nName: needed\nVersion: 1.0\n")
        archive.writestr(DIST + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(DIST + "RECORD", "needed.py,,\n")
    asked = await run("needs", {"runtime_env": {"pip": [str(wheel)]}})
    assert (await asked.end())["result"] == "installed"
