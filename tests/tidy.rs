//! The house rules that a compiler doesn't know: who may use whom, where secret bytes are seen, how long things get.
//!
//! Each check is a function from sources to problems, and has a test of its own that shows that it can fail.

#![allow(clippy::unwrap_used, reason = "a check that can't read the sources has failed")]

#[path = "tidy/source.rs"]
mod source;

use std::path::Path;

use source::{Source, item_end, read_all, sources};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Whom each module may use, beside itself. A new module at the top needs a line here.
const MAY_USE: [(&str, &[&str]); 18] = [
    ("domain", &[]),
    ("sealing", &["domain"]),
    ("policies", &["domain", "sealing"]),
    // One redb file and one plan of faults for both.
    ("embedded", &["domain", "sealing", "stores", "journal"]),
    ("faults", &[]),
    // The Kubernetes API, for those who keep something there.
    ("cluster", &[]),
    ("rate", &[]),
    ("outbound", &[]),
    // Whose tokens these are, and which pods there are.
    ("identities", &["domain", "cluster", "rate"]),
    ("stores", &["domain", "sealing", "journal", "embedded", "faults", "rate"]),
    ("journal", &["domain", "sealing", "stores", "embedded", "faults", "cluster"]),
    ("issuers", &["domain", "sealing", "rate", "outbound"]),
    ("delivery", &["domain", "sealing", "cluster", "outbound"]),
    ("engine", &["domain", "sealing", "policies", "stores", "journal", "issuers", "delivery"]),
    ("runtime", &["domain", "sealing", "policies", "stores", "journal", "issuers", "delivery", "engine", "cluster"]),
    ("api", &["domain", "sealing", "policies", "stores", "journal", "issuers", "delivery", "identities", "engine", "runtime"]),
    // `cli/daemon.rs` is where adapters are chosen: it opens the embedded file.
    (
        "cli",
        &[
            "domain",
            "sealing",
            "policies",
            "stores",
            "journal",
            "issuers",
            "delivery",
            "engine",
            "runtime",
            "api",
            "embedded",
            "cluster",
            "identities",
        ],
    ),
    ("", &["domain", "sealing", "policies", "stores", "journal", "issuers", "delivery", "engine", "runtime", "api", "cli"]),
];

/// Folders whose `mod.rs` is a seam: the other files in them are adapters.
const SEAMS: [&str; 5] = ["stores", "journal", "issuers", "delivery", "identities"];

/// These see seams only: an adapter's name in them is a mistake.
const SEES_NO_ADAPTERS: [&str; 2] = ["engine", "api"];

/// But for these: who, what, and why.
const MAY_SEE: [(&str, &str, &str); 1] = [("api", "delivery::stream", "the API is the other end of this way of delivery")];

/// Where secret bytes are read, how often, and why. Each new place is a decision.
const MAY_EXPOSE: [(&str, usize, &str); 32] = [
    ("cli/demo/application.rs", 1, "the demo's application uses its key"),
    ("cli/demo/loopback.rs", 2, "the demo's application calls the simulated provider"),
    ("cli/demo/provider.rs", 1, "the simulated provider compares what it is shown"),
    ("cli/demo/verdict.rs", 1, "the demo looks for its keys in everything that was written"),
    ("cli/exec/folder.rs", 2, "the files of the program that `exec` starts"),
    ("cli/exec/variables.rs", 2, "its variables, where it is asked for those"),
    ("cli/get.rs", 3, "`get` prints what it was asked for"),
    ("cli/submit.rs", 2, "what a person submits, on its way to the socket"),
    ("delivery/file/tree.rs", 1, "a value on its way into the file of an application"),
    ("delivery/kubernetes/contents.rs", 2, "values on their way into a Secret: encoded, and put into the body of its apply"),
    ("domain/document.rs", 2, "the document of an application that may read it, and the version before it where that verifies"),
    ("domain/environment.rs", 2, "the form of a value, its claims, and the host of an address within one, are evidence"),
    ("domain/fields.rs", 1, "whether a value has the form that is documented"),
    ("domain/material.rs", 10, "the type itself: checks, comparison, length, copies, and the JSON that the store keeps"),
    ("embedded/keys.rs", 1, "where the next key lies, which the former one seals so that nobody else can say it: a path"),
    ("engine/submit.rs", 1, "the id of a submitted key, where a public field is it"),
    ("engine/verify.rs", 1, "the sealed copy is opened into fields"),
    ("identities/contract.rs", 1, "the suite spoils a token"),
    ("identities/kubernetes.rs", 1, "a token on its way to the API server that reviews it"),
    ("identities/memory.rs", 1, "the fake looks its tokens up"),
    ("identities/reviews.rs", 2, "the token of an open stream is looked at again; it is kept by its digest"),
    ("issuers/declarative/request.rs", 2, "a credential signs a request"),
    ("issuers/declarative/template.rs", 1, "fields stand in the body of a request"),
    ("sealing/digest.rs", 2, "keyed digests"),
    ("sealing/mod.rs", 8, "what is sealed, the keys that seal, and those that are sealed with a new one"),
    ("stores/aws/calls.rs", 1, "a value on its way to AWS"),
    ("stores/aws/mod.rs", 1, "a value from AWS becomes fields"),
    ("stores/embedded.rs", 3, "values on their way to being sealed"),
    ("stores/memory.rs", 1, "the fake keeps a digest of what it was given"),
    ("stores/vault/record.rs", 1, "values on their way to Vault"),
    ("stores/vault/session.rs", 1, "what we log in with, in the body of a login"),
    ("stores/vault/wire.rs", 1, "our token, in the header of a request"),
];

