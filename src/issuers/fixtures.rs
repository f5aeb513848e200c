//! Two of the descriptions of `policies/providers`, built by hand, for tests that need a provider and no file.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Administrator, Target};
use crate::domain::credential::Environment;
use crate::domain::environment::BaseUrl;
use crate::domain::form::Form;
use crate::domain::ids::FieldName;
use crate::domain::material::Material;
use crate::domain::provider::*;

pub(crate) fn field(name: &str) -> FieldName {
    name.parse().unwrap()
}

/// Where a fake listens.
pub(crate) fn target(provider: Provider, url: &str) -> Target {
    Target {
        credential: format!("{}-sandbox", provider.name).parse().unwrap(),
        account: format!("{}-sandbox", provider.name).parse().unwrap(),
        routine: false,
        variables: provider.variables.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect(),
        provider: Arc::new(provider),
        environment: Environment::Sandbox,
        base_url: BaseUrl { url: url.to_owned(), overridden: true },
        administrator: None,
    }
}

pub(crate) fn rules(rules: &[(&[u16], Meaning)]) -> Vec<Rule> {
    let rules = rules.iter().map(|(statuses, meaning)| Rule { statuses: statuses.to_vec(), equals: None, meaning: *meaning });
    rules.collect()
}

pub(crate) fn call(method: Method, path: &str, authentication: Authentication, rules: Vec<Rule>) -> Call {
    Call {
        method,
        path: Template::parse(path).unwrap(),
        url_field: None,
        query: Vec::new(),
        headers: Vec::new(),
        authentication,
        body: Body::None,
        rules,
        access_token: None,
        proves_environment: false,
    }
}

pub(crate) fn dinie() -> Provider {
    let with_limit = |limit: &str, call: Call| Call { query: vec![("limit".to_owned(), Template::literal(limit))], ..call };
    let probe_rules = rules(&[(&[200], Meaning::Works), (&[401], Meaning::Dead), (&[403], Meaning::Narrow)]);
    let probe = with_limit("1", call(Method::Get, "/auth/credentials", Authentication::Token, probe_rules));
    let list_rules = rules(&[(&[200], Meaning::Works), (&[401], Meaning::Dead), (&[400, 404, 422], Meaning::Refused)]);
    let revoke_rules = rules(&[(&[204], Meaning::Works), (&[404], Meaning::Gone), (&[401], Meaning::Dead)]);
    Provider {
        fields: [described("client_id", FieldClass::Public), described("client_secret", FieldClass::Secret)].into(),
        calls: Calls {
            token: Some(token_call("/auth/token", rules(&[(&[200], Meaning::Works), (&[401], Meaning::Dead)]))),
            probe: Some(Call { proves_environment: true, ..probe }),
            create: Some(dinie_create()),
            list: Some(List {
                call: with_limit("100", call(Method::Get, "/auth/credentials", Authentication::Token, list_rules)),
                items: "/data".to_owned(),
                key_id: "/client_id".to_owned(),
                marker: Some("/name".to_owned()),
                alive: Some(("/status".to_owned(), vec!["active".to_owned()])),
                issued_at: Some("/created_at".to_owned()),
                expires_at: Some("/expires_at".to_owned()),
                paging: Some(Paging {
                    more: "/has_more".to_owned(),
                    parameter: "starting_after".to_owned(),
                    cursors: ["/id", "/client_id"].map(str::to_owned).into(),
                }),
            }),
            revoke: Some(call(Method::Delete, "/auth/credentials/{key_id}", Authentication::Token, revoke_rules)),
            ..Calls::default()
        },
        limits: Limits {
            limit_header: Some("X-RateLimit-Limit".to_owned()),
            remaining_header: Some("X-RateLimit-Remaining".to_owned()),
            reset_header: Some("X-RateLimit-Reset".to_owned()),
            ..Limits::default()
        },
        ..empty("dinie")
    }
}

/// Dinie's shape, with keys that another credential makes, lists and removes.
pub(crate) fn administered() -> Provider {
    let mut provider = dinie();
    let calls = &mut provider.calls;
    let signed = [calls.create.as_mut().map(|it| &mut it.call), calls.list.as_mut().map(|it| &mut it.call), calls.revoke.as_mut()];
    signed.into_iter().flatten().for_each(|call| call.authentication = Authentication::Administrator);
    provider
}

