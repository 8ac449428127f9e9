"""The negotiation engine: offers and the peer's text in, answers and results out (RFC 7143 section 6.2).

One :class:`Negotiation` lives as long as one login, or one text exchange of the full feature phase. It never sees a
PDU; who calls it brings whole logical text segments, already split into pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from blockwire.errors import NegotiationError
from blockwire.negotiate import rules
from blockwire.negotiate.keys import (
    IRRELEVANT,
    KEYS,
    NOT_UNDERSTOOD,
    REJECT,
    RESERVED_ANSWERS,
    Function,
    Key,
    OutOfBoundsError,
    Role,
    Use,
    Value,
)
from blockwire.negotiate.parameters import Parameters
from blockwire.negotiate.preferences import Preferences
from blockwire.wire.constants import LoginStatus
from blockwire.wire.keys import Pairs

Phase = Literal["security", "operational", "full-feature"]
MAX_KEYS: Final = 256
"""How many keys one negotiation takes from the peer. The RFCs define about forty; without a bound a login could be made
of fifty thousand, each remembered and answered NotUnderstood."""


@dataclass(slots=True)
class Received:
    """What a segment of the peer's text came to."""

    answers: Pairs = field(default_factory=list)
    """Pairs that go back."""
    declared: dict[str, Value] = field(default_factory=dict)
    """Declarations of the peer: names, aliases, TargetPortalGroupTag, SessionType."""
    addresses: list[str] = field(default_factory=list)
    """TargetAddress values, in order."""
    security: dict[str, str] = field(default_factory=dict)
    """Security keys, for the authentication method."""


