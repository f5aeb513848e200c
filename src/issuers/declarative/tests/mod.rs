//! The declarative issuer against fakes on the loopback: the contract, and every bad reply.

mod addresses;
mod administrator;
mod bad_replies;
mod contract;
mod fuzz;
mod gates;
mod headers;
mod meanings;
mod pages;
mod raw;
mod secondary;
mod succession;

use std::sync::Once;
use std::time::Duration;

use uuid::Uuid;

use super::DeclarativeIssuer;
use crate::domain::ids::{InstallationId, OperationId};
use crate::domain::material::{Material, Secret};
use crate::issuers::{CreateRequest, fixtures};

pub(super) const SECRET: &str = "dinie_cs_live_Zq7RkW2mXv9TtB4nYc6LpH8s";
pub(super) const NEW_SECRET: &str = "dinie_cs_live_Jd5FgU3oEa1SiM0wNb7KqV9x";
pub(super) const TOKEN: &str = "dinie_at_eyJhbGciOiJub25lIn0.c2VjcmV0";

/// The process's own provider of cryptography, as `main` installs it.
pub(super) fn issuer(timeout: Duration) -> DeclarativeIssuer {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _already_there = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
    DeclarativeIssuer::new(timeout)
}

pub(super) fn quick() -> DeclarativeIssuer {
    issuer(Duration::from_secs(4))
}

pub(super) fn pair(id: &str, secret: &str) -> Material {
    let value = |text: &str| Secret::from(text.to_owned());
    [(fixtures::field("client_id"), value(id)), (fixtures::field("client_secret"), value(secret))].into_iter().collect()
}

pub(super) fn acting() -> Material {
    pair("dinie_ci_test_current", SECRET)
}

pub(super) fn request() -> CreateRequest {
    let installation = InstallationId(Uuid::from_u128(7));
    CreateRequest {
        operation: OperationId::new(installation, &"dinie-sandbox".parse().unwrap(), 2, 1),
        marker: "kw-7-dinie-sandbox-2-1".to_owned(),
        overlap: std::time::Duration::from_secs(3600),
    }
}
