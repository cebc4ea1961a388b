//! The two HTTP interfaces: the Lambda API for clients and the Runtime API for functions. **The only crate that knows
//! HTTP.**
//!
//! The way of a Lambda API request: [`server`] takes the connection; `front` gives it an id, finds its operation
//! (`routes`), checks its signature ([`sigv4`]) and reads its body within the operation's limit; `lambda` turns JSON
//! into the words of `platform::control` and back; `respond` writes answers and errors. Deliberately absent: any
//! rule of the service.

pub mod auth;
mod download;
mod front;
mod lambda;
mod respond;
mod routes;
pub mod runtime_api;
pub mod server;
pub mod sigv4;
