//! What only tests have: it is in no release build, and nothing there switches it on.
//!
//! `KEYWRIGHT_TEST_BINARY` names the build that is looked at. Without it these tests look at the test profile's, which has the switch
//! of the deliberate faults: it shows that a look would find it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::routes::say;
use crate::support::daemon::{BUILT, Daemon, binary, command, keywright, other_binary, printed};
use crate::support::site::Site;
use crate::support::tls::Authority;
use crate::world::{SANDBOX, STILL};

/// As `src/domain/mutants.rs` and `src/faults.rs` write them.
const MUTANTS: &str = "deliberate faults can be switched on in this build";
const FAULTS: &str = "a fault was injected";

fn has(program: &[u8], text: &str) -> bool {
    program.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn what_only_tests_have_is_not_in_the_binary() {
    assert!(include_str!("../../../src/domain/mutants.rs").contains(MUTANTS), "the mark was changed");
    assert!(include_str!("../../../src/faults.rs").contains(FAULTS), "the text was changed");
    let built = std::fs::read(BUILT).unwrap();
    assert!(has(&built, MUTANTS), "the test profile has the switch, and the look finds it");
    let tested = std::fs::read(binary()).unwrap();
    assert!(!has(&tested, FAULTS), "the points of failure are not reachable in the program");
    let other = other_binary().is_some();
    assert_eq!(has(&tested, MUTANTS), !other, "a release build has no switch for deliberate faults");
    let which = if other { "the named build" } else { "the test profile's build" };
    say(&format!("canaries of the process: {which}: deliberate faults: {}, points of failure: none\n", if other { "none" } else { "yes" }));
}

/// All variables of our own that the program knows: no test switches anything by one. One of them is written and never read: it tells the
/// program that `exec` starts where its files are.
#[test]
fn no_variable_but_the_configuration_is_read() {
    const WRITTEN: &str = "KEYWRIGHT_CREDENTIALS";
    let program = std::fs::read(binary()).unwrap();
    let prefix = b"KEYWRIGHT_";
    let at = program.windows(prefix.len()).enumerate().filter(|(_, window)| window == prefix).map(|(at, _)| at);
    let name = |at: usize| program[at..].iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'_').map(|b| char::from(*b));
    let names: BTreeSet<String> = at.map(|at| name(at).collect()).collect();
    // Texts stand beside each other in a program: the next one may begin with a capital.
    let is_known = |name: &String| ["KEYWRIGHT_CONFIG", WRITTEN].iter().any(|known| name.starts_with(known));
    assert!(!names.is_empty() && names.iter().all(is_known), "{names:?}");
    let exec = include_str!("../../../src/cli/exec/program.rs");
    assert!(exec.contains(&format!("const FILES_VARIABLE: &str = \"{WRITTEN}\"")) && exec.matches("FILES_VARIABLE").count() == 2);
}

/// A provider behind TLS, that counts who gets so far as to ask, and who doesn't.
struct Provider {
    port: u16,
    asked: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Provider {
    async fn start(authority: &Authority) -> Self {
        let issued = authority.issue();
        let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(crypto).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, count_refused) = (asked.clone(), refused.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, count, count_refused) = (acceptor.clone(), count.clone(), count_refused.clone());
                tokio::spawn(async move {
                    // A client that doesn't trust us says so when the handshake is over for us, in place of a request.
                    let mut byte = [0];
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        count_refused.fetch_add(1, Ordering::SeqCst);
                        return;
                    };
                    let met = if matches!(stream.read(&mut byte).await, Ok(1)) { count } else { count_refused };
                    met.fetch_add(1, Ordering::SeqCst);
                    let _gone = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
                });
            }
        });
        Self { port, asked, refused }
    }

    /// How many calls arrived, and how many handshakes failed, when a key is submitted that must be asked about here.
    async fn asked_by(&self, host: &str, environment: &[(&str, &str)]) -> (usize, usize) {
        let before = (self.asked.load(Ordering::SeqCst), self.refused.load(Ordering::SeqCst));
        let mut site = Site::new();
        site.provider("dinie", "sandbox", &format!("https://{host}:{}/v3", self.port));
        site.rotation("still", STILL);
        site.credential(SANDBOX, "dinie", "sandbox", "still");
        let mut daemon = Daemon::start_with(site, environment).await;
        let key =
            json!({"client_id": "dinie_ci_test_Zq81hT0bWvX2Zq81hT0bWvX2", "client_secret": "dinie_cs_Zq81hT0bWvX2Zq81hT0bWvX2Zq81hT0b"});
        daemon.cli_with(&["submit", SANDBOX], key.to_string().as_bytes()).await.assert_code(1);
        daemon.kill().await;
        (self.asked.load(Ordering::SeqCst) - before.0, self.refused.load(Ordering::SeqCst) - before.1)
    }
}

/// What switches verification off in other programs, or looks as if it did here.
const OFF: &[(&str, &str)] = &[
    ("NODE_TLS_REJECT_UNAUTHORIZED", "0"),
    ("PYTHONHTTPSVERIFY", "0"),
    ("GIT_SSL_NO_VERIFY", "1"),
    ("CURL_INSECURE", "1"),
    ("SSL_NO_VERIFY", "1"),
    ("TLS_SKIP_VERIFY", "1"),
    ("VAULT_SKIP_VERIFY", "1"),
    ("REQWEST_DANGER_ACCEPT_INVALID_CERTS", "true"),
    ("KEYWRIGHT_INSECURE", "1"),
    ("KEYWRIGHT_TLS_VERIFY", "false"),
];

#[tokio::test(flavor = "multi_thread")]
async fn tls_verification_cannot_be_switched_off() {
    let authority = Authority::new();
    let provider = Provider::start(&authority).await;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.pem");
    std::fs::write(&root, authority.root()).unwrap();
    let trusting = [("SSL_CERT_FILE", root.to_str().unwrap())];
    // Asked where the machine trusts it: the provider is there, and its certificate is good.
    let (asked, _) = provider.asked_by("localhost", &trusting).await;
    assert!(asked > 0, "who is trusted is asked");
    let (asked, refused) = provider.asked_by("localhost", OFF).await;
    assert!(asked == 0 && refused > 0, "who isn't trusted is asked nothing: {asked} calls, {refused} refused");
    let (asked, refused) = provider.asked_by("127.0.0.1", &[trusting[0], OFF[0], OFF[9]]).await;
    assert!(asked == 0 && refused > 0, "a certificate of another name is none: {asked} calls, {refused} refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_setting_speaks_of_weaker_tls() {
    let mut site = Site::new();
    site.rotation("still", STILL);
    for setting in [
        "insecure: true",
        "tls: {verify: false}",
        "providers: {dinie: {sandbox: \"https://localhost:1\", insecure: true}}",
        "providers: {dinie: {sandbox: {base: \"https://localhost:1\", verify: false}}}",
        "faults: {at: 1}",
        "mutant: EnvironmentUnchecked",
    ] {
        site.extra_config = format!("{setting}\n");
        site.write();
        let config = site.config();
        let printed = keywright(site.folder(), &["run", "--config", config.to_str().unwrap()], &[], b"").await;
        printed.assert_code(2);
    }
    for flag in ["--insecure", "-k", "--no-verify", "--skip-tls-verify", "--mutant", "--faults"] {
        printed(command(&[]).current_dir(site.folder()).args(["run", flag]), b"").await.assert_code(2);
    }
}
