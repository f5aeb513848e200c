//! Every command of the program, with a secret where it belongs and where it doesn't: each shape.

use std::collections::BTreeSet;

use serde_json::json;

use super::house::{Cast, House};
use super::routes::say;
use crate::support::daemon::{Printed, keywright};
use crate::support::outputs::Outputs;

/// The commands that aren't driven with success here, and why.
const EXEMPT: [(&str, &str); 2] = [
    ("demo", "needs no installation; `blackbox::demo` runs it, and it looks through its own files for its own values"),
    ("help", "says what `--help` says"),
];
/// What is given here is the path of a file, and an error names the file that it is about. A value has no place there.
const PATHS: [&str; 8] = ["--config", "--token-file", "--ca", "--folder", "--keep", "--dir", "--to", "PATH"];
/// What is given here is kept by the audit trail, as the README says.
const KEPT: &str = "--reason";
const BODY_MAX: usize = 128 << 10;

/// Commands by what is to be typed, two words where a command has commands.
async fn commands(house: &House) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for name in listed(house, &[]).await {
        // It has no help of its own.
        let inner = if name == "help" { Vec::new() } else { listed(house, &[&name]).await };
        if inner.is_empty() {
            found.push(vec![name]);
        } else {
            found.extend(inner.into_iter().filter(|inner| inner != "help").map(|inner| vec![name.clone(), inner]));
        }
    }
    found
}

async fn help(house: &House, command: &[&str]) -> String {
    let arguments: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
    let printed = house.daemon.cli(&arguments).await;
    printed.assert_code(0);
    printed.out()
}

