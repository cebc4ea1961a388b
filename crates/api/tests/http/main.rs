//! The whole crate over HTTP, with a runner that needs no sandboxes.

mod common;
mod lambda_api;
mod signatures;
