//! The HTTP API on the Unix socket and on loopback: routes, authentication, views, stream.
//!
//! **Architecture invariant:** decides nothing about credentials. It parses, authenticates, bounds and renders; all
//! answers come from the engine through [`service::Service`]. Values are seen in `document` only.

mod answers;
mod body;
mod credentials;
mod document;
mod engine_service;
mod handle;
mod headers;
mod identity;
mod incident;
mod input;
mod launch;
mod limits;
mod openapi;
mod operate;
mod path;
mod problem;
mod routes;
mod server;
pub mod service;
mod stream;
mod wire;

#[cfg(test)]
mod tests;

pub use engine_service::EngineService;
pub use handle::{App, Metrics};
pub(crate) use headers::{APPLICATION, INSTANCE, REASON};
pub use limits::Limits;
pub use problem::{Problem, Slug};
pub use server::{BindError, Listener, bind_address, bind_socket, serve};
