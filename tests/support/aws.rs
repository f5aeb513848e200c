//! AWS Secrets Manager on loopback, as moto and LocalStack have it: from PyPI, pinned, and written by nobody here.

use std::net::{Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/aws");
const READY_LIMIT: Duration = Duration::from_secs(180);

/// What the daemon needs in its environment: neither server looks at it.
pub(crate) const CREDENTIALS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1")];

/// What the SDK needs for one of them, in the place of its own chain.
pub(crate) fn sdk() -> aws_config::SdkConfig {
    use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
    let credentials = Credentials::new("test", "test", None, None, "tests");
    aws_config::SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build()
}

pub(crate) struct Moto {
    pub(crate) endpoint: String,
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    // The server ends when this closes, so it can't outlive a test that was killed.
    input: ChildStdin,
}

impl Moto {
    pub(crate) async fn start() -> Self {
        let (child, input, lines) = python("moto", &[&format!("{SERVERS}/moto_server.py")], &[]);
        let mut moto = Self { endpoint: String::new(), _child: child, lines, input };
        moto.endpoint = moto.said("ready ").await;
        moto
    }

    /// Nobody listens there any more.
    pub(crate) async fn stop(&mut self) {
        self.told("stop").await;
    }

    /// It lists by the last change from now on, as AWS does where that is asked.
    pub(crate) async fn sorts(&mut self) {
        self.told("sort").await;
    }

    /// Each change was so many seconds earlier.
    pub(crate) async fn ages(&mut self, seconds: u32) {
        self.told(&format!("age {seconds}")).await;
    }

    async fn told(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.expect("it listens to us");
        self.said("done").await;
    }

    /// It is back, with all that it kept.
    pub(crate) async fn again(&mut self) {
        self.input.write_all(b"start\n").await.expect("it listens to us");
        assert_eq!(self.said("ready ").await, self.endpoint);
    }

    async fn said(&mut self, what: &str) -> String {
        let lines = &mut self.lines;
        let said = tokio::time::timeout(READY_LIMIT, async {
            while let Some(line) = lines.next_line().await.expect("its output is text") {
                if let Some(rest) = line.strip_prefix(what) {
                    return rest.to_owned();
                }
            }
            panic!("moto ended");
        });
        said.await.expect("moto answers in time")
    }
}

pub(crate) struct LocalStack {
    pub(crate) endpoint: String,
    child: Child,
    // It ends when this closes.
    input: ChildStdin,
    folder: tempfile::TempDir,
    port: u16,
}

impl LocalStack {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("localstack-").tempdir().expect("a temporary folder");
        let port = free_port();
        let (child, input) = localstack(folder.path(), port);
        let server = Self { endpoint: format!("http://[::1]:{port}"), child, input, folder, port };
        server.listens().await;
        assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err(), "it listens on more than it was told");
        server
    }

    /// The process ends. What it kept is there when it is started again, by a file of ours: only LocalStack's Pro edition has one.
    pub(crate) async fn stop(&mut self) {
        self.input.write_all(b"keep\n").await.expect("it listens to us");
        let ended = tokio::time::timeout(READY_LIMIT, self.child.wait()).await;
        assert!(ended.expect("it ends in time").expect("it is ours").success());
    }

    /// As it is of itself: what it kept is gone.
    pub(crate) async fn forget(&mut self) {
        self.child.kill().await.expect("it is ours");
        self.again().await;
    }

    /// Another process, at the same address.
    pub(crate) async fn again(&mut self) {
        (self.child, self.input) = localstack(self.folder.path(), self.port);
        self.listens().await;
    }

    async fn listens(&self) {
        let start = Instant::now();
        while tokio::net::TcpStream::connect((Ipv6Addr::LOCALHOST, self.port)).await.is_err() {
            assert!(start.elapsed() < READY_LIMIT, "LocalStack isn't ready within {READY_LIMIT:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn localstack(folder: &Path, port: u16) -> (Child, ChildStdin) {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("a file for its output");
    let home = folder.to_str().expect("a plain path");
    let mut child = Command::new(program("localstack"))
        .args([&format!("{SERVERS}/localstack_server.py"), &format!("{home}/kept")])
        .env_clear()
        .envs([
            // Given an address of IPv4, it would listen on all of them.
            ("GATEWAY_LISTEN", format!("[::1]:{port}").as_str()),
            ("SERVICES", "secretsmanager"),
            ("STRICT_SERVICE_LOADING", "1"),
            ("DISABLE_EVENTS", "1"),
            ("SKIP_SSL_CERT_DOWNLOAD", "1"),
            ("DNS_ADDRESS", "0"),
            ("FILESYSTEM_ROOT", home),
            ("HOME", home),
            ("PATH", "/usr/bin:/bin"),
        ])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(log.try_clone().expect("the same file"))
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("LocalStack starts");
    let input = child.stdin.take().expect("standard input is piped");
    (child, input)
}

/// boto3, which looks at one secret all the time.
pub(crate) struct Reader {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    input: Option<ChildStdin>,
}

impl Reader {
    /// `stage` is what it asks for, or `plain`.
    pub(crate) fn start(endpoint: &str, secret: &str, stage: &str) -> Self {
        let (child, input, lines) = python("moto", &[&format!("{SERVERS}/reader.py"), endpoint, secret, stage], &[]);
        Self { child, lines, input: Some(input) }
    }

    /// Ends it; everything that it saw, one after the other, and how often it looked.
    pub(crate) async fn seen(mut self) -> (Vec<serde_json::Value>, u64) {
        self.input.take();
        let mut seen = Vec::new();
        while let Some(line) = self.lines.next_line().await.expect("its output is text") {
            let line: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
            if let Some(looks) = line["looks"].as_u64() {
                self.child.wait().await.expect("it ends");
                return (seen, looks);
            }
            seen.push(line);
        }
        panic!("the reader ended early");
    }
}

fn python(environment: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (Child, ChildStdin, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(program(environment))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("Python starts");
    let input = child.stdin.take().expect("standard input is piped");
    let lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
    (child, input, lines)
}

/// Python in a virtual environment that `tests/run` made.
fn program(environment: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's temporary folder is in `target`");
    let folder = target.join("tests/aws").join(environment);
    assert!(
        folder.join("installed").exists(),
        "{environment} is not installed in {}: run the test command `tests/run`, which installs it",
        folder.display()
    );
    folder.join("bin/python3")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("a loopback port is free");
    listener.local_addr().expect("a bound socket has an address").port()
}
