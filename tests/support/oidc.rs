//! The npm package `oidc-provider`: an OAuth server that nobody here wrote, on loopback.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::wire::{Ask, Target};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/oidc/provider.mjs");

pub(crate) struct Oidc {
    pub(crate) issuer: String,
    target: Target,
    _child: Child,
    // The server ends when this closes, so it can't outlive a test that was killed.
    _input: ChildStdin,
}

impl Oidc {
    pub(crate) async fn start() -> Self {
        Self::launch(None).await
    }

    /// Clients are registered only for who shows this token (RFC 7591, section 3).
    pub(crate) async fn guarded(initial_access_token: &str) -> Self {
        Self::launch(Some(initial_access_token)).await
    }

    async fn launch(initial_access_token: Option<&str>) -> Self {
        let folder = install();
        let node = folder.join("node_modules/.bin/node");
        assert!(
            node.exists() && folder.join("node_modules/oidc-provider").exists(),
            "the pinned OAuth server is not installed in {}: run the test command `tests/run`, which installs it",
            folder.display()
        );
        let mut child = Command::new(node)
            .args([SCRIPT, "0"])
            .env_remove("INITIAL_ACCESS_TOKEN")
            .envs(initial_access_token.map(|token| ("INITIAL_ACCESS_TOKEN", token)))
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("node starts");
        let input = child.stdin.take().expect("standard input is piped");
        let mut lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        let issuer = tokio::time::timeout(Duration::from_secs(30), async {
            while let Some(line) = lines.next_line().await.expect("its output is text") {
                if let Some(issuer) = line.strip_prefix("ready ") {
                    return issuer.to_owned();
                }
            }
            panic!("the OAuth server ended before it was ready");
        })
        .await
        .expect("the OAuth server is ready within 30 s");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let address = issuer.trim_start_matches("http://").parse().expect("an issuer on loopback");
        Self { issuer, target: Target::Tcp(address), _child: child, _input: input }
    }

    /// A first client, as an operator would register it by hand.
    pub(crate) async fn register(&self) -> Value {
        let (status, client) = self.try_to_register(None).await;
        assert_eq!(status, 201, "{client}");
        client
    }

    /// The status, and the client or the error.
    pub(crate) async fn try_to_register(&self, initial_access_token: Option<&str>) -> (u16, Value) {
        let body = json!({
            "grant_types": ["client_credentials"],
            "response_types": [],
            "redirect_uris": [],
            "token_endpoint_auth_method": "client_secret_basic",
            "client_name": "enrolled by hand",
        })
        .to_string();
        // The server builds the client's own URL from the host that it was asked by.
        let authorization = initial_access_token.map(|token| format!("Bearer {token}"));
        let host = ("host", self.issuer.trim_start_matches("http://"));
        let headers: Vec<_> = std::iter::once(host).chain(authorization.as_deref().map(|value| ("authorization", value))).collect();
        let ask = Ask { method: "POST", path: "/reg", headers: &headers, body: Some(body.as_bytes()) };
        let answer = self.target.ask(ask).await;
        (answer.status, answer.json())
    }

    /// Deletes a client as RFC 7592 says, with its own registration access token.
    pub(crate) async fn delete(&self, client: &Value) -> u16 {
        let uri = client["registration_client_uri"].as_str().expect("a client has a URL");
        let path = uri.strip_prefix(&self.issuer).expect("of this server");
        let token = client["registration_access_token"].as_str().expect("a client has a token");
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        self.target.ask(Ask { method: "DELETE", path, headers: &headers, body: None }).await.status
    }

    /// The token endpoint's status for this pair: 200, or 401 for a client that is gone.
    pub(crate) async fn token_status(&self, client_id: &str, secret: &str) -> u16 {
        let basic = format!("Basic {}", STANDARD.encode(format!("{client_id}:{secret}")));
        let headers = [("authorization", basic.as_str()), ("content-type", "application/x-www-form-urlencoded")];
        let body = Some(b"grant_type=client_credentials".as_slice());
        self.target.ask(Ask { method: "POST", path: "/token", headers: &headers, body }).await.status
    }
}

/// `tests/oidc` in the target folder, where cargo says that is.
fn install() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's temporary folder is in `target`");
    target.join("tests/oidc")
}
