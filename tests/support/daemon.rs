//! The real binary: started, killed and started again in one installation; its command line; what it printed.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use super::site::Site;
use super::wire::{Answer, Ask};

/// What the test profile built.
pub(crate) const BUILT: &str = env!("CARGO_BIN_EXE_keywright");
/// Names another build that all tests here start in its place: a release build, most of all.
const OTHER: &str = "KEYWRIGHT_TEST_BINARY";
const READY_LIMIT: Duration = Duration::from_secs(30);
const CLI_LIMIT: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Printed {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON on standard output ({error}); exit {:?}; stderr: {}", self.code(), self.err()))
    }

    pub(crate) fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code(), Some(code), "stdout: {}\nstderr: {}", self.out(), self.err());
        self
    }
}

/// Runs the command line in `folder`, with nothing of our environment but the path.
pub(crate) async fn keywright<A: AsRef<OsStr>>(
    folder: &std::path::Path,
    arguments: &[A],
    environment: &[(&str, &str)],
    input: &[u8],
) -> Printed {
    printed(command(environment).current_dir(folder).args(arguments), input).await
}

/// What this command prints, given this input.
pub(crate) async fn printed(command: &mut Command, input: &[u8]) -> Printed {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let input = input.to_vec();
    tokio::spawn(async move {
        // A command that needs no input may have ended already.
        let _ = stdin.write_all(&input).await;
    });
    let output = tokio::time::timeout(CLI_LIMIT, child.wait_with_output())
        .await
        .unwrap_or_else(|_| panic!("{command:?} did not end"))
        .expect("its output is read");
    Printed { status: output.status, stdout: output.stdout, stderr: output.stderr }
}

/// The build that is to be tested instead of the test profile's, if one is named.
pub(crate) fn other_binary() -> Option<PathBuf> {
    std::env::var_os(OTHER).filter(|path| !path.is_empty()).map(PathBuf::from)
}

pub(crate) fn binary() -> PathBuf {
    other_binary().unwrap_or_else(|| BUILT.into())
}

/// The binary, with nothing of our environment but the path.
pub(crate) fn command(environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary());
    command.env_clear().kill_on_drop(true);
    for name in ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(environment.iter().copied());
    command
}

pub(crate) struct Daemon {
    pub(crate) site: Site,
    child: Option<Child>,
    environment: Vec<(String, String)>,
    pub(crate) starts: u32,
}

impl Daemon {
    /// Starts and waits till it is ready.
    pub(crate) async fn start(site: Site) -> Self {
        Self::start_with(site, &[]).await
    }

    pub(crate) async fn start_with(site: Site, environment: &[(&str, &str)]) -> Self {
        site.write();
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut daemon = Self { site, child: None, environment, starts: 0 };
        daemon.again().await;
        daemon
    }

    /// Starts it again in the same installation; waits till it is ready.
    pub(crate) async fn again(&mut self) {
        self.launch();
        self.ready().await;
    }

    /// Starts it and doesn't wait: a kill may come before it is ready.
    pub(crate) fn launch(&mut self) {
        assert!(self.child.is_none(), "it still runs");
        self.starts += 1;
        let log = |name: &str| {
            let path = self.site.path(name);
            OpenOptions::new().create(true).append(true).open(path).expect("a file for its output")
        };
        let environment: Vec<_> = self.environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let child = command(&environment)
            .arg("run")
            .arg("--config")
            .arg(self.site.config())
            .current_dir(self.site.folder())
            .stdin(Stdio::null())
            .stdout(log("daemon.stdout"))
            .stderr(log("daemon.stderr"))
            .spawn()
            .expect("the binary starts");
        self.child = Some(child);
    }

    pub(crate) async fn ready(&mut self) {
        let start = std::time::Instant::now();
        let request = Ask { method: "GET", path: "/readyz", headers: &[], body: None }.bytes();
        loop {
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("its state is known") {
                panic!("the daemon ended with {status} before it was ready:\n{}", self.log_tail());
            }
            if let Ok(Some(Answer { status: 200, .. })) = self.site.tcp().raw(&request).await {
                return;
            }
            assert!(start.elapsed() < READY_LIMIT, "not ready in {READY_LIMIT:?}:\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// SIGKILL, to the one process that we started.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("it is ended");
        }
    }

    /// SIGTERM; panics when it takes longer than the contract's ten seconds (and a little for a busy machine).
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it was started");
        signal(&child, rustix::process::Signal::TERM);
        tokio::time::timeout(Duration::from_secs(12), child.wait())
            .await
            .expect("SIGTERM ends it within ten seconds")
            .expect("its state is known")
    }

    pub(crate) fn reload(&self) {
        self.site.write();
        signal(self.child.as_ref().expect("it was started"), rustix::process::Signal::HUP);
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("it still runs")
    }

    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("its state is known")
    }

    pub(crate) async fn cli(&self, arguments: &[&str]) -> Printed {
        self.cli_with(arguments, b"").await
    }

    pub(crate) async fn cli_with(&self, arguments: &[&str], input: &[u8]) -> Printed {
        let config = self.site.config();
        let config = config.to_str().expect("a plain path");
        let all: Vec<&str> = ["--config", config].into_iter().chain(arguments.iter().copied()).collect();
        keywright(self.site.folder(), &all, &[], input).await
    }

    /// Enrols a pair and expects it to become current.
    pub(crate) async fn submit(&self, credential: &str, fields: &Value) {
        self.cli_with(&["submit", credential], fields.to_string().as_bytes()).await.assert_code(0);
    }

    /// The row of `status --json` for this credential.
    pub(crate) async fn status(&self, credential: &str) -> Value {
        let printed = self.cli(&["status", credential, "--json"]).await;
        printed.assert_code(0);
        let document = printed.json();
        document["credentials"]
            .as_array()
            .and_then(|rows| rows.iter().find(|row| row["name"] == credential))
            .unwrap_or_else(|| panic!("`{credential}` is not in {document}"))
            .clone()
    }

    /// What the daemon has printed in all its lives, by file.
    pub(crate) fn logs(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.site.logs()
    }

    pub(crate) fn log_tail(&self) -> String {
        self.logs()
            .iter()
            .map(|(path, bytes)| {
                let text = String::from_utf8_lossy(bytes);
                let lines: Vec<&str> = text.lines().rev().take(25).collect();
                let lines: Vec<&str> = lines.into_iter().rev().collect();
                format!("--- {}\n{}\n", path.display(), lines.join("\n"))
            })
            .collect()
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let id = child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)).expect("it still runs");
    rustix::process::kill_process(id, signal).expect("the signal is sent");
}
