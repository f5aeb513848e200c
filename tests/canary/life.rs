//! One whole life over the API: refused submissions, enrolment, read, stream, confirmation, rotation, revocation, release; and all that
//! came out of it, but for what carries a credential by right.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use keywright::domain::ids::VersionId;
use keywright::domain::material::Secret;
use keywright::engine::audit::{Action, Audit};
use keywright::runtime::audit::AuditFile;
use keywright::sealing::hmac_sha256_hex;
use serde_json::{Value, json};

use crate::calls::Calls;
use crate::capture::Capture;
use crate::cast::Cast;
use crate::installation::Process;
use crate::refusals;
use crate::support::outputs::{Outputs, files_below};
use crate::support::wire::{Answer, Ask, Events};
use crate::world::{Backend, DOCUMENTS, World, name, policies};

pub const CREDENTIAL: &str = "dinie-production";
const INSTANCE: &str = "one";
/// Turns of one life at most: more is stuck.
const TURNS_MAX: usize = 400;
/// How long an event of a stream may take, of real time.
const EVENT_WITHIN: Duration = Duration::from_secs(2);

/// What goes wrong in a life whatever the matrix adds to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Nothing.
    Whole,
    /// The first candidate is refused for ever and abandoned; the next one works.
    Refused,
}

/// What is left of a life.
pub struct End {
    pub outputs: Outputs,
    pub points: Vec<&'static str>,
    pub fired: Option<&'static str>,
}

pub struct Life {
    pub calls: Calls,
    world: World,
    scenario: Scenario,
    cast: Cast,
    outputs: Outputs,
    /// What carries a credential by right: the body of a read, the data of an event.
    by_right: Outputs,
    process: Option<Process>,
    stream: Option<Events>,
    first: (String, String),
    refusals_done: bool,
    /// Those that no fault can change, too.
    pub all_refusals: bool,
    rotation_asked: bool,
    /// Of the last event, and of the last confirmation that was taken.
    streamed: Option<String>,
    confirmed: Option<String>,
    /// What `status` said at the last long look.
    looked_at: Value,
}

impl Life {
    pub fn new(backend: Backend, scenario: Scenario, cast: Cast) -> Life {
        let world = World::new(backend);
        let token = keywright::sealing::sha256(cast.token.value.as_bytes());
        let documents = DOCUMENTS.replace("{unix: {uid: 1000}}", &format!("{{token: {{sha256: \"{}\"}}}}", hex::encode(token)));
        *world.documents.lock().unwrap() = policies(&documents);
        world.issuer.make_secrets(cast.maker());
        world.issuer.behave(|behaviour| behaviour.stillborn = scenario == Scenario::Refused);
        let calls = Calls::new(world.faults.clone(), &cast.refused.value);
        let at_the_provider = calls.clone();
        world.issuer.hook(Arc::new(move |point| at_the_provider.at_the_provider(point)));
        let id = world.made_by_hand().0.to_string();
        let first = (id, cast.last_minted().to_owned());
        Life {
            calls,
            world,
            scenario,
            cast,
            outputs: Outputs::default(),
            by_right: Outputs::default(),
            process: None,
            stream: None,
            first,
            refusals_done: false,
            all_refusals: false,
            rotation_asked: false,
            streamed: None,
            confirmed: None,
            looked_at: Value::Null,
        }
    }

    /// Lives to the end.
    ///
    /// # Errors
    /// What kept it from its end.
    pub async fn run(mut self, capture: &Capture) -> Result<End, String> {
        for _ in 0..TURNS_MAX {
            let Some(process) = self.alive().await else { continue };
            let rest = self.turn(&process).await;
            if self.world.faults.alive().is_err() {
                self.die(process).await;
                continue;
            }
            if self.is_over(&process).await {
                return self.end(process, capture).await;
            }
            self.process = Some(process);
            self.world.clocks.advance(rest.clamp(Duration::from_millis(10), Duration::from_secs(60)));
        }
        Err(format!("stuck: {}", self.looked_at))
    }

    /// The process, started if it isn't running.
    async fn alive(&mut self) -> Option<Process> {
        if let Some(process) = self.process.take() {
            return Some(process);
        }
        let audit = self.audit().await;
        match AssertUnwindSafe(Process::start(&self.world, &self.calls, audit)).catch_unwind().await {
            Ok(Ok(process)) => return Some(process),
            Ok(Err(error)) => self.outputs.error("error", &error),
            Err(_panicked) => {}
        }
        self.world.faults.revive();
        self.world.backend.close();
        None
    }

