"""What a node is told at its start. Checked once, here."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field

from kodo.access.oidc_config import OidcConfig
from kodo.node.catalog.scope import check_node_name
from kodo.settings.node import NodeSettings

__all__ = ["NodeConfig"]


class NodeConfig(NodeSettings):
    """A node's settings (`NodeSettings`), and what else it is told by whoever starts it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    former_names: ClassVar[Mapping[str, str]] = {
        "hosts": "host",
        "registries": "registry",
        "announce_lan": "lan",
        "unread_s": "keep_unread_s",
        "upload_s": "keep_uploads_s",
        "log_s": "keep_logs_s",
        "warm_s": "keep_warm_s",
    }

    home: Path = Field(
        description="Folder of the node's keys, database, outputs and Ray's files. Created if it is missing."
    )
    scope: Path | None = Field(default=None, description="The file that lists the flows.")
    entries: tuple[str, ...] = Field(
        default=(),
        description="Flows to offer besides the scope file's, or without one: written as its `flows`,"
        " relative to the working folder.",
    )
    roots: tuple[Path, ...] = Field(
        default=(), description="Folders to import `entries` from, besides the scope file's own folder."
    )
    reload: bool = Field(
        default=False, description="Whether flows whose code is edited are described anew and offered so."
    )
    outlive: bool = Field(
        default=True,
        description="Whether runs in processes go on when the node is killed, until the next start takes them up.",
    )
    name: Annotated[str, AfterValidator(check_node_name)] | None = Field(
        default=None, description=NodeSettings.model_fields["name"].description
    )
    only: str | None = Field(
        default=None,
        description="With the provider `null`: the one peer id whose calls are answered. Default: everybody's.",
    )
    oidc: OidcConfig | None = Field(default=None, description="The issuer, with the provider `oidc`.")

    @property
    def chosen_punch(self) -> Literal["early", "after-login", "never"]:
        """When relayed peers learn where the node is: `punch`, or what that is by default here."""
        return self.punch or ("early" if self.auth == "null" else "after-login")

    @property
    def chosen_executor(self) -> str:
        """What runs the flows: `executor`, or what that is by default here."""
        has_ray = self.ray_address is not None or importlib.util.find_spec("ray") is not None
        return self.executor or ("ray" if has_ray else "process")
