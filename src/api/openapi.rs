//! The OpenAPI document, made from the table of routes and from the types that are written and read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::body::{BODY_MAX, Body};
use super::limits::Limits;
use super::path::Query;
use super::problem::{Slug, Written};
use super::routes::{Answer, Content, ENDPOINTS, Endpoint, TOO_EARLY, Who};
use super::server::HEAD_MAX;
use crate::domain::ids::{InstanceName, ItemId, Name};
use crate::domain::reason::REASON_CHARS_MAX;

/// It says the same as long as the process lives.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(document().to_string()));

pub(super) fn answer() -> Response<Body> {
    let mut answer = Response::new(Body::full(DOCUMENT.clone()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|it| it.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    generator.subschema_for::<Written<'_>>();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for endpoint in ENDPOINTS {
        let operation = operation(endpoint, &mut generator);
        let path = paths.entry(endpoint.path).or_default();
        path.insert(endpoint.method.to_ascii_lowercase(), operation);
        path.entry("parameters").or_insert_with(|| names_of(endpoint).map(|name| path_parameter(&name)).collect());
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Keywright", "version": env!("CARGO_PKG_VERSION"), "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}, "description": about()},
        "servers": [{"url": "http://127.0.0.1:8750", "description": "The default. The configuration says where it is (`listen`), and where its Unix socket is."}],
        "tags": [
            {"name": "applications", "description": "Read, follow, confirm."},
            {"name": "operators", "description": "On the socket, or with an operator's token. Lists take `limit` and `after` and answer `next`."},
            {"name": "health", "description": "No identity needed."},
        ],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "headers": {
                "CacheControl": {"schema": {"const": "no-store"}},
                "RequestId": {"description": "Stands in the log, too.", "schema": {"type": "string", "format": "uuid"}},
            },
            "securitySchemes": {"bearer": {
                "type": "http",
                "scheme": "bearer",
                "description": "A static token; or, where the configuration names an audience under `identities`, the token of a \
    Kubernetes service account for that audience, bound to a pod. On the Unix socket a caller without a token is known by its uid instead; that is what \
    `{}` stands for under `security`.",
            }},
        },
    })
}

fn about() -> String {
    let limits = Limits::default();
    format!(
        "Credentials of API providers: kept, proved, rotated, and pushed to the applications.\n\n\
**Refusals** are problem documents (RFC 9457); branch on the last part of `type`. Another method than those of a path is answered \
with 405 `method` and `Allow`, another path with 404 `not-found`. A credential that the caller may not read and one that doesn't \
exist are answered alike, with 403.\n\n\
**Requests** are taken as they stand: paths have no percent escapes, query parameters that are unknown or stand twice are refused, \
and so is whatever was forwarded (`Forwarded`, `X-Forwarded-*`).\n\n\
**Bounds**: {BODY_MAX} bytes and a nesting of 16 for a body, {HEAD_MAX} bytes for a head, {body} s for a body to come; {connections} \
connections for each listener, {requests} requests under way and {streams} streams for each identity. Beyond them: 413, 400, 408, 429 \
with `Retry-After`.\n\n\
**Instances**: each running copy of an application names itself by the header `Keywright-Instance` on every call. A pod \
that shows its service account's token is the instance of its own name: the header may be left out, and names nobody else.\n\n\
{TOO_EARLY}",
        body = limits.body_timeout.as_secs(),
        connections = limits.connections,
        requests = limits.requests_per_identity,
        streams = limits.streams_per_identity,
    )
}

fn operation(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "tags": [match endpoint.who {
            Who::Anybody => "health",
            Who::Application | Who::Reader => "applications",
            Who::Operator(_) | Who::Rotator => "operators",
        }],
        "responses": responses(endpoint, generator),
        "security": if endpoint.who == Who::Anybody { json!([]) } else { json!([{"bearer": []}, {}]) },
    });
    let about: Vec<&str> = [endpoint.about, caller(endpoint.who)].into_iter().filter(|text| !text.is_empty()).collect();
    operation["description"] = about.join("\n\n").into();
    let parameters: Vec<Value> = endpoint
        .query
        .iter()
        .filter_map(|name| query_parameter(name))
        .chain(endpoint.headers.iter().filter_map(|name| header(name)))
        .collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = endpoint.body {
        let form = (body.form)(generator);
        operation["requestBody"] = json!({"required": body.required, "content": {"application/json": {"schema": form}}});
    }
    operation
}

fn caller(who: Who) -> &'static str {
    use crate::domain::access::Right;
    match who {
        Who::Anybody => "",
        Who::Application => "For applications.",
        Who::Reader => "For applications, and for operators who may `read`.",
        Who::Operator(Right::Status) => "For operators who may `status`.",
        Who::Operator(Right::Rotate) => "For operators who may `rotate`.",
        Who::Operator(Right::Revoke) => "For operators who may `revoke`.",
        Who::Rotator => "For operators who may `rotate`; for a stolen key, who may `revoke`.",
        Who::Operator(Right::Read) => "For operators who may `read`.",
    }
}

fn responses(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    for answer in endpoint.answers {
        responses.insert(answer.status.to_string(), response(answer, generator));
    }
    let known = problems_of(endpoint);
    let mut slugs: BTreeMap<u16, Vec<Slug>> = BTreeMap::new();
    for slug in Slug::ALL.iter().filter(|slug| known.contains(slug.as_str())) {
        slugs.entry(slug.status()).or_default().push(*slug);
    }
    for (status, slugs) in slugs {
        responses.insert(status.to_string(), refusal(status, &slugs));
    }
    responses.into()
}

