//! What the tests of the domain share: a credential, a policy, and providers that can and can't list their keys.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::credential::{Credential, Environment};
use super::environment::{Evidence, EvidenceKind, Proof, Says};
use super::ids::{InstallationId, OperationId};
use super::ledger::{Origin, VersionFacts};
use super::policy::{Confirmation, RotationPolicy, Terms, Unconfirmed};
use super::provider::{Authentication, Body, Call, Calls, Create, Lifecycle, Limits, List, Method, Provider, Template, Timing};
use super::span::Span;
use super::windows::Window;

pub(crate) const DAY: u64 = 86_400;

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn installation() -> InstallationId {
    InstallationId(Uuid::from_u128(7))
}

pub(crate) fn credential(name: &str, environment: Environment) -> Credential {
    Credential {
        name: name.parse().unwrap(),
        provider: "acme".parse().unwrap(),
        environment,
        rotation: "policy".parse().unwrap(),
        path: name.to_owned(),
        variables: BTreeMap::new(),
        account: "acme".parse().unwrap(),
        administered_by: None,
        twin: None,
        accept_undetermined: None,
        rehearsal_time: Duration::ZERO,
        require_go_live: false,
    }
}

/// Ages in seconds. Confirmation required, unconfirmed held.
pub(crate) fn policy(max_age: u64, overlap: u64, spread: u64) -> RotationPolicy {
    RotationPolicy {
        name: "policy".parse().unwrap(),
        max_age: Span::from_secs(max_age),
        terms: Terms { overlap: Span::from_secs(overlap), confirmation: Confirmation::Required, unconfirmed: Unconfirmed::Hold },
        spread: Duration::from_secs(spread),
        windows: Vec::new(),
        window_wait: Duration::ZERO,
        verify_every: Span::from_secs(DAY),
        rehearse: false,
        rollout: Vec::new(),
    }
}

pub(crate) fn window(cron: &str, timezone: &str, open: &str) -> Window {
    Window::new(cron, timezone, open.parse().unwrap(), at("2026-01-01T00:00:00Z")).unwrap()
}

fn call() -> Call {
    Call {
        method: Method::Post,
        path: Template::literal("/keys"),
        url_field: None,
        query: Vec::new(),
        headers: Vec::new(),
        authentication: Authentication::Token,
        body: Body::None,
        rules: Vec::new(),
        access_token: None,
        proves_environment: false,
    }
}

/// Mints keys; lists them with our marker where `lists`.
pub(crate) fn provider(lists: bool) -> Provider {
    let create = Create {
        call: call(),
        idempotency_headers: Vec::new(),
        key_id: Some("/id".to_owned()),
        fields: BTreeMap::new(),
        issued_at: None,
        expires_at: None,
        previous_expires_at: None,
    };
    let list = List {
        call: call(),
        items: "/items".to_owned(),
        key_id: "/id".to_owned(),
        marker: Some("/name".to_owned()),
        alive: None,
        issued_at: None,
        expires_at: None,
        paging: None,
    };
    Provider {
        name: "acme".parse().unwrap(),
        title: "Acme".to_owned(),
        retired: false,
        environments: BTreeMap::new(),
        variables: BTreeMap::new(),
        fields: BTreeMap::new(),
        calls: Calls { create: Some(create), list: lists.then_some(list), revoke: Some(call()), ..Calls::default() },
        signs: None,
        lifecycle: Lifecycle::Pairs,
        manual: Default::default(),
        slots: None,
        timing: Timing::default(),
        limits: Limits::default(),
        facts: Vec::new(),
        go_live: Vec::new(),
    }
}

pub(crate) fn proof(says: Says) -> Proof {
    Proof::weigh(vec![Evidence::new(EvidenceKind::Probe, says, "because")])
}

/// A version that a person submitted.
pub(crate) fn submitted(issued_at: Timestamp) -> VersionFacts {
    VersionFacts {
        operation: OperationId::new(installation(), &"any".parse().unwrap(), 1, 1),
        generation: 1,
        origin: Origin::Submitted,
        key_id: None,
        issued_at,
        expires_at: None,
        fingerprints: Vec::new(),
        proof: Some(proof(Says::For)),
        copy_of: None,
        doomed: false,
        ended: None,
    }
}
