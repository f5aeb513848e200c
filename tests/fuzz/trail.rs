//! The audit trail: a file that was changed anywhere is never called whole, but for a last line without its end.

use std::path::Path;

use jiff::Timestamp;
use keywright::engine::audit::{Action, Actor, Audit};
use keywright::runtime::audit::{AuditFile, Head, Verified, VerifyError, last_leading, verify};

use crate::harness::{JSON, Judged, Target, Verdict, broken};

/// Trails as the daemon writes them, and the head of each.
struct Trails {
    folder: tempfile::TempDir,
    written: Vec<(Vec<u8>, Head)>,
}

fn actions() -> Vec<Action> {
    let actors = [
        Actor::Daemon,
        Actor::Operator { who: "uid:1000".to_owned() },
        Actor::Application { name: "payments-api".to_owned(), instance: "pod-1".to_owned() },
    ];
    let words = ["started", "planned", "disclosed", "promoted"];
    let details = [Some("digest abc; term 3 of 018f2b6e-0000-7000-8000-0000000000aa"), None, Some("a\nb\"c\\d\u{0}é")];
    let all = actors.iter().flat_map(|actor| words.iter().zip(details.iter().cycle()).map(move |pair| (actor, pair)));
    let action = |(actor, (word, detail)): (&Actor, (&&str, &Option<&str>))| Action {
        actor: actor.clone(),
        action: (*word).to_owned(),
        credential: Some("dinie-production".to_owned()),
        version: Some("v2-abc".to_owned()),
        detail: detail.map(str::to_owned),
    };
    all.map(action).collect()
}

impl Trails {
    async fn new() -> Trails {
        let folder = tempfile::tempdir().unwrap();
        let mut written = Vec::new();
        for (number, count) in [1, 3, 9].into_iter().enumerate() {
            let path = folder.path().join(format!("audit-{number}.jsonl"));
            let second = 1_800_000_000 + i64::try_from(number).unwrap();
            let trail = AuditFile::open(&path, Timestamp::from_second(second).unwrap()).unwrap();
            for action in actions().into_iter().take(count) {
                trail.record(Timestamp::from_second(second).unwrap(), action).await.unwrap();
            }
            written.push((std::fs::read(&path).unwrap(), trail.head()));
        }
        Trails { folder, written }
    }

    fn target(&self) -> Target {
        let corpus = self.written.iter().map(|(bytes, _)| bytes.clone()).collect();
        Target::new("trail", corpus, &[JSON, &["\n", "\"seq\":2", ",\"hash\":\"", "\"}\n", "\"prev\":\"", "started", "detail"]]).costing(6)
    }

    /// The whole records of this file, if it is the beginning of a trail that was written.
    fn whole<'a>(&self, input: &'a [u8]) -> Option<&'a [u8]> {
        let end = input.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole = &input[..end];
        self.written.iter().any(|(bytes, _)| bytes.starts_with(whole)).then_some(whole)
    }

    fn judge(&self, verify: impl Fn(&Path, Option<&Head>) -> Result<Verified, VerifyError>, input: &[u8]) -> Judged {
        let path = self.folder.path().join("changed.jsonl");
        std::fs::write(&path, input).unwrap();
        let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        // Nobody relies on it for a trail that isn't whole; it must only come to an end.
        last_leading(&path).map_err(|error| format!("who led last can't be read: {error}"))?;
        let verdict = match (verify(&path, None), self.whole(input)) {
            (Ok(_), None) => return broken("a trail that nobody wrote is called whole"),
            (Err(why), Some(_)) => return broken(format!("the beginning of a trail isn't called whole: {why}")),
            (Ok(verified), Some(whole)) => {
                if verified.records != lines(whole) || verified.torn_bytes != (input.len() - whole.len()) as u64 {
                    return broken(format!("it isn't counted rightly: {verified:?}"));
                }
                Verdict::Accepted
            }
            (Err(VerifyError::Broken(broken)), None) if (1..=lines(input).max(1)).contains(&broken.record) => Verdict::Refused,
            (Err(why), None) => return broken(format!("it isn't said which record of the file is broken: {why}")),
        };
        // With the head that the journal remembers, records that were cut off are missed, too.
        for (bytes, head) in &self.written {
            if verify(&path, Some(head)).is_ok() && self.whole(input) != Some(bytes) {
                return broken("records are missing, and the head that is remembered is passed over");
            }
        }
        Ok(verdict)
    }
}

#[tokio::test]
async fn fuzz_trail() {
    let trails = Trails::new().await;
    trails.target().run(|input| trails.judge(verify, input));
}

#[tokio::test]
async fn fuzz_trail_notices_faults() {
    let trails = Trails::new().await;
    trails.target().notices("the head that is remembered isn't asked for", |input| trails.judge(|path, _| verify(path, None), input));
    trails.target().notices("whatever can be read is whole", |input| {
        let lenient = |path: &Path, anchor: Option<&Head>| match verify(path, anchor) {
            Err(VerifyError::Broken(broken)) if broken.record > 1 => Ok(Verified { records: broken.record - 1, torn_bytes: 0 }),
            other => other,
        };
        trails.judge(lenient, input)
    });
}
