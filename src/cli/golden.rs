//! What people and programs see, as it was reviewed. Status and plan are those that the engine's own tests wrote.

use std::path::Path;

use clap::CommandFactory;
use rstest::rstest;
use serde::de::DeserializeOwned;

use super::Arguments;
use crate::golden;
use crate::policies::{Source, parse};

/// Without colours, as a file gets it.
fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

fn view<T: DeserializeOwned>(file: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[rstest]
#[case("missing-and-steady")]
#[case("overlap")]
#[case("overdue")]
#[case("stuck")]
#[case("abandoned")]
#[case("daemon-problems")]
fn cli_status_is_the_one_that_was_reviewed(#[case] name: &str) {
    let view = view(&format!("status/{name}.json"));
    let text = super::status::text(&view, false) + "\n\n--- of one credential\n\n" + &super::status::text(&view, true);
    golden::assert(&format!("status/{name}.txt"), &(plain(&text) + "\n"));
}

#[rstest]
#[case("herds", 365)]
#[case("blocked", 90)]
fn cli_plan_is_the_one_that_was_reviewed(#[case] name: &str, #[case] days: u32) {
    let text = super::plan::text(&view(&format!("plan/{name}.json")), days);
    golden::assert(&format!("plan/{name}.txt"), &(plain(&text) + "\n"));
}

#[rstest]
#[case("not-ready")]
#[case("ready")]
fn cli_golive_is_the_one_that_was_reviewed(#[case] name: &str) {
    let view = view(&format!("golive/{name}.json"));
    golden::assert(&format!("golive/{name}.txt"), &(plain(&super::golive::text(&view)) + "\n"));
    golden::assert(&format!("golive/{name}.md"), &super::golive::report(&view));
}

#[test]
fn cli_check_shows_problems_as_they_were_reviewed() {
    let sources = ["rotations.yaml", "people.yaml", "provider.yaml", "broken.yaml"].map(|file| Source {
        file: format!("policies/{file}"),
        text: std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/check").join(file)).unwrap(),
    });
    let problems = parse(&sources, "2026-11-21T12:00:00Z".parse().unwrap()).unwrap_err();
    golden::assert("check/problems.txt", &problems.render(false));
    assert_eq!(plain(&problems.render(true)), problems.render(false));
    golden::assert("check/problems.json", &golden::pretty(&serde_json::to_value(&problems).unwrap()));
}

/// A heading for each command, then its help.
fn helps(path: &str, command: &mut clap::Command, out: &mut String) {
    let help = command.render_long_help();
    out.push_str(&format!("=== {path} --help\n{help}\n"));
    for subcommand in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        helps(&format!("{path} {}", subcommand.get_name()), subcommand, out);
    }
}

#[test]
fn cli_help_texts_are_those_that_were_reviewed() {
    let mut command = Arguments::command();
    command.build();
    let mut out = String::new();
    helps("keywright", &mut command, &mut out);
    let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
    golden::assert("help.txt", &(lines.join("\n") + "\n"));
}

#[test]
fn cli_completions_know_every_command() {
    for shell in clap::ValueEnum::value_variants() {
        let mut script = Vec::new();
        clap_complete::generate::<clap_complete::Shell, _>(*shell, &mut Arguments::command(), "keywright", &mut script);
        let script = String::from_utf8(script).unwrap();
        for command in Arguments::command().get_subcommands() {
            assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
        }
    }
}

#[test]
fn cli_manual_has_a_page_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    super::man::man(Some(&folder.path().join("man1")), Arguments::command(), super::Terminal { json: false }).unwrap();
    for command in Arguments::command().get_subcommands() {
        let page = std::fs::read_to_string(folder.path().join(format!("man1/keywright-{}.1", command.get_name()))).unwrap();
        assert!(page.contains(".SH NAME") && page.contains("KEYWRIGHT_CONFIG"), "{page}");
    }
    let whole = std::fs::read_to_string(folder.path().join("man1/keywright.1")).unwrap();
    assert!(whole.contains("Exit status"), "{whole}");
}
