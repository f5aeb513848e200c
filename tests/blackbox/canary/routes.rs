//! Every route of the API, with a secret where it belongs and where it doesn't: each shape, over both listeners.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use super::house::{Cast, House, Operation, operations};
use super::wrong;
use crate::support::canaries::Canary;
use crate::support::confirmation_proof;
use crate::support::outputs::Outputs;
use crate::support::wire::{Answer, Ask, Events, Target};

const SOON: Duration = Duration::from_secs(20);
const INSTANCE: &str = "pod-1";

/// The life of one credential, told by the requests that make it up.
struct Life<'a> {
    house: &'a House,
    cast: &'a Cast,
    operations: &'a [Operation],
    doors: [(&'static str, Target); 2],
    turn: usize,
    driven: BTreeSet<String>,
    made: Vec<String>,
    outputs: Outputs,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq)]
enum As {
    Application,
    Operator,
    Nobody,
}

impl Life<'_> {
    /// A request that must succeed. Operators come by both doors in turn; applications have no socket identity here.
    async fn good(&mut self, name: &str, names: &[&str], who: As, query: &str, body: Option<Value>) -> Answer {
        let operation = self.operations.iter().find(|operation| operation.name == name);
        let operation = operation.unwrap_or_else(|| panic!("the API has no `{name}` any more"));
        self.turn += 1;
        let (door, target) = &self.doors[if who == As::Application { 0 } else { self.turn % 2 }];
        let mut headers = vec![("keywright-instance", INSTANCE)];
        match who {
            As::Application => headers.push(("authorization", &self.cast.bearer)),
            As::Operator if *door != "socket" => headers.push(("authorization", &self.house.operator)),
            As::Operator | As::Nobody => {}
        }
        let path = format!("{}{query}", operation.path_with(names));
        let body = body.map(|body| body.to_string());
        let ask = Ask { method: &operation.method, path: &path, headers: &headers, body: body.as_deref().map(str::as_bytes) };
        let answer = target.ask(ask).await;
        let shape = self.cast.shape;
        let shown = if operation.discloses() { String::new() } else { String::from_utf8_lossy(&answer.body).into_owned() };
        assert!((200..300).contains(&answer.status), "{shape:?}, {name} over {door}: {} {shown}", answer.status);
        answer.assert_common();
        let channel = format!("{name} over {door}");
        self.collect(&channel, answer.clone(), operation.discloses());
        self.driven.insert(name.to_owned());
        answer
    }

    /// Without what makes each answer differ and can hold nothing: an id that has the form of ours, and the date.
    fn collect(&mut self, channel: &str, mut answer: Answer, discloses: bool) {
        let id = answer.header("x-request-id").filter(|id| uuid::Uuid::parse_str(id).is_ok_and(|id| id.get_version_num() == 7));
        let date = answer.header("date").filter(|date| date.len() == 29 && date.ends_with(" GMT"));
        for known in [id, date].into_iter().flatten().map(|known| known.as_bytes().to_vec()).collect::<Vec<_>>() {
            for text in [&mut answer.head, &mut answer.body] {
                if let Some(at) = text.windows(known.len()).position(|window| window == known) {
                    text.drain(at..at + known.len());
                }
            }
        }
        if discloses {
            self.outputs.head(channel, &answer);
        } else {
            self.outputs.answer(channel, &answer);
        }
    }

    async fn submit(&mut self, canary: &Canary) -> String {
        let credential = self.cast.credential.clone();
        let body = json!({"fields": {"secret": canary.value}});
        let answer = self.good("submit", &[&credential], As::Operator, "", Some(body)).await;
        answer.json()["version"].as_str().expect("a version").to_owned()
    }

    /// Reads it as its application, which then says that it holds nothing older.
    async fn take_up(&mut self, canary: &Canary) {
        let credential = self.cast.credential.clone();
        let document = self.good("credential", &[&credential], As::Application, "", None).await.json();
        assert!(document["fields"]["secret"] == canary.value.as_str(), "{:?}: another value was served", self.cast.shape);
        let version = document["version"].as_str().expect("a version");
        let proof = confirmation_proof(&canary.value, &credential, version, INSTANCE);
        let body = json!({"credential": credential, "version": version, "instance": INSTANCE, "field": "secret", "proof": proof});
        self.good("confirm", &[], As::Application, "", Some(body)).await;
        // Nothing is rolled out: it is on record, and changes nothing.
        let report = json!({"credential": credential, "version": version, "instance": INSTANCE, "outcome": "failed"});
        self.good("report", &[], As::Application, "", Some(report)).await;
        let operator = self.good("credential", &[&credential], As::Operator, "", None).await.json();
        assert!(operator["fields"] == document["fields"], "{:?}: an operator was served another value", self.cast.shape);
    }

    async fn stream(&mut self, canary: &Canary) {
        let (door, target) = &self.doors[0];
        let headers = [("authorization", self.cast.bearer.as_str()), ("keywright-instance", INSTANCE)];
        let opened = Events::open(target, "/v1/events", &headers).await.expect("it connects");
        let mut events = opened.unwrap_or_else(|answer| panic!("{:?}: {}", self.cast.shape, answer.status));
        let channel = format!("events over {door}");
        self.outputs.head(&channel, &events.head);
        loop {
            let event = events.next_within(SOON).await.expect("an event comes");
            self.outputs.event(&channel, &event);
            if event.name == "credential" {
                let document: Value = serde_json::from_str(&event.data).expect("a document");
                assert!(document["fields"]["secret"] == canary.value.as_str(), "{:?}: another value was streamed", self.cast.shape);
                break;
            }
        }
        self.driven.insert("events".to_owned());
    }

    async fn look_around(&mut self) {
        let (credential, all) = (self.cast.credential.clone(), "?limit=1000");
        let application = self.cast.application.clone();
        for (name, names, who, query) in [
            ("credentials", &[][..], As::Application, ""),
            ("credentials", &[], As::Operator, ""),
            ("status", &[], As::Operator, all),
            ("status-of", &[credential.as_str()], As::Operator, ""),
            ("plan", &[], As::Operator, "?days=365"),
            ("versions", &[credential.as_str()], As::Operator, all),
            ("golive", &[application.as_str()], As::Operator, ""),
            ("metrics", &[], As::Nobody, ""),
            ("metrics", &[], As::Nobody, ""),
            ("healthz", &[], As::Nobody, ""),
            ("readyz", &[], As::Nobody, ""),
            ("openapi", &[], As::Nobody, ""),
        ] {
            self.good(name, names, who, query, None).await;
        }
    }

    /// What brings the next version about, and what ends one.
    async fn change(&mut self) {
        let Cast { credential, application, made, .. } = self.cast;
        let (credential, application, made) = (credential.clone(), application.clone(), made.clone());
        let (first, second) = (&self.cast.first, &self.cast.second);
        // Wrong requests may have paused all: what was wrong with them is in a header that nobody reads.
        self.good("resume-all", &[], As::Operator, "", None).await;
        self.house.has_made(self.cast).await;
        let document = self.good("credential", &[&made], As::Operator, "", None).await.json();
        self.made.push(document["fields"]["signing_secret"].as_str().expect("a text").to_owned());
        self.good("rotate", &[&made], As::Operator, "", Some(json!({}))).await;
        let version = self.submit(second).await;
        self.take_up(second).await;
        self.good("rollback", &[&credential], As::Operator, "", None).await;
        self.take_up(first).await;
        self.good("revoke", &[&credential, &version], As::Operator, "?force=true", None).await;
        for (name, names) in [("pause", &[credential.as_str()][..]), ("resume", &[&credential]), ("pause-all", &[]), ("resume-all", &[])] {
            self.good(name, names, As::Operator, "", None).await;
        }
        let signed = json!({"by": "Ana Souza", "reason": "she looked"});
        self.good("golive-confirm", &[&application, "asked"], As::Operator, "", Some(signed)).await;
        self.good("golive-withdraw", &[&application, "asked"], As::Operator, "", None).await;
        self.good("release", &[&application, INSTANCE], As::Operator, "", None).await;
        self.good("release-all", &[&application], As::Operator, "", None).await;
    }

    /// What is refused: with both identities over the address, and as the operator of the socket.
    async fn wrong(&mut self) -> usize {
        let mut asked = 0;
        for operation in self.operations {
            for request in wrong::requests(operation, self.cast) {
                // Our uid on the socket has all rights.
                let doors = if request.reads { 1 } else { 2 };
                for (index, (door, target)) in self.doors.clone().iter().take(doors).enumerate() {
                    let bearer = match index {
                        0 if ["confirm", "report"].contains(&operation.name.as_str()) || request.reads => Some(&self.cast.bearer),
                        0 => Some(&self.house.operator),
                        _ => None,
                    };
                    asked += 1;
                    let raw = request.bytes(bearer.map(String::as_str));
                    // What is no HTTP at all may end a connection without an answer.
                    let Ok(Some(answer)) = target.raw(&raw).await else { continue };
                    let served = answer.status < 400;
                    assert!(!served || request.may_be_ignored, "{}: {} is taken: {}", operation.name, request.place, answer.status);
                    let channel = format!("{}, {} over {door}", operation.name, request.place);
                    self.collect(&channel, answer, served && operation.discloses());
                }
            }
        }
        asked
    }
}