/// Dinie's shape with two slots, where a key is disabled before it can be removed.
pub(crate) fn slotted() -> Provider {
    let mut provider = dinie();
    provider.slots = Some(2);
    let rules = rules(&[(&[204], Meaning::Works), (&[404, 409], Meaning::Gone), (&[401], Meaning::Dead)]);
    provider.calls.disable = Some(call(Method::Post, "/auth/credentials/{key_id}/deactivate", Authentication::Token, rules));
    if let Some((_, values)) = provider.calls.list.as_mut().and_then(|list| list.alive.as_mut()) {
        values.push("disabled".to_owned());
    }
    provider
}

/// Dinie's webhook secret: one secret, rotated with overlap by another credential; nobody can ask whether it lives.
pub(crate) fn rotating() -> Provider {
    let mut provider = administered();
    provider.lifecycle = Lifecycle::Rotate;
    let create = dinie_create();
    let seconds = JsonTemplate::Object(vec![("expire_current_in".to_owned(), JsonTemplate::Number("overlap_seconds".to_owned()))]);
    let path = "/hooks/{field:client_id}/secret/rotate";
    let call = Call { body: Body::Json(seconds), ..call(Method::Post, path, Authentication::Administrator, create.call.rules) };
    provider.calls = Calls {
        create: Some(Create {
            call,
            key_id: None,
            fields: [(field("client_secret"), "/secret".to_owned())].into(),
            issued_at: None,
            expires_at: None,
            previous_expires_at: Some("/previous_secret_expires_at".to_owned()),
            ..create
        }),
        ..Calls::default()
    };
    provider
}

/// A client whose registration is updated (RFC 7592), where the server answers with a new secret; the old one is dead.
pub(crate) fn replacing() -> Provider {
    let mut provider = oauth_registration();
    provider.lifecycle = Lifecycle::Replace;
    provider.calls.revoke = None;
    if let Some(create) = provider.calls.create.as_mut() {
        let body = vec![("client_id".to_owned(), JsonTemplate::Text(Template::parse("{field:client_id}").unwrap()))];
        create.call = Call {
            url_field: Some(field("registration_client_uri")),
            body: Body::Json(JsonTemplate::Object(body)),
            ..call(
                Method::Put,
                "/",
                Authentication::Management { field: field("registration_access_token") },
                rules(&[(&[200], Meaning::Works), (&[401], Meaning::Dead)]),
            )
        };
        create.key_id = None;
        create.fields = pointers(&["client_secret", "registration_access_token"]);
        create.issued_at = None;
    }
    provider
}

/// Dinie's shape with a primary and a secondary secret of one client, as Twilio has them.
pub(crate) fn promoting() -> Provider {
    let mut provider = dinie();
    provider.lifecycle = Lifecycle::Promote;
    let rules = rules(&[(&[200, 204], Meaning::Works), (&[404], Meaning::Gone), (&[401], Meaning::Dead)]);
    let create = dinie_create();
    provider.calls = Calls {
        token: provider.calls.token,
        create: Some(Create {
            call: Call { body: Body::None, path: Template::literal("/secrets/secondary"), ..create.call },
            idempotency_headers: Vec::new(),
            key_id: None,
            fields: [(field("client_secret"), "/secondary".to_owned())].into(),
            ..create
        }),
        promote: Some(call(Method::Post, "/secrets/promote", Authentication::Token, rules.clone())),
        cancel: Some(call(Method::Delete, "/secrets/secondary", Authentication::Token, rules)),
        ..Calls::default()
    };
    provider
}

/// The same target, with a credential that signs for it and is at home elsewhere.
pub(crate) fn signed_by(target: Target, provider: Provider, home: &str, material: Material) -> Target {
    let administrator = Administrator { target: self::target(provider, home), material };
    Target { administrator: Some(Arc::new(administrator)), ..target }
}

