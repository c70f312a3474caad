"""What a node is told at its start. Checked once, here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kodo.access.oidc import OidcConfig
from kodo.node.catalog.scope import check_node_name
from kodo.protocol.event_budget import MAX_RUN_EVENT_BYTES, MAX_RUN_EVENTS

__all__ = ["NodeConfig"]


class NodeConfig(BaseModel):
    """A node's settings.

    Attributes:
        home: `$KODO_HOME`: keys, database, outputs, Ray's files. Made when it is not there.
        scope: the file that lists the flows.
        entries: flows to offer besides, or instead: as in a scope's `flows`, relative to the working folder.
        roots: folders from which `entries` are imported; the scope's own folder is one by itself.
        name: of the node; else the scope's, else the host's.
        hosts: addresses to listen on.
        port: UDP; 0: the one used last time if it is free, else any.
        registries: URLs to announce to.
        announce_lan: whether zeroconf announces the node.
        auth: the provider, who says who a caller is.
        only: with the provider `null`: the one peer id whose calls are answered; None: everybody's.
        oidc: of which issuer, where the provider is `oidc`.
        access_s: how long it may take, in seconds, until a caller who lost its access is let go.
        contents_for: the roles (`developer`, `operator`) that see what others' runs are about; launchers are told.
        open: whether callers from beyond the local networks are answered.
        ray_address: an existing Ray cluster, `host:port`; None: an embedded one.
        num_cpus: CPUs of an embedded Ray; None: all.
        object_store_bytes: shared memory of an embedded Ray; None: Ray's choice.
        runners: warm runners to keep.
        max_runs: runs that execute at once; further ones wait.
        max_live: runs that are not over at once, waiting ones too.
        max_live_each: the same for one principal.
        max_events: events that one run may make, but for locks, outputs and its end.
        max_event_bytes: their bytes.
        keep_runs: whether runs go on when the node is closed in order; None: on a joined cluster only.
        disk_reserve_bytes: disk that flows and callers may not use; ends of runs are stored there.
        max_db_bytes: bound of the database file; None: the disk's.
        retention_s: seconds for which an acknowledged run is kept.
        unread_s: the same for a run that is over and was never acknowledged; None: for ever.
        upload_s: seconds for which an upload is kept that no unfinished run needs.
        log_s: seconds for which the logs of ended processes are kept.
        warm_s: seconds after which a warm runner that was not needed is replaced.
        quota_bytes: bound of database, outputs, uploads, memories and fetched files together; None: the disk's.
        housekeeping_s: seconds between two rounds of housekeeping.
        adopt_s: seconds in which a restarted node looks for its runners.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path
    scope: Path | None = None
    entries: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    name: Annotated[str, AfterValidator(check_node_name)] | None = None
    hosts: tuple[str, ...] = ("0.0.0.0", "::")
    port: int = Field(default=0, ge=0, le=65535)
    registries: tuple[str, ...] = ()
    announce_lan: bool = True
    auth: Literal["null", "local", "oidc"] = "null"
    only: str | None = None
    oidc: OidcConfig | None = None
    access_s: float = Field(default=30.0, gt=0, le=60)
    contents_for: tuple[Literal["developer", "operator"], ...] = ()
    open: bool = False
    ray_address: str | None = None
    num_cpus: int | None = Field(default=None, ge=1)
    object_store_bytes: int | None = Field(default=None, ge=80 << 20)
    runners: int = Field(default=2, ge=0, le=256)
    max_runs: int = Field(default=16, ge=1, le=100_000)
    max_live: int = Field(default=1000, ge=1, le=100_000)
    max_live_each: int = Field(default=250, ge=1, le=100_000)
    max_events: int = Field(default=MAX_RUN_EVENTS, ge=100)
    max_event_bytes: int = Field(default=MAX_RUN_EVENT_BYTES, ge=1 << 20)
    keep_runs: bool | None = None
    disk_reserve_bytes: int = Field(default=256 << 20, ge=0)
    max_db_bytes: int | None = Field(default=None, ge=1 << 20)
    retention_s: float = Field(default=7 * 86400.0, ge=0)
    unread_s: float | None = Field(default=None, ge=0)
    upload_s: float = Field(default=86400.0, ge=0)
    log_s: float = Field(default=86400.0, ge=0)
    warm_s: float = Field(default=86400.0, gt=0)
    quota_bytes: int | None = Field(default=None, ge=1 << 20)
    housekeeping_s: float = Field(default=600.0, gt=0)
    adopt_s: float = Field(default=30.0, gt=0)