async fn listed(house: &House, command: &[&str]) -> Vec<String> {
    let text = help(house, command).await;
    let lines = text.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// The options of a command that take a value, from its help.
async fn options(house: &House, command: &[&str]) -> Vec<String> {
    let text = help(house, command).await;
    let words = text.lines().map(str::trim).filter(|line| line.starts_with("--") && line.contains('<'));
    words.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

struct Drive<'a> {
    house: &'a House,
    outputs: Outputs,
    driven: BTreeSet<String>,
    runs: usize,
}

impl Drive<'_> {
    async fn run(&mut self, arguments: &[&str], input: &[u8]) -> Printed {
        self.runs += 1;
        self.house.daemon.cli_with(arguments, input).await
    }

    fn collect(&mut self, command: &str, printed: Printed) {
        self.outputs.add(&format!("stdout of {command}"), printed.stdout);
        self.outputs.add(&format!("stderr of {command}"), printed.stderr);
    }

    /// A command that must succeed.
    async fn good(&mut self, arguments: &[&str], input: &[u8]) -> String {
        let printed = self.run(arguments, input).await;
        let out = printed.out();
        assert_eq!(printed.code(), Some(0), "{}: {}", arguments.join(" "), printed.err());
        self.driven.insert(arguments[0].to_owned());
        self.collect(&arguments.join(" "), printed);
        out
    }

    /// The one command that prints values: to standard output alone.
    async fn get(&mut self, arguments: &[&str], value: &str) {
        let printed = self.run(arguments, b"").await;
        printed.assert_code(0);
        assert!(printed.out().contains(value), "{}: another value was printed", arguments.join(" "));
        self.driven.insert("get".to_owned());
        self.outputs.add("stderr of get", printed.stderr);
    }

    /// A value with a NUL is refused by its name; the others are the program's alone.
    async fn exec_by_variables(&mut self, cast: &Cast, server: &str, token: &str) {
        let start =
            ["exec", "--env", "--application", &cast.application, "--server", server, "--token-file", token, "--instance", "default"];
        let name = format!("KEPT_{}_SECRET", format!("{:?}", cast.shape).to_uppercase());
        let script = format!("test -n \"${name}\"");
        let arguments: Vec<&str> = start.into_iter().chain(["--", "sh", "-c", &script]).collect();
        let printed = self.run(&arguments, b"").await;
        let status = if cast.first.value.contains('\0') { 1 } else { 0 };
        assert_eq!(printed.code(), Some(status), "{:?}: {}", cast.shape, printed.err());
        self.collect("exec with variables", printed);
    }

    async fn life(&mut self, cast: &Cast) {
        let (name, application) = (cast.credential.as_str(), cast.application.as_str());
        let submitted = |value: &str| json!({"secret": value}).to_string().into_bytes();
        self.good(&["submit", name], &submitted(&cast.first.value)).await;
        let token = self.house.daemon.site.path(&format!("token-{name}"));
        std::fs::write(&token, cast.bearer.strip_prefix("Bearer ").unwrap()).unwrap();
        let token = token.to_str().unwrap().to_owned();
        self.get(&["get", name, "--field", "secret"], &cast.first.value).await;
        self.get(&["get", name, "--field", "secret", "--token-file", &token], &cast.first.value).await;
        // What the program prints is its own; nothing of it is said by `exec`.
        let program = ["sh", "-c", "cat \"$KEYWRIGHT_CREDENTIALS\"/*/secret > /dev/null; exit 0"];
        let server = format!("http://{}", self.house.daemon.site.address);
        let exec = ["exec", "--application", application, "--server", &server, "--token-file", &token, "--instance", "default", "--"];
        self.good(&exec.into_iter().chain(program).collect::<Vec<_>>(), b"").await;
        self.exec_by_variables(cast, &server, &token).await;
        self.house.has_made(cast).await;
        self.good(&["rotate", &cast.made, "--wait"], b"").await;
        let second = self.good(&["submit", name, "--json"], &submitted(&cast.second.value)).await;
        let second: serde_json::Value = serde_json::from_str(&second).unwrap();
        self.look(name).await;
        self.good(&["rollback", name], b"").await;
        self.get(&["get", name, "--field", "secret"], &cast.first.value).await;
        self.good(&["revoke", name, "--version", second["version"].as_str().unwrap(), "--force"], b"").await;
        for arguments in [&["pause", name][..], &["resume", name], &["pause"], &["resume"]] {
            self.good(arguments, b"").await;
        }
        self.good(&["golive", application, "--confirm", "asked", "--by", "Ana Souza"], b"").await;
        // Of the sandbox, so that it is never ready.
        for arguments in [&["golive", application][..], &["golive", application, "--json"], &["golive", application, "--markdown"]] {
            let printed = self.run(arguments, b"").await;
            assert_eq!(printed.code(), Some(1), "{}", printed.err());
            assert!(printed.out().contains("asked"), "{}", printed.err());
            self.collect(&arguments.join(" "), printed);
        }
        self.good(&["golive", application, "--withdraw", "asked"], b"").await;
        self.good(&["release", application, "default"], b"").await;
        self.good(&["release", application], b"").await;
        let backup = self.house.daemon.site.path(&format!("data/backup-{name}"));
        self.good(&["backup", backup.to_str().unwrap()], b"").await;
        self.good(&["rewrap"], b"").await;
        // Not while a daemon runs; and a second daemon isn't started.
        for command in [&["restore", backup.to_str().unwrap(), "--force"][..], &["run"]] {
            let printed = self.run(command, cast.stray.value.as_bytes()).await;
            assert_eq!(printed.code(), Some(1), "{}", printed.err());
            self.driven.insert(command[0].to_owned());
            self.collect(command[0], printed);
        }
        self.look(name).await;
        self.good(&["forget", name, "--force"], b"").await;
    }

    async fn look(&mut self, name: &str) {
        for arguments in [
            &["status"][..],
            &["status", "--json"],
            &["status", name],
            &["plan"],
            &["plan", "--json"],
            &["check"],
            &["check", "--json"],
            &["audit", "verify"],
            &["schema"],
            &["completions", "bash"],
            &["man"],
        ] {
            self.good(arguments, b"").await;
        }
    }

    /// A secret as what isn't understood; JSON and plain in turn.
    async fn wrong_usage(&mut self, command: &[String], options: &[String], cast: &Cast) {
        // An argument has no NUL; escaped, it would be found as well.
        let secret = cast.stray.value.replace('\0', "\\0");
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let path = matches!(command.join(" ").as_str(), "check" | "backup" | "restore" | "audit verify");
        let before = if path { &["nowhere"][..] } else { &[] };
        let (flag, set, short) = (format!("--{secret}"), format!("--{secret}=1"), format!("-{secret}"));
        let mut lines: Vec<Vec<String>> = Vec::new();
        for wrong in [&secret, &flag, &set, &short, &format!("--json={secret}")] {
            lines.push(before.iter().copied().chain([wrong.as_str()]).map(str::to_owned).collect());
        }
        lines.push(["nobody", "nobody", &secret].map(str::to_owned).to_vec());
        for option in options.iter().filter(|option| !PATHS.contains(&option.as_str()) && **option != *KEPT) {
            lines.push(vec!["nobody".to_owned(), option.clone(), secret.clone()]);
            lines.push(vec![format!("{option}={secret}")]);
        }
        if command == ["release"] {
            // A short one is the name of an instance by its form.
            lines.push(vec!["nobody".to_owned(), secret.clone()]);
        }
        for (index, line) in lines.iter().enumerate() {
            let json = (index % 2 == 0).then_some("--json");
            let arguments: Vec<&str> = json.into_iter().chain(command.iter().copied()).chain(line.iter().map(String::as_str)).collect();
            let printed = self.run(&arguments, cast.stray.value.as_bytes()).await;
            let code = printed.code();
            assert!(matches!(code, Some(1 | 2)), "{}, argument {index}: exit {code:?}", command.join(" "));
            self.collect(&format!("{} with wrong usage {index}", command.join(" ")), printed);
        }
    }

    /// What isn't what `submit` reads.
    async fn wrong_input(&mut self, cast: &Cast) {
        let stray = cast.stray.value.as_str();
        let text = serde_json::to_string(stray).unwrap();
        let inputs: [Vec<u8>; 12] = [
            stray.as_bytes().to_vec(),
            text.clone().into_bytes(),
            format!("secret={stray}").into_bytes(),
            format!("{{\"secret\": {}", &text[..text.len() - 1]).into_bytes(),
            format!("{{\"secret\": [{text}]}}").into_bytes(),
            format!("{{\"secret\": {{\"secret\": {text}}}}}").into_bytes(),
            format!("{{{text}: \"x\"}}").into_bytes(),
            format!("{{\"secret\": {text}, \"secret\": {text}}}").into_bytes(),
            json!({"secret": "x-0", "more": stray}).to_string().into_bytes(),
            json!({"secret": format!(" {stray}")}).to_string().into_bytes(),
            json!({"secret": stray.repeat(BODY_MAX / stray.len() + 1)}).to_string().into_bytes(),
            text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ];
        for (index, input) in inputs.iter().enumerate() {
            let arguments = if index % 2 == 0 { &["submit", &cast.credential, "--json"][..] } else { &["submit", &cast.credential] };
            let printed = self.run(arguments, input).await;
            assert_eq!(printed.code(), Some(1), "input {index}: {}", printed.err());
            self.collect(&format!("submit of wrong input {index}"), printed);
        }
        let printed = self.run(&["submit", "nobody"], json!({"secret": stray}).to_string().as_bytes()).await;
        assert_eq!(printed.code(), Some(1));
        self.collect("submit of nobody", printed);
    }

    /// Variables that libraries would write secrets to are refused by their names; a wrong one for the log is as if it weren't there.
    async fn wrong_environment(&mut self, cast: &Cast) {
        let secret = cast.stray.value.replace('\0', "\\0");
        let config = self.house.daemon.site.config();
        for name in ["LOG_SENSITIVE_BODIES", "LOG_SIGNABLE_BODY", "SSLKEYLOGFILE", "RUST_LOG"] {
            for level in ["", "keywright::", "keywright="] {
                let value = format!("{level}{secret}");
                let arguments = ["run", "--config", config.to_str().unwrap()];
                let printed = keywright(self.house.daemon.site.folder(), &arguments, &[(name, &value)], b"").await;
                assert_eq!(printed.code(), Some(1), "{name}: {}", printed.err());
                self.runs += 1;
                self.collect(&format!("run with a wrong {name}"), printed);
            }
        }
    }
}

