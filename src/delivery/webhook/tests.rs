//! Messages: signed, in order, each under one id, sent until they are accepted, and to nobody else.

use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex as Lock;
use std::time::Duration;

use jiff::SignedDuration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::delivery::courier_contract::{self, Stage, cargo};
use crate::delivery::memory::{Delivered, MemoryOutboxes};
use crate::domain::material::Secret;
use crate::domain::policy::Application;
use crate::sealing::hmac_sha256_hex;

const SECRETS: [&str; 2] = ["a-signing-secret-of-this-test", "another-signing-secret-of-it"];

/// What the receiver does with one call.
#[derive(Debug, Clone)]
enum Act {
    Answer(String),
    /// Closes without a word.
    Close,
    /// Neither answers nor closes, for longer than anybody here waits.
    Hang,
}

/// So that a courier that waits for ever fails its test, and doesn't hang it.
const HANG: Duration = Duration::from_secs(60);

fn status(line: &str, headers: &str) -> Act {
    Act::Answer(format!("HTTP/1.1 {line}\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n"))
}

/// One call, as it came.
#[derive(Debug, Clone)]
struct Call {
    id: String,
    timestamp: i64,
    signatures: Vec<String>,
    body: String,
}

#[derive(Debug, Default)]
struct Book {
    calls: Vec<Call>,
    /// The first line of each request for anything but the hook: somebody was led there.
    strays: Vec<String>,
    script: VecDeque<Act>,
    /// Once the script is over; `None`: 200.
    always: Option<Act>,
}

/// Listens on a free port until it is dropped.
struct Receiver {
    url: String,
    book: Arc<Lock<Book>>,
    task: tokio::task::JoinHandle<()>,
}

impl Receiver {
    async fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let book = Arc::new(Lock::new(Book::default()));
        let kept = Arc::clone(&book);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let text = read(&mut stream).await;
                let act = {
                    let mut book = kept.lock().unwrap();
                    if text.starts_with("POST /hook HTTP/1.1\r\n") {
                        book.calls.push(call(&text));
                        let always = book.always.clone();
                        book.script.pop_front().or(always).unwrap_or_else(|| status("200 OK", ""))
                    } else {
                        book.strays.push(text.lines().next().unwrap_or_default().to_owned());
                        status("200 OK", "")
                    }
                };
                match act {
                    Act::Answer(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                    Act::Close => {}
                    // The next call is taken meanwhile.
                    Act::Hang => drop(tokio::spawn(async move {
                        tokio::time::sleep(HANG).await;
                        drop(stream);
                    })),
                }
            }
        });
        Receiver { url, book, task }
    }

    fn will(&self, acts: impl IntoIterator<Item = Act>) {
        self.book.lock().unwrap().script.extend(acts);
    }

    fn always(&self, act: Option<Act>) {
        self.book.lock().unwrap().always = act;
    }

    fn calls(&self) -> Vec<Call> {
        self.book.lock().unwrap().calls.clone()
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

async fn read(stream: &mut tokio::net::TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.unwrap();
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        // A GET, which a redirect makes of it, has none.
        let length: usize = find(head, "content-length").map_or(0, |length| length.parse().unwrap());
        if body.len() >= length {
            return text;
        }
    }
}

fn find<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    find(head, name).unwrap()
}

fn call(text: &str) -> Call {
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(header(head, "content-type"), "application/json");
    Call {
        id: header(head, "webhook-id").to_owned(),
        timestamp: header(head, "webhook-timestamp").parse().unwrap(),
        signatures: header(head, "webhook-signature").split(' ').map(str::to_owned).collect(),
        body: body.to_owned(),
    }
}

/// A receiver, an application that has it, and the courier of one of its processes.
struct Post {
    receiver: Receiver,
    home: TempDir,
    outboxes: MemoryOutboxes,
    application: Application,
    courier: WebhookCourier,
}

impl Post {
    async fn new() -> Post {
        let receiver = Receiver::start().await;
        let home = tempfile::tempdir().unwrap();
        let mut application = courier_contract::application();
        application.delivery.webhook = Some(WebhookDelivery { url: receiver.url.clone(), secrets: Vec::new(), allow_private: true });
        let outboxes = MemoryOutboxes::default();
        let courier = courier(&outboxes);
        let mut post = Post { receiver, home, outboxes, application, courier };
        post.sign_with(&SECRETS[..1]);
        post
    }

