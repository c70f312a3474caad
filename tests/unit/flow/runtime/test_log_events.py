"""What is logged becomes events."""

import json
import logging
import subprocess
import sys

import pytest

from kodo.flow._runtime.buffer import pack_event
from kodo.flow._runtime.log_events import EventLogHandler

SCRIPT = """
import json, logging
from kodo.flow._runtime.log_events import log_as_events, own_packages
told = []
log_as_events(lambda event, data: told.append([data["level"], data["logger"], data["text"]]))
{body}
print(json.dumps(told))
"""


def logged(body):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{body}", body)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


LIBRARY = "import asyncio\nlog = logging.getLogger('asyncio.events')\n"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("logging.info('a')", [["INFO", "root", "a"]]),
        ("logging.getLogger('flows.market').info('a')", [["INFO", "flows.market", "a"]]),
        ("logging.getLogger('flows').debug('a')", []),
        (LIBRARY + "log.info('a')", []),
        (LIBRARY + "log.warning('a')", [["WARNING", "asyncio.events", "a"]]),
        (LIBRARY + "logging.getLogger('asyncio').setLevel('INFO'); log.info('a')", [["INFO", "asyncio.events", "a"]]),
        (LIBRARY + "logging.basicConfig(level=logging.INFO); log.info('a')", [["INFO", "asyncio.events", "a"]]),
        (LIBRARY + "own_packages.add('asyncio'); log.info('a')", [["INFO", "asyncio.events", "a"]]),
        ("logging.basicConfig(level='DEBUG'); logging.debug('a')", [["DEBUG", "root", "a"]]),
        (LIBRARY + "logging.getLogger().setLevel('INFO'); log.info('a')", [["INFO", "asyncio.events", "a"]]),
        ("logging.basicConfig(level='ERROR'); logging.warning('a')", []),
        ("logging.basicConfig(format='x'); logging.info('a')", [["INFO", "root", "a"]]),
    ],
)
def test_a_flows_own_records_are_told_and_those_of_libraries_as_in_every_program(body, told):
    assert logged(body) == told


def test_a_traceback_keeps_its_lines():
    ((level, _, text),) = logged("try:\n    1 / 0\nexcept ZeroDivisionError:\n    logging.exception('it failed')")
    assert level == "ERROR"
    assert text.startswith("it failed\nTraceback (most recent call last):\n")
    assert text.endswith("\nZeroDivisionError: division by zero")


@pytest.mark.parametrize("text", ["\U0001f600" * 100_000, "\udcff" * 100_000, "a" * 1_000_000])
def test_a_long_log_record_is_cut_and_not_lost(text):
    made = []
    handler = EventLogHandler(lambda event, data: made.append(pack_event(event, data)))
    handler.emit(logging.LogRecord(text, logging.INFO, "", 0, text, None, None))
    assert len(made) == 1