/// Each command does its work, and each is used wrongly; a command that is new is not driven here, and fails.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_out_of_any_command() {
    let house = House::start(false).await;
    let commands = commands(&house).await;
    let first: BTreeSet<String> = commands.iter().map(|command| command[0].clone()).collect();
    let mut known = Vec::new();
    for command in &commands {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        known.push(if words[0] == "help" { Vec::new() } else { options(&house, &words).await });
    }
    let mut drive = Drive { house: &house, outputs: Outputs::default(), driven: BTreeSet::new(), runs: 0 };
    for cast in &house.casts {
        drive.driven.clear();
        drive.wrong_input(cast).await;
        for (command, options) in commands.iter().zip(&known) {
            drive.wrong_usage(command, options, cast).await;
        }
        drive.wrong_environment(cast).await;
        drive.life(cast).await;
        let covered: BTreeSet<String> = drive.driven.iter().cloned().chain(EXEMPT.map(|(name, _)| name.to_owned())).collect();
        assert_eq!(covered, first, "{:?}: each command is driven, or named with a reason", cast.shape);
    }
    drive.outputs.extend(house.left_behind());
    let leaks = drive.outputs.leaks(&house.scanner(&[]));
    say(&format!(
        "canaries of the process: {} of {} commands × {} shapes ({} exempt), in {} runs: {} leaks in {} channels\n",
        first.len() - EXEMPT.len(),
        first.len(),
        house.casts.len(),
        EXEMPT.len(),
        drive.runs,
        leaks.len(),
        drive.outputs.channels().len(),
    ));
    assert!(leaks.is_empty(), "{leaks:#?}");
}
