//! The signal frame from which `rt_sigreturn` gives a thread back its registers.
//!
//! One call restores the general registers, the whole extended state, the signal mask and the alternate signal
//! stack: the kernel's `struct rt_sigframe` (arch/x86/include/asm/sigframe.h) written by hand. Only the bases of FS
//! and GS are not in it.

use crate::image::Thread;

/// Positions in `struct user_regs_struct`.
pub mod register {
    /// Accumulator: the result of a system call.
    pub const RAX: usize = 10;
    /// The number of the interrupted system call, or all ones.
    pub const ORIG_RAX: usize = 15;
    /// Instruction pointer.
    pub const RIP: usize = 16;
    /// Stack pointer.
    pub const RSP: usize = 19;
    /// Base of FS: thread-local storage.
    pub const FS_BASE: usize = 21;
    /// Base of GS.
    pub const GS_BASE: usize = 22;
    /// The order in which `struct sigcontext` wants the general registers, the instruction pointer and the flags.
    pub const SIGCONTEXT: [usize; 18] = [9, 8, 7, 6, 3, 2, 1, 0, 14, 13, 4, 5, 12, 10, 11, 19, 16, 18];
    /// CS and SS.
    pub const SEGMENTS: (usize, usize) = (17, 20);
}

/// `UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`.
const UC_FLAGS: u64 = 7;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
/// Where `struct _fpx_sw_bytes` lies in the legacy area.
const SOFTWARE_BYTES: usize = 464;
/// Bytes of `struct ucontext` with its signal mask.
const CONTEXT_BYTES: usize = 304;

/// Alignment that the frame needs: the extended state inside it must lie at a multiple of 64.
pub const ALIGNMENT: usize = 64;

/// Builds the frame for `thread` to lie at `address`; the stack pointer of `rt_sigreturn` is `address` itself.
///
/// `address` must be a multiple of [`ALIGNMENT`].
#[must_use]
pub fn frame(thread: &Thread, address: u64) -> Vec<u8> {
    let state_offset = CONTEXT_BYTES.next_multiple_of(ALIGNMENT);
    let mut frame = Vec::with_capacity(state_offset + thread.xsave.len() + 4);
    let mut word = |value: u64| frame.extend_from_slice(&value.to_ne_bytes());
    word(UC_FLAGS);
    word(0);
    let stack = <[u64; 3]>::try_from(thread.alternate_stack.as_slice()).unwrap_or([0, 0, SS_DISABLE]);
    word(stack[0]);
    word(stack[2]);
    word(stack[1]);
    for register in register::SIGCONTEXT {
        word(thread.registers[register]);
    }
    let (cs, ss) = register::SEGMENTS;
    word((thread.registers[cs] & 0xffff) | (thread.registers[ss] & 0xffff) << 48);
    for _ in 0..4 {
        word(0);
    }
    word(address + state_offset as u64);
    for _ in 0..8 {
        word(0);
    }
    word(thread.signal_mask);
    frame.resize(state_offset, 0);
    frame.extend_from_slice(&extended_state(&thread.xsave));
    frame
}

/// `SS_DISABLE`: no alternate stack.
const SS_DISABLE: u64 = 2;

/// The XSAVE area with the marks by which the kernel tells that it is whole.
fn extended_state(xsave: &[u8]) -> Vec<u8> {
    let mut state = xsave.to_vec();
    let features: [u8; 8] = state[SOFTWARE_BYTES..SOFTWARE_BYTES + 8].try_into().expect("eight bytes");
    let bytes = xsave.len() as u32;
    let mut mark = Vec::with_capacity(48);
    mark.extend_from_slice(&FP_XSTATE_MAGIC1.to_ne_bytes());
    mark.extend_from_slice(&(bytes + 4).to_ne_bytes());
    mark.extend_from_slice(&features);
    mark.extend_from_slice(&bytes.to_ne_bytes());
    mark.resize(48, 0);
    state[SOFTWARE_BYTES..SOFTWARE_BYTES + 48].copy_from_slice(&mark);
    state.extend_from_slice(&FP_XSTATE_MAGIC2.to_ne_bytes());
    state
}