/// Crates that only these files or folders may name.
const CRATES_AT_HOME: [(&str, &[&str]); 10] = [
    ("cron", &["domain/windows"]),
    ("chrono", &["domain/windows"]),
    ("chrono_tz", &["domain/windows"]),
    ("aws_config", &["stores/aws"]),
    ("aws_sdk_secretsmanager", &["stores/aws"]),
    ("aws_smithy_http_client", &["stores/aws"]),
    ("vaultrs", &["stores/vault"]),
    ("rustify", &["stores/vault"]),
    ("kube", &["cluster", "runtime/leadership/", "journal/kubernetes", "delivery/kubernetes", "identities/kubernetes"]),
    ("k8s_openapi", &["cluster", "runtime/leadership/", "journal/kubernetes", "delivery/kubernetes", "identities/kubernetes"]),
];

/// What the pure core must not know.
const NOT_IN_DOMAIN: [&str; 10] = ["tokio", "reqwest", "redb", "axum", "hyper", "tracing", "rustix", "aws_lc_rs", "std::fs", "std::net"];

fn begins_with_a_summary(all: &[Source]) -> Vec<String> {
    let lacking = all.iter().filter(|source| !source.text.starts_with("//! "));
    lacking.map(|source| format!("{}: the first line says what the file is for (`//! …`)", source.path)).collect()
}

fn keeps_to_its_edges(all: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in all.iter().filter(|source| !source.is_test) {
        let module = source.module();
        let top = module.first().copied().unwrap_or_default();
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == top) else {
            problems.push(format!("{}: `{top}` isn't in `MAY_USE`", source.path));
            continue;
        };
        for used in paths_used(source) {
            let target = used.first().map_or("", String::as_str);
            let is_module = all.iter().any(|other| other.module().first() == Some(&target));
            let is_own_or_allowed = target == top || allowed.contains(&target);
            if is_module && !is_own_or_allowed {
                problems.push(format!("{}: `{top}` must not use `{}`", source.path, used.join("::")));
            }
            let is_adapter = SEAMS.contains(&target) && used.len() > 1 && all.iter().any(|other| other.module() == used[..2]);
            let is_exception = MAY_SEE.iter().any(|(who, what, _)| *who == top && used.join("::").starts_with(what));
            if is_adapter && SEES_NO_ADAPTERS.contains(&top) && !is_exception {
                problems.push(format!("{}: `{top}` sees seams only, not the adapter `{}`", source.path, used.join("::")));
            }
        }
    }
    problems
}

/// Paths from the root of the crate, by `crate::` and by `super::`.
fn paths_used(source: &Source) -> Vec<Vec<String>> {
    let code = source.code.as_str();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if !continues_a_word(code, at) {
            expand(&code[at + "crate::".len()..], &[], &mut found);
        }
    }
    for (at, _) in code.match_indices("super::") {
        // The first of a chain only: the others are part of it.
        if continues_a_word(code, at) || code[..at].ends_with("::") {
            continue;
        }
        let mut base: Vec<String> = source.module().iter().map(|part| (*part).to_owned()).collect();
        let mut rest = &code[at..];
        while let Some(after) = rest.strip_prefix("super::") {
            base.pop();
            rest = after;
        }
        expand(rest, &base, &mut found);
    }
    found
}

