"""The target's side of the login phase (RFC 7143 sections 6.3, 11.12 and 11.13)."""

from __future__ import annotations

from blockwire import errors
from blockwire.auth.chap import ChapTarget, Outstanding, OutstandingChallenges, Random
from blockwire.errors import Error, NegotiationError, ProtocolError, RedirectError, login_error
from blockwire.login.exchange import LoginMachine
from blockwire.login.policy import ExistingSession, Identification, Reception, TargetPolicy
from blockwire.login.result import Admission, LoginDone, LoginLimits, LoginResult
from blockwire.login.states import STAGE_TRANSITIONS, Action, Step, login_action
from blockwire.names import Isid, peer_name
from blockwire.negotiate import Negotiation, Preferences, Received
from blockwire.negotiate.engine import Phase
from blockwire.negotiate.values import parse_list
from blockwire.wire import serial
from blockwire.wire.constants import OPCODE_MASK, VERSION, LoginStatus, Opcode, Stage
from blockwire.wire.framing import Frame
from blockwire.wire.keys import Pairs, join_pairs
from blockwire.wire.login import LoginRequest, LoginResponse

_PHASES: dict[int, Phase] = {Stage.SECURITY: "security", Stage.OPERATIONAL: "operational"}
_ADDS = (Action.ADD_CONNECTION, Action.REINSTATE_CONNECTION)


