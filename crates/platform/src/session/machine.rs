//! The rules of the Runtime API for one environment, as a pure state machine.
//!
//! Calls of the runtime and orders of the platform go in as [`Input`]; the new state and at most one [`Effect`] on a
//! waiting call come out. No I/O, no clock, no bodies: what travels is kept by the driver ([`super::Session`]).
//! States and refusals follow the Runtime API reference and the state machine of the public emulator
//! (`Started → RestoreReady → Restoring → Ready → Running → ResponseSent → Ready …`).

use super::refusal::Refusal;

/// Names one waiting call of the runtime.
pub(crate) type Ticket = u64;

/// How an environment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A normal init; the routes of the restore protocol do not exist.
    OnDemand,
    /// An init that is going to be checkpointed: it may take warm-up events; `restore/next` waits forever.
    BeforeSnapshot,
    /// A restored environment whose runtime waits in `restore/next`: that call is answered at once.
    Restored,
    /// A restored environment whose runtime waits in `invocation/next`, because it does not know the restore protocol.
    RestoredInNext,
}

impl Mode {
    /// Whether the routes of the restore protocol and of the credentials exist.
    pub fn is_snap_start(self) -> bool {
        self != Self::OnDemand
    }
}

/// Where the runtime stands. The names are those of the emulator and appear in refusals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There is no runtime yet.
    Waiting,
    Started,
    RestoreReady,
    Restoring,
    Ready,
    Running,
    /// It has answered the invocation and not yet asked for the next.
    ResponseSent,
    InitError,
    RestoreError,
    /// The process is gone, or the environment is being taken down.
    Ended,
}

impl Phase {
    fn name(&self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Started => "Started",
            Self::RestoreReady => "RestoreReady",
            Self::Restoring => "Restoring",
            Self::Ready => "Ready",
            Self::Running => "Running",
            Self::ResponseSent => "ResponseSent",
            Self::InitError => "InitError",
            Self::RestoreError => "RestoreError",
            Self::Ended => "Ended",
        }
    }
}

/// What happens to the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input<'a> {
    /// The platform starts or restores a runtime.
    Begin(Mode),
    /// The platform has an invocation for the runtime.
    Assign { request_id: &'a str },
    /// The platform takes an invocation back that was not delivered.
    Unassign,
    /// GET invocation/next.
    Next { ticket: Ticket, port: u16 },
    /// GET restore/next.
    RestoreNext { ticket: Ticket, port: u16 },
    /// POST response or error of an invocation.
    Answer { request_id: &'a str },
    /// POST init/error.
    InitError,
    /// POST restore/error.
    RestoreError,
    /// The client of a waiting call has gone away.
    Abandon { ticket: Ticket },
    /// The process ended, or the platform takes the environment down.
    End,
}

/// What the driver does about a waiting call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// The call that came in is to wait.
    Wait,
    /// The call with this ticket gets the assigned invocation.
    Deliver(Ticket),
    /// The call that came in is answered at once.
    Proceed,
    /// The call that came in takes the place of this one, which is refused; the new one waits.
    Supersede(Ticket),
}

/// A runtime call that waits for the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingCall {
    /// Which call.
    pub route: PendingRoute,
    /// Local port of the function's side of the connection.
    pub port: u16,
}

/// The calls that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingRoute {
    /// GET restore/next.
    RestoreNext,
    /// GET invocation/next.
    InvocationNext,
}

