//! Follows the daemon's stream for as long as the program runs, and keeps the newest of each credential.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

use super::daemon::Daemon;
use super::document::{Document, Documents};
use super::say;
use crate::cli::failure::Failure;
use crate::cli::sse::{Event, EventReader};
use crate::cli::terminal::Terminal;

/// What the daemon asks for by `retry:`.
const WAIT_FIRST: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Never ends by itself. The program goes on with what it has while the daemon is away.
pub(super) async fn follow(daemon: Arc<Daemon>, newest: watch::Sender<Documents>, terminal: Terminal) {
    let mut stream = Stream { newest, last: String::new(), terminal };
    let (mut wait, mut is_away) = (WAIT_FIRST, false);
    loop {
        match daemon.events(&stream.last).await {
            Ok(body) => {
                if is_away {
                    say(terminal, "the daemon is there again");
                }
                is_away = false;
                // A stream that ends at once, again and again, isn't asked for each second.
                wait = if stream.read(EventReader::new(body)).await { WAIT_FIRST } else { (wait * 2).min(WAIT_MAX) };
            }
            Err(failure) => {
                if !is_away {
                    say(terminal, &format!("{}; the program goes on with what it has", told(&failure)));
                }
                is_away = true;
                wait = (wait * 2).min(WAIT_MAX);
            }
        }
        sleep(spread(wait)).await;
    }
}

/// On one line.
pub(super) fn told(failure: &Failure) -> String {
    let lines = failure.lines();
    lines.into_iter().filter(|line| !line.starts_with("next: ") && !line.starts_with("request: ")).collect::<Vec<_>>().join(": ")
}

/// Between half of it and all of it, so that not everybody comes back at one moment.
pub(super) fn spread(wait: Duration) -> Duration {
    let chance = u32::from(Uuid::new_v4().as_bytes()[0]);
    wait / 2 + wait / 2 * chance / u32::from(u8::MAX)
}

struct Stream {
    newest: watch::Sender<Documents>,
    /// The id of the last event.
    last: String,
    terminal: Terminal,
}

impl Stream {
    /// To its end. Whether anything came.
    async fn read(&mut self, mut events: EventReader) -> bool {
        let mut any = false;
        while let Some(event) = events.next().await {
            any = true;
            match event.name.as_str() {
                "credential" => self.take(&event),
                "withdrawn" => say(self.terminal, &withdrawn(&event)),
                "bye" => return true,
                // A newer daemon may tell more than we know of.
                _ => {}
            }
            if !event.id.is_empty() {
                self.last = event.id;
            }
        }
        any
    }

    fn take(&self, event: &Event) {
        let Some(document) = Document::parse(event.data.as_bytes()) else {
            say(self.terminal, "the daemon told of a credential in a form that isn't known here: it is left as it was");
            return;
        };
        self.newest.send_if_modified(|newest| {
            let is_newer = newest.get(&document.name).is_none_or(|held| held.revision < document.revision);
            if is_newer {
                newest.insert(document.name.clone(), Arc::new(document));
            }
            is_newer
        });
    }
}

fn withdrawn(event: &Event) -> String {
    #[derive(serde::Deserialize)]
    struct Withdrawn {
        name: crate::domain::ids::Name,
    }
    let name = serde_json::from_str::<Withdrawn>(&event.data).map_or_else(|_| "a credential".to_owned(), |told| told.name.to_string());
    format!("{name} was withdrawn from the application; the program keeps what it has of it")
}

#[cfg(test)]
mod tests {
    use super::super::document::{document, set};
    use super::*;

    fn event(name: &str, version: &str, revision: u64) -> Event {
        let document = document(name, version, revision, &[("s", "1")]);
        Event { name: "credential".to_owned(), data: document.json.expose_str().unwrap().to_owned(), id: String::new() }
    }

    #[test]
    fn cli_exec_takes_newer_revisions_alone() {
        let (newest, mut changes) = watch::channel(set(&[document("a", "v2", 5, &[("s", "1")])]));
        let stream = Stream { newest, last: String::new(), terminal: Terminal { json: true } };
        for (version, revision) in [("v1", 4), ("v2", 5)] {
            stream.take(&event("a", version, revision));
        }
        stream.take(&Event { name: "credential".to_owned(), data: "{}".to_owned(), id: String::new() });
        assert!(!changes.has_changed().unwrap(), "what isn't newer wakes nobody");
        stream.take(&event("a", "v3", 6));
        stream.take(&event("b", "v1", 1));
        let versions: Vec<String> = changes.borrow_and_update().values().map(|document| document.version.to_string()).collect();
        assert_eq!(versions, ["v3", "v1"]);
    }

    #[test]
    fn cli_exec_names_what_was_withdrawn_and_nothing_else_of_it() {
        let told = |data: &str| withdrawn(&Event { data: data.to_owned(), ..Event::default() });
        assert!(told(r#"{"name":"a"}"#).starts_with("a was withdrawn"));
        assert!(told("{\"name\":\"hush hush\"}").starts_with("a credential was withdrawn"));
    }

    #[test]
    fn cli_exec_comes_back_neither_at_once_nor_late() {
        for _ in 0..100 {
            let wait = spread(WAIT_FIRST);
            assert!((WAIT_FIRST / 2..=WAIT_FIRST).contains(&wait), "{wait:?}");
        }
    }
}
