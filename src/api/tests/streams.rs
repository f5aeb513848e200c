//! Event streams, from the snapshot to the `bye`.

use std::sync::atomic::Ordering;

use super::fake::{CANARY, application, applications, token};
use super::*;
use crate::delivery::{Change, Delivery};
use crate::engine::errors::ReadError;

/// An open stream, read line by line. Chunk sizes are lines of their own and are dropped.
struct Events {
    stream: TcpStream,
    text: String,
}

#[derive(Debug, PartialEq)]
enum Event {
    Credential { name: String, revision: u64, value: String },
    Withdrawn(String),
    Bye,
    End,
}

impl Events {
    async fn open(it: &Running, token: &str, path: &str, headers: &str) -> Events {
        let mut stream = it.tcp().await;
        stream.write_all(request(token, &format!("GET {path}"), headers, "").as_bytes()).await.unwrap();
        let mut events = Events { stream, text: String::new() };
        let head = events.block().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("content-type: text/event-stream"), "{head}");
        assert!(head.contains("cache-control: no-store") && head.contains("x-request-id: "), "{head}");
        assert_eq!(events.payload().await.unwrap(), "retry: 1000");
        events
    }

    /// Up to the next empty line.
    async fn block(&mut self) -> Option<String> {
        loop {
            if self.text.starts_with("HTTP/") {
                if let Some((head, rest)) = self.text.split_once("\r\n\r\n").map(|(head, rest)| (head.to_owned(), rest.to_owned())) {
                    self.text = rest;
                    return Some(head);
                }
            } else if let Some((size, rest)) = self.text.split_once("\r\n") {
                // A chunk: its size in hex, its bytes, a line break.
                let size = usize::from_str_radix(size, 16).unwrap();
                if size == 0 {
                    return None;
                }
                if rest.len() >= size + 2 {
                    let chunk = rest[..size].to_owned();
                    self.text = rest[size + 2..].to_owned();
                    return Some(chunk);
                }
            }
            let mut bytes = vec![0; 65_536];
            let count = timeout(Duration::from_secs(3), self.stream.read(&mut bytes)).await.expect("something").unwrap_or(0);
            if count == 0 {
                return None;
            }
            self.text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
    }

    async fn payload(&mut self) -> Option<String> {
        self.block().await.map(|chunk| chunk.strip_suffix("\n\n").expect("a whole event").to_owned())
    }

    /// The next event that isn't a comment.
    async fn next(&mut self) -> Event {
        loop {
            let Some(text) = self.payload().await else { return Event::End };
            if text == ":" {
                continue;
            }
            let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
            let data: serde_json::Value = serde_json::from_str(&field("data: ").unwrap()).unwrap();
            let name = || data["name"].as_str().unwrap().to_owned();
            return match field("event: ").unwrap().as_str() {
                "credential" => {
                    assert!(field("id: ").is_some() && text.lines().count() == 3, "{text}");
                    let value = data["fields"]["client_secret"].as_str().unwrap().to_owned();
                    Event::Credential { name: name(), revision: data["revision"].as_u64().unwrap(), value }
                }
                "withdrawn" => Event::Withdrawn(name()),
                "bye" => Event::Bye,
                other => panic!("an event `{other}`"),
            };
        }
    }

    async fn silent(&mut self) {
        assert!(timeout(Duration::from_millis(100), self.next()).await.is_err());
    }
}

fn shown(name: &str, revision: u64, value: &str) -> Event {
    Event::Credential { name: name.to_owned(), revision, value: value.to_owned() }
}

#[tokio::test]
async fn a_stream_begins_with_everything_and_goes_on_with_changes() {
    let it = start(quick()).await;
    let mut events = Events::open(&it, APP, "/v1/events", "last-event-id: anything at all\r\n").await;
    assert_eq!(events.next().await, shown("one", 1, CANARY));
    assert_eq!(events.next().await, shown("two", 1, CANARY));
    events.silent().await;
    it.fake.set("two", 2, "line\nbreak");
    it.hub.announce(Change::Credential { name: "two".parse().unwrap(), revision: 2 });
    assert_eq!(events.next().await, shown("two", 2, "line\nbreak"));
    // A change of something else, and one that was sent already, say nothing.
    it.fake.set("foreign", 9, "x");
    it.hub.announce(Change::Policies);
    events.silent().await;
    it.fake.set("empty", 1, "first");
    it.hub.announce(Change::Credential { name: "empty".parse().unwrap(), revision: 1 });
    assert_eq!(events.next().await, shown("empty", 1, "first"));
}