fn continues_a_word(code: &str, at: usize) -> bool {
    code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$')
}

/// Expands `a::{b, c::d}` into its paths. Returns what is left behind it.
fn expand<'a>(code: &'a str, base: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut path = base.to_vec();
    let mut rest = code.trim_start();
    loop {
        if let Some(mut group) = rest.strip_prefix('{') {
            loop {
                group = group.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
                if group.is_empty() || group.starts_with('}') {
                    return group.strip_prefix('}').unwrap_or(group);
                }
                let left = expand(group, &path, found);
                // Renames, stars and anything unknown: on to the next part.
                group = left.trim_start_matches(|c: char| !matches!(c, ',' | '}'));
            }
        }
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if length > 0 {
            path.push(rest[..length].to_owned());
        }
        rest = &rest[length..];
        match rest.strip_prefix("::") {
            Some(after) if !after.starts_with(['<', '*']) => rest = after,
            _ => {
                found.push(path);
                return rest;
            }
        }
    }
}

fn keeps_crates_at_home(all: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in all.iter().filter(|source| !source.is_test) {
        let at_home = |homes: &[&str]| homes.iter().any(|home| source.path.starts_with(home));
        for (name, homes) in CRATES_AT_HOME {
            if names_crate(&source.code, name) && !at_home(homes) {
                problems.push(format!("{}: `{name}` stays in {homes:?}", source.path));
            }
        }
        for name in NOT_IN_DOMAIN {
            if source.path.starts_with("domain/") && names_crate(&source.code, name) {
                problems.push(format!("{}: the pure core must not know `{name}`", source.path));
            }
        }
    }
    problems
}

/// `name::…` or `use name;`, not as a part of another path or word.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let after = &code[at + name.len()..];
        let is_used = after.starts_with("::") || (code[..at].ends_with("use ") && after.starts_with([';', ' ']));
        is_used && !continues_a_word(code, at) && !code[..at].trim_end_matches("::").ends_with("crate") && !code[..at].ends_with("super::")
    })
}

fn exposes_where_listed(all: &[Source], listed: &[(&str, usize, &str)]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in all.iter().filter(|source| !source.is_test) {
        // As calls, and as functions handed on.
        let calls = [".expose(", ".expose_str(", ".expose_secret(", "::expose(", "::expose)", "::expose_str", "::expose_secret"];
        let count: usize = calls.iter().map(|call| source.code.matches(call).count()).sum();
        let expected = listed.iter().find(|(path, ..)| *path == source.path).map_or(0, |(_, count, _)| *count);
        if count != expected {
            problems.push(format!("{}: reads secret bytes in {count} places, `MAY_EXPOSE` says {expected}", source.path));
        }
    }
    let gone = listed.iter().filter(|(path, ..)| !all.iter().any(|source| source.path == *path));
    problems.extend(gone.map(|(path, ..)| format!("{path}: listed in `MAY_EXPOSE`, and gone")));
    problems
}

fn stays_short(all: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in all.iter().filter(|source| !source.is_test) {
        let lines = source.code.trim_end().lines().count();
        if lines > FILE_LINES_MAX {
            problems.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.path));
        }
        for (at, _) in source.code.match_indices("fn ") {
            let name: String = source.code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name.is_empty() || continues_a_word(&source.code, at) {
                continue;
            }
            let lines = source.code[at..item_end(&source.code, at)].lines().count();
            if lines > FUNCTION_LINES_MAX {
                problems.push(format!("{}: `{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}", source.path));
            }
        }
    }
    problems
}

fn leaves_nothing_undone(all: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in all {
        // Test code too: an ignored test proves nothing.
        let code = source::blank(&source.text);
        for mark in ["todo!", "unimplemented!", "dbg!", "#[ignore"] {
            if code.match_indices(mark).any(|(at, _)| !continues_a_word(&code, at)) {
                problems.push(format!("{}: `{mark}` is left over", source.path));
            }
        }
    }
    problems
}

