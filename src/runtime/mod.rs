//! What surrounds the engine in a process: configuration, clock, audit, telemetry, hardening, shutdown.

pub mod config;
