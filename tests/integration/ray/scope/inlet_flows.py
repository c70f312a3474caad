"""Flows that make their events in other ways than by kodo's emitters."""

import ctypes
import os
import subprocess
import sys
import threading

from kodo.flow import event, flow, progress

WRITER = """
import json, os, socket
made = socket.socket(socket.AF_UNIX)
made.connect(os.environ["KODO_EVENTS"])
for number in range(3):
    made.sendall(json.dumps({"event": "result", "data": {"n": number}}).encode() + b"\\n")
made.sendall(b'{"event": "action", "data": {"text": "no line end"}}')
"""


@flow
def speaks():
    """Let another program, without kodo, say something."""
    subprocess.run([sys.executable, "-S", "-c", WRITER], check=True)
    return "said"


@flow
def speaks_badly():
    """Say what is no event."""
    script = WRITER.partition("for number")[0] + 'made.sendall(b\'x\\n{"event": "final"}\\n{"event": "result"}\\n\')'
    subprocess.run([sys.executable, "-S", "-c", script], check=True)


@flow
def task_speaks():
    """Let a Ray task's child say something."""
    import ray

    @ray.remote(num_cpus=1)
    def task():
        subprocess.run([sys.executable, "-S", "-c", WRITER], check=True)

    ray.get(task.remote())


@flow
def threads():
    """Print and count in threads."""

    @event(name="part")
    def part(number):
        print(f"thread {number}")
        progress(done=number, id=f"part {number}", parent="all")

    progress(done=0, id="all", text="parts")
    all_of_them = [threading.Thread(target=part, args=[number]) for number in range(4)]
    for thread in all_of_them:
        thread.start()
    for thread in all_of_them:
        thread.join()


@flow
def crashes():
    """End as a broken library does."""
    print("about to crash", file=sys.stderr, flush=True)
    ctypes.string_at(0)


@flow
def aborts():
    """End by a signal of its own."""
    os.abort()
