//! Who the daemon is at AWS, where no key stands in its environment: the identities that Kubernetes gives to a pod.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::aws::Moto;
use crate::support::canaries::Canary;
use crate::world::{PRODUCTION, Plan, World, fields};

const TOKEN: &str = "pod-token-made-for-a-test-8Kd02mQz5";
const SECRET_KEY: &str = "session-secret-made-for-a-test-V3x9Lq71";
const ROLE: &str = "arn:aws:iam::123456789012:role/keywright";

/// Gives out credentials as the agent for pod identities does, and as the security token service does for a role.
struct Authority {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    folder: tempfile::TempDir,
}

impl Authority {
    async fn start() -> Authority {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (asked, folder) = (Arc::<Mutex<Vec<String>>>::default(), tempfile::tempdir().expect("a temporary folder"));
        std::fs::write(folder.path().join("token"), TOKEN).expect("it is written");
        let told = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, told.clone()));
            }
        });
        Authority { address, asked, folder }
    }

    fn token_file(&self) -> String {
        self.folder.path().join("token").to_str().expect("a plain path").to_owned()
    }
}

async fn answer(mut stream: TcpStream, asked: Arc<Mutex<Vec<String>>>) {
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    let whole = |request: &[u8]| {
        let text = String::from_utf8_lossy(request).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        (body.len() >= length.unwrap_or(0)).then_some(text)
    };
    let text = loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend_from_slice(&chunk[..count]),
        }
        if let Some(text) = whole(&request) {
            break text;
        }
    };
    let (kind, body) = if text.starts_with("GET /v1/credentials ") {
        let body = format!(
            r#"{{"AccessKeyId": "ASIATEST", "SecretAccessKey": "{SECRET_KEY}", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}}"#
        );
        ("application/json", body)
    } else {
        let body = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult>\
             <Credentials><AccessKeyId>ASIATEST</AccessKeyId><SecretAccessKey>{SECRET_KEY}</SecretAccessKey><SessionToken>t</SessionToken>\
             <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
             <AssumedRoleUser><AssumedRoleId>a:b</AssumedRoleId><Arn>{ROLE}</Arn></AssumedRoleUser>\
             </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        );
        ("text/xml", body)
    };
    asked.lock().expect("no task died in here").push(text);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all((head + &body).as_bytes()).await;
}

/// A daemon with this environment, and nothing else of AWS in it, enrols a key.
async fn enrols_with(authority: &Authority, environment: &[(&str, &str)]) -> Vec<String> {
    let moto = Moto::start().await;
    let store = format!("{{aws: {{endpoint: \"{}\", region: us-east-1, prefix: team}}}}", moto.endpoint);
    let world = World::unsubmitted(Plan { store: &store, environment, ..Plan::still() }).await;
    world.daemon.submit(PRODUCTION, &fields(&world.enrolled_production)).await;
    world.assert_silent(&[Canary::after("pod token", "pod-token-", TOKEN), Canary::after("session secret", "session-secret-", SECRET_KEY)]);
    authority.asked.lock().expect("no task died in here").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_identity_is_enough() {
    let authority = Authority::start().await;
    let uri = format!("http://{}/v1/credentials", authority.address);
    let token = authority.token_file();
    let environment = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.as_str())];
    let asked = enrols_with(&authority, &environment).await;
    assert!(!asked.is_empty() && asked.iter().all(|request| request.contains(TOKEN)), "it showed its token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_is_enough() {
    let authority = Authority::start().await;
    let address = format!("http://{}", authority.address);
    let token = authority.token_file();
    let environment = [
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ROLE_SESSION_NAME", "keywright"),
        ("AWS_ENDPOINT_URL_STS", address.as_str()),
    ];
    let asked = enrols_with(&authority, &environment).await;
    let is_right = |request: &String| request.contains("Action=AssumeRoleWithWebIdentity") && request.contains(TOKEN);
    assert!(!asked.is_empty() && asked.iter().all(is_right), "it showed its token");
}
