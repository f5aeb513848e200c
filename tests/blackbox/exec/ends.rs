//! How `exec` ends: with its program's status, and before there is a program with its own.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

use super::{APPLICATION, House, Program};
use crate::support::daemon::{Printed, keywright, printed};
use crate::support::site::Site;

impl House {
    async fn run(&self, options: &[&str], program: &[&str]) -> Printed {
        printed(&mut self.exec(options, program), b"from standard input").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_status_is_the_programs() {
    let house = House::start().await;
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        let printed = house.run(&[], &["sh", "-c", script]).await;
        assert_eq!(printed.code(), Some(status), "{script}: {}", printed.err());
    }
    // Standard input and output are the program's, and so are its arguments.
    let printed = house.run(&[], &["sh", "-c", "cat; echo \" $*\"", "--application", "--json", "x"]).await;
    assert_eq!(printed.out(), "from standard input --json x\n");
    let printed = house.run(&["--json"], &["sh", "-c", "echo its own >&2"]).await;
    assert_eq!(printed.err(), "its own\n", "with --json nothing is said that isn't a failure");
    let printed = house.run(&[], &["/nowhere/program"]).await;
    printed.assert_code(1);
    assert!(printed.err().contains("starting the program"), "{}", printed.err());
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_are_passed_on() {
    let house = House::start().await;
    let mut program = house.service(&[]);
    program.tells("start", 1).await;
    for (signal, word) in [
        (Signal::HUP, "HUP"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::WINCH, "WINCH"),
    ] {
        program.signal(signal);
        program.tells(word, 1).await;
    }
    assert_eq!(program.terminate().await.code(), Some(5));
    assert_eq!(program.told("TERM").len(), 1);
}

/// As `nohup` starts it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_ignored_before_stays_ignored() {
    let house = House::start().await;
    let inner = house.exec(&[], &["sh", "-c", "echo \"start $$ - -\" >> story; while :; do sleep 0.1; done"]);
    let mut outer = crate::support::daemon::command(&[]);
    let inner = inner.as_std();
    let words: Vec<_> = std::iter::once(inner.get_program()).chain(inner.get_args()).collect();
    let mut outer_std = tokio::process::Command::new("sh");
    outer_std.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).args(words).current_dir(house.daemon.site.folder()).kill_on_drop(true);
    std::mem::swap(&mut outer, &mut outer_std);
    let mut program = Program::start(outer, house.daemon.site.folder());
    program.tells("start", 1).await;
    program.signal(Signal::HUP);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(program.terminate().await.code(), Some(143), "SIGHUP ended nothing, SIGTERM did: {}", program.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_it_names_the_socket() {
    let site = Site::new();
    site.write();
    let config = site.config();
    let arguments = ["--config", config.to_str().unwrap(), "exec", "--application", APPLICATION, "--wait", "1s", "--", "touch", "started"];
    let printed = keywright(site.folder(), &arguments, &[], b"").await;
    printed.assert_code(1);
    assert!(printed.err().contains("keywright.sock") && printed.err().contains("waiting for the credentials"), "{}", printed.err());
    let json: Vec<&str> = ["--json"].into_iter().chain(arguments).collect();
    let printed = keywright(site.folder(), &json, &[], b"").await;
    let problem: serde_json::Value = serde_json::from_slice(&printed.stderr).expect("a problem document, and nothing else");
    assert!(problem["type"].as_str().unwrap().ends_with("no-daemon"), "{problem}");
    assert!(!site.path("started").exists(), "no program without credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_a_first_version() {
    let house = House::unsubmitted().await;
    let printed = house.run(&["--wait", "1s"], &["touch", "started"]).await;
    printed.assert_code(1);
    assert!(printed.err().contains("submit"), "{}", printed.err());
    assert!(!house.daemon.site.path("started").exists(), "no program with a part of its credentials");

    let mut program = house.service(&[]);
    program.says("waiting for the credentials").await;
    house.submit().await;
    program.tells("start", 1).await;
    assert_eq!(program.terminate().await.code(), Some(5));

    let other = House::unsubmitted().await;
    let mut waiting = other.service(&[]);
    waiting.says("waiting for the credentials").await;
    assert_eq!(waiting.terminate().await.code(), Some(143), "asked to end, it doesn't wait on");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_another_application_is_refused_at_once() {
    let house = House::start().await;
    let config = house.daemon.site.config();
    for named in ["another", "nobody"] {
        let arguments = ["--config", config.to_str().unwrap(), "exec", "--application", named, "--", "touch", "started"];
        let printed = keywright(house.daemon.site.folder(), &arguments, &[], b"").await;
        printed.assert_code(1);
        assert!(printed.err().contains("isn't the application"), "{}", printed.err());
    }
    assert!(!house.daemon.site.path("started").exists());
    for wrong in
        [&["exec", "--", "true"][..], &["exec", "--application", "a"], &["exec", "--application", "a", "--signal", "KILL", "--", "x"]]
    {
        keywright(house.daemon.site.folder(), wrong, &[], b"").await.assert_code(2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_on_one_host_are_two_instances() {
    let house = House::start().await;
    let one = house.service(&["--settle", "1s"]);
    one.tells("start", 1).await;
    one.says("confirmed").await;
    let script = "echo \"start $$ - -\" >> other; while :; do sleep 0.1; done";
    let folder = house.daemon.site.path("other-folder");
    std::fs::create_dir(&folder).unwrap();
    let mut command = house.exec(&["--settle", "1s", "--instance", "named-1"], &["sh", "-c", script]);
    command.current_dir(&folder);
    let two = Program::start(command, &folder);
    two.says("confirmed").await;
    let row = house.daemon.status(crate::world::SANDBOX).await;
    let names: Vec<&str> = row["applications"].as_array().unwrap().iter().map(|entry| entry["instance"].as_str().unwrap()).collect();
    assert!(names.len() == 2 && names.contains(&"named-1") && !names.contains(&"default"), "{names:?}");
}

/// A person's Ctrl-C reaches the program once, from the terminal, and not a second time from `exec`.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminals_interrupt_comes_once() {
    let house = House::start().await;
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("it opens");
    let end = || Stdio::from(ioctl_tiocgptpeer(&terminal, OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("its other end"));
    let inner = house.exec(&[], &["sh", "-c", super::SERVICE]);
    // A session of its own, with this terminal in control of it.
    let mut command = tokio::process::Command::new("setsid");
    command.arg("--ctty").arg(inner.as_std().get_program()).args(inner.as_std().get_args());
    command.current_dir(house.daemon.site.folder()).kill_on_drop(true).stdin(end()).stdout(end()).stderr(end());
    let mut program = Program { child: command.spawn().expect("it starts"), folder: house.daemon.site.folder().to_owned() };
    drop(command);
    program.tells("start", 1).await;
    let mut keys = std::fs::File::from(terminal);
    keys.write_all(b"\x03").unwrap();
    program.tells("INT", 1).await;
    // From elsewhere it gets what only `exec` got.
    program.signal(Signal::USR1);
    program.tells("USR1", 1).await;
    assert_eq!(program.terminate().await.code(), Some(5));
    assert_eq!(program.told("INT").len(), 1, "{:?}", program.story());
}