/// Deliberate faults exist for tests alone: the switch is there with debug assertions only, nothing else of the crate turns it, and
/// what is shipped is built without them.
fn keeps_faults_out_of_releases(mutants: &str, manifest: &str, all: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    // What may stand in every build are the faults' names; all else begins with the condition.
    for (number, line) in mutants.lines().enumerate() {
        let item = ["mod ", "use ", "pub use ", "pub fn ", "pub(crate) use ", "pub(crate) fn ", "pub(crate) const fn ", "static ", "fn "];
        let is_switch = item.iter().any(|word| line.starts_with(word));
        let before = number.checked_sub(1).and_then(|before| mutants.lines().nth(before)).unwrap_or_default();
        if is_switch && !matches!(before, "#[cfg(debug_assertions)]" | "#[cfg(not(debug_assertions))]") {
            problems.push(format!("domain/mutants.rs:{}: `{line}` isn't conditional", number + 1));
        }
    }
    let without = mutants.split("#[cfg(not(debug_assertions))]").nth(1).unwrap_or_default();
    if !without.trim_start().starts_with("pub(crate) const fn is_on(_: Mutant) -> bool {\n    false\n}") {
        problems.push("domain/mutants.rs: without debug assertions a fault may be on".to_owned());
    }
    for section in manifest.split("\n[").filter(|section| section.starts_with("profile.")) {
        let (name, body) = section.split_once(']').unwrap_or((section, ""));
        let asserts = body.lines().any(|line| line.replace(' ', "").starts_with("debug-assertions=true"));
        if asserts && name != "profile.sim" {
            problems.push(format!("Cargo.toml: {name} has debug assertions: faults could be switched on in it"));
        }
    }
    let turned = |source: &&Source| source.path != "domain/mutants.rs" && source.code.contains("mutants::set");
    problems.extend(all.iter().filter(turned).map(|source| format!("{}: turns a fault on", source.path)));
    problems
}

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn below(folder: &str) -> Vec<Source> {
    read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
}

#[test]
fn the_house_is_tidy() {
    let all = below("src");
    assert!(all.len() > 20, "the sources were found");
    let mut problems = begins_with_a_summary(&all);
    problems.extend(keeps_to_its_edges(&all));
    problems.extend(keeps_crates_at_home(&all));
    problems.extend(exposes_where_listed(&all, &MAY_EXPOSE));
    problems.extend(stays_short(&all));
    problems.extend(leaves_nothing_undone(&all));
    problems.extend(leaves_nothing_undone(&below("tests")));
    problems.extend(keeps_faults_out_of_releases(&text("src/domain/mutants.rs"), &text("Cargo.toml"), &all));
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn house(files: &[(&str, &str)]) -> Vec<Source> {
    let rooms = ["domain/mod.rs", "stores/mod.rs", "stores/embedded.rs", "journal/mod.rs", "engine/mod.rs", "api/mod.rs"];
    let empty = rooms.iter().filter(|room| !files.iter().any(|(path, _)| path == *room)).map(|room| (*room, "//! A room.\n"));
    sources(files.iter().copied().chain(empty).map(|(path, text)| (path.to_owned(), text.to_owned())).collect())
}

#[test]
fn a_file_without_a_summary_is_found() {
    assert!(begins_with_a_summary(&house(&[])).is_empty());
    assert_eq!(begins_with_a_summary(&house(&[("domain/x.rs", "// X\n")])).len(), 1);
}

#[test]
fn a_forbidden_edge_is_found_however_it_is_written() {
    for (path, code) in [
        ("domain/x.rs", "use crate::stores::Slot;"),
        ("domain/x.rs", "use crate::{domain::ids::Name, engine::Clock};"),
        ("domain/x.rs", "use super::super::engine;"),
        ("domain/x.rs", "fn f() { crate::journal::open() }"),
        ("stores/x.rs", "use crate::engine::Clock;"),
        ("journal/mod.rs", "use crate::api::{self};"),
        ("engine/x.rs", "use crate::stores::embedded::Store;"),
        ("engine/x.rs", "use crate::stores::{Slot, embedded};"),
        ("engine/x.rs", "use super::super::stores::embedded;"),
        ("api/x.rs", "use crate::stores::embedded as e;"),
        ("attic/x.rs", "fn f() {}"),
    ] {
        assert_eq!(keeps_to_its_edges(&house(&[(path, code)])).len(), 1, "{path}: {code}");
    }
}

#[test]
fn an_allowed_edge_is_left_alone() {
    for (path, code) in [
        ("domain/x.rs", "use crate::domain::ids::Name; // crate::stores"),
        ("domain/x.rs", "const A: &str = \"crate::stores::Slot\";"),
        ("domain/x.rs", "use super::ids::Name;"),
        ("domain/x.rs", "#[cfg(test)]\nmod tests { use crate::stores::Slot; }"),
        ("stores/embedded.rs", "use crate::journal::Journal; use crate::{domain, sealing};"),
        ("engine/x.rs", "use crate::stores::{SecretStore, Slot};"),
        ("engine/x.rs", "#[cfg(test)]\nmod tests { use crate::stores::embedded::Store; }"),
    ] {
        assert_eq!(keeps_to_its_edges(&house(&[(path, code)])), Vec::<String>::new(), "{path}: {code}");
    }
}

#[test]
fn a_crate_away_from_home_is_found() {
    for code in ["use chrono::Utc;", "fn f() { tokio::spawn(x) }", "use redb;", "fn f() { std::fs::read(x) }"] {
        assert_eq!(keeps_crates_at_home(&house(&[("domain/x.rs", code)])).len(), 1, "{code}");
    }
    assert_eq!(keeps_crates_at_home(&house(&[("engine/x.rs", "use cron::Schedule;")])).len(), 1);
    for (path, code) in
        [("domain/windows.rs", "use chrono::Utc;"), ("engine/x.rs", "use tokio::time;"), ("domain/x.rs", "let cron = 1; // chrono::")]
    {
        assert!(keeps_crates_at_home(&house(&[(path, code)])).is_empty(), "{code}");
    }
}

#[test]
fn a_secret_read_in_a_new_place_is_found() {
    let listed = [("domain/x.rs", 1, "because")];
    let found = |code| exposes_where_listed(&house(&[("domain/x.rs", code)]), &listed).len();
    assert_eq!(found("fn f() { s.expose() }"), 0);
    assert_eq!(found("fn f() { s.expose(); s.expose_str() }"), 1);
    assert_eq!(found("fn f() { o.map(Secret::expose_str) }"), 0);
    assert_eq!(found("fn f() {}"), 1, "a stale entry too");
    assert_eq!(exposes_where_listed(&house(&[("api/x.rs", "fn f() { s.expose() }")]), &[]).len(), 1);
    assert_eq!(exposes_where_listed(&house(&[]), &listed).len(), 1);
}

#[test]
fn what_has_grown_too_long_is_found() {
    let function = |lines: usize| format!("//! X.\nfn f(x: [u8; 3]) {{\n{}}}\nfn g();\n", "    a();\n".repeat(lines));
    let file = |lines: usize| "const A: u8 = 1;\n".repeat(lines);
    for (text, count) in [(function(68), 0), (function(69), 1), (file(500), 0), (file(501), 1)] {
        assert_eq!(stays_short(&house(&[("domain/x.rs", &text)])).len(), count);
    }
    let test = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(600));
    assert!(stays_short(&house(&[("domain/x.rs", &test)])).is_empty(), "test code is exempt");
}

