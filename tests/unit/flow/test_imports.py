import subprocess
import sys


def test_what_an_author_imports_brings_neither_ray_nor_pydantic_nor_the_node():
    script = (
        "import kodo.flow, sys; print([n for n in ('ray', 'pydantic', 'kodo.node', 'aiortc') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_node_executors_and_runners_import_no_ray():
    modules = ["app", *(f"executors.{name}" for name in ("ray.executor", "ray.actor", "process.executor"))]
    script = f"import {', '.join(f'kodo.node.{module}' for module in modules)}, sys; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


def test_a_node_that_asks_neither_registries_nor_an_issuer_imports_what_neither_needs():
    script = "import kodo.node.app, kodo.client, sys; print([n for n in ('aiohttp', 'joserfc') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