/// The state of one environment's Runtime API.
#[derive(Debug)]
pub(crate) struct Machine {
    phase: Phase,
    mode: Mode,
    waiting: Option<(Ticket, PendingCall)>,
    /// Assigned and not delivered.
    assigned: bool,
    /// Identifier of the invocation that was assigned last; answers must carry it.
    request_id: Option<String>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { phase: Phase::Waiting, mode: Mode::OnDemand, waiting: None, assigned: false, request_id: None }
    }

    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// The call that waits, with the port that a checkpoint needs.
    pub(crate) fn pending(&self) -> Option<PendingCall> {
        self.waiting.map(|(_, call)| call)
    }

    /// Whether an answer for `request_id` would be taken now; lets the server refuse before it reads a body.
    pub(crate) fn expects(&self, request_id: &str) -> Result<(), Refusal> {
        if self.phase == Phase::Running && self.request_id.as_deref() == Some(request_id) {
            Ok(())
        } else {
            Err(Refusal::InvalidRequestId)
        }
    }

    pub(crate) fn apply(&mut self, input: Input<'_>) -> Result<Effect, Refusal> {
        match input {
            Input::Begin(mode) => Ok(self.begin(mode)),
            Input::Assign { request_id } => Ok(self.assign(request_id)),
            Input::Unassign => {
                if self.assigned {
                    self.assigned = false;
                    self.request_id = None;
                }
                Ok(Effect::None)
            }
            Input::Next { ticket, port } => self.next(ticket, port),
            Input::RestoreNext { ticket, port } => self.restore_next(ticket, port),
            Input::Answer { request_id } => {
                self.expects(request_id)?;
                self.phase = self.between_events();
                Ok(Effect::None)
            }
            Input::InitError => self.init_error(),
            Input::RestoreError => match self.phase {
                _ if !self.mode.is_snap_start() => Err(Refusal::NoSuchRoute),
                Phase::Restoring => self.turn(Phase::RestoreError),
                _ => Err(self.not_allowed("RestoreError")),
            },
            Input::Abandon { ticket } => Ok(self.abandon(ticket)),
            Input::End => {
                self.phase = Phase::Ended;
                self.waiting = None;
                Ok(Effect::None)
            }
        }
    }

    fn begin(&mut self, mode: Mode) -> Effect {
        self.mode = mode;
        self.phase = match mode {
            Mode::OnDemand | Mode::BeforeSnapshot | Mode::RestoredInNext => Phase::Started,
            Mode::Restored => Phase::RestoreReady,
        };
        Effect::None
    }

    fn assign(&mut self, request_id: &str) -> Effect {
        self.request_id = Some(request_id.to_owned());
        self.assigned = true;
        match self.waiting {
            Some((ticket, call)) if call.route == PendingRoute::InvocationNext => {
                self.waiting = None;
                self.deliver(ticket)
            }
            _ => Effect::None,
        }
    }

    fn next(&mut self, ticket: Ticket, port: u16) -> Result<Effect, Refusal> {
        match self.phase {
            Phase::Started | Phase::Restoring | Phase::Ready | Phase::ResponseSent => {}
            _ => return Err(self.not_allowed("Ready")),
        }
        self.phase = Phase::Ready;
        if self.assigned {
            return Ok(self.deliver(ticket));
        }
        let call = PendingCall { route: PendingRoute::InvocationNext, port };
        let before = self.waiting.replace((ticket, call));
        Ok(before.map_or(Effect::Wait, |(ticket, _)| Effect::Supersede(ticket)))
    }

    fn restore_next(&mut self, ticket: Ticket, port: u16) -> Result<Effect, Refusal> {
        match (self.mode, &self.phase) {
            (Mode::Restored, Phase::RestoreReady) => {
                self.phase = Phase::Restoring;
                Ok(Effect::Proceed)
            }
            (Mode::BeforeSnapshot, Phase::Started) => {
                self.phase = Phase::RestoreReady;
                self.waiting = Some((ticket, PendingCall { route: PendingRoute::RestoreNext, port }));
                Ok(Effect::Wait)
            }
            (Mode::OnDemand, _) => Err(Refusal::NoSuchRoute),
            _ => Err(self.not_allowed("RestoreReady")),
        }
    }

    /// The emulator takes `init/error` of a restoring runtime for a restore error: clients older than `restore/error`.
    fn init_error(&mut self) -> Result<Effect, Refusal> {
        match self.phase {
            Phase::Started => self.turn(Phase::InitError),
            Phase::Restoring => self.turn(Phase::RestoreError),
            _ => Err(self.not_allowed("InitError")),
        }
    }

    fn abandon(&mut self, ticket: Ticket) -> Effect {
        let Some((_, call)) = self.waiting.take_if(|(waiting, _)| *waiting == ticket) else {
            return Effect::None;
        };
        // Both calls may be made again from here.
        match call.route {
            PendingRoute::RestoreNext => self.phase = Phase::Started,
            PendingRoute::InvocationNext => self.phase = self.between_events(),
        }
        Effect::None
    }

    /// Events before a snapshot are warm-up events, and init goes on after them: with another one, or with the
    /// before-snapshot hooks and `restore/next`.
    fn between_events(&self) -> Phase {
        if self.mode == Mode::BeforeSnapshot { Phase::Started } else { Phase::ResponseSent }
    }

    fn deliver(&mut self, ticket: Ticket) -> Effect {
        self.assigned = false;
        self.phase = Phase::Running;
        Effect::Deliver(ticket)
    }

    fn turn(&mut self, phase: Phase) -> Result<Effect, Refusal> {
        self.phase = phase;
        Ok(Effect::None)
    }

    fn not_allowed(&self, to: &'static str) -> Refusal {
        match self.phase {
            Phase::Ended => Refusal::Ended,
            _ => Refusal::InvalidStateTransition { from: self.phase.name(), to },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn next(ticket: Ticket) -> Input<'static> {
        Input::Next { ticket, port: 7 }
    }

    fn run(mode: Mode, inputs: &[Input<'_>]) -> Vec<Result<Effect, &'static str>> {
        let mut machine = Machine::new();
        machine.apply(Input::Begin(mode)).unwrap();
        inputs
            .iter()
            .map(|input| machine.apply(input.clone()).map_err(|refusal| refusal.error_type()))
            .collect()
    }

    #[test]
    fn an_invocation_goes_round() {
        let answer = |request_id| Input::Answer { request_id };
        let effects = run(
            Mode::OnDemand,
            &[
                next(1),
                Input::Assign { request_id: "a" },
                answer("b"),
                answer("a"),
                answer("a"),
                Input::Assign { request_id: "b" },
                answer("b"),
                next(2),
                answer("a"),
                answer("b"),
            ],
        );
        let invalid = Err("InvalidRequestID");
        assert_eq!(
            effects,
            [
                Ok(Effect::Wait),
                Ok(Effect::Deliver(1)),
                invalid,
                Ok(Effect::None),
                invalid,
                Ok(Effect::None),
                invalid,
                Ok(Effect::Deliver(2)),
                invalid,
                Ok(Effect::None),
            ]
        );
    }

    #[test]
    fn a_restored_runtime_passes_restore_next_once_and_gets_the_event_at_its_first_next() {
        let restore = Input::RestoreNext { ticket: 1, port: 7 };
        let effects = run(
            Mode::Restored,
            &[
                next(9),
                restore.clone(),
                restore,
                Input::Assign { request_id: "a" },
                next(2),
                Input::RestoreError,
            ],
        );
        let refused = Err("InvalidStateTransition");
        assert_eq!(
            effects,
            [refused, Ok(Effect::Proceed), refused, Ok(Effect::None), Ok(Effect::Deliver(2)), refused]
        );
    }

    #[test]
    fn the_restore_protocol_exists_for_snap_start_only_and_waits_before_the_snapshot() {
        let restore = Input::RestoreNext { ticket: 1, port: 7 };
        assert_eq!(run(Mode::OnDemand, std::slice::from_ref(&restore)), [Err("NoSuchRoute")]);
        let mut machine = Machine::new();
        machine.apply(Input::Begin(Mode::BeforeSnapshot)).unwrap();
        assert_eq!(machine.apply(restore), Ok(Effect::Wait));
        assert_eq!(machine.pending(), Some(PendingCall { route: PendingRoute::RestoreNext, port: 7 }));
        machine.apply(Input::Abandon { ticket: 1 }).unwrap();
        assert_eq!(machine.pending(), None);
    }

    #[test]
    fn init_goes_on_after_a_warm_up_event() {
        let restore = Input::RestoreNext { ticket: 3, port: 7 };
        let answer = Input::Answer { request_id: "a" };
        let (wait, none, deliver) = (Ok(Effect::Wait), Ok(Effect::None), Ok(Effect::Deliver(1)));
        let assign = Input::Assign { request_id: "a" };
        let warm_up = [next(1), assign, restore.clone(), Input::InitError, answer];
        let refused = Err("InvalidStateTransition");
        let effects = run(
            Mode::BeforeSnapshot,
            &[&warm_up[..], &[next(2), Input::Abandon { ticket: 2 }, restore]].concat(),
        );
        assert_eq!(effects, [wait, deliver, refused, refused, none, wait, none, wait]);
        let effects = run(Mode::BeforeSnapshot, &[&warm_up[..], &[Input::InitError]].concat());
        assert_eq!(effects[5], none);
    }

    #[test]
    fn errors_belong_to_their_phase() {
        assert_eq!(run(Mode::OnDemand, &[Input::InitError, next(1)])[1], Err("InvalidStateTransition"));
        assert_eq!(run(Mode::OnDemand, &[next(1), Input::InitError])[1], Err("InvalidStateTransition"));
        let mut machine = Machine::new();
        machine.apply(Input::Begin(Mode::Restored)).unwrap();
        machine.apply(Input::RestoreNext { ticket: 1, port: 7 }).unwrap();
        machine.apply(Input::InitError).unwrap();
        assert_eq!(*machine.phase(), Phase::RestoreError);
    }

    #[test]
    fn a_second_next_takes_the_place_of_the_first() {
        let effects = run(Mode::OnDemand, &[next(1), next(2), Input::Abandon { ticket: 1 }]);
        assert_eq!(effects, [Ok(Effect::Wait), Ok(Effect::Supersede(1)), Ok(Effect::None)]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Next,
        RestoreNext,
        Assign,
        Answer(u8),
        InitError,
        RestoreError,
        Abandon,
        End,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Next),
            1 => Just(Step::RestoreNext),
            4 => Just(Step::Assign),
            4 => (0u8..3).prop_map(Step::Answer),
            1 => Just(Step::InitError),
            1 => Just(Step::RestoreError),
            1 => Just(Step::Abandon),
            1 => Just(Step::End),
        ]
    }

    fn mode() -> impl Strategy<Value = Mode> {
        prop_oneof![
            Just(Mode::OnDemand),
            Just(Mode::BeforeSnapshot),
            Just(Mode::Restored),
            Just(Mode::RestoredInNext)
        ]
    }

    proptest! {
        /// Whatever a runtime calls: each assignment is delivered at most once, answered at most once, and only under
        /// its own identifier; nothing is delivered after the end.
        #[test]
        fn deliveries_and_answers_pair_up(mode in mode(), steps in prop::collection::vec(step(), 0..60)) {
            let mut machine = Machine::new();
            machine.apply(Input::Begin(mode)).unwrap();
            let (mut ticket, mut assigned, mut delivered, mut answered) = (0, 0u32, 0u32, 0u32);
            let mut ended = false;
            for step in steps {
                ticket += 1;
                let current = assigned.to_string();
                let effect = match step {
                    Step::Next => machine.apply(Input::Next { ticket, port: 1 }),
                    Step::RestoreNext => machine.apply(Input::RestoreNext { ticket, port: 1 }),
                    Step::Assign if delivered == assigned && answered == assigned => {
                        assigned += 1;
                        machine.apply(Input::Assign { request_id: &assigned.to_string() })
                    }
                    Step::Assign => continue,
                    Step::Answer(back) => {
                        let id = assigned.saturating_sub(back.into()).to_string();
                        let taken = machine.apply(Input::Answer { request_id: &id });
                        if taken.is_ok() {
                            prop_assert_eq!(id, current);
                            answered += 1;
                        }
                        taken
                    }
                    Step::InitError => machine.apply(Input::InitError),
                    Step::RestoreError => machine.apply(Input::RestoreError),
                    Step::Abandon => machine.apply(Input::Abandon { ticket: ticket - 1 }),
                    Step::End => { ended = true; machine.apply(Input::End) }
                };
                if let Ok(Effect::Deliver(_)) = effect {
                    delivered += 1;
                    prop_assert!(!ended);
                    prop_assert!(machine.pending().is_none());
                }
                prop_assert!(answered <= delivered && delivered <= assigned);
            }
        }
    }
}
