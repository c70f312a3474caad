import pytest

from kodo.p2p.errors import UsageError
from kodo.samples.crew import NO_KEY, Endpoint, endpoint_of

OWN = "https://models.example.com/v1"
NODE = {"KODO_CREW_MODEL": "m", "KODO_CREW_BASE_URL": OWN, "KODO_CREW_API_KEY": "key", "OPENAI_API_KEY": "other"}


def test_the_nodes_own_endpoint_gets_the_nodes_key() -> None:
    assert endpoint_of("", "", NODE) == Endpoint("m", OWN, "key")
    assert endpoint_of("n", "", NODE) == Endpoint("n", OWN, "key")


@pytest.mark.parametrize("url", ["http://evil.example.com/v1", OWN, OWN + "/"])
def test_an_endpoint_that_a_caller_gave_gets_no_key(url: str) -> None:
    assert endpoint_of("", url, NODE) == Endpoint("m", url, NO_KEY)


def test_a_key_without_an_endpoint_of_the_nodes_goes_nowhere() -> None:
    alone = {"KODO_CREW_API_KEY": "key"}
    assert endpoint_of("m", OWN, alone).key == NO_KEY
    assert endpoint_of("", "", {"KODO_CREW_MODEL": "m", "KODO_CREW_BASE_URL": OWN}).key == NO_KEY


@pytest.mark.parametrize(
    ("model", "url"), [("", ""), ("m", ""), ("", OWN), ("m", "file:///etc/x"), ("m", "http://[")]
)
def test_what_is_missing_or_no_url_is_said(model: str, url: str) -> None:
    with pytest.raises(UsageError):
        endpoint_of(model, url, {"OPENAI_API_KEY": "other"})
