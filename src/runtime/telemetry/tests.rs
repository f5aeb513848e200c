//! What must never be in a log, and what must.

use std::sync::{Arc, Mutex};

use super::*;

const SECRET: &str = "s3cr3t-canary";

/// What is logged by `run`, at levels as `RUST_LOG` writes them.
fn logged(levels: &str, format: Format, run: impl FnOnce()) -> String {
    let lines = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&lines);
    let subscriber = subscriber(Levels::parse(Some(levels)), format, Box::new(move |line| sink.lock().unwrap().push_str(line)));
    tracing::subscriber::with_default(subscriber, run);
    lines.lock().unwrap().clone()
}

#[test]
fn events_of_other_crates_never_appear_whatever_the_level() {
    for levels in ["trace", "hyper=trace", "trace,kube=trace,keywright=trace", "keywrightful=trace", "=trace", ""] {
        let text = logged(levels, Format::Json, || {
            tracing::error!(target: "kube_client::client", "{SECRET}");
            tracing::trace!(target: "hyper::proto", body = SECRET, "body");
            tracing::warn!(target: "keywrightful", credential = SECRET, "not ours");
            tracing::warn!(target: "log", credential = SECRET, "bridged");
            let span = tracing::info_span!(target: "reqwest", "call", credential = SECRET);
            let _entered = span.enter();
            tracing::error!("ours");
        });
        assert!(text.contains("ours") && !text.contains(SECRET), "{levels}: {text}");
        assert_eq!(text.lines().count(), 1, "{levels}");
    }
}

#[test]
fn fields_that_are_not_listed_are_dropped_unformatted() {
    struct Explosive;
    impl fmt::Debug for Explosive {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("formatted")
        }
    }
    for format in [Format::Json, Format::Compact] {
        let text = logged("trace", format, || {
            let span = tracing::info_span!("request", request_id = "r1", authorization = SECRET, status = tracing::field::Empty);
            let _entered = span.enter();
            span.record("status", 200);
            tracing::info!(client_secret = SECRET, token = ?Explosive, credential = "dinie", count = 3_u64, "served");
            tracing::info!(body = SECRET.as_bytes(), field = SECRET.as_bytes(), bytes = 7.5, "done");
        });
        assert!(!text.contains(SECRET), "{text}");
        assert!(text.contains("dinie") && text.contains("r1") && text.contains("200") && text.contains("7.5"), "{text}");
    }
}

#[test]
fn a_line_is_one_json_object() {
    let text = logged("debug", Format::Json, || {
        let error = std::io::Error::other("away");
        tracing::debug!(target: "keywright::engine::perform", credential = "a\"b\\c\n\u{1b}[31m\u{202e}\u{85}", error = &error as &dyn std::error::Error, "promoted");
        tracing::info!(generation = -1_i64, state = true, delay_ms = f64::NAN, reason = ?"x y", "numbers");
    });
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["level"], "DEBUG");
    assert_eq!(lines[0]["target"], "engine::perform");
    assert_eq!(lines[0]["message"], "promoted");
    assert_eq!(lines[0]["credential"], "a\"b\\c\n\u{1b}[31m\u{202e}\u{85}");
    assert_eq!(lines[0]["error"], "away");
    assert!(lines[0]["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    assert_eq!(lines[1]["generation"], -1);
    assert_eq!(lines[1]["state"], true);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}') && !text.contains('\u{85}'));
}

#[test]
fn a_terminal_gets_text_without_control_characters() {
    let text = logged("info", Format::Compact, || tracing::warn!(credential = "dinie", reason = "a b\u{7}\n", "held\u{1b}[2J"));
    assert!(text.ends_with(" WARN  runtime::telemetry::tests: held\\u001b[2J credential=dinie reason=\"a b\\u0007\\n\"\n"), "{text}");
}

#[test]
fn long_values_are_clipped() {
    let text = logged("info", Format::Json, || tracing::info!(reason = "é".repeat(1 << 16), "long"));
    assert!(text.len() < 1400 && serde_json::from_str::<serde_json::Value>(&text).is_ok());
}

#[test]
fn levels_are_of_our_targets_only() {
    let count = |levels| {
        let text = logged(levels, Format::Json, || {
            tracing::info!("a");
            tracing::debug!("b");
            tracing::debug!(target: "keywright::engine", "c");
            tracing::trace!(target: "keywright::engine::perform", "d");
        });
        text.lines().count()
    };
    assert_eq!(count(""), 1);
    assert_eq!(count("nonsense,,"), 1);
    assert_eq!(count("warn"), 0);
    assert_eq!(count("debug"), 3);
    assert_eq!(count("warn,keywright::engine=debug"), 1);
    assert_eq!(count("keywright"), 4);
    assert_eq!(count("off"), 0);
    assert_eq!(count("keywright::engine=off,trace"), 2);
}

#[test]
fn the_list_is_sorted_and_never_shadows_what_a_line_says_of_itself() {
    assert!(FIELDS.is_sorted());
    assert!(["time", "level", "target", "message"].iter().all(|name| !FIELDS.contains(name)));
}

/// Log calls in a source whose message (or any text in the call) has something formatted into it.
fn formatted_messages(source: &str) -> Vec<String> {
    let call = regex::Regex::new(r"(?s)\b(?:error|warn|info|debug|trace)(?:_span)?!\s*\((.*?)\)\s*(?:;|,|\}|\n)").unwrap();
    let text = regex::Regex::new(r#""(?:[^"\\]|\\.)*[{}](?:[^"\\]|\\.)*""#).unwrap();
    call.captures_iter(source).filter(|found| text.is_match(&found[1])).map(|found| found[0].to_owned()).collect()
}

#[test]
fn all_messages_are_constant() {
    assert_eq!(formatted_messages("tracing::info!(\n  credential = name,\n  \"got {x}\"\n);").len(), 1);
    assert_eq!(formatted_messages("warn!(%reason, \"fine\"); error!(\"{secret}\");").len(), 1);
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("telemetry/tests.rs") {
                let found = formatted_messages(&std::fs::read_to_string(&path).unwrap());
                assert!(found.is_empty(), "{}: {found:?}: put what varies into a listed field", path.display());
            }
        }
    }
}
