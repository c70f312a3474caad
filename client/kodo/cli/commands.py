"""Which commands there are: what `koco --help` shows, and which module is imported when one of them runs.

A command's module imports what its options need, and all of them together cost more than the commands that are used
most. So `koco` knows them by this table, and imports one module: that of the command that was named.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["COMMANDS", "Commands", "Entry", "load"]


class Entry(NamedTuple):
    """A command or group of commands: its module in `kodo.cli`, its section in the help, and what it does."""

    module: str
    panel: str
    help: str


COMMANDS: dict[str, Entry] = {
    "nodes": Entry("find", "Find", "List the nodes that are found, on the local network and in registries."),
    "flows": Entry("find", "Find", "List the flows that are found."),
    "show": Entry("find", "Find", "Show what a flow does, which inputs it takes, and an example."),
    "run": Entry("running", "Run", "Launch a flow, follow it, answer it. Ctrl-C leaves it running."),
    "ps": Entry("running", "Run", "List your runs."),
    "state": Entry("running", "Run", "Show the state of a run."),
    "follow": Entry("running", "Run", "Follow a run to its end, from any event on."),
    "locks": Entry("running", "Run", "List the questions that wait for your answer."),
    "answer": Entry("running", "Run", "Answer a run's lock."),
    "kill": Entry("running", "Run", "End a run: one of yours, or any where you are operator."),
    "restart": Entry("running", "Run", "Start a new run with the same inputs."),
    "ack": Entry("running", "Run", "Acknowledge a run that is over: its node may delete it after a while."),
    "delete": Entry(
        "running",
        "Run",
        "Delete a run that is over and all it made from its node: one of yours, or any where you are operator.",
    ),
    "outputs": Entry("outputs", "Outputs", "List what a run made."),
    "download": Entry(
        "outputs",
        "Outputs",
        "Download what a run made, verified; a download that was cut goes on where it was.",
    ),
    "share": Entry(
        "shares",
        "Outputs",
        "Share a run: with users and roles, or by a link that downloads it straight from the node.",
    ),
    "shares": Entry("shares", "Outputs", "List what you have shared, and what became of it."),
    "unshare": Entry("shares", "Outputs", "End a share; whatever goes on by it ends within a second."),
    "get": Entry(
        "shares",
        "Outputs",
        "Download what a link is for, straight from its node, verified; a download that was cut goes on where it "
        "was.",
    ),
    "id": Entry("manage", "Identity and settings", "Show who you are, and the node that runs from this home."),
    "config": Entry("manage", "Identity and settings", "Show every setting and where it comes from."),
    "login": Entry(
        "access",
        "Identity and settings",
        "Log in to a node, or with --registry to a registry; the login is kept for it alone.",
    ),
    "logout": Entry(
        "access",
        "Identity and settings",
        "End the login to a node, or with --registry to a registry, there and here.",
    ),
    "whoami": Entry(
        "access",
        "Identity and settings",
        "Show who you are to a node, or with --registry to a registry, and what you may do there.",
    ),
    "up": Entry("serve", "Serve", "Start a node; it runs until Ctrl-C."),
    "registry": Entry("serve", "Serve", "Start a registry; it runs until Ctrl-C."),
    "down": Entry(
        "node_control",
        "Serve",
        "Stop the node of this home (or --node, as its operator), and wait until it has stopped.",
    ),
    "cleanup": Entry(
        "node_control",
        "Serve",
        "Remove what the node of this home (or --node) need not keep: it does so by itself from time to time.",
    ),
    "doctor": Entry(
        "doctor",
        "Serve",
        "Look at home, keys, disk, clock, port, local network, registries and Ray; exit code 1 when one needs care.",
    ),
    "memory": Entry("memory", "Serve", "What flows remember, for their developers."),
    "user": Entry(
        "access",
        "Serve",
        "Users of a node, or with --registry of a registry, whose provider is local; as its operator.",
    ),
    "role": Entry("access", "Serve", "Roles of such a node or registry."),
    "grant": Entry("access", "Serve", "Grants of such a node or registry."),
    "register": Entry(
        "registry_admin",
        "Registry",
        "Put a node's name on a registry's list, so that it is taken where not everybody is.",
    ),
    "unregister": Entry(
        "registry_admin",
        "Registry",
        "Take a name off a registry's list, and its node out of it, also where the registry told others of it.",
    ),
    "annotate": Entry(
        "registry_admin",
        "Registry",
        "Say something of a node or flow in a registry: it wins over what the node says of itself.",
    ),
    "operator": Entry(
        "registry_admin", "Registry", "List a registry's operators; become one, invite one, dismiss one."
    ),
    "stale": Entry(
        "registry_admin",
        "Registry",
        "List the nodes that a registry has not heard of for longer than it keeps them; with --clean remove them.",
    ),
    "audit": Entry("registry_admin", "Registry", "List what operators changed at a registry, latest first."),
    "mesh": Entry("registry_admin", "Registry", "Other registries that a registry deals with, as its operator."),
}
"""By name, in the order of the help."""


def load(name: str) -> Any:
    """Import and make the command or group `name`, and nothing else of its module."""
    app = typer.Typer(add_completion=False)
    importlib.import_module(f"kodo.cli.{COMMANDS[name].module}").register(app)
    app.registered_commands = [each for each in app.registered_commands if each.name == name]
    app.registered_groups = [each for each in app.registered_groups if each.name == name]
    made: Any = typer.main.get_command(app)
    return made.commands[name] if app.registered_groups else made


class Commands(TyperGroup):
    """The group `koco`: its commands are stand-ins, with a name and help, until one of them is to run."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        for name, entry in COMMANDS.items():
            self.add_command(TyperCommand(name, help=entry.help))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show the help to who typed `koco` alone; that is misuse, as a group without a command is."""
        if not args and not ctx.resilient_parsing:
            print(ctx.get_help(), file=sys.stderr)
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the words begin with, ready to run."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else load(name), rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands by section; without rich, which takes longer to import than all the rest of the help."""
        width = max(map(len, COMMANDS))
        for panel in dict.fromkeys(entry.panel for entry in COMMANDS.values()):
            rows = [(f"{name:<{width}}", each.help) for name, each in COMMANDS.items() if each.panel == panel]
            with formatter.section(panel):
                formatter.write_dl(rows)