fn refusal(status: u16, slugs: &[Slug]) -> Value {
    let lines: Vec<String> = slugs.iter().map(|slug| format!("- `{}`: {}", slug.as_str(), slug.title())).collect();
    let types: Vec<String> = slugs.iter().map(|slug| slug.address()).collect();
    let mut headers = common_headers();
    match status {
        401 => headers["WWW-Authenticate"] = json!({"schema": {"const": "Bearer"}}),
        429 => headers["Retry-After"] = json!({"description": "In seconds.", "schema": {"type": "integer"}}),
        _ => {}
    }
    let schema = json!({"$ref": "#/components/schemas/Problem", "properties": {"type": {"enum": types}}});
    json!({"description": lines.join("\n"), "headers": headers, "content": {"application/problem+json": {"schema": schema}}})
}

/// The slugs of all refusals: those of the row, and those that follow from what is asked of the caller.
pub(super) fn problems_of(endpoint: &Endpoint) -> BTreeSet<&'static str> {
    let mut slugs = vec![Slug::BadRequest, Slug::Forwarded, Slug::TooLarge, Slug::TooMany, Slug::NotReady];
    slugs.extend(endpoint.problems);
    if names_of(endpoint).next().is_some() || endpoint.query.iter().any(|name| ["after", "credentials"].contains(name)) {
        slugs.push(Slug::BadName);
    }
    if endpoint.who != Who::Anybody {
        slugs.extend([Slug::Unauthenticated, Slug::Forbidden]);
    }
    if endpoint.body.is_some() {
        slugs.extend([Slug::MediaType, Slug::Timeout]);
    }
    slugs.into_iter().map(Slug::as_str).collect()
}

fn response(answer: &Answer, generator: &mut SchemaGenerator) -> Value {
    let mut headers = common_headers();
    if answer.tagged {
        headers["ETag"] = json!({"description": "The version, in quotes.", "schema": {"type": "string"}});
    }
    let mut response = json!({"description": answer.about, "headers": headers});
    let (kind, form) = match answer.content {
        Content::Nothing => return response,
        Content::Json(form) => ("application/json", form(generator).to_value()),
        Content::AnyJson => ("application/json", json!({"type": "object"})),
        Content::Text(kind) => (kind, json!({"type": "string"})),
        Content::Bytes(kind) => (kind, json!({})),
    };
    response["content"] = json!({kind: {"schema": form}});
    response
}

fn common_headers() -> Value {
    json!({"Cache-Control": {"$ref": "#/components/headers/CacheControl"}, "X-Request-Id": {"$ref": "#/components/headers/RequestId"}})
}

fn names_of(endpoint: &Endpoint) -> impl Iterator<Item = String> {
    endpoint.path.split('/').filter_map(|part| Some(part.strip_prefix('{')?.strip_suffix('}')?.to_owned()))
}

fn path_parameter(name: &str) -> Value {
    let pattern = match name {
        "instance" => InstanceName::PATTERN,
        "item" => ItemId::PATTERN,
        _ => Name::PATTERN,
    };
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "pattern": pattern}})
}

/// `None` for a parameter that nobody described: a test looks for those.
pub(super) fn query_parameter(name: &str) -> Option<Value> {
    let (about, schema) = match name {
        "limit" => {
            ("How many rows at most.", json!({"type": "integer", "minimum": 1, "maximum": Query::LIMIT_MAX, "default": Query::LIMIT_MAX}))
        }
        "force" => ("Also if somebody is in the way.", json!({"type": "boolean", "default": false})),
        "after" => ("The `next` of the page before.", json!({"type": "string", "pattern": Name::PATTERN})),
        "days" => {
            ("How far to look ahead.", json!({"type": "integer", "minimum": 0, "maximum": Query::DAYS_MAX, "default": Query::DAYS_DEFAULT}))
        }
        "credentials" => (
            "Only these, with commas between them; all that the caller may read without it.",
            json!({"type": "array", "items": {"type": "string", "pattern": Name::PATTERN}, "minItems": 1, "uniqueItems": true}),
        ),
        _ => return None,
    };
    let mut parameter = json!({"name": name, "in": "query", "description": about, "schema": schema});
    if name == "credentials" {
        parameter["style"] = "form".into();
        parameter["explode"] = false.into();
    }
    Some(parameter)
}

/// `None` for a header that nobody described: a test looks for those.
pub(super) fn header(name: &str) -> Option<Value> {
    let (about, schema) = match name {
        "Keywright-Instance" => {
            ("The running copy that is calling.", json!({"type": "string", "pattern": InstanceName::PATTERN, "default": "default"}))
        }
        "Keywright-Application" => (
            "The application that the caller means to be. Refused with 403 if its identity is another's; an operator who is this \
             application as well is then served as the application.",
            json!({"type": "string", "pattern": Name::PATTERN}),
        ),
        "Keywright-Reason" => (
            "Why an operator does this: 1 to 500 characters, percent-encoded; kept in the audit trail. Without it an operator's read of \
             a production credential is refused.",
            // Four bytes to a character at most, and three characters to a byte.
            json!({"type": "string", "minLength": 1, "maxLength": 12 * REASON_CHARS_MAX}),
        ),
        "If-None-Match" => ("The version that the caller has, in quotes.", json!({"type": "string"})),
        "Last-Event-ID" => ("The `id` of the last event. Any value resumes.", json!({"type": "string"})),
        _ => return None,
    };
    Some(json!({"name": name, "in": "header", "description": about, "schema": schema}))
}