    fn sign_with(&mut self, secrets: &[&str]) {
        let files = secrets.iter().enumerate().map(|(number, secret)| {
            let file = self.home.path().join(format!("secret-{number}"));
            std::fs::write(&file, secret).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            file
        });
        self.application.delivery.webhook.as_mut().unwrap().secrets = files.collect();
    }

    /// One call of the courier, so many seconds after the usual time.
    async fn step(&self, what: &[(&str, u64)], later: i64) -> Result<Progress, CourierError> {
        let mut cargo = cargo(&self.application, Way::Webhook, what);
        cargo.now += SignedDuration::from_secs(later);
        self.courier.deliver(&cargo).await
    }

    async fn dead(&self) -> Vec<DeadLetter> {
        self.courier.dead_letters(&self.application.name).await
    }
}

fn courier(outboxes: &MemoryOutboxes) -> WebhookCourier {
    WebhookCourier::new(InstallationId(uuid::Uuid::from_u128(7)), Arc::new(outboxes.clone()))
}

#[async_trait]
impl Stage for Post {
    fn courier(&self) -> &dyn Courier {
        &self.courier
    }

    fn application(&self) -> Application {
        self.application.clone()
    }

    fn again(&mut self) {
        self.courier = courier(&self.outboxes);
    }

    fn break_target(&self) {
        self.receiver.always(Some(status("500 Internal Server Error", "")));
    }

    fn mend_target(&self) {
        self.receiver.always(None);
    }

    async fn has(&self) -> Option<Delivered> {
        None
    }
}

#[tokio::test]
async fn delivery_webhook_keeps_the_contract() {
    courier_contract::check(Post::new().await).await;
}

#[tokio::test]
async fn a_message_names_what_changed_and_is_signed_by_each_secret() {
    let mut post = Post::new().await;
    post.sign_with(&SECRETS);
    let progress = post.step(&[("key", 3)], 0).await.unwrap();
    assert_eq!(progress, Progress { outcome: Outcome::Delivered, left: 0 });
    let [call] = post.receiver.calls().try_into().unwrap();
    assert_eq!(
        call.body,
        r#"{"type":"credential.changed","timestamp":"2026-11-22T03:00:00Z","data":{"application":"payments-api","credential":"key","environment":"sandbox","version":"v3","revision":3}}"#
    );
    assert!(!call.body.contains("secret-value"));
    let signed = format!("{}.{}.{}", call.id, call.timestamp, call.body);
    let expected = SECRETS.map(|secret| {
        use base64::Engine as _;
        let code = hex::decode(hmac_sha256_hex(&Secret::from(secret.to_owned()), signed.as_bytes())).unwrap();
        format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(code))
    });
    assert_eq!(call.signatures, expected);
}

#[tokio::test]
async fn each_try_has_the_same_id_and_body_and_its_own_time() {
    let mut post = Post::new().await;
    // To the receiver itself, where who follows it is seen, and answered with 200.
    let moved = format!("location: {}\r\n", post.receiver.url.replace("/hook", "/elsewhere"));
    let acts = [
        (status("500 Internal Server Error", ""), "fails (5xx)"),
        (Act::Close, "closed the connection"),
        (status("302 Found", &moved), "redirects"),
        // This one would be followed by a POST, with the body.
        (status("307 Temporary Redirect", &moved), "redirects"),
        (status("404 Not Found", ""), "refuses it (4xx)"),
        (Act::Answer("what is this\r\n\r\n".to_owned()), "closed the connection"),
        (status("503 Service Unavailable", "retry-after: 7\r\n"), "left alone"),
    ];
    let count = acts.len();
    post.receiver.will(acts.iter().map(|(act, _)| act.clone()));
    for (number, (act, reason)) in acts.iter().enumerate() {
        let error = post.step(&[("key", 1)], i64::try_from(number).unwrap()).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{act:?}: {error}");
        let asked = error.retry_after().map(|wait| wait.as_secs());
        assert_eq!(asked, (number == count - 1).then_some(7), "{error}");
        if number == 2 {
            // In the middle of it the process ends.
            post.again();
        }
    }
    assert_eq!(post.step(&[("key", 1)], 9).await.unwrap().outcome, Outcome::Delivered);
    let calls = post.receiver.calls();
    assert_eq!(calls.len(), count + 1, "each try was one call");
    let strays = post.receiver.strays();
    assert!(strays.is_empty(), "no redirect was followed: {strays:?}");
    assert!(calls.iter().all(|call| call.id == calls[0].id && call.body == calls[0].body));
    assert!(calls.windows(2).all(|pair| pair[0].timestamp < pair[1].timestamp));
    assert_ne!(calls[0].signatures, calls[1].signatures, "the time is signed, too");
}

