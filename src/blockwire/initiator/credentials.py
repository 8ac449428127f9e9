"""Where an initiator's CHAP account comes from: arguments before the URL before the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, TypeAlias

from blockwire.auth import Account, InitiatorCredentials, Secret
from blockwire.config import secrets
from blockwire.errors import ConfigurationError
from blockwire.names import Url

SecretText: TypeAlias = str | bytes | Secret
"""A secret as callers give it: text, or binary as `0x…` (hex) or `0b…` (base64), or bytes as text; or a `Secret`."""

USER_VARIABLE: Final = "LIBISCSI_CHAP_USERNAME"
MUTUAL_USER_VARIABLE: Final = "LIBISCSI_CHAP_TARGET_USERNAME"
SECRET_VARIABLES: Final = (secrets.VARIABLE, "LIBISCSI_CHAP_PASSWORD")
MUTUAL_SECRET_VARIABLES: Final = (secrets.MUTUAL_VARIABLE, "LIBISCSI_CHAP_TARGET_PASSWORD")


def credentials(
    url: Url,
    chap_user: str | None = None,
    chap_secret: SecretText | None = None,
    mutual_user: str | None = None,
    mutual_secret: SecretText | None = None,
    environment: Mapping[str, str] | None = None,
) -> InitiatorCredentials | None:
    """The account to log in with, and for mutual CHAP the one the target has to prove; None without a user.

    ConfigurationError: a secret without a user or the reverse, one that is too short, one for both directions.
    """
    env = os.environ if environment is None else environment
    user = chap_user or url.user or env.get(USER_VARIABLE, "")
    explicit_mutual = mutual_user or url.mutual_user
    if not user:
        if chap_secret or explicit_mutual or mutual_secret or url.mutual_secret:
            raise ConfigurationError(
                "a CHAP secret or a mutual CHAP user without a user", code="configuration.no-user",
                next="give --chap-user NAME, or write it into the URL: iscsi://NAME@HOST/…",
            )  # fmt: skip
        return None
    account = _account(user, chap_secret or url.secret or None, SECRET_VARIABLES, env, "--chap-secret-file")
    mutual = explicit_mutual or env.get(MUTUAL_USER_VARIABLE, "")
    given = mutual_secret or url.mutual_secret or None
    if not mutual:
        if given:
            raise ConfigurationError(
                "a mutual CHAP secret without a user", code="configuration.no-user",
                next="name whom the target has to be: --chap-mutual-user NAME, or target_user=NAME in the URL",
            )  # fmt: skip
        return InitiatorCredentials(account)
    target = _account(mutual, given, MUTUAL_SECRET_VARIABLES, env, "--chap-mutual-secret-file")
    return InitiatorCredentials(account, target)


def _account(
    user: str, given: SecretText | None, variables: tuple[str, ...], environment: Mapping[str, str], flag: str
) -> Account:
    if isinstance(given, Secret):
        return Account(user, given)
    if given:
        return Account(user, secrets.from_text(given, f"the secret of {user!r}"))
    for variable in variables:
        if environment.get(variable):
            return Account(user, secrets.from_environment(variable, environment))
    raise ConfigurationError(
        f"there is no CHAP secret for user {user!r}", code="configuration.no-secret",
        next=f"set {variables[0]} or name a file with {flag}",
    )  # fmt: skip
