//! Deliveries beside the stream: a folder of files whose reader is signalled, and signed messages to receivers on their bad days.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::canaries::Canary;
use crate::support::scanner::Scanner;
use crate::support::wire::Ask;
use crate::support::{confirmation_proof, eventually, sha256_hex};
use crate::world::{ACCEPTANCE, PRODUCTION, Plan, World, left_behind};

const SOON: Duration = Duration::from_secs(30);
pub(crate) const RAW_SECRET: &str = "raw-webhook-secret-of-this-test-1";
const NEW_SECRET: &str = "whsec_c2Vjb25kLXdlYmhvb2stc2VjcmV0LW9mLXRoaXMtdGVzdA==";

/// The production application's document with this delivery.
fn ask_for(world: &mut World, delivery: &str) {
    write_document(world, delivery);
    world.daemon.reload();
}

fn write_document(world: &mut World, delivery: &str) {
    let hash = sha256_hex(world.production_token.as_bytes());
    world.daemon.site.forget_document("payments-api");
    let spec = format!(
        "environment: production, credentials: [{PRODUCTION}], identity: {{token: {{sha256: \"{hash}\"}}}}, lease: 2s, delivery: {{{delivery}}}"
    );
    world.daemon.site.document("Application", "payments-api", &spec);
}

async fn standing(world: &World) -> Value {
    let status = world.daemon.cli(&["status", "--json"]).await.json();
    let rows = status["deliveries"].as_array().expect("deliveries");
    rows.iter().find(|row| row["application"] == "payments-api").cloned().unwrap_or(Value::Null)
}