#[tokio::test]
async fn who_takes_a_message_and_never_answers_is_sent_it_again() {
    let mut post = Post::new().await;
    post.courier.sender = Sender::new(Duration::from_secs(2));
    post.receiver.will([Act::Hang]);
    let error = post.step(&[("key", 1)], 0).await.unwrap_err();
    assert_eq!(error, CourierError::Unavailable("the receiver takes too long"));
    assert_eq!(post.step(&[("key", 1)], 1).await.unwrap().outcome, Outcome::Delivered);
    let [first, second] = post.receiver.calls().try_into().unwrap();
    assert_eq!((&first.id, &first.body), (&second.id, &second.body));
}

#[tokio::test]
async fn who_asks_to_be_left_alone_for_too_long_is_sent_it_again_before_it_is_given_up() {
    let post = Post::new().await;
    post.receiver.will([status("503 Service Unavailable", "retry-after: 86400\r\n")]);
    let error = post.step(&[("key", 1)], 0).await.unwrap_err();
    let wait = error.retry_after().unwrap().as_secs();
    assert_eq!(wait, 30, "a message is tried for 60 s here");
    assert_eq!(post.step(&[("key", 1)], i64::try_from(wait).unwrap()).await.unwrap().outcome, Outcome::Delivered);
    assert_eq!(post.receiver.calls().len(), 2);
}

