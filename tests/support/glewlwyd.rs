//! Glewlwyd, from its Debian package: an OpenID Connect server that nobody here wrote, on loopback, with a database of its own. An
//! update of a client (RFC 7592) gives it a new secret there, and the old one is dead.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::wire::{Ask, Target};

/// Where they lie in the package: the program, its modules, and tables with a first administrator.
const PROGRAM: &str = "usr/bin/glewlwyd";
const MODULES: &str = "usr/lib/glewlwyd";
const TABLES: &str = "usr/share/dbconfig-common/data/glewlwyd/install/sqlite3";
const READY_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Glewlwyd {
    /// Below it are `/token` and `/register`.
    pub(crate) base: String,
    target: Target,
    _child: Child,
    _folder: tempfile::TempDir,
}

impl Glewlwyd {
    pub(crate) async fn start() -> Self {
        for file in [PROGRAM, TABLES].map(unpacked) {
            assert!(file.exists(), "{} is missing: run the test command `tests/run`, which brings Glewlwyd", file.display());
        }
        let folder = tempfile::Builder::new().prefix("glewlwyd-").tempdir().expect("a temporary folder");
        let address = free_address();
        make_database(&folder.path().join("glewlwyd.db"));
        let config = folder.path().join("glewlwyd.conf");
        std::fs::write(&config, configuration(folder.path(), address)).expect("the configuration is written");
        let log = std::fs::File::create(folder.path().join("log")).expect("a file for its output");
        let child = Command::new(unpacked(PROGRAM))
            .arg(format!("--config-file={}", config.display()))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the same file"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("glewlwyd starts");
        let server = Self { base: format!("http://{address}/api/oidc"), target: Target::Tcp(address), _child: child, _folder: folder };
        server.ready().await;
        server.set_up().await;
        server
    }

    async fn ready(&self) {
        let start = Instant::now();
        let request = Ask { method: "GET", path: "/config", headers: &[], body: None }.bytes();
        while !matches!(self.target.raw(&request).await, Ok(Some(answer)) if answer.status == 200) {
            assert!(start.elapsed() < READY_LIMIT, "glewlwyd isn't ready within {READY_LIMIT:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The administrator signs in, and switches on what a client needs that registers itself and gets tokens of its own.
    async fn set_up(&self) {
        let login = self.post("/api/auth/", &[], &json!({"username": "admin", "password": "password"})).await;
        assert_eq!(login.0, 200, "{}", login.2);
        let cookie = login.1.expect("a session").split(';').next().expect("its value").to_owned();
        let session = [("cookie", cookie.as_str())];
        let scope = json!({"name": "billing", "display_name": "billing", "description": "billing", "password_required": false,
            "password_max_age": 0, "scheme": {}, "scheme_required": {}});
        assert_eq!(self.post("/api/scope/", &session, &scope).await.0, 200);
        let parameters = json!({
            "iss": self.base, "jwt-type": "sha", "jwt-key-size": "256", "key": "glewlwyd-signs-its-tokens-with-this-key-in-this-test",
            "access-token-duration": 3600, "refresh-token-duration": 3600, "code-duration": 600, "refresh-token-rolling": false,
            "allow-non-oidc": true, "auth-type-code-enabled": false, "auth-type-token-enabled": false,
            "auth-type-id-token-enabled": true, "auth-type-none-enabled": false, "auth-type-password-enabled": false,
            "auth-type-client-enabled": true, "auth-type-device-enabled": false, "auth-type-refresh-enabled": false,
            "client-redirect_uri-parameter": "redirect_uri",
            "register-client-allowed": true, "register-client-auth-scope": [], "register-client-credentials-scope": ["billing"],
            "register-client-management-allowed": true, "register-client-token-one-use": false,
        });
        let plugin = json!({"module": "oidc", "name": "oidc", "display_name": "oidc", "order_rank": 0, "readonly": false,
            "enabled": true, "parameters": parameters});
        let (status, _, text) = self.post("/api/mod/plugin/", &session, &plugin).await;
        assert_eq!(status, 200, "{text}");
    }

    /// A first client, as an operator would register it by hand.
    pub(crate) async fn register(&self) -> Value {
        let body = json!({
            "client_name": "enrolled by hand",
            "redirect_uris": ["https://app.example.com/unused"],
            "grant_types": ["client_credentials"],
            "token_endpoint_auth_method": "client_secret_basic",
        });
        let (status, _, text) = self.post("/api/oidc/register", &[], &body).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The token endpoint's status for this pair: 200, or 403 for a secret that is dead.
    pub(crate) async fn token_status(&self, client_id: &str, secret: &str) -> u16 {
        let basic = format!("Basic {}", STANDARD.encode(format!("{client_id}:{secret}")));
        let headers = [("authorization", basic.as_str()), ("content-type", "application/x-www-form-urlencoded")];
        let body = Some(b"grant_type=client_credentials&scope=billing".as_slice());
        self.target.ask(Ask { method: "POST", path: "/api/oidc/token", headers: &headers, body }).await.status
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> (u16, Option<String>, String) {
        let body = body.to_string();
        let answer = self.target.ask(Ask { method: "POST", path, headers, body: Some(body.as_bytes()) }).await;
        let cookie = answer.header("set-cookie").map(str::to_owned);
        (answer.status, cookie, String::from_utf8_lossy(&answer.body).into_owned())
    }
}

fn make_database(path: &Path) {
    let tables = std::fs::File::open(unpacked(TABLES)).expect("the package's tables");
    let made = Blocking::new("sqlite3").arg(path).stdin(tables).output().expect("sqlite3 starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn configuration(folder: &Path, address: SocketAddr) -> String {
    let modules = ["user", "user_middleware", "client", "scheme", "plugin"];
    let names = ["user_module", "user_middleware_module", "client_module", "user_auth_scheme_module", "plugin_module"];
    let (installed, folder) = (unpacked(MODULES), folder.display());
    let path = |(name, module): (&&str, &str)| format!("{name}_path=\"{}/{module}\"\n", installed.display());
    let paths: String = names.iter().zip(modules).map(path).collect();
    format!(
        "port={port}\nbind_address=\"{ip}\"\nexternal_url=\"http://{address}\"\nlogin_url=\"login.html\"\napi_prefix=\"api\"\n\
         static_files_path=\"{folder}\"\nlog_mode=\"console\"\nlog_level=\"WARNING\"\ncookie_domain=\"{ip}\"\ncookie_secure=0\n\
         admin_scope=\"g_admin\"\nprofile_scope=\"g_profile\"\nadmin_session_authentication=\"cookie\"\nhash_algorithm=\"SHA512\"\n\
         {paths}database = {{ type = \"sqlite3\"; path = \"{folder}/glewlwyd.db\"; }};\n",
        port = address.port(),
        ip = address.ip(),
    )
}

/// A file of the package, which `tests/run` unpacks into the target folder.
fn unpacked(file: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's temporary folder is in `target`");
    target.join("tests/glewlwyd").join(file)
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port is free");
    listener.local_addr().expect("a bound socket has an address")
}
