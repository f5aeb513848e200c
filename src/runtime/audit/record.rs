//! One record of the trail: how it is written as a line, and how a line is judged.
//!
//! A line is `{…,"prev":"<hash of the record before>","hash":"<hash of this record without its hash>"}`. Each byte of a line is
//! either under the hash, the hash itself, or fixed text, so no byte of it can change unnoticed.

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::audit::{Action, Actor};

/// Longest line, with its newline. The clipping of texts keeps ours far below it: a reader needs no more memory than this.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;
/// Longest text in a record, in characters. Names are shorter; a detail that isn't loses its end, visibly.
const TEXT_CHARS_MAX: usize = 1024;
const HASH_KEY: &str = ",\"hash\":\"";
const LINE_END: &str = "\"}";
const HASH_CHARS: usize = 64;

/// How far a chain has come: number and hash of its last record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of the last record; 0 before the first.
    pub seq: u64,
    /// Lower-case hex.
    pub hash: String,
}

impl Default for Head {
    /// The head of an empty trail: what the first record points back to.
    fn default() -> Head {
        Head { seq: 0, hash: "0".repeat(HASH_CHARS) }
    }
}

/// What goes into a record beside its place in the chain.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) at: Timestamp,
    pub(super) action: Action,
    /// For repetitions: how many.
    pub(super) count: Option<u64>,
}

#[derive(Serialize)]
struct Body<'a> {
    seq: u64,
    at: Timestamp,
    actor: &'a Actor,
    action: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    prev: &'a str,
}

/// The part of a record that a reader needs. What else stands in it may grow with later releases.
#[derive(Deserialize)]
struct Link {
    seq: u64,
    prev: String,
}

/// Appends the record after `head` to `lines`, and moves `head` on to it. `None` if it can't be written as JSON or is too long,
/// which neither type nor clipping allow.
pub(super) fn append(lines: &mut Vec<u8>, head: &mut Head, entry: &Entry) -> Option<()> {
    let seq = head.seq.checked_add(1)?;
    let actor = clip_actor(&entry.action.actor);
    let action = clip(&entry.action.action);
    let [credential, version, detail] =
        [&entry.action.credential, &entry.action.version, &entry.action.detail].map(|text| text.as_deref().map(clip));
    let body = Body {
        seq,
        at: entry.at,
        actor: &actor,
        action: &action,
        credential: credential.as_deref(),
        version: version.as_deref(),
        detail: detail.as_deref(),
        count: entry.count,
        prev: &head.hash,
    };
    let body = serde_json::to_string(&body).ok()?;
    let hash = hash_of(body.as_bytes());
    let line = format!("{}{HASH_KEY}{hash}{LINE_END}\n", body.strip_suffix('}')?);
    if line.len() > LINE_BYTES_MAX {
        return None;
    }
    lines.extend_from_slice(line.as_bytes());
    *head = Head { seq, hash };
    Some(())
}

/// Why a line is not the record that should stand there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("is longer than a record can be")]
    TooLong,
    #[error("isn't a record")]
    NotARecord,
    #[error("its hash doesn't match its contents: it was changed")]
    Changed,
    #[error("record {found} stands in its place: a record was removed, inserted or moved")]
    OutOfOrder { found: u64 },
    #[error("it doesn't follow from the record before it: one of them was replaced")]
    Unchained,
    #[error("it isn't the record that the journal remembers: the trail was rewritten or replaced")]
    NotAnchored,
    #[error("it is missing: the journal remembers it")]
    Missing,
}

/// Judges a line (without its newline) by itself: its own number, and the head that it makes of the chain.
pub(super) fn read_alone(line: &[u8]) -> Result<(Head, String), Flaw> {
    let text = std::str::from_utf8(line).map_err(|_| Flaw::NotARecord)?;
    let (body, hash) = split(text).ok_or(Flaw::NotARecord)?;
    if hash_of(format!("{body}}}").as_bytes()) != hash {
        return Err(Flaw::Changed);
    }
    let link: Link = serde_json::from_str(text).map_err(|_| Flaw::NotARecord)?;
    Ok((Head { seq: link.seq, hash: hash.to_owned() }, link.prev))
}

/// Judges a line as the record after `head`.
pub(super) fn read_next(head: &Head, line: &[u8]) -> Result<Head, Flaw> {
    let (next, prev) = read_alone(line)?;
    if Some(next.seq) != head.seq.checked_add(1) {
        return Err(Flaw::OutOfOrder { found: next.seq });
    }
    if prev != head.hash {
        return Err(Flaw::Unchained);
    }
    Ok(next)
}

fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_suffix(LINE_END)?;
    let (rest, hash) = text.split_at_checked(text.len().checked_sub(HASH_CHARS)?)?;
    Some((rest.strip_suffix(HASH_KEY)?, hash))
}

fn hash_of(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn clip_actor(actor: &Actor) -> Actor {
    match actor {
        Actor::Daemon => Actor::Daemon,
        Actor::Operator { who } => Actor::Operator { who: clip(who) },
        Actor::Application { name, instance } => Actor::Application { name: clip(name), instance: clip(instance) },
    }
}