#[tokio::test]
async fn who_leads_after_another_goes_on_where_that_one_stopped() {
    let mut post = Post::new().await;
    post.receiver.will([status("200 OK", ""), status("500 Internal Server Error", "")]);
    assert_eq!(post.step(&[("key", 1), ("other", 1)], 0).await.unwrap(), Progress { outcome: Outcome::Delivered, left: 1 });
    assert!(post.step(&[("key", 1), ("other", 1)], 1).await.is_err());
    post.again();
    for (later, left) in [(2, 1), (3, 0)] {
        let progress = post.step(&[("key", 2), ("other", 1)], later).await.unwrap();
        assert_eq!(progress, Progress { outcome: Outcome::Delivered, left });
    }
    let told: Vec<String> = post.receiver.calls().into_iter().map(|call| call.id).collect();
    assert_eq!(told.len(), 4, "what was accepted isn't sent again");
    assert_eq!(told[1], told[2], "what failed is, under its id, and before what is newer");
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_sent_and_what_was_not_kept_is_sent_again_under_its_id() {
    let post = Post::new().await;
    let away = CourierError::Unavailable("away");
    // 1: what is new; 2: that it is tried; 3: that it was accepted.
    for (writings, calls) in [(0, 0), (1, 0), (1, 1)] {
        post.outboxes.fail_after(writings, away);
        assert_eq!(post.step(&[("key", 1)], 0).await, Err(away), "{writings}");
        assert_eq!(post.receiver.calls().len(), calls, "{writings}");
    }
    assert_eq!(post.step(&[("key", 1)], 1).await.unwrap().outcome, Outcome::Delivered);
    let [first, second] = post.receiver.calls().try_into().unwrap();
    assert_eq!((&first.id, &first.body), (&second.id, &second.body));
}

#[tokio::test]
async fn the_next_one_waits_until_the_one_before_was_accepted() {
    let post = Post::new().await;
    post.receiver.will([status("500 Internal Server Error", ""), status("500 Internal Server Error", "")]);
    for newest in [1, 2] {
        assert!(post.step(&[("key", newest), ("other", newest)], 0).await.is_err());
    }
    let mut lefts = Vec::new();
    loop {
        let progress = post.step(&[("key", 2), ("other", 2)], 1).await.unwrap();
        lefts.push(progress.left);
        if progress.left == 0 {
            break;
        }
    }
    assert_eq!(lefts, [2, 1, 0]);
    let revision = |call: &Call| {
        let body: serde_json::Value = serde_json::from_str(&call.body).unwrap();
        (body["data"]["credential"].as_str().unwrap().to_owned(), body["data"]["revision"].as_u64().unwrap())
    };
    let told: Vec<(String, u64)> = post.receiver.calls().iter().map(revision).collect();
    let expected = [("key", 1), ("key", 1), ("key", 1), ("other", 2), ("key", 2)].map(|(name, revision)| (name.to_owned(), revision));
    assert_eq!(told, expected, "what was never tried gave its place to the newer one");
}

#[tokio::test]
async fn what_is_not_accepted_in_its_time_becomes_a_dead_letter_and_the_next_one_goes() {
    let mut post = Post::new().await;
    post.receiver.always(Some(status("500 Internal Server Error", "")));
    assert!(post.step(&[("key", 1)], 0).await.is_err());
    assert!(post.step(&[("key", 1)], 59).await.is_err());
    let late = post.step(&[("key", 1)], 60).await.unwrap();
    assert_eq!(late, Progress { outcome: Outcome::GivenUp(TOO_LONG), left: 0 });
    post.again();
    let letters = post.dead().await;
    assert_eq!((letters.len(), letters[0].revision, letters[0].reason.as_str()), (1, 1, TOO_LONG), "a restart remembers");
    assert_eq!(letters[0].id, post.receiver.calls()[0].id);
    assert_eq!(post.step(&[("key", 1)], 70).await.unwrap().outcome, Outcome::Unchanged, "given up is given up");
    // 410 is final at once.
    post.receiver.always(None);
    post.receiver.will([status("410 Gone", "")]);
    assert_eq!(post.step(&[("other", 1)], 80).await.unwrap().outcome, Outcome::GivenUp(GONE));
    assert_eq!(post.dead().await.len(), 2);
    assert_eq!(post.step(&[("key", 2), ("other", 2)], 90).await.unwrap(), Progress { outcome: Outcome::Delivered, left: 1 });
    assert_eq!(post.step(&[("key", 2), ("other", 2)], 90).await.unwrap(), Progress { outcome: Outcome::Delivered, left: 0 });
    assert!(post.dead().await.is_empty(), "the next change makes it good");
}

#[tokio::test]
async fn what_cannot_be_signed_is_not_sent_and_a_new_secret_counts_at_once() {
    let mut post = Post::new().await;
    post.sign_with(&["short"]);
    assert!(matches!(post.step(&[("key", 1)], 0).await, Err(CourierError::Refused(_))));
    assert!(post.receiver.calls().is_empty());
    post.sign_with(&SECRETS[1..]);
    assert_eq!(post.step(&[("key", 1)], 0).await.unwrap().outcome, Outcome::Delivered);
}

#[tokio::test]
async fn private_addresses_are_called_only_where_that_is_allowed() {
    let mut post = Post::new().await;
    let port = post.receiver.url.rsplit(':').next().unwrap().to_owned();
    for url in [format!("https://127.0.0.1:{port}"), format!("https://localhost:{port}"), post.receiver.url.clone()] {
        *post.application.delivery.webhook.as_mut().unwrap() =
            WebhookDelivery { url, allow_private: false, ..post.application.delivery.webhook.clone().unwrap() };
        assert!(matches!(post.step(&[("key", 1)], 0).await, Err(CourierError::Refused(_))));
    }
    assert!(post.receiver.calls().is_empty(), "nobody was connected to");
}

#[tokio::test]
async fn nothing_that_is_kept_tells_an_address_or_a_secret() {
    let post = Post::new().await;
    post.receiver.will([status("500 Internal Server Error", "")]);
    assert!(post.step(&[("key", 1)], 0).await.is_err());
    let (_, kept) = post.outboxes.outbox(&post.application.name).await.unwrap();
    assert_eq!(kept.waiting(), 1);
    let text = serde_json::to_string(&kept).unwrap();
    assert!(!text.contains("127.0.0.1") && !text.contains("secret"), "{text}");
}