#[test]
fn what_was_left_undone_is_found() {
    for code in
        ["fn f() { todo!() }", "fn f() { unimplemented!() }", "fn f() { dbg!(1); }", "#[cfg(test)]\nmod tests { #[ignore]\nfn f() {} }"]
    {
        assert_eq!(leaves_nothing_undone(&house(&[("domain/x.rs", code)])).len(), 1, "{code}");
    }
    assert!(leaves_nothing_undone(&house(&[("domain/x.rs", "// todo! is forbidden\nlet s = \"dbg!\";")])).is_empty());
}

#[test]
fn a_fault_that_a_release_could_have_is_found() {
    let (mutants, manifest, none) = (text("src/domain/mutants.rs"), text("Cargo.toml"), house(&[]));
    assert!(keeps_faults_out_of_releases(&mutants, &manifest, &none).is_empty());
    for (from, to) in [
        ("#[cfg(debug_assertions)]\nmod switch", "mod switch"),
        ("#[cfg(debug_assertions)]\npub use switch::set;", "pub use switch::set;"),
        ("    false\n}", "    switch::is_on()\n}"),
    ] {
        assert!(mutants.contains(from), "{from}");
        assert!(!keeps_faults_out_of_releases(&mutants.replacen(from, to, 1), &manifest, &none).is_empty(), "{to}");
    }
    let asserting = manifest.replacen("[profile.release]", "[profile.release]\ndebug-assertions = true", 1);
    assert!(!keeps_faults_out_of_releases(&mutants, &asserting, &none).is_empty());
    let turning = house(&[("engine/x.rs", "//! X.\nfn f() { crate::domain::mutants::set(None) }\n")]);
    assert_eq!(keeps_faults_out_of_releases(&mutants, &manifest, &turning).len(), 1);
}
