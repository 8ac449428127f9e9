"""Who has to prove who it is, as a configuration says it: accounts, the target's own identity, and their secrets.

The value holds places of secrets, so it can be printed; :meth:`AuthenticationConfig.load` reads them.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, field_validator, model_validator

from blockwire.auth.secrets import Account, Secret, TargetAuthentication
from blockwire.config import secrets
from blockwire.errors import ConfigurationError
from blockwire.names import iscsi_name, prepare_name


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


class IdentityConfig(_Model):
    """A CHAP name, and where its secret is: exactly one of the places."""

    user: str
    """The CHAP name (CHAP_N)."""
    secret_file: str | None = None
    """A file of mode 0600: one line."""
    secret_environment: str | None = None
    """An environment variable."""
    secret_command: tuple[str, ...] | str | None = None
    """A command (no shell) whose first line of output it is."""
    _secret: Secret | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        places = (self.secret_file, self.secret_environment, self.secret_command)
        if sum(place is not None for place in places) > 1:
            raise ValueError(f"the secret of {self.user!r} has several places; give one")
        if not self.user:
            raise ValueError("a CHAP name has 1 to 255 bytes")
        return self

    def with_secret(self, secret: Secret) -> Self:
        """The same with a secret that was given in place; it is never printed."""
        given = self.model_copy()
        given._secret = secret
        return given

    def read(self) -> Account:
        """Reads the secret. ConfigurationError and its leaves name the place."""
        if self._secret is not None:
            return Account(self.user, self._secret)
        if self.secret_file is not None:
            return Account(self.user, secrets.from_file(self.secret_file))
        if self.secret_environment is not None:
            return Account(self.user, secrets.from_environment(self.secret_environment))
        if self.secret_command is not None:
            return Account(self.user, secrets.from_command(self.secret_command))
        raise ConfigurationError(
            f"there is no CHAP secret for {self.user!r}", code="configuration.no-secret",
            next=f"name its place: secret_file, secret_environment or secret_command; or set {secrets.VARIABLE}",
        )  # fmt: skip


class AccountConfig(IdentityConfig):
    """An initiator that may log in."""

    initiators: tuple[str, ...] = ()
    """Initiator names that may use this account; empty: any."""

    @field_validator("initiators")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(iscsi_name(name) for name in names))


class AuthenticationConfig(_Model):
    """What a target (or discovery) asks of initiators."""

    accounts: tuple[AccountConfig, ...] = ()
    """Initiators that may log in, each CHAP name once; none only where authentication is not required."""
    identity: IdentityConfig | None = None
    """How the target proves itself when an initiator asks for it (mutual CHAP); without it that is refused."""
    required: bool = True
    """Whether initiators that offer no CHAP are refused. Off: they get in, which is for moving over only."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        names = [account.user for account in self.accounts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"CHAP account {twice[0]!r} is given twice")
        if self.required and not self.accounts:
            # Nobody could log in, or everybody: neither is what somebody wants who writes this.
            raise ValueError("authentication needs accounts; without any, leave it out or write required = false")
        if self.identity is not None and not self.accounts:
            raise ValueError("mutual CHAP needs accounts: an initiator has to authenticate before the target does")
        return self

    def load(self) -> Authentication:
        """Reads every secret; refuses short ones, and one that would authenticate both directions (RFC 7143 9.2.1)."""
        if not self.accounts:
            return OPEN
        accounts = tuple(account.read() for account in self.accounts)
        identity = self.identity.read() if self.identity is not None else None
        bound = {config.user: frozenset(map(prepare_name, config.initiators)) for config in self.accounts}
        return Authentication(TargetAuthentication(accounts, identity, self.required), bound)


class Authentication:
    """Loaded accounts: what the login asks, and which initiator names an account is for."""

    def __init__(self, policy: TargetAuthentication, bound: dict[str, frozenset[str]] | None = None) -> None:
        self.policy = policy
        self._bound = bound or {}

    @property
    def required(self) -> bool:
        """Whether nobody gets in without CHAP."""
        return self.policy.required and bool(self.policy.accounts)

    def permits(self, account: str, initiator_name: str) -> bool:
        """Whether the initiator may use the account it authenticated as (empty: none was asked for)."""
        names = self._bound.get(account)
        return not names or prepare_name(initiator_name) in names


OPEN = Authentication(TargetAuthentication(required=False))
"""Nobody has to authenticate."""


def chap(
    user: str | None,
    file: str | None = None,
    mutual_user: str | None = None,
    mutual_file: str | None = None,
    *,
    command: str | None = None,
    mutual_command: str | None = None,
    secret: Any = None,
    mutual_secret: Any = None,
) -> AuthenticationConfig | None:
    """What the flags and keyword arguments mean: one account for every initiator, and perhaps an identity. None
    without any of them. A secret without a place comes from the environment."""
    if not user:
        if file or mutual_user or mutual_file or command or mutual_command or secret or mutual_secret:
            only_mutual = not (file or command or secret)
            raise ConfigurationError(
                "mutual CHAP without CHAP" if only_mutual else "a CHAP secret without a user",
                code="configuration.no-user",
                next="give --chap-user NAME and its secret too" if only_mutual else "give --chap-user NAME too",
            )
        return None
    if (mutual_file or mutual_command or mutual_secret) and not mutual_user:
        raise ConfigurationError(
            "a mutual CHAP secret without a user", code="configuration.no-user", next="give --chap-mutual-user NAME too"
        )
    account = _identity(AccountConfig, user, file, command, secret, secrets.VARIABLE)
    identity = None
    if mutual_user:
        identity = _identity(
            IdentityConfig, mutual_user, mutual_file, mutual_command, mutual_secret, secrets.MUTUAL_VARIABLE
        )
    return AuthenticationConfig(accounts=(account,), identity=identity)


def _identity(cls: type[Any], user: str, file: str | None, command: str | None, secret: Any, variable: str) -> Any:
    if sum(place is not None for place in (file, command, secret)) > 1:
        raise ConfigurationError(
            f"the CHAP secret of {user!r} is given twice", code="configuration.secret", next="give one place"
        )
    if secret is not None:
        given = secret if isinstance(secret, Secret) else secrets.from_text(secret, f"the secret of {user!r}")
        return cls(user=user).with_secret(given)
    if file is not None:
        return cls(user=user, secret_file=file)
    if command is not None:
        return cls(user=user, secret_command=command)
    return cls(user=user, secret_environment=variable)