class TargetLogin(LoginMachine):
    """One connection's login at the target.

    Args:
        policy: answers who may log in to what.
        now: the time of the connection, from which the deadline counts.
        random: draws challenge bytes (CHAP).
        outstanding: the target's registry of challenges (9.2.1).
        stat_sn: the first StatSN of the connection.
        window: how many commands a new session may have in flight (MaxCmdSN - ExpCmdSN + 1).
    """

    PEER = "initiator"

    def __init__(
        self,
        policy: TargetPolicy,
        now: float,
        random: Random,
        outstanding: Outstanding | None = None,
        limits: LoginLimits | None = None,
        stat_sn: int = 1,
        window: int = 128,
    ) -> None:
        super().__init__(limits or LoginLimits())
        self.deadline = now + self.limits.seconds
        self.policy = policy
        self.window = window
        self._random = random
        self._outstanding: Outstanding = OutstandingChallenges() if outstanding is None else outstanding
        self._stat_sn = stat_sn
        self._first: LoginRequest | None = None
        self._request: LoginRequest | None = None
        self._stage: Stage | None = None
        self._identification: Identification | None = None
        self._reception: Reception | None = None
        self._session: ExistingSession | None = None
        self._action = Action.NEW_SESSION
        self._negotiation = Negotiation("target", Preferences(()))
        self._chap: ChapTarget | None = None
        self._auth_method: str | None = None
        self._auth_proposed = False
        self._last_words: Pairs = []
        self._mutual = False
        self._transit_after_pieces: Stage | None = None
        self._aliases: dict[str, str] = {}
        self._admission: Admission | None = None

    @property
    def identification(self) -> Identification | None:
        """Who logs in, once it is known; for logs."""
        return self._identification

    # --- admission -------------------------------------------------------------------------------------------

    def admit(self, tsih: int, *, exp_cmd_sn: int | None = None, max_cmd_sn: int | None = None) -> None:
        """Answer :class:`Admission`: the session exists under ``tsih`` (1 to 65535), the login is accepted.

        ``exp_cmd_sn`` and ``max_cmd_sn`` are the live numbers of an existing session; a new one starts at its CmdSN.
        """
        admission, request = self._admission, self._request
        if self.step is not Step.ADMISSION or admission is None or request is None or self._reception is None:
            raise RuntimeError("there is no login to admit")
        if not 0 < tsih < 1 << 16:
            raise ValueError("a TSIH is 1 to 65535")
        if exp_cmd_sn is None:
            exp_cmd_sn = self._session.exp_cmd_sn if self._joins and self._session else admission.cmd_sn
        if max_cmd_sn is None:
            joined = self._session.max_cmd_sn if self._joins and self._session else None
            max_cmd_sn = serial.add(exp_cmd_sn, self.window - 1) if joined is None else joined
        data = self._pieces.popleft() if self._pieces else b""
        self._send(
            LoginResponse(
                transit=True,
                csg=request.csg,
                nsg=Stage.FULL_FEATURE,
                isid=request.isid,
                tsih=tsih,
                initiator_task_tag=request.initiator_task_tag,
                stat_sn=self._stat_sn,
                exp_cmd_sn=exp_cmd_sn,
                max_cmd_sn=max_cmd_sn,
                data=data,
            )
        )
        self._stat_sn = serial.add(self._stat_sn, 1)
        result = LoginResult(
            role="target",
            initiator_name=admission.initiator_name,
            target_name=admission.target_name,
            isid=admission.isid,
            tsih=tsih,
            cid=admission.cid,
            parameters=admission.parameters,
            action=admission.action,
            portal_group_tag=self._reception.portal_group_tag,
            cmd_sn=exp_cmd_sn,
            exp_cmd_sn=exp_cmd_sn,
            max_cmd_sn=max_cmd_sn,
            stat_sn=self._stat_sn,
            over_read=self._deframer.take_rest(),
            initiator_alias=self._aliases.get("InitiatorAlias", ""),
            target_alias=self._reception.alias,
            authenticated_as=admission.authenticated_as,
            target_authenticated=self._mutual,
        )
        self._move(Step.DONE)
        self._closed()
        self._events.append(LoginDone(result))

    def refuse(self, error: Error) -> None:
        """Refuse the login, at admission or before, with the status of ``error``."""
        if self.step not in (Step.DONE, Step.FAILED):
            self._refuse(error)

    @property
    def _joins(self) -> bool:
        return self._action in _ADDS

    # --- input -------------------------------------------------------------------------------------------------

    def _next_frame(self) -> Frame | None:
        first = self._deframer.first_byte
        if first is not None and first & OPCODE_MASK != Opcode.LOGIN_REQUEST:
            # Judged by its first byte: a port scanner's few bytes need not fill a header.
            raise login_error(
                LoginStatus.INVALID_DURING_LOGIN,
                "something other than a Login Request came during login",
                whose="peer",
                evidence=f"opcode {first & OPCODE_MASK:#04x}",
            )
        return self._deframer.next()

    def _handle_frame(self, frame: Frame) -> None:
        request = LoginRequest.decode(*frame)
        if self._first is None:
            self._start(request)
        else:
            self._check_same(request, self._first)
        self._request = request
        self._check_flags(request)
        if self._pieces:
            self._continue_sending(request)
            return
        pairs = self._take_text(request.data, request.continued)
        if pairs is None:
            self._respond([])  # 6.2: a request with the C bit is answered with no text
            return
        if self._identification is None:
            self._identify(request, pairs)
        self._handle_text(request, pairs)

    def _start(self, request: LoginRequest) -> None:
        self._first = request
        self._move(Step.RUNNING)
        if request.version_min > VERSION:
            raise login_error(
                LoginStatus.UNSUPPORTED_VERSION,
                "the initiator does not support iSCSI version 0",
                whose="peer",
                evidence=f"Version-min {request.version_min}",
            )
        if request.csg not in STAGE_TRANSITIONS[None]:
            raise NegotiationError("the login starts in a stage that does not exist", evidence=f"CSG={request.csg}")
        self._stage = Stage(request.csg)

    def _check_same(self, request: LoginRequest, first: LoginRequest) -> None:
        # 11.12.5 to 11.12.7, 6.3: these stay as they were in the first request.
        for name in ("isid", "tsih", "cid", "initiator_task_tag", "version_max", "version_min"):
            if getattr(request, name) != getattr(first, name):
                raise NegotiationError(f"{name} changed during the login", evidence="RFC 7143 section 11.12")

    def _check_flags(self, request: LoginRequest) -> None:
        stage = self._stage
        if stage is None or request.csg != stage:
            raise NegotiationError(
                "the Login Request is of another stage", evidence=f"CSG={request.csg}, expected {stage}"
            )
        if request.transit and request.continued:
            raise NegotiationError("T and C are both set in a Login Request", evidence="RFC 7143 section 11.12.2")
        if request.transit and request.nsg not in STAGE_TRANSITIONS[stage]:
            raise NegotiationError("there is no such stage transition", evidence=f"CSG={request.csg} NSG={request.nsg}")

    def _continue_sending(self, request: LoginRequest) -> None:
        """The initiator fetches the rest of a text that was longer than a PDU."""
        if request.data or request.continued:
            raise NegotiationError("text came where an empty Login Request was due", evidence="RFC 7143 section 6.2")
        self._send_piece(request)

    # --- who is it -----------------------------------------------------------------------------------------------

    def _identify(self, request: LoginRequest, pairs: Pairs) -> None:
        named = dict(reversed(pairs))
        initiator_name = named.get("InitiatorName")
        if not initiator_name:
            raise login_error(
                LoginStatus.MISSING_PARAMETER,
                "the Login Request names no initiator",
                whose="peer",
                evidence="InitiatorName",
            )
        session_type = named.get("SessionType", "Normal")
        if session_type not in ("Normal", "Discovery"):
            raise login_error(
                LoginStatus.SESSION_TYPE_NOT_SUPPORTED, whose="peer", evidence=f"SessionType={session_type[:40]}"
            )
        target_name = named.get("TargetName", "")
        if session_type == "Normal" and not target_name:
            raise login_error(
                LoginStatus.MISSING_PARAMETER, "the Login Request names no target", whose="peer", evidence="TargetName"
            )
        try:
            peer_name(initiator_name)
        except errors.UsageError as error:
            raise NegotiationError(
                "InitiatorName is no iSCSI name", key="InitiatorName", evidence=error.evidence
            ) from None
        identification = Identification(
            initiator_name,
            target_name,
            "Discovery" if session_type == "Discovery" else "Normal",
            Isid.from_bytes(request.isid),
            request.tsih,
            request.cid,
        )
        self._identification = identification
        reception = self.policy.receive(identification)
        self._reception = reception
        session = self.policy.existing_session(identification, reception)
        self._session = session
        self._action = login_action(
            session is not None,
            request.tsih,
            session.tsih if session else 0,
            session is not None and request.cid in session.cids,
        )
        if self._action is Action.FAIL:
            raise login_error(
                LoginStatus.SESSION_DOES_NOT_EXIST,
                "there is no such session",
                whose="peer",
                evidence=f"TSIH {request.tsih}",
            )
        self._negotiation.preferences = reception.preferences
        if self._joins and session is not None:
            taken = len(session.cids) if session.connections is None else session.connections
            if self._action is Action.ADD_CONNECTION and taken >= session.parameters.max_connections:
                raise login_error(
                    LoginStatus.TOO_MANY_CONNECTIONS,
                    whose="peer",
                    evidence=f"MaxConnections={session.parameters.max_connections}",
                )
            self._negotiation.leading = False
            self._negotiation.base = self._negotiation.base.with_session(session.parameters)
        if self._stage is Stage.OPERATIONAL and reception.authentication.required:
            # 6.3.1: unwilling to accept a connection without the security stage.
            raise errors.login_error(LoginStatus.AUTHENTICATION_FAILURE, "the initiator did not authenticate itself")

    # --- stages ----------------------------------------------------------------------------------------------------

    def _handle_text(self, request: LoginRequest, pairs: Pairs) -> None:
        assert self._identification is not None
        assert self._reception is not None
        received = self._negotiation.receive(pairs, _PHASES[request.csg])
        late_type = received.declared.get("SessionType")
        if late_type is not None and late_type != self._identification.session_type:
            raise NegotiationError("SessionType changed after the first request", key="SessionType")
        for name in ("InitiatorName", "TargetName"):
            if name in received.declared and received.declared[name] != getattr(
                self._identification, "initiator_name" if name == "InitiatorName" else "target_name"
            ):
                raise NegotiationError(f"{name} came after the first request", key=name)
        if "InitiatorAlias" in received.declared:
            self._aliases["InitiatorAlias"] = str(received.declared["InitiatorAlias"])
        answers = self._basics()
        if request.csg == Stage.SECURITY:
            self._security_stage(request, received, answers)
        else:
            self._operational_stage(request, received, answers)

    def _basics(self) -> Pairs:
        """6.3.1: TargetPortalGroupTag in the first response to a whole text; the alias in a normal session (13.6)."""
        reception = self._reception
        assert reception is not None
        pairs = self._negotiation.offer("TargetPortalGroupTag", str(reception.portal_group_tag))
        if reception.alias and self._negotiation.parameters().session_type == "Normal":
            pairs += self._negotiation.offer("TargetAlias", reception.alias)
        return pairs

    def _security_stage(self, request: LoginRequest, received: Received, answers: Pairs) -> None:
        assert self._reception is not None
        security = dict(received.security)
        policy = self._reception.authentication
        method = security.pop("AuthMethod", None)
        if method is not None:
            answers += self._choose_method(method)
        if security:
            if self._chap is None:
                # 9.2: MUST be refused with "Initiator Error" or "Missing Parameter"
                raise errors.login_error(
                    LoginStatus.INITIATOR_ERROR,
                    "CHAP keys came before AuthMethod=CHAP",
                    whose="peer",
                    evidence=" ".join(sorted(security)),
                )
            proof = self._chap.receive(security)
            self._mutual = self._mutual or (self._chap.done and bool(proof))
            answers += self._negotiation.declare(proof)
        elif method is None and self._chap is not None and not self._chap.done:
            self._chap.receive({})  # 9.2: a step without its keys MUST be refused
        answers += received.answers
        authenticated = self._auth_method == "None" or (self._chap is not None and self._chap.done)
        skipped = self._auth_method is None and not policy.required
        if not request.transit:
            self._respond(answers)
        elif authenticated or skipped:
            self._transit(request, answers)
        elif self._auth_method is None and not self._auth_proposed:
            # 6.3.2: the target directs the negotiation when the initiator makes no proposal.
            self._auth_proposed = True
            self._respond([*answers, ("AuthMethod", "CHAP")])
        elif self._auth_method is None:
            raise errors.login_error(LoginStatus.AUTHENTICATION_FAILURE, "the initiator did not authenticate itself")
        else:
            self._respond(answers)

    def _choose_method(self, offered: str) -> Pairs:
        assert self._reception is not None
        policy = self._reception.authentication
        if offered in ("Reject", "NotUnderstood", "Irrelevant"):
            raise errors.login_error(LoginStatus.AUTHENTICATION_FAILURE, "the initiator refuses to authenticate itself")
        try:
            methods = parse_list(offered)
        except ValueError as error:
            raise NegotiationError("AuthMethod is malformed", key="AuthMethod", evidence=str(error)) from None
        for method in methods:
            if method == "CHAP" and policy.accounts:
                self._auth_method = "CHAP"
                self._chap = ChapTarget(policy, self._random, self._outstanding)
                break
            if method == "None" and not policy.required:
                self._auth_method = "None"
                break
        else:
            # 6.3.2: MUST be answered with "Reject"; the status in the same response ends the login (6.2.1).
            if not self._auth_proposed:
                self._last_words = [("AuthMethod", "Reject")]
            raise errors.login_error(
                LoginStatus.AUTHENTICATION_FAILURE,
                "no authentication method in common",
                evidence=f"AuthMethod={offered[:60]}",
                next="set a CHAP user and secret on the initiator" if policy.required else "",
            )
        # The answer to our own proposal needs none (12.1).
        return [] if self._auth_proposed else [("AuthMethod", self._auth_method)]

    def _operational_stage(self, request: LoginRequest, received: Received, answers: Pairs) -> None:
        answers += received.answers
        if "MaxRecvDataSegmentLength" in dict(self._negotiation.preferences.values):
            answers += self._negotiation.offer(
                "MaxRecvDataSegmentLength", str(self._negotiation.preferences.get("MaxRecvDataSegmentLength"))
            )
        if request.transit:
            answers += self._negotiation.needed_offers()
            if not self._negotiation.waiting:
                self._transit(request, answers)
                return
        self._respond(answers)

    # --- output ----------------------------------------------------------------------------------------------------

    def _transit(self, request: LoginRequest, answers: Pairs) -> None:
        """Agree to the next stage, after all of ``answers`` are sent."""
        nsg = Stage(request.nsg)
        if nsg is Stage.FULL_FEATURE and request.csg == Stage.SECURITY and self._needs_operational():
            nsg = Stage.OPERATIONAL  # the selected NSG may be less than the initiator's (6.3)
        self._cut(answers)
        self._transit_after_pieces = nsg
        self._send_piece(request)

    def _needs_operational(self) -> bool:
        probe = Negotiation("target", self._negotiation.preferences, self._negotiation.base, self._negotiation.leading)
        return any(name != "MaxRecvDataSegmentLength" for name, _ in probe.needed_offers())

    def _respond(self, pairs: Pairs) -> None:
        assert self._request is not None
        self._cut(pairs)
        self._transit_after_pieces = None
        self._send_piece(self._request)

    def _send_piece(self, request: LoginRequest) -> None:
        nsg = self._transit_after_pieces if len(self._pieces) == 1 else None
        if nsg is not None and not request.transit:
            # The initiator fetched the last piece without T; T must not be set in the answer (11.13.6).
            self._transit_after_pieces = nsg = None
        if nsg is Stage.FULL_FEATURE:
            self._ask_admission(request)
            return
        data = self._pieces.popleft()
        session = self._session if self._joins else None
        exp_cmd_sn = session.exp_cmd_sn if session else request.cmd_sn
        self._send(
            LoginResponse(
                transit=nsg is not None,
                continued=bool(self._pieces),
                csg=request.csg,
                nsg=nsg or 0,
                isid=request.isid,
                tsih=request.tsih,
                initiator_task_tag=request.initiator_task_tag,
                stat_sn=self._stat_sn,
                exp_cmd_sn=exp_cmd_sn,
                max_cmd_sn=session.max_cmd_sn if session else serial.add(exp_cmd_sn, self.window - 1),
                data=data,
            )
        )
        self._stat_sn = serial.add(self._stat_sn, 1)
        if nsg is not None:
            self._stage = nsg
            self._transit_after_pieces = None

    def _ask_admission(self, request: LoginRequest) -> None:
        assert self._identification is not None
        assert self._reception is not None
        parameters = self._negotiation.finish()
        self._admission = Admission(
            action=self._action,
            initiator_name=self._identification.initiator_name,
            target_name=self._reception.target_name,
            isid=self._identification.isid,
            tsih=request.tsih,
            cid=request.cid,
            cmd_sn=self._first.cmd_sn if self._first is not None and not self._joins else request.cmd_sn,
            exp_stat_sn=self._first.exp_stat_sn if self._first is not None else 0,
            parameters=parameters,
            authenticated_as=self._chap.account_name if self._chap else "",
        )
        self._move(Step.ADMISSION)
        self._events.append(self._admission)

    def _refuse(self, error: Error) -> None:
        """Send a Login reject with the status that ``error`` means, unless no Login Request came at all (4.2.4)."""
        first, last = self._first, self._request or self._first
        if first is not None and last is not None:
            status_class, status_detail = errors.login_status(error)
            data = join_pairs(self._last_words)
            if isinstance(error, RedirectError):
                data = b"".join(f"TargetAddress={address}".encode() + b"\0" for address in error.addresses)
            self._transmit += LoginResponse(
                csg=0,
                isid=first.isid,
                tsih=first.tsih,
                initiator_task_tag=last.initiator_task_tag,
                stat_sn=self._stat_sn,
                status_class=status_class,
                status_detail=status_detail,
                data=data,
            ).to_bytes()
        elif not isinstance(error, ProtocolError):
            error = ProtocolError("no iSCSI login came", code="login.not-iscsi", evidence=error.evidence)
        self._fail(error)

    def _closed(self) -> None:
        if self._chap is not None:
            self._chap.close()