fn dinie_create() -> Create {
    let create_rules =
        rules(&[(&[201, 200], Meaning::Works), (&[401], Meaning::Dead), (&[400, 403, 404, 405, 409, 422], Meaning::Refused)]);
    let body = Body::Json(JsonTemplate::Object(vec![("name".to_owned(), JsonTemplate::Text(Template::parse("{marker}").unwrap()))]));
    Create {
        call: Call { body, ..call(Method::Post, "/auth/credentials", Authentication::Token, create_rules) },
        idempotency_headers: vec!["Idempotency-Key".to_owned(), "X-Idempotency-Key".to_owned()],
        key_id: Some("/client_id".to_owned()),
        fields: pointers(&["client_id", "client_secret"]),
        issued_at: Some("/created_at".to_owned()),
        expires_at: Some("/expires_at".to_owned()),
        previous_expires_at: None,
    }
}

pub(crate) fn oauth_registration() -> Provider {
    let error_is = |error: &str| Some(("/error".to_owned(), error.into()));
    let equals = |statuses: &[u16], error, meaning| Rule { statuses: statuses.to_vec(), equals: error_is(error), meaning };
    let mut token_rules = rules(&[(&[200], Meaning::Works), (&[401], Meaning::Dead)]);
    token_rules.insert(1, equals(&[400, 401], "invalid_client", Meaning::Dead));
    token_rules.insert(2, equals(&[400], "unauthorized_client", Meaning::Narrow));
    let revoke_rules = rules(&[(&[204], Meaning::Works), (&[401, 404], Meaning::Gone), (&[403, 405], Meaning::Refused)]);
    let by_management = Authentication::Management { field: field("registration_access_token") };
    let create_rules = rules(&[(&[201, 200], Meaning::Works), (&[401], Meaning::Dead), (&[400, 403, 404, 405], Meaning::Refused)]);
    let body = Body::Json(JsonTemplate::Object(vec![
        ("client_name".to_owned(), JsonTemplate::Text(Template::parse("{marker}").unwrap())),
        ("grant_types".to_owned(), JsonTemplate::List(vec![JsonTemplate::Text(Template::literal("client_credentials"))])),
        ("redirect_uris".to_owned(), JsonTemplate::List(Vec::new())),
    ]));
    let mut fields = BTreeMap::from([described("client_id", FieldClass::Public), described("client_secret", FieldClass::Secret)]);
    fields.extend([
        described("registration_access_token", FieldClass::Management),
        described("registration_client_uri", FieldClass::Management),
    ]);
    Provider {
        variables: [("register", "reg"), ("token", "token")].map(|(name, value)| (name.to_owned(), Some(value.parse().unwrap()))).into(),
        fields,
        calls: Calls {
            token: Some(token_call("/{token}", token_rules)),
            create: Some(Create {
                call: Call { body, ..call(Method::Post, "/{register}", Authentication::Open, create_rules) },
                idempotency_headers: Vec::new(),
                key_id: Some("/client_id".to_owned()),
                fields: pointers(&["client_id", "client_secret", "registration_access_token", "registration_client_uri"]),
                issued_at: Some("/client_id_issued_at".to_owned()),
                expires_at: Some("/client_secret_expires_at".to_owned()),
                previous_expires_at: None,
            }),
            revoke: Some(Call {
                url_field: Some(field("registration_client_uri")),
                ..call(Method::Delete, "/", by_management, revoke_rules)
            }),
            ..Calls::default()
        },
        ..empty("oauth-registration")
    }
}

fn token_call(path: &str, rules: Vec<Rule>) -> Call {
    let basic = Authentication::Basic { username: field("client_id"), password: field("client_secret") };
    Call {
        body: Body::Form(vec![("grant_type".to_owned(), Template::literal("client_credentials"))]),
        access_token: Some("/access_token".to_owned()),
        proves_environment: true,
        ..call(Method::Post, path, basic, rules)
    }
}

fn pointers(fields: &[&str]) -> BTreeMap<FieldName, String> {
    fields.iter().map(|name| (field(name), format!("/{name}"))).collect()
}

fn described(name: &str, class: FieldClass) -> (FieldName, Field) {
    (
        field(name),
        Field {
            class,
            bound: true,
            served: class != FieldClass::Management,
            form: Form::default(),
            usage: Usage::Sign,
            recipe: None,
            is: None,
        },
    )
}

fn empty(name: &str) -> Provider {
    Provider {
        name: name.parse().unwrap(),
        title: name.to_owned(),
        retired: false,
        environments: BTreeMap::new(),
        variables: BTreeMap::new(),
        fields: BTreeMap::new(),
        calls: Calls::default(),
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
