"""Settings of who may use a node or a registry."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kodo.settings.fields import Seconds, SettingsModel, Truth, Words

__all__ = ["AccessSettings"]


class AccessSettings(SettingsModel):
    """Who says who a caller is. A node and a registry of one home have these in common."""

    auth: Literal["null", "local", "oidc"] = Field(
        default="null",
        description="How callers are identified: `null` (not), `local` (accounts kept here) or `oidc` (an issuer).",
    )
    oidc_issuer: str | None = Field(default=None, min_length=1, description="For `oidc`: the issuer's URL.")
    oidc_audience: str | None = Field(
        default=None, min_length=1, description="For `oidc`: the audience tokens must be for."
    )
    oidc_client_id: str | None = Field(
        default=None, min_length=1, description="For `oidc`: the client id with which clients ask for tokens."
    )
    oidc_roles_claim: str = Field(
        default="roles",
        min_length=1,
        description="For `oidc`: the claim that lists a user's roles; dots lead into maps.",
    )
    oidc_roles: Words = Field(
        default=("*=user", "operator=operator"),
        description="For `oidc`: what values of that claim give, as `VALUE=ROLE_OR_GRANT,…`; `*` means every user.",
    )
    auth_oidc_bound: Truth = Field(
        default=False, description="For `oidc`: accept only tokens that are bound to their holder's key (DPoP)."
    )
    access_s: Seconds = Field(
        default=30.0, gt=0, le=60, description="How long a login or grant may still work after it was taken away."
    )
