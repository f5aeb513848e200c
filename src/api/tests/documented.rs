//! The OpenAPI document, held against what the API really does: every exchange of these tests goes through [`check`].

use std::collections::BTreeSet;

use boon::{Compiler, Schemas};
use http::{Method, Uri};
use serde_json::Value;

use super::*;
use crate::api::openapi::{document, header, problems_of, query_parameter};
use crate::api::path;
use crate::api::routes::{Content, ENDPOINTS, Endpoint};
use crate::golden;

/// Fails unless the route of a request describes this answer: its status, its slug, its form.
pub(super) fn check(request: &str, reply: &Reply) {
    let mut words = request.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return };
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), target.parse::<Uri>()) else { return };
    // What never reaches a route is described for all of them, in words.
    let Ok((endpoint, _)) = path::route(&method, &uri) else { return };
    let kind = reply.header("content-type").map(|kind| kind.split(';').next().unwrap_or_default());
    if let Some(answer) = endpoint.answers.iter().find(|answer| answer.status == reply.status) {
        assert_eq!(answer.tagged, reply.header("etag").is_some(), "{request}: {reply:?}");
        match answer.content {
            Content::Nothing => assert!(reply.body.is_empty(), "{request}: {reply:?}"),
            Content::Text(described) | Content::Bytes(described) => assert_eq!(kind, Some(described), "{request}"),
            Content::Json(_) | Content::AnyJson => valid(endpoint, "application/json", reply),
        }
        return;
    }
    let slug = reply.slug();
    assert!(problems_of(endpoint).contains(slug.as_str()), "`{}` doesn't tell of {} {slug}", endpoint.name, reply.status);
    valid(endpoint, "application/problem+json", reply);
}

fn valid(endpoint: &Endpoint, kind: &str, reply: &Reply) {
    let escaped = |text: &str| text.replace('~', "~0").replace('/', "~1").replace('{', "%7B").replace('}', "%7D");
    let method = endpoint.method.to_ascii_lowercase();
    let place = format!("/paths/{}/{method}/responses/{}/content/{}/schema", escaped(endpoint.path), reply.status, escaped(kind));
    if let Err(error) = fits(&place, &reply.json()) {
        panic!("`{}` describes another answer: {error}\n{reply:?}", endpoint.name);
    }
}

/// Whether a value has the form that stands at this place of the document.
fn fits(place: &str, value: &Value) -> Result<(), String> {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("https://keywright.test/openapi.json", document()).unwrap();
    let schema = compiler.compile(&format!("https://keywright.test/openapi.json#{place}"), &mut schemas).unwrap();
    schemas.validate(value, schema).map_err(|error| format!("{error:#}"))
}

/// What the engine's own tests wrote, of rotations that really went so far.
#[test]
fn status_and_plan_have_the_form_that_is_described() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (folder, form) in [("status", "Status"), ("plan", "Plan")] {
        let files = std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let documents: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
        assert!(documents.len() >= 2, "{folder}");
        for path in documents {
            let mut value: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let place = format!("/components/schemas/{form}");
            fits(&place, &value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            // It can tell: without what must be there it doesn't fit.
            value.as_object_mut().unwrap().remove(if form == "Plan" { "plan" } else { "credentials" });
            assert!(fits(&place, &value).is_err());
        }
    }
}

/// A credential is written by hand, in memory that is wiped: its members are those that are described, no more.
#[tokio::test]
async fn a_credential_has_the_members_that_are_described() {
    let it = start(quick()).await;
    it.fake.verify_with("old-value");
    let json = it.get(APP, "/v1/credentials/one").await.json();
    let schemas = document()["components"]["schemas"].clone();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&json), keys(&schemas["Credential"]["properties"]));
    assert_eq!(keys(&json["previous"]), keys(&schemas["Previous"]["properties"]));
}

#[test]
fn every_route_says_what_it_does() {
    let document = document();
    let mut names = BTreeSet::new();
    for endpoint in ENDPOINTS {
        assert!(names.insert(endpoint.name), "`{}` is the name of two routes", endpoint.name);
        assert!(!endpoint.summary.is_empty() && !endpoint.answers.is_empty(), "`{}` isn't described", endpoint.name);
        assert!(endpoint.answers.iter().all(|answer| !answer.about.is_empty()), "`{}`", endpoint.name);
        assert!(endpoint.query.iter().all(|name| query_parameter(name).is_some()), "`{}`", endpoint.name);
        assert!(endpoint.headers.iter().all(|name| header(name).is_some()), "`{}`", endpoint.name);
        let operation = &document["paths"][endpoint.path][endpoint.method.to_ascii_lowercase()];
        assert_eq!(operation["operationId"], endpoint.name);
    }
    let operations = document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len() - 1);
    assert_eq!(operations.sum::<usize>(), ENDPOINTS.len(), "two rows have one method and path");
}

/// All places that are referred to.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn the_document_refers_to_what_is_in_it() {
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50, "{}", found.len());
    for place in found {
        assert!(document.pointer(place.strip_prefix('#').unwrap()).is_some(), "{place}");
    }
    let confirm = &document["paths"]["/v1/confirmations"]["post"]["description"];
    assert!(confirm.as_str().unwrap().contains("kills your own key"), "{confirm}");
}

#[test]
fn the_document_is_the_one_that_was_reviewed() {
    golden::assert("openapi.json", &golden::pretty(&document()));
}

#[tokio::test]
async fn whoever_reaches_the_api_may_read_it() {
    let it = start_for(quick(), Vec::new()).await;
    let reply = it.raw("GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!((reply.status, reply.json()), (200, document()));
    it.raw("GET /v1/openapi.json?x=1 HTTP/1.1\r\nhost: x\r\n\r\n").await.refused(400, "bad-request");
    it.get(APP, "/v1/openapi").await.refused(404, "not-found");
}

#[test]
fn problem_documents_are_those_that_were_reviewed() {
    let id = uuid::Uuid::from_u128(1);
    let line = |slug: &crate::api::Slug| crate::api::Problem::new(*slug, "what is wrong, and how to go on").json(id) + "\n";
    golden::assert("problems.jsonl", &crate::api::Slug::ALL.iter().map(line).collect::<String>());
}
