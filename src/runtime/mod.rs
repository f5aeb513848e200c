//! What surrounds the engine in a process: configuration, clock, audit, telemetry, hardening, shutdown.

pub mod audit;
pub mod clock;
pub mod config;
pub mod couriers;
pub mod hardening;
pub mod leadership;
pub mod metrics;
pub mod reload;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
