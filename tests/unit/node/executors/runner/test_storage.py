import json
from pathlib import Path

from kodo.node.executors.runner.storage import GIVEN, OWN, SHARED, own_storage, place_of_runner


def test_every_place_lies_in_the_folder_of_the_run_whatever_the_nodes_user_has_set(tmp_path: Path) -> None:
    environment = dict.fromkeys(OWN, "/home/user/shared")
    own_storage(environment, str(tmp_path))
    places = [Path(environment[name]) for name in OWN]
    assert len(set(places)) == len(OWN)
    assert all(place.is_relative_to(tmp_path) for place in places)


def test_what_the_flow_itself_sets_stays(tmp_path: Path) -> None:
    environment = {GIVEN: json.dumps(["MEM0_DIR"]), "MEM0_DIR": "/kept", "DSPY_CACHEDIR": "/not/kept"}
    own_storage(environment, str(tmp_path))
    assert environment["MEM0_DIR"] == "/kept"
    assert environment["DSPY_CACHEDIR"] != "/not/kept"


def test_what_is_the_same_for_every_run_stays_where_the_machine_has_it(tmp_path: Path) -> None:
    environment = {"XDG_CACHE_HOME": "/var/cache/models", "TORCH_HOME": "/opt/torch"}
    own_storage(environment, str(tmp_path))
    assert environment["TORCH_HOME"] == "/opt/torch"
    assert {environment[name] for name in SHARED if name != "TORCH_HOME"} == {
        f"/var/cache/models/{place}" for name, place in SHARED.items() if name != "TORCH_HOME"
    }


def test_a_runner_on_another_machine_has_a_folder_of_its_own() -> None:
    assert place_of_runner("runner-1") != place_of_runner("runner-2")
