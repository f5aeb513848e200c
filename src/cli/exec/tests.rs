//! What `exec` makes of its command line, and what it waits for.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    asked: ExecArguments,
}

fn parse(line: &str) -> Result<ExecArguments, clap::Error> {
    Line::try_parse_from(std::iter::once("exec").chain(line.split(' '))).map(|line| line.asked)
}

#[test]
fn cli_exec_takes_the_program_as_it_stands() {
    let asked = parse("--application a -- run --application b --json -x").unwrap();
    assert_eq!(asked.command, ["run", "--application", "b", "--json", "-x"].map(OsString::from));
    assert_eq!((asked.grace.as_secs(), asked.wait.as_secs(), asked.signal), (10, 60, None));
    for signal in ["HUP", "hup", "SIGHUP"] {
        assert_eq!(parse(&format!("--application a --signal {signal} -- x")).unwrap().signal, Some(Told::Hup));
    }
}

#[test]
fn cli_exec_refuses_what_does_not_fit_together() {
    for bad in [
        "--application a",
        "--application a --",
        "--application a x",
        "-- x",
        "--application A -- x",
        "--application a --env --signal HUP -- x",
        "--application a --env --folder /x -- x",
        "--application a --signal HUP --restart -- x",
        "--application a --signal KILL -- x",
        "--application a --server https://h -- x",
        "--application a --ca f -- x",
        "--application a --server http://h --token-file f -- x",
        "--application a --settle 0s -- x",
        "--application a --instance a/b -- x",
        "--application a --check= -- x",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    let settings = Settings::new(None);
    for bad in ["--server https://h --token-file f", "--server http://127.0.0.1:1 --ca f --token-file f"] {
        let asked = parse(&format!("--application a {bad} -- x")).unwrap();
        assert_eq!(daemon(&asked, &settings).unwrap_err().exit_code(), ExitCode::from(2), "{bad}");
    }
}

#[test]
fn cli_exec_settles_before_it_confirms() {
    for (line, seconds) in
        [("", 10), ("--settle 3s", 3), ("--check x", 0), ("--check x --settle 3s", 3), ("--check x --signal HUP", 10), ("--signal HUP", 10)]
    {
        let asked = parse(format!("--application a {line} -- x").replace("  ", " ").as_str()).unwrap();
        assert_eq!(settle(&asked).as_secs(), seconds, "{line}");
    }
    assert_eq!(parse("--application a --check=x -- y").unwrap().check.unwrap().0, ["x"]);
    assert_eq!(words(" curl  -sf http://127.0.0.1/ ").unwrap().0, ["curl", "-sf", "http://127.0.0.1/"]);
}

#[test]
fn cli_exec_waits_for_what_passes() {
    let refused = |slug: &str, status: u16| {
        let problem = serde_json::json!({"type": format!("https://keywright.dev/problems/{slug}"), "title": "t", "status": status});
        Failure::answered(serde_json::from_value(problem).unwrap())
    };
    for (slug, status) in [("no-version", 503), ("not-ready", 503), ("too-many", 429), ("timeout", 408)] {
        assert!(is_passing(&refused(slug, status)), "{slug}");
    }
    for (slug, status) in [("unauthenticated", 401), ("forbidden", 403), ("bad-request", 400), ("not-found", 404)] {
        assert!(!is_passing(&refused(slug, status)), "{slug}");
    }
    assert!(is_passing(&Failure::no_daemon(std::path::Path::new("/x"), "not found")));
    assert!(!is_passing(&Failure::failed("io", "t", "d")));
}