@dataclass(slots=True)
class Negotiation:
    """One negotiation of one role.

    Args:
        role: who we are.
        preferences: what we want.
        base: the parameters in force before it (defaults, or the session's on a further connection).
        leading: whether Leading Only keys may be used (the first connection of a session).
    """

    role: Role
    preferences: Preferences
    base: Parameters = field(default_factory=Parameters)
    leading: bool = True
    _proposed: dict[str, str] = field(default_factory=dict)
    """Our proposals that wait for an answer."""
    _sent: set[str] = field(default_factory=set)
    """Keys that we proposed or declared in this negotiation."""
    _seen: set[str] = field(default_factory=set)
    """Keys that the peer proposed or declared."""
    _results: dict[str, Value] = field(default_factory=dict)
    """Parameters field -> negotiated value."""

    @property
    def peer(self) -> Role:
        """The other role."""
        return "target" if self.role == "initiator" else "initiator"

    @property
    def waiting(self) -> bool:
        """Whether a proposal of ours has no answer yet that it needs."""
        return any(not self._answer_may_miss(name) for name in self._proposed)

    def set_discovery(self) -> None:
        """SessionType=Discovery: from now on most keys are irrelevant."""
        self._results["session_type"] = "Discovery"

    def parameters(self) -> Parameters:
        """The parameters as they stand, before the cross-key rules."""
        return self.base.changed(**self._results)

    # --- what we send --------------------------------------------------------------------------------

    def declare(self, pairs: Pairs) -> Pairs:
        """Note that we declare ``pairs`` (names, security keys); the same pairs back."""
        for name, _ in pairs:
            self._sent.add(name)
        return pairs

    def offers(self) -> Pairs:
        """The initiator's proposals and declarations for the operational stage (or a text negotiation)."""
        pairs: Pairs = []
        discovery = self.parameters().session_type == "Discovery"
        for name, text in self.preferences.values:
            key = KEYS.get(name)
            if key is not None and (discovery and (key.discovery_irrelevant or name == "ErrorRecoveryLevel")):
                continue
            if key is None and discovery:
                continue  # vendor keys MUST only be used in normal sessions (13.22)
            if key is not None and key.use is Use.LO and not self.leading:
                continue
            pairs += self.offer(name, text)
        return pairs

    def offer(self, name: str, text: str) -> Pairs:
        """Propose or declare one key, unless this negotiation had it already."""
        key = KEYS.get(name)
        declares = key is not None and key.function is Function.DECLARE  # each side declares for itself
        if name in self._sent or (name in self._seen and not declares):
            return []
        self._sent.add(name)
        if key is not None and declares:
            if name == "MaxRecvDataSegmentLength":
                self._results[f"{self.role}_max_recv_data_segment_length"] = int(key.parse(text))
        else:
            self._proposed[name] = text
        return [(name, text)]

    def needed_offers(self) -> Pairs:
        """The target's own offers: MaxRecvDataSegmentLength, and what a silent initiator leaves at an unfit default."""
        pairs: Pairs = []
        parameters = self.parameters()
        discovery = parameters.session_type == "Discovery"
        for name, text in self.preferences.values:
            key = KEYS.get(name)
            if key is None or (key.use is Use.LO and not self.leading) or (discovery and key.discovery_irrelevant):
                continue
            if key.name == "MaxRecvDataSegmentLength" or (name not in self._seen and not self._fits(key, key.default)):
                pairs += self.offer(name, text)
        for rule in rules.broken_rules(parameters):
            if rule.key == "FirstBurstLength" and rules.first_burst_irrelevant(parameters):
                continue
            pairs += self.offer(rule.key, str(rule.limit(parameters)))
        return pairs

    def _fits(self, key: Key, value: Value | None) -> bool:
        """Whether we can live with ``value`` as the result of ``key``."""
        text = self.preferences.get(key.name)
        if text is None or value is None:
            return True
        own = key.parse(text)
        if key.function is Function.FIRST:
            return value in str(own).split(",")
        return key.admissible(own, value)

    # --- what the peer sends -------------------------------------------------------------------------

    def receive(self, pairs: Pairs, phase: Phase) -> Received:
        """Take the pairs of one whole text segment; :class:`NegotiationError` where they break a rule."""
        if len(pairs) + len(self._seen) > MAX_KEYS:
            raise NegotiationError("the negotiation has too many keys", evidence=f"over {MAX_KEYS}")
        received = Received()
        offers: list[tuple[Key, str]] = []
        for name, text in pairs:
            if name in self._proposed:
                self._take_answer(name, text)
                continue
            if text in RESERVED_ANSWERS:
                self._take_refusal(name, text)
                continue
            key = KEYS.get(name)
            # A key that we offered and that is not waited for any more was answered: its negotiation is over.
            settled = name in self._sent and (key is None or key.function not in (Function.DECLARE, Function.SECURITY))
            if (name in self._seen or settled) and not (key and key.repeatable):
                # 6.3: "an attempt to renegotiate/redeclare … MUST be detected".
                raise NegotiationError(f"{name} was sent twice", key=name, evidence="RFC 7143 section 6.3")
            self._seen.add(name)
            if key is None:
                received.answers.append((name, NOT_UNDERSTOOD))
                continue
            if key.indifferent:
                continue
            self._check_use(key, phase)
            if key.security or key.name == "SendTargets":
                self._check_length(key, text)
                received.security[name] = text
            elif key.function is Function.DECLARE:
                self._take_declaration(key, text, received)
            else:
                offers.append((key, text))
        received.answers += self._answer(offers)
        return received

    def _check_length(self, key: Key, text: str) -> None:
        if len(text.encode()) > key.max_length:
            raise NegotiationError(f"the value of {key.name} is longer than {key.max_length} bytes", key=key.name)

    def _check_use(self, key: Key, phase: Phase) -> None:
        fault = None
        if self.peer not in key.senders:
            fault = f"the {self.peer} may not send {key.name}"
        elif phase == "full-feature":
            if key.use in (Use.LO, Use.IO):
                fault = f"{key.name} may only be used during login"
        elif key.use is Use.FFPO:
            fault = f"{key.name} may not be used during login"
        elif phase == "security" and not (key.any_stage or key.security):
            fault = f"{key.name} may not be used in the security stage"
        elif phase == "operational" and key.security:
            fault = f"{key.name} may only be used in the security stage"
        elif key.use is Use.LO and not (self.leading or key.any_stage):
            fault = f"{key.name} may only be used on the leading connection"
        if fault is not None:
            raise NegotiationError(fault, key=key.name, evidence=f"RFC 7143 section {key.section}")

    def _take_declaration(self, key: Key, text: str, received: Received) -> None:
        try:
            value = key.parse(text)
        except ValueError as error:
            # 7.12: an unacceptable declaration is a negotiation failure.
            status = LoginStatus.INITIATOR_ERROR
            if key.name == "SessionType":
                status = LoginStatus.SESSION_TYPE_NOT_SUPPORTED
            raise NegotiationError(
                f"{key.name}={text[:80]} cannot be accepted", key=key.name, login_status=status, evidence=str(error)
            ) from None
        if key.name == "MaxRecvDataSegmentLength":
            self._results[f"{self.peer}_max_recv_data_segment_length"] = value
        elif key.repeatable:
            received.addresses.append(text)
        else:
            received.declared[key.name] = value
            if key.field is not None:
                self._results[key.field] = value

    def _take_answer(self, name: str, text: str) -> None:
        """The peer's answer to a proposal of ours."""
        offered_text = self._proposed.pop(name)
        key = KEYS.get(name)
        if text == NOT_UNDERSTOOD:
            if key is not None and not key.later:
                # 6.2: keys of RFC 7143 MUST be understood.
                raise NegotiationError(
                    f"the {self.peer} does not understand {name}", key=name, evidence="RFC 7143 section 6.2"
                )
            return
        if key is None or key.field is None:
            return
        if text in (REJECT, IRRELEVANT):
            if text == REJECT and not self._fits(key, getattr(self.base, key.field)):
                raise NegotiationError(
                    f"the {self.peer} refuses {name}={offered_text}",
                    key=name,
                    evidence=f"{name}=Reject",
                    next=f"offer another value of {name}",
                )
            return
        try:
            offered, answer = key.parse(offered_text), key.parse(text)
        except ValueError as error:
            raise NegotiationError(f"{name}={text[:80]} is no answer", key=name, evidence=str(error)) from None
        if not key.admissible(offered, answer):
            raise NegotiationError(
                f"{name}={text[:80]} cannot answer {name}={offered_text}",
                key=name,
                evidence=f"RFC 7143 section {key.section}: {key.function.value}",
            )
        self._results[key.field] = answer

    def _take_refusal(self, name: str, text: str) -> None:
        """Reject, Irrelevant or NotUnderstood where nothing waits for an answer."""
        key = KEYS.get(name)
        declared = name in self._sent and (key is None or key.function in (Function.DECLARE, Function.SECURITY))
        if declared and (key is None or key.later) and text == NOT_UNDERSTOOD:
            return
        status = LoginStatus.AUTHENTICATION_FAILURE if key is not None and key.security else LoginStatus.INITIATOR_ERROR
        raise NegotiationError(
            f"the {self.peer} sent {name}={text}", key=name, login_status=status, evidence="RFC 7143 section 6.2"
        )

    def _answer(self, offers: list[tuple[Key, str]]) -> Pairs:
        """Answers to the peer's proposals; the cross-key rules look at all of them together."""
        answers: dict[str, str] = {}
        chosen: dict[str, Key] = {}
        for key, text in offers:
            if key.function is Function.OBSOLETE:
                answers[key.name] = REJECT  # 13.25
                continue
            if key.discovery_irrelevant and self.parameters().session_type == "Discovery":
                answers[key.name] = IRRELEVANT
                continue
            try:
                offered = key.parse(text)
            except OutOfBoundsError:
                answers[key.name] = REJECT  # 6.2.2
                continue
            except ValueError as error:
                if "~" in text and key.kind == "number":
                    answers[key.name] = REJECT  # a range, where the key allows none (6.2)
                    continue
                raise NegotiationError(
                    f"{key.name}={text[:80]} is malformed", key=key.name, evidence=str(error)
                ) from None
            own = self.preferences.value(key)
            answer = offered if own is None else key.combine(offered, own)
            if answer == REJECT:
                answers[key.name] = REJECT
                self._accept_default(key, text)
                continue
            assert key.field is not None
            self._results[key.field] = answer
            chosen[key.name] = key
            answers[key.name] = key.format(answer)
        expected = self._expected()
        settled = rules.settle(expected)
        for rule in rules.broken_rules(expected):
            if rule.key in chosen:
                value = getattr(settled, rule.field)
                self._results[rule.field] = value
                answers[rule.key] = str(value)
        return [(key.name, answers[key.name]) for key, _ in offers]

    def _expected(self) -> Parameters:
        """The parameters as they will be once we have made our own offers for keys that the peer left out."""
        parameters = self.parameters()
        for name, _ in self.preferences.values:
            key = KEYS.get(name)
            if key is None or key.field is None or key.function is Function.FIRST or key.default is None:
                continue
            own = self.preferences.value(key)
            if key.field not in self._results and own is not None and not self._fits(key, key.default):
                parameters = parameters.changed(**{key.field: key.combine(key.default, own)})
        return parameters

    def _accept_default(self, key: Key, text: str) -> None:
        """7.12: if nothing offered is acceptable, what stays in force must at least be."""
        if not self._fits(key, key.default):
            raise NegotiationError(
                f"none of {key.name}={text[:80]} is acceptable here",
                key=key.name,
                evidence=f"this side takes {self.preferences.get(key.name)}",
            )

    # --- the end -------------------------------------------------------------------------------------

    def _answer_may_miss(self, name: str) -> bool:
        key = KEYS.get(name)
        if key is None or key.later:
            return True
        return key.answer_optional(key.parse(self._proposed[name]))

    def finish(self) -> Parameters:
        """The result; :class:`NegotiationError` if an answer is missing or the values cannot stand together."""
        for name, text in self._proposed.items():
            key = KEYS.get(name)
            if not self._answer_may_miss(name):
                raise NegotiationError(
                    f"the {self.peer} did not answer {name}={text}", key=name, evidence="RFC 7143 section 6.2"
                )
            if key is not None and key.field is not None and not key.later:
                self._results[key.field] = key.parse(text)
        parameters = self.parameters()
        for rule in rules.broken_rules(parameters):
            tolerated = rule.key == "FirstBurstLength" and (
                self.role == "initiator" or rules.first_burst_irrelevant(parameters)
            )
            # The initiator sends no more than the smaller of the two, whatever the target made of them.
            if not tolerated:
                raise NegotiationError(
                    f"{rule.key}={getattr(parameters, rule.field)} cannot stand: {rule.why}",
                    key=rule.key,
                    evidence=f"RFC 7143 section {rule.section}",
                )
        return rules.settle(parameters)
