"""Settings of a node."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from kodo.protocol.event_budget import MAX_RUN_EVENT_BYTES, MAX_RUN_EVENTS
from kodo.settings.access import AccessSettings
from kodo.settings.fields import Bytes, HostPort, Seconds, Truth, Whole, Words, parse_words
from kodo.settings.network import NetworkSettings
from kodo.settings.operating import OperatingSettings

__all__ = ["NodeSettings"]

DAY_S = 86400.0


Notices = Annotated[tuple[Literal["locked", "done", "error", "downloaded"], ...], BeforeValidator(parse_words)]
Roles = Annotated[tuple[Literal["developer", "operator"], ...], BeforeValidator(parse_words)]


class NodeSettings(NetworkSettings, AccessSettings, OperatingSettings):
    """How a node is reached, what its runs may use, and how long it keeps what they made."""

    name: str | None = Field(
        default=None, min_length=1, description="The node's name. Default: the scope file's, else the machine's."
    )
    host: Words = Field(default=("0.0.0.0", "::"), description="Addresses to listen on.")
    port: Whole = Field(
        default=0, ge=0, le=65535, description="UDP port. 0: the port used last if it is free, else any."
    )
    open: Truth = Field(default=False, description="Admit peers from everywhere, not only from the local network.")
    punch: Literal["early", "after-login", "never"] | None = Field(
        default=None,
        description="When a peer that comes over a registry's relay learns the node's public address, to go on "
        "without the relay: `early`, `after-login` or `never`. Default: `early` with `auth` `null`, else "
        "`after-login`.",
    )
    contents_for: Roles = Field(
        default=(),
        description="Roles (`developer`, `operator`) that may read the contents of others' runs; launchers are told.",
    )
    executor: Literal["ray", "process", "auto"] | None = Field(
        default=None,
        description="What runs the flows: `ray`; `process`, one for each run, without Ray; or `auto`, Ray if a flow "
        "needs it. Default: `ray` where it is installed, else `process`.",
    )
    ray_address: HostPort | None = Field(
        default=None, description="Ray cluster to join. Default: start a Ray of the node's own."
    )
    ray_wait_s: Seconds = Field(
        default=0.0,
        ge=0,
        description="How long a run waits until a machine of a joined Ray cluster has what its flow asks for. By "
        "default it ends at once; where Ray adds machines by itself, say how long that takes.",
    )
    runner_user: str | None = Field(
        default=None,
        min_length=1,
        description="Account that runs flows and the node's own Ray, set by root. Default: the node's account.",
    )
    num_cpus: Whole | None = Field(default=None, ge=1, description="CPUs of the node's own Ray. Default: all.")
    object_store_bytes: Bytes = Field(
        default=200_000_000, ge=80 << 20, description="Size of the object store of the node's own Ray."
    )
    runners: Whole = Field(
        default=2, ge=0, le=256, description="Processes kept ready for the next runs (warm runners)."
    )
    max_runs: Whole = Field(
        default=16, ge=1, le=100_000, description="Runs that execute at the same time; others wait."
    )
    max_live: Whole = Field(default=1000, ge=1, le=100_000, description="Unfinished runs, those that wait included.")
    max_live_each: Whole = Field(default=250, ge=1, le=100_000, description="Unfinished runs of one user.")
    max_events: Whole = Field(
        default=MAX_RUN_EVENTS,
        ge=100,
        description="Events that one run may make, besides locks, outputs and its end.",
    )
    max_event_bytes: Bytes = Field(
        default=MAX_RUN_EVENT_BYTES, ge=1 << 20, description="Size of those events together."
    )
    keep_runs: Truth | None = Field(
        default=None,
        description="Keep runs that have begun going while the node is stopped. Default: on a joined Ray only;"
        " at a terminal, Ctrl-C asks.",
    )
    retention_s: Seconds = Field(default=7 * DAY_S, ge=0, description="How long acknowledged runs are kept.")
    keep_unread_s: Seconds | None = Field(
        default=None, ge=0, description="How long finished runs are kept that nobody acknowledged. Default: for ever."
    )
    keep_uploads_s: Seconds = Field(default=DAY_S, ge=0, description="How long uploads are kept that no run needs.")
    keep_logs_s: Seconds = Field(default=DAY_S, ge=0, description="How long the logs of ended processes are kept.")
    keep_warm_s: Seconds = Field(default=DAY_S, gt=0, description="After how long an unused warm runner is replaced.")
    housekeeping_s: Seconds = Field(default=600.0, gt=0, description="How often the node cleans up.")
    adopt_s: Seconds = Field(
        default=30.0, gt=0, description="How long a node that starts looks for runs that went on without it."
    )
    quota_bytes: Bytes | None = Field(
        default=None,
        ge=1 << 20,
        description="Disk for database, outputs, uploads, memories and fetched files together. Default: no limit.",
    )
    disk_reserve_bytes: Bytes = Field(
        default=256 << 20, ge=0, description="Disk that must stay free; flows cannot use it."
    )
    webhooks: Words = Field(
        default=(),
        repr=False,
        description="Webhooks that are told what happens to runs, never what is in them: URLs. Default: none.",
    )
    webhooks_private: Truth = Field(
        default=False, description="Let webhooks be on this machine and in private networks, there also by `http`."
    )
    apprise: Words = Field(
        default=(),
        repr=False,
        description="Services that are told the same by Apprise (mail, chats, push): its URLs. Default: none.",
    )
    notices: Notices = Field(
        default=("locked", "done", "error", "downloaded"),
        description="What webhooks and services are told: `locked`, `done`, `error`, `downloaded`.",
    )
    max_db_bytes: Bytes | None = Field(
        default=None, ge=1 << 20, description="Size of the database. Default: no limit."
    )