async fn until_state(world: &World, wanted: &str) -> Value {
    let mut last = Value::Null;
    for _ in 0..300 {
        last = standing(world).await;
        if last["state"] == wanted {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never {wanted}: {last}\n{}", world.daemon.log_tail());
}

async fn until_reason(world: &World, part: &str) {
    let mut last = Value::Null;
    for _ in 0..300 {
        last = standing(world).await;
        if last["reason"].as_str().is_some_and(|reason| reason.contains(part)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the reason never says `{part}`: {last}\n{}", world.daemon.log_tail());
}

/// Reads its credential when it starts and on each SIGHUP, and keeps a line for each that it read.
struct Reader {
    child: Child,
    seen: PathBuf,
}

impl Reader {
    fn start(home: &Path, folder: &Path) -> Reader {
        let seen = home.join("reader.seen");
        let value = folder.join(PRODUCTION).join("client_secret");
        let script = format!(
            "take() {{ cat '{value}' >> '{seen}' && echo >> '{seen}'; }}; trap take HUP; take; echo $$ > '{pid}'; while :; do sleep 0.05; done",
            value = value.display(),
            seen = seen.display(),
            pid = home.join("reader.pid").display(),
        );
        let child = Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::null()).spawn().expect("a shell");
        Reader { child, seen }
    }

    fn has_seen(&self) -> Vec<String> {
        std::fs::read_to_string(&self.seen).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_replaced_their_reader_is_signalled_and_its_own_proof_frees_the_old_key() {
    let mut world = World::start(Plan::still()).await;
    // A temporary folder may be reached through a link, and none is followed.
    let home = world.daemon.site.folder().canonicalize().expect("a path");
    let folder = home.join("credentials");
    ask_for(&mut world, &format!("file: {{directory: {}}}", folder.display()));
    until_state(&world, "delivered").await;
    let file = folder.join(PRODUCTION).join("client_secret");
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), world.enrolled_production.secret);
    assert_eq!(std::fs::metadata(&file).expect("a file").mode() & 0o777, 0o400);
    let reader = Reader::start(&home, &folder);
    assert!(eventually(SOON, || home.join("reader.pid").exists() && reader.has_seen().len() == 1).await);
    let signal = format!("signal: {{pidFile: {}, name: HUP}}", home.join("reader.pid").display());
    ask_for(&mut world, &format!("file: {{directory: {}, {signal}}}", folder.display()));
    assert!(eventually(SOON, || reader.has_seen().len() == 2).await, "it is told once of what is there\n{}", world.daemon.log_tail());

    // A restart with nothing changed neither writes nor signals.
    let before = std::fs::read_link(folder.join("..data")).expect("a link");
    world.daemon.kill().await;
    world.daemon.again().await;
    until_state(&world, "delivered").await;
    assert_eq!((std::fs::read_link(folder.join("..data")).expect("a link"), reader.has_seen().len()), (before, 2));

    world.daemon.cli(&["rotate", PRODUCTION, "--wait"]).await.assert_code(0);
    assert!(eventually(SOON, || reader.has_seen().len() == 3).await, "{:?}\n{}", reader.has_seen().len(), world.daemon.log_tail());
    let document: Value = serde_json::from_slice(&std::fs::read(folder.join(format!("{PRODUCTION}.json"))).expect("a file")).expect("JSON");
    let secret = document["fields"]["client_secret"].as_str().expect("a text").to_owned();
    assert_eq!(reader.has_seen().last(), Some(&secret));
    // Written, signalled, and not confirmed: the overlap (2 s) alone frees nothing, and nor does the lease (2 s).
    until_state(&world, "delivered").await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(world.production.alive(&world.enrolled_production.secret), "nobody confirms in the application's name");
    let row = world.daemon.status(PRODUCTION).await;
    let held = row["applications"].as_array().expect("rows").iter().find(|row| row["instance"] == "file").cloned();
    assert_eq!(held.expect("it is named")["state"], "served");
    let version = document["version"].as_str().expect("a text");
    let proof = confirmation_proof(&secret, PRODUCTION, version, "file");
    let body =
        json!({"credential": PRODUCTION, "version": version, "instance": "file", "field": "client_secret", "proof": proof}).to_string();
    let bearer = format!("Bearer {}", world.production_token);
    let headers = [("authorization", bearer.as_str()), ("keywright-instance", "file")];
    let ask = Ask { method: "POST", path: "/v1/confirmations", headers: &headers, body: Some(body.as_bytes()) };
    assert_eq!(world.daemon.site.tcp().ask(ask).await.status, 204);
    let old = world.enrolled_production.secret.clone();
    assert!(eventually(SOON, || !world.production.alive(&old)).await, "{}", world.daemon.log_tail());
    world.assert_silent(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_leads_elsewhere_is_refused_by_name_and_taken_up_when_it_is_mended() {
    // Keys so short-lived that documents settle within seconds.
    let mut world = World::start(Plan { rotation: ACCEPTANCE, ..Plan::still() }).await;
    let home = world.daemon.site.folder().canonicalize().expect("a path");
    std::fs::create_dir(home.join("outside")).expect("a folder");
    std::os::unix::fs::symlink("outside", home.join("credentials")).expect("a link");
    ask_for(&mut world, &format!("file: {{directory: {}}}", home.join("credentials").display()));
    let failing = until_state(&world, "failing").await;
    assert!(failing["reason"].as_str().is_some_and(|reason| reason.contains("symbolic link")), "{failing}");
    let status = world.daemon.cli(&["status"]).await;
    assert!(status.out().contains("delivery-failing"), "{}", status.out());
    assert_eq!(std::fs::read_dir(home.join("outside")).expect("a folder").count(), 0);
    let metrics = String::from_utf8(world.daemon.site.socket().get("/metrics", &[]).await.body).expect("a text");
    assert!(metrics.contains("keywright_delivery_failing{way=\"file\"} 1"), "{metrics}");
    std::fs::remove_file(home.join("credentials")).expect("the link goes");
    until_state(&world, "delivered").await;
    assert!(home.join("credentials").join(PRODUCTION).exists());

    // What is dropped while nothing runs is taken away by the next start, and what can't be is named until it can.
    world.daemon.kill().await;
    write_document(&mut world, "");
    world.daemon.site.write();
    std::fs::rename(home.join("credentials"), home.join("hidden")).expect("it is moved");
    std::os::unix::fs::symlink("hidden", home.join("credentials")).expect("a link");
    world.daemon.again().await;
    until_state(&world, "left").await;
    assert!(world.daemon.cli(&["status"]).await.out().contains("delivery-left"));
    assert!(home.join("hidden").join(PRODUCTION).exists());
    std::fs::remove_file(home.join("credentials")).expect("the link goes");
    std::fs::rename(home.join("hidden"), home.join("credentials")).expect("it is moved back");
    assert!(eventually(SOON, || !home.join("credentials").join(PRODUCTION).exists()).await, "{}", world.daemon.log_tail());
    world.assert_silent(&[]);
}

/// One message, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) id: String,
    timestamp: String,
    signature: String,
    pub(crate) body: String,
}

impl Message {
    fn is_signed_with(&self, key: &[u8]) -> bool {
        let text = format!("{}.{}.{}", self.id, self.timestamp, self.body);
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        let code = STANDARD.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes()));
        self.signature.split(' ').any(|one| one == format!("v1,{code}"))
    }
}

/// What was asked of a receiver, and how it answers now.
#[derive(Debug, Default)]
struct Book {
    seen: Vec<Message>,
    /// The first line of each request for anything but the hook: somebody was led there.
    strays: Vec<String>,
    manner: &'static str,
}

/// Answers each call as it is told to: a status line, or `close`, `slow` (yet in time), `flood`. What isn't for the hook gets 200.
pub(crate) struct Receiver {
    pub(crate) url: String,
    book: Arc<Mutex<Book>>,
    task: tokio::task::JoinHandle<()>,
}

impl Receiver {
    pub(crate) async fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let book = Arc::new(Mutex::new(Book { manner: "200 OK", ..Book::default() }));
        let kept = Arc::clone(&book);
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::spawn(answer(stream, Arc::clone(&kept)));
            }
        });
        Receiver { url, book, task }
    }

    pub(crate) fn now(&self, manner: &'static str) {
        self.book.lock().unwrap().manner = manner;
    }

    pub(crate) fn seen(&self) -> Vec<Message> {
        self.book.lock().unwrap().seen.clone()
    }

    fn strays(&self) -> Vec<String> {
        self.book.lock().unwrap().strays.clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, book: Arc<Mutex<Book>>) {
    let mut bytes = Vec::new();
    let message = loop {
        let mut chunk = [0; 4096];
        let Ok(count) = stream.read(&mut chunk).await else { return };
        if count == 0 {
            return;
        }
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        if !head.starts_with("POST /hook ") {
            book.lock().unwrap().strays.push(head.lines().next().unwrap_or_default().to_owned());
            let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
            return;
        }
        let header = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(found, _)| found.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_owned())
        };
        if header("content-length").and_then(|length| length.parse().ok()).is_some_and(|length: usize| body.len() >= length) {
            let named = |name| header(name).unwrap_or_default();
            break Message {
                id: named("webhook-id"),
                timestamp: named("webhook-timestamp"),
                signature: named("webhook-signature"),
                body: body.to_owned(),
            };
        }
    };
    let manner = {
        let mut book = book.lock().unwrap();
        book.seen.push(message);
        book.manner
    };
    let line = match manner {
        "close" => return,
        "slow" => {
            tokio::time::sleep(Duration::from_secs(3)).await;
            "200 OK"
        }
        "flood" => {
            let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
            // Until nobody listens any more.
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
            return;
        }
        line => line,
    };
    // To this receiver itself, which counts who comes.
    let moved = if line.starts_with("302") { "location: /elsewhere\r\n" } else { "" };
    let _sent = stream.write_all(format!("HTTP/1.1 {line}\r\n{moved}content-length: 0\r\nconnection: close\r\n\r\n").as_bytes()).await;
}

