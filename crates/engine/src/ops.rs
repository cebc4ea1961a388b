//! The language of a plan: what the host writes down and the injected interpreter carries out.
//!
//! This file is compiled twice, into the engine and into the interpreter (`inject/main.rs`), so it uses nothing but
//! `core`. A plan is a flat array of [`Op`]; an operation that starts a process or a thread is followed by the
//! operations of its child, which the parent steps over.

/// What an [`Op`] does. The numbers are the wire format between the two builds of this file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Code {
    /// System call `number` with `args`; the result goes to slot `out` and must meet `expect`.
    Syscall = 1,
    /// The same system call again and again, yielding in between, until its result equals `expected`; gives up after
    /// `count` tries.
    Await = 2,
    /// `clone3` with the arguments at `args[0]` (`args[1]` bytes); the child runs the next `count` operations. The
    /// parent's result is the child's ID.
    Clone = 3,
    /// Adds `args[1]` to the 32-bit word at `args[0]` and wakes its waiters.
    Signal = 4,
    /// Waits until the 32-bit word at `args[0]` is at least `args[1]`.
    Wait = 5,
    /// Copies `args[2]` bytes from `args[1]` to `args[0]`.
    Copy = 6,
    /// Calls the C function at `args[0]` on the stack that ends at `args[1]`; its result must meet `expect`.
    Call = 7,
    /// Returns from the signal frame at `args[0]`: the thread goes on where the checkpoint stopped it.
    Sigreturn = 8,
    /// Tells the host that this plan has come to its end in the clone. Nothing of the function has run yet.
    Report = 9,
    /// Ends this process or thread.
    Exit = 10,
}

/// Which results of a call are no surprise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Expect {
    /// Any: the call may fail.
    Any = 0,
    /// Zero or more.
    NotNegative = 1,
    /// Exactly `expected`.
    Exactly = 2,
}

/// No result is kept.
pub const NO_SLOT: u32 = u32::MAX;
/// How many slots a plan has.
pub const SLOTS: usize = 32;
/// The slots that descriptors received with a request fill, from zero.
pub const DESCRIPTOR_SLOTS: usize = 16;

/// One step of a plan.
#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(C)]
pub struct Op {
    /// What to do.
    pub code: Code,
    /// System call number.
    pub number: u32,
    /// Operands; operand `i` is a slot's index if bit `i` of `slots` is set.
    pub args: [u64; 6],
    /// Which operands are slots.
    pub slots: u32,
    /// Where the result goes, or [`NO_SLOT`].
    pub out: u32,
    /// Which results are no surprise.
    pub expect: Expect,
    /// Operations of the child ([`Code::Clone`]) or tries ([`Code::Await`]).
    pub count: u32,
    /// The result for [`Expect::Exactly`].
    pub expected: i64,
}

/// What a template reads from its socket: run this list.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Request {
    /// Chosen by the host; every report of this run carries it.
    pub sequence: u64,
    /// The first operation.
    pub start: u32,
    /// How many.
    pub count: u32,
    /// Values for the slots from [`DESCRIPTOR_SLOTS`] on.
    pub values: [u64; SLOTS - DESCRIPTOR_SLOTS],
}

/// Who reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Reporter {
    /// The template: the list that was asked for is done, or failed in the template itself.
    Template = 1,
    /// A process or thread that the list started.
    Child = 2,
}

/// What comes back.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Report {
    /// The request's.
    pub sequence: u64,
    /// Who.
    pub reporter: Reporter,
    /// The operation that surprised, or [`DONE`].
    pub index: u32,
    /// Its result (a negative errno), or zero.
    pub result: i64,
}

/// [`Report::index`] of a list that was carried out to its end.
pub const DONE: u32 = u32::MAX;

/// What the interpreter keeps at the start of its data.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Context {
    /// The control socket.
    pub control: u64,
    /// Address of the first operation.
    pub ops: u64,
    /// Sequence of the request that runs.
    pub sequence: u64,
    /// The slots.
    pub slots: [u64; SLOTS],
}
