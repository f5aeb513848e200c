//! The schema for editors, held to what the readers take and refuse.

use boon::{Compiler, Schemas};
use rstest::rstest;
use serde_json::Value;

use super::super::problem::Sink;
use super::super::tree::{self, Kind, Node};
use super::*;

/// What a schema can see. The other codes need a look at other documents, or at more than the form of a value.
const STRUCTURAL: [&str; 22] = [
    "bad-api-version",
    "bad-authentication",
    "bad-body",
    "bad-duration",
    "bad-hash",
    "bad-header",
    "bad-identity",
    "bad-name",
    "bad-path",
    "bad-pointer",
    "bad-reason",
    "bad-template",
    "bad-type",
    "bad-url",
    "bad-value",
    "cron-fields",
    "duplicate-entry",
    "harmful-probe",
    "management-served",
    "missing-recipe",
    "not-generated",
    "recipe-unused",
];
const STRUCTURAL_TOO: [&str; 4] = ["missing-field", "missing-value", "unknown-field", "unsupported"];

/// A document as an editor's YAML parser hands it to the schema.
pub(super) fn as_json(node: &Node) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(value) => (*value).into(),
        Kind::Text(text) => text.as_str().into(),
        Kind::Number(text) => serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()),
        Kind::List(items) => items.iter().map(as_json).collect(),
        Kind::Map(entries) => entries.iter().map(|(key, node)| (key.text.clone(), as_json(node))).collect::<serde_json::Map<_, _>>().into(),
    }
}

/// What the schema says against each document; nothing for those that are no YAML.
fn complaints(text: &str) -> Vec<String> {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("https://keywright.test/schema.json", crate::policies::schema()).unwrap();
    let schema = compiler.compile("https://keywright.test/schema.json", &mut schemas).unwrap();
    let sources = [source("t.yaml", text)];
    let documents = tree::documents(0, text, &Sink::new(&sources));
    let complaint = |node| schemas.validate(&as_json(node), schema).map_err(|error| format!("{error:#}")).err();
    documents.iter().filter_map(complaint).collect()
}

/// Takes what the readers take, refuses what they refuse for its form.
pub(super) fn agrees(text: &str, codes: &[&str]) {
    let complaints = complaints(text);
    if codes.is_empty() {
        assert!(complaints.is_empty(), "the readers take it, the schema doesn't: {}\n{text}", complaints.join("\n"));
    }
    if let Some(code) = codes.iter().find(|code| STRUCTURAL.contains(code) || STRUCTURAL_TOO.contains(code)) {
        assert!(!complaints.is_empty(), "the readers refuse it ({code}), the schema doesn't:\n{text}");
    }
}

#[test]
fn every_document_of_the_repository_is_taken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let sources = read_sources(&root).unwrap();
    assert!(sources.len() >= 5, "{}", sources.len());
    for source in sources {
        let complaints = complaints(&source.text);
        assert!(complaints.is_empty(), "{}: {}", source.file, complaints.join("\n"));
    }
    agrees(&base().text, &[]);
}

/// The documents in README.md, which people copy.
#[test]
fn the_documents_of_the_readme_are_taken() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let blocks = readme.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let documents: Vec<&str> = blocks.filter(|block| block.starts_with("apiVersion:")).collect();
    assert!(!documents.is_empty());
    for text in documents {
        parse(&[source("README.md", text)], now()).unwrap();
        agrees(text, &[]);
    }
}

/// What the cases of the readers don't reach.
#[rstest]
#[case("RotationPolicy", "{maxAge: 90d, windows: 8h}")]
#[case("RotationPolicy", "{maxAge: 90d, verifyevery: 1h}")]
#[case("RotationPolicy", "{maxAge: 90d, rollout: [50%, 100%]}")]
#[case("RotationPolicy", "{maxAge: 90d, overlap: 1.5h}")]
#[case("Credential", "{provider: dinie, environment: Sandbox, rotation: quarter}")]
#[case("Credential", "{provider: dinie, environment: sandbox, rotation: quarter, path: a/b/c/d/e/f/g/h/i}")]
#[case("Credential", "{provider: dinie, environment: sandbox, rotation: quarter, acceptUndetermined: \"\"}")]
#[case("Application", "{environment: sandbox, credentials: test, identity: {unix: {uid: 5}}}")]
#[case("Application", "{environment: sandbox, credentials: [], identity: {unix: {uid: 5}, token: {}}}")]
#[case("Application", "{environment: sandbox, credentials: [], identity: {unix: {uid: 4294967295}}}")]
#[case("Application", "{environment: sandbox, credentials: [], identity: {unix: {uid: 5, gid: 5}}}")]
#[case("Application", "{environment: sandbox, credentials: [], identity: {unix: {uid: 5}}, lease: forever}")]
#[case("Provider", "{title: Z, lifecycle: generated, fields: {s: {class: secret, generate: {length: 32}}}}")]
#[case("Provider", "{title: Z, lifecycle: generated, fields: {s: {class: secret, generate: {length: 32, encoding: hex, alphabet: ab}}}}")]
#[case("Provider", "{title: Z, lifecycle: generated, fields: {s: {class: secret, generate: {length: 32, alphabet: a}}}}")]
#[case("Provider", "{title: Z, lifecycle: generated, fields: {s: {class: secret, generate: {length: 32, encoding: hex, prefix: a b}}}}")]
#[case("Provider", "{title: Z, lifecycle: generated, fields: {s: {class: secret, generate: {length: 0, encoding: hex}}}}")]
fn both_refuse(#[case] kind: &str, #[case] spec: &str) {
    let text = format!("{}spec: {spec}\n", head(kind, "z"));
    assert!(parse(&[base(), source("t.yaml", &text)], now()).is_err(), "{text}");
    assert!(!complaints(&text).is_empty(), "{text}");
}

#[test]
fn what_only_a_reader_sees_is_left_to_the_readers() {
    let text = head("RotationPolicy", "p") + "spec: {maxAge: 24h, overlap: 24h}\n";
    assert_eq!(problems_of(&text), ["4:30 overlap-too-long"]);
    assert_eq!(complaints(&text), Vec::<String>::new());
}
