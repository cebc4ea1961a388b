//! The system calls of the model, by what they are about. A call that the model does not know fails the test.

mod descriptors;
mod memory;
mod processes;
mod sockets;

use super::world::{Outcome, World};

impl World<'_> {
    /// Makes a call as thread `task`.
    pub fn system_call(&mut self, task: usize, number: i64, args: [u64; 6]) -> Outcome {
        self.memory_call(task, number, args)
            .or_else(|| self.process_call(task, number, args))
            .or_else(|| self.descriptor_call(task, number, args))
            .or_else(|| self.socket_call(task, number, args))
            .unwrap_or_else(|| panic!("the model does not know call {number}"))
    }
}
