"""A flow with a pip requirement of its own gets a runner in an environment of its own."""

import zipfile
from collections.abc import Iterator

import pytest

from kodo.p2p.errors import KodoError

pytest.importorskip("virtualenv")
pytestmark = pytest.mark.asyncio(loop_scope="module")

DIST = "needed-1.0.dist-info/"


@pytest.fixture(scope="module", autouse=True)
def _one_attempt() -> Iterator[None]:
    """Have this Ray try once what it otherwise tries three times: an environment each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIME_ENV_RETRY_TIMES", "1")
        yield


async def test_a_flow_imports_what_it_asked_pip_for(run, tmp_path):
    wheel = tmp_path / "needed-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("needed.py", "WORD = 'installed'\n")
        archive.writestr(DIST + "METADATA", "Metadata-Version: 2.1\nName: needed\nVersion: 1.0\n")
        archive.writestr(DIST + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(DIST + "RECORD", "needed.py,,\n")
    asked = await run("needs", {"runtime_env": {"pip": [str(wheel)]}})
    assert (await asked.end())["result"] == "installed"


@pytest.mark.parametrize(
    ("runtime_env", "said"),
    [
        ({"pip": ["./there-is-no-such.whl"]}, "there-is-no-such"),
        ({"pip": ["x"], "conda": "y"}, "conda"),
    ],
)
async def test_an_environment_that_cannot_be_made_ends_its_run_with_the_reason(run, runtime_env, said):
    with pytest.raises(KodoError, match="runtime_env") as caught:
        await run("needs", {"runtime_env": runtime_env})
    assert said in str(caught.value)
