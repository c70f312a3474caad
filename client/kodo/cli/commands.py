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

from kodo.cli.parameters import spare_pydantic

__all__ = ["COMMANDS", "Commands", "Entry", "load"]


class Entry(NamedTuple):
    """A command or group of commands: its module in `kodo.cli`, its section in the help, and what it does."""

    module: str
    panel: str
    help: str


COMMANDS: dict[str, Entry] = {
    "new": Entry("new", "Write", "Write a flow to begin with: a folder with its code, its test and its scope file."),
    "nodes": Entry("find", "Find", "List the nodes on the local network and in registries."),
    "flows": Entry("find", "Find", "List the flows on the local network and in registries."),
    "show": Entry("find", "Find", "Show what a flow does, which inputs it takes, and an example."),
    "run": Entry("running", "Run", "Launch a flow, follow it and answer its questions. Ctrl-C leaves it running."),
    "ps": Entry("running", "Run", "List your runs, the latest first."),
    "state": Entry("running", "Run", "Show the state of a run."),
    "follow": Entry("running", "Run", "Follow a run to its end, from its first event or a later one."),
    "locks": Entry("running", "Run", "List the questions that wait for your answer."),
    "inbox": Entry(
        "inbox", "Run", "Show which questions wait for you, and which of your runs have ended since you last looked."
    ),
    "notify": Entry(
        "inbox",
        "Run",
        "Show on this desktop when a question waits for you or a run of yours has ended, until Ctrl-C.",
    ),
    "answer": Entry("running", "Run", "Answer a question (lock) of a run."),
    "kill": Entry("ending", "Run", "End a run, or all runs that the options select. Operators can end any run."),
    "restart": Entry("running", "Run", "Launch a flow again, with the inputs of an earlier run."),
    "schedule": Entry(
        "schedules",
        "Run",
        "Launch a flow at set times, even while you are away. Its node does it; secrets cannot be inputs.",
    ),
    "schedules": Entry(
        "schedules",
        "Run",
        "List your schedules, and when each is due next. --pause and --resume change one.",
    ),
    "unschedule": Entry("schedules", "Run", "Remove a schedule. Runs that it has launched go on."),
    "ack": Entry(
        "ending",
        "Run",
        "Acknowledge a finished run, or all that the options select: their nodes may delete them later.",
    ),
    "delete": Entry(
        "ending",
        "Run",
        "Delete a finished run with its files, or all that the options select. Operators can delete any run.",
    ),
    "outputs": Entry("outputs", "Outputs", "List the files that a run made."),
    "download": Entry(
        "outputs",
        "Outputs",
        "Download and verify the files of a run; or of all runs that the options select, each into its own folder.",
    ),
    "share": Entry(
        "shares",
        "Outputs",
        "Share a run with users or roles, or by a link.",
    ),
    "shares": Entry("shares", "Outputs", "List your shares and their state."),
    "unshare": Entry("shares", "Outputs", "End a share or an invitation. Access through it stops within a second."),
    "invite": Entry(
        "invitations",
        "Outputs",
        "Make a link by which others launch a flow in your name, without an account, and see those runs only.",
    ),
    "invitations": Entry("invitations", "Outputs", "List your invitations and their state. `koco unshare` ends one."),
    "open": Entry(
        "invitations",
        "Outputs",
        "Open an invitation to a flow: fill in its form, launch it, answer its questions and download what it makes.",
    ),
    "get": Entry(
        "shares",
        "Outputs",
        "Download and verify the files of a shared run, by its link. An interrupted download is resumed.",
    ),
    "id": Entry("manage", "Identity and settings", "Show your peer id, and the node that runs from this home."),
    "config": Entry(
        "manage", "Identity and settings", "Show every setting, its value and where the value comes from."
    ),
    "forget": Entry(
        "manage",
        "Identity and settings",
        "Forget the name of a node, because the node is gone or got a new key. It is pinned again when it is used.",
    ),
    "login": Entry(
        "access",
        "Identity and settings",
        "Log in to a node, or to a registry with --registry. The login is valid there only.",
    ),
    "logout": Entry(
        "access",
        "Identity and settings",
        "Log out of a node, or of a registry with --registry.",
    ),
    "whoami": Entry(
        "access",
        "Identity and settings",
        "Show how a node, or a registry with --registry, knows you, and what you may do there.",
    ),
    "web": Entry(
        "page",
        "Serve",
        "Open kodo's page in your browser: find flows, run them, answer them, download; it runs until Ctrl-C.",
    ),
    "mcp": Entry(
        "mcp",
        "Serve",
        "Serve flows to an assistant or editor, as a server of MCP (Model Context Protocol) on stdin and stdout.",
    ),
    "up": Entry("serve", "Serve", "Run a node until Ctrl-C."),
    "registry": Entry("serve", "Serve", "Run a registry until Ctrl-C."),
    "down": Entry(
        "node_control",
        "Serve",
        "Stop the node of this home (or --node, as its operator) and wait until it has stopped.",
    ),
    "cleanup": Entry(
        "node_control",
        "Serve",
        "Delete what the node of this home (or --node) no longer needs. It also does this by itself.",
    ),
    "backup": Entry("backups", "Serve", "Write the node of this home to a file. Works while the node runs."),
    "restore": Entry(
        "backups", "Serve", "Put a backup into this home, which has no node yet, or into another one with --home."
    ),
    "doctor": Entry(
        "doctor",
        "Serve",
        "Check home, keys, disk, clock, port, local network, registries, NAT and Ray, and the node of this home "
        "with its room and webhooks. Exit code 1: a check failed.",
    ),
    "webhooks": Entry(
        "webhooks",
        "Serve",
        "Show where the node of this home sends notices about runs, and whether they arrive.",
    ),
    "memory": Entry("memory", "Serve", "Read and change what flows remember, as their developer."),
    "user": Entry(
        "access",
        "Serve",
        "Manage the users of a node, or of a registry with --registry, that runs with --auth local.",
    ),
    "role": Entry("access", "Serve", "Manage the roles of a node, or of a registry with --registry."),
    "grant": Entry("access", "Serve", "List the grants of a node, or of a registry with --registry."),
    "register": Entry(
        "registry_admin",
        "Registry",
        "Register a node's name, so that a closed registry lists the node.",
    ),
    "unregister": Entry(
        "registry_admin",
        "Registry",
        "Remove a name and its node from a registry, and from the registries that it told about the node.",
    ),
    "annotate": Entry(
        "registry_admin",
        "Registry",
        "Set what a registry shows of a node or flow, in place of the node's own words.",
    ),
    "operator": Entry(
        "registry_admin", "Registry", "List the operators of a registry, or become, invite or dismiss one."
    ),
    "stale": Entry(
        "registry_admin",
        "Registry",
        "List the nodes that a registry has not heard from for 7 days; with --clean, remove them.",
    ),
    "audit": Entry("registry_admin", "Registry", "List what operators changed at a registry or node, latest first."),
    "mesh": Entry(
        "registry_admin", "Registry", "Manage the other registries that a registry reads or feeds, as its operator."
    ),
}
"""By name, in the order of the help."""


def load(name: str) -> Any:
    """Import and make the command or group `name`, and nothing else of its module."""
    app = typer.Typer(add_completion=False)
    importlib.import_module(f"kodo.cli.{COMMANDS[name].module}").register(app)
    app.registered_commands = [each for each in app.registered_commands if each.name == name]
    app.registered_groups = [each for each in app.registered_groups if each.name == name]
    made: Any = typer.main.get_command(app)
    spare_pydantic(made)
    return made.commands[name] if app.registered_groups else made


class Commands(TyperGroup):
    """The group `koco`: its commands are stand-ins, with a name and help, until one of them is to run."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        for name, entry in COMMANDS.items():
            self.add_command(TyperCommand(name, help=entry.help))
        spare_pydantic(self)

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
