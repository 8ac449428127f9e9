"""The initiator's side of the login phase (RFC 7143 sections 6.3, 11.12 and 11.13)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from blockwire import errors
from blockwire.auth.algorithms import MD5_ONLY, PREFERRED
from blockwire.auth.chap import ChapInitiator, Outstanding, OutstandingChallenges, Random
from blockwire.auth.secrets import InitiatorCredentials
from blockwire.errors import Error, NegotiationError, ProtocolError
from blockwire.login.exchange import LoginMachine
from blockwire.login.result import LoginDone, LoginLimits, LoginResult
from blockwire.login.states import STAGE_TRANSITIONS, Action, Step
from blockwire.names import Isid
from blockwire.negotiate import Negotiation, Parameters, Preferences, Received
from blockwire.negotiate.engine import Phase
from blockwire.negotiate.parameters import SessionType
from blockwire.wire import keys, serial
from blockwire.wire.constants import VERSION, LoginStatus, Opcode, RejectReason, Stage
from blockwire.wire.framing import Frame
from blockwire.wire.keys import Pairs
from blockwire.wire.login import LoginRequest, LoginResponse
from blockwire.wire.pdu import Header, WireError

_PHASES: dict[Stage, Phase] = {Stage.SECURITY: "security", Stage.OPERATIONAL: "operational"}
_MAX_EMPTY_ROUNDS = 16
"""How often a target may answer T=1 with T=0 and nothing to do; then it is stuck."""


@dataclass(frozen=True, slots=True)
class LoginPlan:
    """What an initiator wants of a login.

    Attributes:
        initiator_name, isid, cid: who we are (11.12.5, 11.12.7).
        target_name: empty for a discovery session.
        tsih: 0 for a new session (or to reinstate one), the session's for a further connection.
        session: the session's parameters, for a further connection.
        credentials: ``None`` offers AuthMethod=None only.
        algorithms: CHAP algorithms to offer; ``auth.MD5_ONLY`` after ``retry_with_md5``.
        cmd_sn: the first CmdSN of a new session, or the session's next one (11.12.8).
        exp_stat_sn: of the connection that is reinstated (11.12.9), else 0.
    """

    initiator_name: str
    isid: Isid
    target_name: str = ""
    session_type: SessionType = "Normal"
    preferences: Preferences = field(default_factory=lambda: Preferences.of("initiator"))
    credentials: InitiatorCredentials | None = None
    algorithms: tuple[int, ...] = PREFERRED
    initiator_alias: str = ""
    tsih: int = 0
    cid: int = 1
    session: Parameters | None = None
    reinstate: bool = False
    """With a TSIH: take the place of the connection with this CID (6.3.4) instead of adding one."""
    cmd_sn: int = 1
    exp_stat_sn: int = 0
    initiator_task_tag: int = 0

    def __post_init__(self) -> None:
        if (self.tsih != 0) != (self.session is not None):
            raise ValueError("a TSIH and the session's parameters go together")
        if self.session_type == "Normal" and not self.target_name:
            raise ValueError("a normal session needs a target name")


class InitiatorLogin(LoginMachine):
    """One connection's login at the initiator; :meth:`start` it, then feed it.

    Args:
        plan: what is wanted.
        random: draws challenge bytes (mutual CHAP).
        outstanding: the initiator's registry of challenges (9.2.1).
    """

    PEER = "target"

    def __init__(
        self, plan: LoginPlan, random: Random, outstanding: Outstanding | None = None, limits: LoginLimits | None = None
    ) -> None:
        super().__init__(limits or LoginLimits())
        self.plan = plan
        self._negotiation = Negotiation(
            "initiator",
            plan.preferences,
            base=Parameters().with_session(plan.session) if plan.session else Parameters(),
            leading=plan.tsih == 0,
        )
        if plan.session_type == "Discovery":
            self._negotiation.set_discovery()
        registry: Outstanding = OutstandingChallenges() if outstanding is None else outstanding
        self._chap = ChapInitiator(plan.credentials, random, registry, plan.algorithms) if plan.credentials else None
        self._stage = Stage.SECURITY
        self._auth_method: str | None = None
        self._sent_algorithms = False
        self._last: LoginRequest | None = None
        self._want_transit = False
        self._nsg = Stage.OPERATIONAL
        self._exp_stat_sn: int | None = None
        self._empty_rounds = 0
        self._declared: dict[str, str] = {}
        self._versions: tuple[int, int] | None = None
        """Version-max and Version-active of the first response: those are used (11.13.1, 11.13.2)."""

    def start(self, now: float) -> None:
        """Queue the first Login Request and set the deadline."""
        self._move(Step.RUNNING)
        self.deadline = now + self.limits.seconds
        plan = self.plan
        first: Pairs = [("InitiatorName", plan.initiator_name)]
        if plan.initiator_alias:
            first.append(("InitiatorAlias", plan.initiator_alias))
        if plan.target_name:
            first.append(("TargetName", plan.target_name))
        if plan.tsih == 0:
            # 13.21: a leading-only key. Linux's target refuses a further login that has it.
            first.append(("SessionType", plan.session_type))
        if self._chap is None:
            first.append(("AuthMethod", "None"))
        elif plan.credentials is not None and plan.credentials.target is not None:
            # A target that has to prove itself may not choose None.
            first.append(("AuthMethod", "CHAP"))
        else:
            first.append(("AuthMethod", "CHAP,None"))
        self._request(self._negotiation.declare(first), transit=self._chap is None)

    # --- output --------------------------------------------------------------------------------------------------

    def _request(self, pairs: Pairs, *, transit: bool) -> None:
        """Send a text, in pieces where it is long; T only with the last."""
        self._want_transit = transit
        self._nsg = Stage.OPERATIONAL if self._stage is Stage.SECURITY else Stage.FULL_FEATURE
        self._cut(pairs)
        self._send_piece()

    def _send_piece(self) -> None:
        data = self._pieces.popleft() if self._pieces else b""
        continued = bool(self._pieces)
        transit = self._want_transit and not continued
        plan = self.plan
        self._last = LoginRequest(
            transit=transit,
            continued=continued,
            csg=self._stage,
            nsg=self._nsg if transit else 0,
            isid=bytes(plan.isid),
            tsih=plan.tsih,
            initiator_task_tag=plan.initiator_task_tag,
            cid=plan.cid,
            cmd_sn=plan.cmd_sn,
            exp_stat_sn=plan.exp_stat_sn if self._exp_stat_sn is None else self._exp_stat_sn,
            data=data,
        )
        self._send(self._last)

    # --- input ---------------------------------------------------------------------------------------------------

    def _handle_frame(self, frame: Frame) -> None:
        opcode = Header(frame.bhs).opcode
        if opcode == Opcode.REJECT and frame.bhs[2] == RejectReason.NEGOTIATION_RESET:
            # 11.17.1, note 3: MUST be treated as a negotiation failure.
            raise NegotiationError("the target reset the negotiation", evidence="Reject reason 0x0b")
        if opcode != Opcode.LOGIN_RESPONSE:
            reason = f", reason {frame.bhs[2]:#04x}" if opcode == Opcode.REJECT else ""
            raise ProtocolError(
                "the target sent something other than a Login Response", evidence=f"opcode {opcode:#04x}{reason}"
            )
        response = LoginResponse.decode(*frame)
        last = self._last
        if last is None:
            raise ProtocolError("a Login Response came before the Login Request")
        if response.initiator_task_tag != last.initiator_task_tag:
            raise ProtocolError(
                "the Login Response is for another task", evidence=f"ITT {response.initiator_task_tag:#x}"
            )
        if response.status_class != 0:
            self._refused(response)
        self._check(response, last)
        self._exp_stat_sn = serial.add(response.stat_sn, 1)
        if self._pieces:
            if response.data or response.transit or response.continued:
                raise ProtocolError("the target answered before the text was whole", evidence="RFC 7143 section 6.2")
            self._send_piece()
            return
        pairs = self._take_text(response.data, response.continued)
        if pairs is None:
            # 6.2: a response with the C bit is answered with no text; T stays as it was.
            self._send_piece()
            return
        self._take(response, pairs)

    def _check(self, response: LoginResponse, last: LoginRequest) -> None:
        if response.isid != last.isid:
            raise ProtocolError("the ISID changed during the login", evidence=response.isid.hex())
        if response.version_active != VERSION:
            raise ProtocolError(
                "the target speaks another version", evidence=f"Version-active {response.version_active}"
            )
        versions = (response.version_max, response.version_active)
        if self._versions not in (None, versions):
            raise ProtocolError(
                "the versions changed during the login",
                evidence=f"Version-max {response.version_max}, RFC 7143 section 11.13.1",
            )
        self._versions = versions
        if response.csg != last.csg:
            raise ProtocolError(
                "the Login Response is of another stage", evidence=f"CSG={response.csg}, expected {last.csg}"
            )
        if response.transit and (response.continued or not last.transit):
            raise ProtocolError(
                "the target made a transition that was not asked for", evidence="RFC 7143 section 11.13.6"
            )
        if response.transit and (response.nsg not in STAGE_TRANSITIONS[Stage(last.csg)] or response.nsg > last.nsg):
            raise ProtocolError("there is no such stage transition", evidence=f"CSG={response.csg} NSG={response.nsg}")

    def _refused(self, response: LoginResponse) -> NoReturn:
        """A Status-Class other than 0 (11.13.5)."""
        try:
            pairs = keys.split_pairs(response.data)
        except WireError:
            pairs = []
        addresses = tuple(value for key, value in pairs if key == "TargetAddress")
        if response.status_class == 1:
            if not addresses:
                raise ProtocolError(
                    "the target redirects and does not say where", evidence=f"login status {response.status:04x}"
                )
            raise errors.login_error(response.status, addresses=addresses)
        raise errors.login_error(response.status)

    def _take(self, response: LoginResponse, pairs: Pairs) -> None:
        phase = _PHASES[self._stage]
        received = self._negotiation.receive(pairs, phase)
        self._declared |= {name: str(value) for name, value in received.declared.items()}
        if response.transit:
            self._take_transition(response, received)
        elif self._stage is Stage.SECURITY:
            self._security_round(received)
        else:
            self._operational_round(received)

    def _take_transition(self, response: LoginResponse, received: Received) -> None:
        if self._stage is Stage.SECURITY:
            answers = self._security_answers(received)
            self._check_authenticated()
        else:
            answers = []
        answers += received.answers
        if answers:
            # 6.3: a target MUST NOT ask for more in a response with T set.
            raise ProtocolError("the target asks for answers in its last response of a stage", evidence=answers[0][0])
        if response.nsg == Stage.FULL_FEATURE:
            self._finish(response)
            return
        self._stage = Stage(response.nsg)
        self._empty_rounds = 0
        self._request(self._negotiation.offers(), transit=True)

    def _security_answers(self, received: Received) -> Pairs:
        security = dict(received.security)
        answers: Pairs = []
        method = security.pop("AuthMethod", None)
        if method is not None:
            self._auth_method = method
            if method == "CHAP" and self._chap is not None:
                answers += self._negotiation.declare(self._chap.offer())
                self._sent_algorithms = True
            elif method != "None" or (self.plan.credentials is not None and self.plan.credentials.target is not None):
                raise errors.login_error(
                    0x0201,
                    "the target asks for an authentication that is not set up here",
                    whose="user",
                    evidence=f"AuthMethod={method[:60]}",
                    next="set a CHAP user and secret" if self._chap is None else "",
                )
        if security:
            if self._chap is None or not self._sent_algorithms:
                raise ProtocolError("CHAP keys came before they were asked for", evidence=" ".join(sorted(security)))
            answers += self._negotiation.declare(self._chap.receive(security))
        return answers

    def _check_authenticated(self) -> None:
        mutual = self.plan.credentials is not None and self.plan.credentials.target is not None
        if self._auth_method == "CHAP" or mutual:
            assert self._chap is not None
            if not self._chap.done:
                raise errors.login_error(
                    0x0201, "the target went on without finishing the authentication", whose="peer"
                )

    def _security_round(self, received: Received) -> None:
        answers = self._security_answers(received)
        self._count_empty(received, answers)
        if self._chap is None or self._auth_method == "None":
            ready = True
        else:
            # With the response sent (and our own challenge, if mutual) we are ready for the next stage.
            ready = self._chap.challenged
        self._request(answers + received.answers, transit=ready)

    def _operational_round(self, received: Received) -> None:
        self._count_empty(received, received.answers)
        self._request(received.answers, transit=True)

    def _count_empty(self, received: Received, answers: Pairs) -> None:
        self._empty_rounds = 0 if answers else self._empty_rounds + 1
        if self._empty_rounds > _MAX_EMPTY_ROUNDS:
            raise ProtocolError(
                "the target neither goes on nor asks for anything", evidence=f"stage {self._stage.name}"
            )

    def _finish(self, response: LoginResponse) -> None:
        plan = self.plan
        if response.tsih == 0 or (plan.tsih and response.tsih != plan.tsih):
            raise ProtocolError("the target gave no valid TSIH", evidence=f"TSIH {response.tsih}")
        parameters = self._negotiation.finish()
        tag = self._declared.get("TargetPortalGroupTag")
        action = Action.NEW_SESSION
        if plan.tsih:
            action = Action.REINSTATE_CONNECTION if plan.reinstate else Action.ADD_CONNECTION
        result = LoginResult(
            role="initiator",
            initiator_name=plan.initiator_name,
            target_name=plan.target_name,
            isid=plan.isid,
            tsih=response.tsih,
            cid=plan.cid,
            parameters=parameters,
            action=action,
            portal_group_tag=None if tag is None else int(tag),
            cmd_sn=plan.cmd_sn,
            exp_cmd_sn=response.exp_cmd_sn,
            max_cmd_sn=response.max_cmd_sn,
            stat_sn=serial.add(response.stat_sn, 1),
            over_read=self._deframer.take_rest(),
            initiator_alias=plan.initiator_alias,
            target_alias=self._declared.get("TargetAlias", ""),
            authenticated_as=plan.credentials.account.name if plan.credentials and self._auth_method == "CHAP" else "",
            target_authenticated=bool(plan.credentials and plan.credentials.target and self._auth_method == "CHAP"),
        )
        self._move(Step.DONE)
        self._closed()
        self._events.append(LoginDone(result))

    # --- the end -------------------------------------------------------------------------------------------------

    def _fail(self, error: Error, *, retry_with_md5: bool = False, text: dict[str, str] | None = None) -> None:
        choked = self._choked(error)
        if isinstance(error, NegotiationError) and error.reject_reason == RejectReason.PROTOCOL_ERROR:
            error.evidence = error.evidence or f"login at stage {self._stage.name}"
        super()._fail(error, retry_with_md5=retry_with_md5 or choked, text=text)

    def _choked(self, error: Error) -> bool:
        """Whether the target may have stumbled over the algorithm list, so that MD5 alone is worth a try.

        A target that supports none of it answers CHAP_A with 0201, some close the connection; tgt picks SHA-256 and
        then has no room for its response, which ends in 0200. A refused response (0201) is a wrong secret: no retry.
        """
        chap = self._chap
        if chap is None or not self._sent_algorithms or len(chap.algorithms) == 1 or self._stage is not Stage.SECURITY:
            return False
        if chap.algorithm is None:
            return isinstance(error, errors.LoginError | errors.ConnectionLostError)
        unusual = chap.algorithm not in MD5_ONLY
        return unusual and isinstance(error, errors.LoginError) and error.status == LoginStatus.INITIATOR_ERROR

    def _closed(self) -> None:
        if self._chap is not None:
            self._chap.close()