pub(crate) fn write_secret(home: &Path, name: &str, text: &str) -> PathBuf {
    let path = home.join(name);
    std::fs::write(&path, text).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_sent_under_one_id_until_it_is_accepted_whatever_its_receiver_does() {
    let mut world = World::start(Plan::still()).await;
    let receiver = Receiver::start().await;
    let home = world.daemon.site.folder().canonicalize().expect("a path");
    let first = write_secret(&home, "hook-secret", RAW_SECRET);
    receiver.now("500 Internal Server Error");
    ask_for(&mut world, &format!("webhook: {{url: \"{}\", allowPrivate: true, secrets: [{{file: {}}}]}}", receiver.url, first.display()));
    until_state(&world, "failing").await;
    for (manner, reason) in [
        ("close", "closed the connection"),
        ("302 Found", "redirects"),
        ("404 Not Found", "refuses it (4xx)"),
        ("503 Service Unavailable", "left alone"),
    ] {
        let before = receiver.seen().len();
        receiver.now(manner);
        assert!(eventually(Duration::from_secs(60), || receiver.seen().len() > before).await, "{manner}\n{}", world.daemon.log_tail());
        until_reason(&world, reason).await;
    }
    let strays = receiver.strays();
    assert!(strays.is_empty(), "the redirect was followed: {strays:?}");
    // The process dies, and the message doesn't.
    world.daemon.kill().await;
    receiver.now("slow");
    world.daemon.again().await;
    until_state(&world, "delivered").await;
    let tries = receiver.seen();
    assert!(tries.len() >= 6, "{tries:?}");
    assert!(tries.iter().all(|message| message.id == tries[0].id && message.body == tries[0].body && !message.id.is_empty()), "{tries:?}");
    assert!(tries.iter().all(|message| message.is_signed_with(RAW_SECRET.as_bytes())));
    let body: Value = serde_json::from_str(&tries[0].body).expect("JSON");
    assert_eq!((&body["type"], &body["data"]["credential"]), (&json!("credential.changed"), &json!(PRODUCTION)));
    assert!(body["data"].get("fields").is_none());

    // Two secrets while the signing secret is replaced; a receiver that answers without end is accepted by its status.
    let second = write_secret(&home, "new-hook-secret", NEW_SECRET);
    let secrets = format!("[{{file: {}}}, {{file: {}}}]", second.display(), first.display());
    ask_for(&mut world, &format!("webhook: {{url: \"{}\", allowPrivate: true, secrets: {secrets}}}", receiver.url));
    receiver.now("flood");
    // The reload has to be read before the change that is signed with both.
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.daemon.cli(&["rotate", PRODUCTION, "--wait"]).await.assert_code(0);
    let version = world.daemon.status(PRODUCTION).await["version"].clone();
    let names_it = |message: &Message| message.body.contains(version.as_str().unwrap_or("nothing"));
    assert!(eventually(SOON, || receiver.seen().iter().any(names_it)).await, "{}", world.daemon.log_tail());
    let told = receiver.seen().into_iter().find(names_it).expect("it was told");
    assert_ne!(told.id, tries[0].id);
    let new_key = STANDARD.decode(NEW_SECRET.trim_start_matches("whsec_")).expect("base64");
    assert!(told.is_signed_with(RAW_SECRET.as_bytes()) && told.is_signed_with(&new_key), "{told:?}");

    // Nothing of a value or of what signs, in messages, status, logs or files.
    until_state(&world, "delivered").await;
    let count = receiver.seen().len();
    world.daemon.kill().await;
    world.daemon.again().await;
    until_state(&world, "delivered").await;
    assert_eq!(receiver.seen().len(), count, "a restart with nothing changed sends nothing");
    let canaries = [Canary::whole("webhook secret", RAW_SECRET), Canary::whole("new webhook secret", NEW_SECRET)];
    let scanner: Scanner = world.scanner(&canaries);
    let mut outputs = left_behind(&world.daemon.site);
    for message in receiver.seen() {
        outputs.add("a message", format!("{message:?}"));
    }
    outputs.add("status", world.daemon.cli(&["status", "--json"]).await.stdout);
    outputs.assert_silent(&scanner);
    // And it sees what it should: the scanner isn't blind.
    outputs.add("control", world.enrolled_production.secret.clone());
    assert!(!outputs.leaks(&scanner).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_wants_is_a_dead_letter_until_the_next_change_is_accepted() {
    let mut world = World::start(Plan::still()).await;
    let receiver = Receiver::start().await;
    let home = world.daemon.site.folder().canonicalize().expect("a path");
    let secret = write_secret(&home, "hook-secret", RAW_SECRET);
    receiver.now("410 Gone");
    ask_for(&mut world, &format!("webhook: {{url: \"{}\", allowPrivate: true, secrets: [{{file: {}}}]}}", receiver.url, secret.display()));
    let dead = until_state(&world, "dead").await;
    assert_eq!(dead["dead_letters"][0]["credential"], PRODUCTION, "{dead}");
    assert_eq!(dead["dead_letters"][0]["id"].as_str(), Some(receiver.seen()[0].id.as_str()));
    assert!(world.daemon.cli(&["status"]).await.out().contains("delivery-dead"));
    receiver.now("200 OK");
    world.daemon.cli(&["rotate", PRODUCTION, "--wait"]).await.assert_code(0);
    let delivered = until_state(&world, "delivered").await;
    assert_eq!(delivered["dead_letters"], json!([]));
    // An address of our own network, which the document may not name unless it says so.
    world.daemon.cli(&["release", "payments-api"]).await.assert_code(0);
    let mut is_steady = false;
    for _ in 0..300 {
        is_steady = world.daemon.status(PRODUCTION).await["phase"] == "steady";
        if is_steady {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(is_steady, "{}", world.daemon.log_tail());
    let before = receiver.seen().len();
    let url = receiver.url.replace("http://", "https://");
    ask_for(&mut world, &format!("webhook: {{url: \"{url}\", secrets: [{{file: {}}}]}}", secret.display()));
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.daemon.cli(&["rotate", PRODUCTION, "--wait"]).await.assert_code(0);
    let failing = until_state(&world, "failing").await;
    assert!(failing["reason"].as_str().is_some_and(|reason| reason.contains("none that a call may go to")), "{failing}");
    assert_eq!(receiver.seen().len(), before);
}