    /// The trail: the real one where there are files.
    async fn audit(&self) -> Arc<dyn Audit> {
        let Backend::Embedded { folder, .. } = &self.world.backend else { return self.world.audit.clone() };
        // The writer of the process before ends a moment after its last handle is gone.
        for _ in 0..1000 {
            if let Ok(file) = AuditFile::open(&folder.path().join("audit.jsonl"), self.world.now()) {
                return Arc::new(file);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("the audit file can't be opened");
    }

    async fn die(&mut self, process: Process) {
        self.stream = None;
        process.ended().await;
        self.world.backend.close();
        self.world.faults.revive();
    }

    async fn turn(&mut self, process: &Process) -> Duration {
        if !self.refusals_done {
            self.refusals_done = true;
            refusals::collect(process, &self.cast, &mut self.outputs).await;
            if self.all_refusals {
                refusals::collect_all(process, &self.cast, &mut self.outputs).await;
            }
        }
        if process.engine.current(&name(CREDENTIAL)).is_none() {
            self.submit(process).await;
        }
        self.follow(process).await;
        self.use_it(process).await;
        if self.confirmed.is_some() && !self.rotation_asked {
            let path = format!("/v1/credentials/{CREDENTIAL}/rotations");
            let answer = process.socket.ask(Ask { method: "POST", path: &path, headers: &[], body: Some(b"{}") }).await;
            self.rotation_asked = answer.status == 202;
            self.outputs.answer("rotation", &answer);
        }
        let turned = AssertUnwindSafe(process.engine.turn()).catch_unwind().await;
        self.look(process).await;
        turned.unwrap_or(Duration::from_secs(1))
    }

    async fn submit(&mut self, process: &Process) {
        let (id, secret) = &self.first;
        let body = json!({"fields": {"client_id": id, "client_secret": secret}}).to_string();
        let path = format!("/v1/credentials/{CREDENTIAL}/submission");
        let ask = Ask { method: "PUT", path: &path, headers: &[], body: Some(body.as_bytes()) };
        self.outputs.answer("submission", &process.socket.ask(ask).await);
    }

    /// Opens the stream, and takes what comes until it is what is current.
    async fn follow(&mut self, process: &Process) {
        let bearer = self.bearer();
        if self.stream.is_none() {
            match Events::open(&process.tcp, "/v1/events", &application(&bearer)).await.unwrap() {
                Ok(events) => {
                    self.outputs.answer("stream", &events.head);
                    self.stream = Some(events);
                }
                Err(answer) => self.outputs.answer("stream", &answer),
            }
        }
        let current = || process.engine.current(&name(CREDENTIAL)).map(|(version, _): (VersionId, u64)| version.to_string());
        let until = tokio::time::Instant::now() + EVENT_WITHIN;
        while self.streamed != current() && self.world.faults.alive().is_ok() && tokio::time::Instant::now() < until {
            let Some(events) = &mut self.stream else { return };
            let Ok(event) = tokio::time::timeout(Duration::from_millis(50), events.next()).await else { continue };
            let Some(event) = event else {
                // Its task panicked.
                self.stream = None;
                return;
            };
            self.outputs.event("stream", &event);
            if event.name == "credential" {
                let document: Value = serde_json::from_str(&event.data).unwrap();
                self.streamed = document["version"].as_str().map(str::to_owned);
                self.by_right.add("stream", beginning(event.data.as_bytes()));
            }
        }
    }

    /// Reads, and confirms what it read: with wrong words first.
    async fn use_it(&mut self, process: &Process) {
        let bearer = self.bearer();
        let path = format!("/v1/credentials/{CREDENTIAL}");
        let answer = process.tcp.get(&path, &application(&bearer)).await;
        if answer.status != 200 {
            return self.outputs.answer("read", &answer);
        }
        self.outputs.head("read", &answer);
        let document = answer.json();
        self.by_right.add("read", beginning(&answer.body));
        let (Some(version), Some(secret)) = (document["version"].as_str(), document["fields"]["client_secret"].as_str()) else {
            panic!("a document has a version and fields");
        };
        if self.confirmed.as_deref() == Some(version) {
            return;
        }
        let message = format!("keywright-confirm\n{CREDENTIAL}\n{version}\n{INSTANCE}");
        let right = hmac_sha256_hex(&Secret::from(secret.to_owned()), message.as_bytes());
        for (version, proof) in [(version, secret), (secret, right.as_str()), (version, &self.cast.refused.value), (version, &right)] {
            let body =
                json!({"credential": CREDENTIAL, "version": version, "instance": INSTANCE, "field": "client_secret", "proof": proof});
            let body = body.to_string();
            let ask = Ask { method: "POST", path: "/v1/confirmations", headers: &application(&bearer), body: Some(body.as_bytes()) };
            let answer: Answer = process.tcp.ask(ask).await;
            if answer.status == 204 {
                self.confirmed = Some(version.to_owned());
            }
            self.outputs.answer("confirmation", &answer);
        }
    }

    /// All that shows something of the whole, whenever there is something new to show.
    async fn look(&mut self, process: &Process) {
        let status = process.socket.get(&format!("/v1/status/{CREDENTIAL}"), &[]).await;
        self.outputs.answer("status", &status);
        let shown = if status.status == 200 { status.json() } else { Value::Null };
        let row = &shown["credentials"][0];
        let news = json!([row["phase"], row["reason"], row["version"], shown["problems"], self.calls.faults.fired()]);
        if news == self.looked_at {
            return;
        }
        self.looked_at = news;
        let versions = format!("/v1/credentials/{CREDENTIAL}/versions");
        let paths = ["/v1/status", "/v1/plan?days=30", &versions, "/metrics", "/v1/credentials", "/healthz", "/readyz"];
        for path in paths {
            self.outputs.answer(path, &process.socket.get(path, &[]).await);
        }
        let bearer = self.bearer();
        for path in ["/metrics", "/v1/credentials", "/v1/status"] {
            self.outputs.answer(path, &process.tcp.get(path, &application(&bearer)).await);
        }
        let views = (process.engine.status(None, None, 10), process.engine.plan(30, None, 10), process.engine.versions(&name(CREDENTIAL)));
        self.outputs.add("debug", format!("{:#?} {views:?}", process.engine));
    }

    async fn is_over(&mut self, process: &Process) -> bool {
        let status = process.engine.status(Some(&name(CREDENTIAL)), None, 1).unwrap();
        if self.scenario == Scenario::Refused && status.problems.iter().any(|problem| problem.code == "candidate-refused") {
            self.world.issuer.behave(|behaviour| behaviour.stillborn = false);
        }
        let row = &status.credentials[0];
        row.phase == "steady" && row.generation >= 2 && self.world.stages(CREDENTIAL).await.previous.is_none()
    }

    async fn end(mut self, process: Process, capture: &Capture) -> Result<End, String> {
        let bearer = self.bearer();
        let path = format!("/v1/applications/payments/instances/{INSTANCE}");
        self.outputs.answer("release", &process.socket.ask(Ask { method: "DELETE", path: &path, headers: &[], body: None }).await);
        let version = format!("\"{}\"", self.confirmed.clone().unwrap_or_default());
        let headers = [application(&bearer)[0], application(&bearer)[1], ("if-none-match", version.as_str())];
        let again = process.tcp.get(&format!("/v1/credentials/{CREDENTIAL}"), &headers).await;
        self.outputs.head("read again", &again);
        process.stop();
        // A stream whose task panicked is gone.
        if let Some(mut stream) = self.stream.take() {
            while let Some(event) = stream.next_within(EVENT_WITHIN).await {
                self.outputs.event("stream", &event);
            }
        }
        let points = self.world.faults.trace();
        process.ended().await;
        self.left_behind().await;
        self.outputs.extend(capture.take());
        self.check()?;
        Ok(End { outputs: self.outputs, points, fired: self.calls.faults.fired() })
    }

    /// What is durable, and what is kept in memory in its place.
    async fn left_behind(&mut self) {
        let journal = self.world.backend.journal();
        let history = journal.load(&name(CREDENTIAL)).await.unwrap();
        self.outputs.add("journal", format!("{history:?} {:?}", journal.holdings().await.unwrap()));
        self.outputs.add("journal", serde_json::to_vec(&history.events).unwrap());
        let current = self.world.stages(CREDENTIAL).await.current.unwrap();
        let bytes = self.world.backend.store().read(&self.world.slot(CREDENTIAL), &current).await.unwrap();
        self.outputs.add("debug", format!("{bytes:?} {bytes:#?}"));
        match &self.world.backend {
            Backend::Memory { store, journal, keyring } => {
                self.outputs.add("debug", format!("{store:?} {journal:?} {keyring:?}"));
                let records: Vec<Action> = self.world.audit.records().into_iter().map(|(_, action)| action).collect();
                self.outputs.add("audit", serde_json::to_vec(&(&records, self.world.audit.repetitions())).unwrap());
            }
            Backend::Embedded { folder, .. } => {
                let files = files_below(folder.path());
                for wanted in ["audit.jsonl", "keywright.redb", "keywright.key"] {
                    assert!(files.iter().any(|(path, bytes)| path.ends_with(wanted) && !bytes.is_empty()), "{wanted}");
                }
                self.outputs.files(files);
            }
            Backend::Elsewhere(_) | Backend::Cluster { .. } => panic!("the lives of the canaries are in memory and in a file"),
        }
        drop(journal);
        self.world.backend.close();
    }

    /// What was looked through was there: a life that says nothing proves nothing.
    fn check(&self) -> Result<(), String> {
        for channel in ["read", "stream"] {
            if !self.by_right.leaks(&self.cast.scanner).iter().any(|leak| leak.output == channel) {
                return Err(format!("{channel}: it carries the credential, and that wasn't found"));
            }
        }
        let heard = self.outputs.channels();
        let wanted = ["log", "error", "debug", "stream", "refusal, socket", "submission", "confirmation", "/metrics", "journal"];
        match wanted.iter().find(|channel| !heard.contains(**channel)) {
            Some(silent) => Err(format!("{silent}: nothing was collected")),
            None => Ok(()),
        }
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.cast.token.value)
    }
}

/// As much of a document as shows that a secret is in it.
fn beginning(document: &[u8]) -> &[u8] {
    &document[..document.len().min(2048)]
}

fn application(bearer: &str) -> [(&str, &str); 2] {
    [("authorization", bearer), ("keywright-instance", INSTANCE)]
}
