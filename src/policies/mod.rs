//! The documents that security teams write: as written, then valid, with every problem in its place.
//!
//! [`parse`] is pure; [`read_folder`] finds the files for it. Policies come out whole, with zero problems, or not at all.
//!
//! **Architecture invariant:** no message and no excerpt repeats a value that may be a secret (I20).

mod builtin;
mod credential;
mod delivery;
mod folder;
mod lifecycles;
mod links;
pub(crate) mod problem;
pub(crate) mod provider;
pub(crate) mod reader;
mod rollout;
mod rotation;
mod schema;
#[cfg(test)]
mod tests;
pub(crate) mod tree;
mod trees;
pub(crate) mod values;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest;
use jiff::Timestamp;

use crate::domain::ids::Name;
use crate::domain::policy::Policies;
use crate::domain::span::Span;

pub use builtin::sources as builtin_sources;
pub use folder::{FILE_SIZE_MAX, read_sources};
use links::{Catalogue, Declared, Table};
use problem::{Place, Sink};
pub use problem::{Problem, Problems};
use reader::{At, Fields, choice, text};
pub use schema::schema;
use tree::Node;

const API_VERSION: &str = "keywright.dev/v1alpha1";

/// One file as read: its name for messages, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub file: String,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DocumentKind {
    Provider,
    RotationPolicy,
    Credential,
    Application,
}

const KINDS: [(&str, DocumentKind); 4] = [
    ("Provider", DocumentKind::Provider),
    ("RotationPolicy", DocumentKind::RotationPolicy),
    ("Credential", DocumentKind::Credential),
    ("Application", DocumentKind::Application),
];

/// Reads a folder tree, or one file. `now` bounds the search for the windows of a policy.
///
/// # Errors
/// All problems of all files together, those of reading the files included.
pub fn read_folder(path: &Path, now: Timestamp) -> Result<Policies, Problems> {
    match read_sources(path) {
        Ok(sources) => parse(&sources, now),
        // What could be read is judged too, so that all problems come out at once.
        Err((sources, unreadable)) => match parse(&sources, now) {
            Ok(_) => Err(unreadable),
            Err(problems) => Err(unreadable.and(problems)),
        },
    }
}

/// The documents of all sources, validated together with the built-in descriptions that none of them replaces.
///
/// # Errors
/// All problems together, in the order of file, line and column.
pub fn parse(sources: &[Source], now: Timestamp) -> Result<Policies, Problems> {
    let own = sources.len();
    let built_in = builtin_sources();
    let all: Vec<&Source> = sources.iter().chain(&built_in).collect();
    let sink = Sink::new(all.iter().copied());
    let mut catalogue = Catalogue::default();
    trees::each(&all[..own], &sink, |_, documents| {
        for document in documents {
            read_document(&document, &mut catalogue, &sink, now);
        }
    });
    // A built-in description gives way to the folder's own.
    for (name, declared) in builtin::declared(own) {
        catalogue.providers.entry(name).or_insert(declared);
    }
    let (credentials, applications) = catalogue.link(&sink);
    sink.finish()?;
    Ok(Policies {
        providers: whole(catalogue.providers),
        rotations: whole(catalogue.rotations),
        credentials,
        applications,
        digest: digest_of(&all),
    })
}

/// The policies whose overlap isn't longer than what readers may be behind (I6): `max_stale` is the cache's bound.
pub fn overlaps_within(policies: &Policies, max_stale: Span) -> Vec<Name> {
    policies.rotations.values().filter(|policy| policy.terms.overlap <= max_stale).map(|policy| policy.name.clone()).collect()
}

fn whole<T>(table: Table<Arc<T>>) -> BTreeMap<Name, Arc<T>> {
    table.into_iter().filter_map(|(name, declared)| Some((name, declared.value?))).collect()
}

/// Over the texts in their order, each with its length before it, so that no two sets of documents look alike.
fn digest_of(sources: &[&Source]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for source in sources {
        context.update(&u64::try_from(source.text.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(source.text.as_bytes());
    }
    hex::encode(context.finish())
}

/// What all documents begin with.
struct Head<'a> {
    kind: Option<DocumentKind>,
    name: Option<At<Name>>,
    spec: Option<&'a Node>,
}

fn read_head<'a>(node: &'a Node, sink: &'a Sink<'a>) -> Option<Head<'a>> {
    let fields = Fields::of(node, sink)?;
    let version = fields.need("apiVersion", "every document begins with `apiVersion: keywright.dev/v1alpha1`");
    if let Some(node) = version
        && text(node, sink).is_some_and(|version| version != API_VERSION)
    {
        sink.report(node.place, "bad-api-version", "this isn't the version of the documents", "write `keywright.dev/v1alpha1`");
    }
    let kind = fields
        .need("kind", "Provider, RotationPolicy, Credential or Application")
        .and_then(|node| choice(node, sink, &KINDS))
        .map(|kind| kind.value);
    let name = fields.need("metadata", "`metadata: {name: …}`").and_then(|node| read_metadata(node, sink));
    let spec = fields.need("spec", "what the document says stands in `spec`");
    fields.done();
    Some(Head { kind, name, spec })
}

fn read_document(node: &Node, catalogue: &mut Catalogue, sink: &Sink<'_>, now: Timestamp) {
    let Some(Head { kind: Some(kind), name, spec }) = read_head(node, sink) else { return };
    // Without a name the document is still read for its problems, under a name that no document can have a reference to.
    let (name, registered) = match name {
        Some(name) => (name, true),
        None => match "unnamed".parse() {
            Ok(value) => (At { value, place: node.place }, false),
            Err(_) => return,
        },
    };
    match kind {
        DocumentKind::Provider => {
            let value = spec.and_then(|spec| provider::read(&name.value, spec, provider::Examples::Judged, sink)).map(Arc::new);
            declare(&mut catalogue.providers, name, registered, value, sink);
        }
        DocumentKind::RotationPolicy => {
            let value = spec.and_then(|spec| rotation::read(&name.value, spec, sink, now)).map(Arc::new);
            declare(&mut catalogue.rotations, name, registered, value, sink);
        }
        DocumentKind::Credential => {
            let value = spec.and_then(|spec| credential::read_credential(spec, sink));
            declare(&mut catalogue.credentials, name, registered, value, sink);
        }
        DocumentKind::Application => {
            let value = spec.and_then(|spec| credential::read_application(spec, sink, now));
            declare(&mut catalogue.applications, name, registered, value, sink);
        }
    }
}

fn read_metadata(node: &Node, sink: &Sink<'_>) -> Option<At<Name>> {
    let fields = Fields::of(node, sink)?;
    let name = fields.need("name", "for example `name: dinie-production`").and_then(|node| values::name(node, sink));
    fields.done();
    name
}

fn declare<T>(table: &mut Table<T>, name: At<Name>, registered: bool, value: Option<T>, sink: &Sink<'_>) {
    if !registered {
        return;
    }
    let place: Place = name.place;
    if let Some(first) = table.get(&name.value) {
        let message = format!("the name {} is taken by another document of this kind", problem::shown(name.value.as_str()));
        sink.report(place, "duplicate-name", message, format!("rename one of them; the first is at {}", sink.locate(first.place)));
        return;
    }
    table.insert(name.value, Declared { place, value });
}