/// Each route answers good requests and bad ones; a route that is new is not driven here, and fails.
#[rstest]
#[case::plain(false)]
#[case::tls(true)]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_out_of_any_route(#[case] tls: bool) {
    let house = House::start(tls).await;
    let operations = operations(&house.doors()[1].1).await;
    let all: BTreeSet<String> = operations.iter().map(|operation| operation.name.clone()).collect();
    let mut outputs = Outputs::default();
    let (mut wrong, mut made) = (0, Vec::new());
    for cast in &house.casts {
        let (driven, operations) = (BTreeSet::new(), operations.as_slice());
        let mut life =
            Life { house: &house, cast, operations, doors: house.doors(), turn: 0, driven, made: Vec::new(), outputs: Outputs::default() };
        life.submit(&cast.first).await;
        life.take_up(&cast.first).await;
        life.stream(&cast.first).await;
        life.look_around().await;
        wrong += life.wrong().await;
        life.change().await;
        life.look_around().await;
        // The rest is done while the store is sealed anew.
        life.good("rewrap", &[], As::Operator, "", None).await;
        life.good("rewrap-standing", &[], As::Operator, "", None).await;
        life.good("backup", &[], As::Operator, "", None).await;
        life.good("forget", &[&cast.credential], As::Operator, "?force=true", None).await;
        assert_eq!(life.driven, all, "{:?}: each route is driven with success", cast.shape);
        outputs.extend(life.outputs);
        made.extend(life.made);
    }
    outputs.extend(house.left_behind());
    let logs = house.daemon.logs();
    let is_debug = |(_, bytes): &(_, Vec<u8>)| String::from_utf8_lossy(bytes).contains("\"level\":\"DEBUG\"");
    assert!(logs.iter().any(is_debug), "nothing is compiled out of the log: this build tells all that there is to tell");
    let leaks = outputs.leaks(&house.scanner(&made));
    let door = if tls { "TLS" } else { "HTTP" };
    say(&format!(
        "canaries of the process: {} of {} routes × {} shapes over {door} and the socket, with {wrong} wrong requests: {} leaks in {} channels\n",
        all.len(),
        operations.len(),
        house.casts.len(),
        leaks.len(),
        outputs.channels().len(),
    ));
    assert!(leaks.is_empty(), "{leaks:#?}");
}

/// Not by the macro, which a test runner keeps to itself.
pub(super) fn say(text: &str) {
    let _unread = std::io::stderr().write_all(text.as_bytes());
}