#[tokio::test]
async fn a_stream_may_ask_for_some() {
    let it = start(quick()).await;
    let mut events = Events::open(&it, APP, "/v1/events?credentials=two,empty", "").await;
    assert_eq!(events.next().await, shown("two", 1, CANARY));
    it.fake.set("one", 2, "x");
    it.hub.announce(Change::Policies);
    events.silent().await;
    it.get(APP, "/v1/events?credentials=one,foreign").await.refused(403, "forbidden");
    it.get(APP, "/v1/events?credentials=no-such").await.refused(403, "forbidden");
    it.get(CLERK, "/v1/events").await.refused(403, "forbidden");
    let mut events = Events::open(&it, BOSS, "/v1/events?credentials=foreign", "").await;
    assert_eq!(events.next().await, shown("foreign", 1, CANARY));
}

#[tokio::test]
async fn many_changes_at_once_end_in_the_latest() {
    let it = start(quick()).await;
    let mut events = Events::open(&it, APP, "/v1/events?credentials=one", "").await;
    assert_eq!(events.next().await, shown("one", 1, CANARY));
    for revision in 2..=2000 {
        it.fake.set("one", revision, &format!("value {revision}"));
        it.hub.announce(Change::Credential { name: "one".parse().unwrap(), revision });
    }
    let mut last = 1;
    while last < 2000 {
        let Event::Credential { revision, .. } = events.next().await else { panic!("another event") };
        assert!(revision > last);
        last = revision;
    }
    events.silent().await;
}

#[tokio::test]
async fn access_ends_and_begins_in_an_open_stream() {
    let it = start(quick()).await;
    let mut events = Events::open(&it, APP, "/v1/events", "").await;
    assert_eq!((events.next().await, events.next().await), (shown("one", 1, CANARY), shown("two", 1, CANARY)));
    it.fake.set_policies(vec![application("app", token(APP), &["two"])]);
    it.hub.announce(Change::Policies);
    let mut gone = vec![events.next().await, events.next().await];
    gone.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(gone, [Event::Withdrawn("empty".to_owned()), Event::Withdrawn("one".to_owned())]);
    it.fake.set_policies(applications());
    it.hub.announce(Change::Policies);
    assert_eq!(events.next().await, shown("one", 1, CANARY));
}

#[tokio::test]
async fn a_stream_ends_with_its_application_and_with_its_token() {
    let it = start(quick()).await;
    for left in [Vec::new(), vec![application("app", token("another"), &["one"])]] {
        it.fake.set_policies(vec![application("app", token(APP), &["one"])]);
        let mut events = Events::open(&it, APP, "/v1/events", "").await;
        assert_eq!(events.next().await, shown("one", 1, CANARY));
        it.fake.set_policies(left);
        it.hub.announce(Change::Policies);
        assert_eq!(events.next().await, Event::Withdrawn("one".to_owned()));
        assert_eq!(events.next().await, Event::End);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_tried_again() {
    let it = start(quick()).await;
    *it.fake.read.lock().unwrap() = Some(ReadError::AuditUnavailable);
    let mut events = Events::open(&it, APP, "/v1/events", "").await;
    events.silent().await;
    *it.fake.read.lock().unwrap() = None;
    assert_eq!(events.next().await, shown("one", 1, CANARY));
    assert_eq!(events.next().await, shown("two", 1, CANARY));
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive_and_a_stop_says_bye() {
    let it = start(quick()).await;
    let mut events = Events::open(&it, OTHER, "/v1/events", "").await;
    for _ in 0..3 {
        assert_eq!(events.payload().await.unwrap(), ":");
    }
    it.stop.cancel();
    assert_eq!((events.next().await, events.next().await), (Event::Bye, Event::End));
    timeout(Duration::from_millis(500), it.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_instance_has_a_stream_as_long_as_it_is_open() {
    let it = start(quick()).await;
    let mut events = Events::open(&it, APP, "/v1/events", "keywright-instance: pod-1\r\n").await;
    events.next().await;
    assert_eq!(it.fake.streams.load(Ordering::SeqCst), 1);
    assert!(it.fake.log().iter().any(|line| line.starts_with("read one Application") && line.contains("pod-1")));
    drop(events);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(it.fake.streams.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_off() {
    let it = start(quick()).await;
    let large = "x".repeat(60_000);
    it.fake.set("one", 1, &large);
    let mut events = Events::open(&it, APP, "/v1/events?credentials=one", "").await;
    events.next().await;
    // Whatever the kernel's buffers hold: nobody reads, and changes go on.
    for revision in 2..600 {
        it.fake.set("one", revision, &large);
        it.hub.announce(Change::Policies);
        if it.fake.streams.load(Ordering::SeqCst) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..100 {
        if it.fake.streams.load(Ordering::SeqCst) == 0 {
            // Others aren't disturbed.
            assert_eq!(it.get(APP, "/v1/credentials/two").await.status, 200);
            // The connection is gone, too: after what the kernel holds comes no proper end.
            tokio::time::sleep(quick().write_timeout * 2).await;
            let mut rest = Vec::new();
            let _ = timeout(Duration::from_secs(3), events.stream.read_to_end(&mut rest)).await.expect("an end");
            assert!(!rest.ends_with(b"0\r\n\r\n"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the stream is still open");
}
