//! Ten times of everything at once: who comes too much is told so, memory stays within what the bounds allow, and streams live on.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use crate::support::eventually;
use crate::support::wire::{Answer, Ask, Event, Events, Target, Wire, read_answer};
use crate::world::{PRODUCTION, Plan, SANDBOX, World};

// The contract's bounds, as `GET /v1/openapi.json` tells them.
const CONNECTIONS: usize = 1_024;
const REQUESTS_OF_ONE: usize = 64;
const BODY_MAX: usize = 128 * 1024;
const HEAD_MAX: usize = 16 * 1024;
const BODY_TIME: Duration = Duration::from_secs(10);
const COMMENT_EVERY: Duration = Duration::from_secs(15);

const TIMES: usize = 10;
/// Whose requests the storm is made of: two applications.
const IDENTITIES: usize = 2;

/// What the bounds let the daemon need beside what it needs anyway: for each connection a head that comes, of twice its greatest
/// length with what is read ahead; for each identity so many bodies, once as they come in and once whole. As many connections again
/// are being told that there are too many, at most.
const BOUNDED: usize = 2 * CONNECTIONS * 2 * HEAD_MAX + IDENTITIES * REQUESTS_OF_ONE * 2 * BODY_MAX;
/// What an allocator keeps for later, of two cores and as many threads as write.
const SLACK: usize = 32 << 20;

/// How much longer than promised a sign of life may take on a machine that is busy with the storm itself.
const NOISE: Duration = Duration::from_secs(8);
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_of_everything_leaves_streams_memory_and_the_next_request_alone() {
    raise_open_files();
    let world = World::start(Plan::still()).await;
    let storm = Storm::on(&world);
    let streams = [
        Stream::open(&storm.tcp, &storm.production, "pod-1").await,
        Stream::open(&storm.tcp, &storm.production, "pod-2").await,
        Stream::open(&storm.tcp, &storm.sandbox, "pod-3").await,
    ];
    storm.warm_up().await;
    let (warm, began) = (memory(&world, "VmRSS"), Instant::now());

    let slow = storm.slow_bodies().await;
    storm.big_bodies().await;
    storm.requests().await;
    let (_, changed) = tokio::join!(storm.connections(), world.daemon.cli(&["rotate", PRODUCTION, "--wait"]));
    changed.assert_code(0);
    storm.given_up(slow).await;
    println!("the storm took {:?}", began.elapsed());

    let peak = memory(&world, "VmHWM");
    println!("resident: {} KiB when warm, {} KiB at the peak; {} KiB more are allowed", warm >> 10, peak >> 10, (BOUNDED + SLACK) >> 10);
    assert!(peak.saturating_sub(warm) <= BOUNDED + SLACK, "{peak} bytes at the peak, {warm} when it was warm");
    storm.all_is_as_before().await;
    for (index, stream) in streams.iter().enumerate() {
        stream.lived_on(began, index < 2).await;
    }
}

/// Ten times the connections are open at this end, too.
fn raise_open_files() {
    let (limit, wanted) = (getrlimit(Resource::Nofile), (TIMES * CONNECTIONS + 2 * CONNECTIONS) as u64);
    if limit.current.is_some_and(|current| current < wanted) {
        assert!(limit.maximum.is_none_or(|most| most >= wanted), "this test opens {wanted} files: raise the hard limit (`ulimit -Hn`)");
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).expect("the limit is raised");
    }
}

/// In bytes: what the daemon's process has resident now (`VmRSS`), or had at most (`VmHWM`).
fn memory(world: &World, word: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.daemon.id())).expect("the daemon's status");
    let line = status.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(':')).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// How one request ended: with an answer, with a connection that was closed without one, or with an error.
type Ended = io::Result<Option<Answer>>;

/// What became of many requests.
#[derive(Debug, Default)]
struct Tally {
    good: usize,
    bad: usize,
    timed_out: usize,
    too_large: usize,
    refused: usize,
    unanswered: usize,
    /// How the unanswered ones ended.
    ends: BTreeMap<String, usize>,
}

impl Tally {
    fn count(&mut self, answer: &Ended) {
        let answer = match answer {
            Ok(Some(answer)) => answer,
            lost => {
                let how = lost.as_ref().map_or_else(|error| error.kind().to_string(), |_| "closed without an answer".to_owned());
                *self.ends.entry(how).or_default() += 1;
                return self.unanswered += 1;
            }
        };
        let (slug, place) = match answer.status {
            200 => return self.good += 1,
            400 => ("bad-request", &mut self.bad),
            408 => ("timeout", &mut self.timed_out),
            413 => ("too-large", &mut self.too_large),
            429 => ("too-many", &mut self.refused),
            other => panic!("{other}: {}", String::from_utf8_lossy(&answer.body)),
        };
        answer.assert_problem(answer.status, slug);
        let wait = answer.header("retry-after").map(|wait| wait.parse::<u64>().expect("seconds"));
        assert_eq!(wait.is_some(), answer.status == 429, "who is refused for now is told when to come again");
        *place += 1;
    }

    /// One in a hundred may be lost: the kernel drops what finds no place in its queues.
    fn assert_answered(&self, asked: usize) {
        let answered = self.good + self.bad + self.timed_out + self.too_large + self.refused;
        assert_eq!(answered + self.unanswered, asked, "{self:?}");
        assert!(self.unanswered <= asked / 100, "{self:?}");
    }
}

/// All of these at once.
async fn tally<T: Future<Output = Vec<Ended>> + Send + 'static>(all: impl Iterator<Item = T>) -> Tally {
    let mut under_way: JoinSet<_> = all.collect();
    let mut tally = Tally::default();
    while let Some(answers) = under_way.join_next().await {
        answers.expect("it ends").iter().for_each(|answer| tally.count(answer));
    }
    tally
}

/// A request whose body isn't all there yet.
struct Slow {
    wire: Box<dyn Wire>,
}

struct Storm {
    tcp: Target,
    /// What two applications show.
    production: String,
    sandbox: String,
}

impl Storm {
    fn on(world: &World) -> Self {
        let bearer = |token: &str| format!("Bearer {token}");
        Self { tcp: world.daemon.site.tcp(), production: bearer(&world.production_token), sandbox: bearer(&world.sandbox_token) }
    }

    async fn read(&self, bearer: &str, credential: &str) -> Answer {
        self.tcp.get(&format!("/v1/credentials/{credential}"), &[("authorization", bearer)]).await
    }

    async fn warm_up(&self) {
        for _ in 0..100 {
            assert_eq!(self.read(&self.production, PRODUCTION).await.status, 200);
            assert_eq!(self.read(&self.sandbox, SANDBOX).await.status, 200);
        }
    }

    /// Fills what one identity may have under way with bodies that don't come to an end; the others of ten times as many find no place.
    async fn slow_bodies(&self) -> Vec<Slow> {
        let began = Instant::now();
        let mut slow = Vec::new();
        for _ in 0..REQUESTS_OF_ONE {
            slow.push(Slow { wire: self.begin(BODY_MAX, BODY_MAX * 3 / 4).await });
        }
        // They are under way once a request that needs no time finds no place. Until then each gets one more beside it: what came
        // before may have held its place for a moment after its answer, and kept one of them out.
        while self.read(&self.production, PRODUCTION).await.status == 200 {
            assert!(began.elapsed() < BODY_TIME, "the bound was never met");
            slow.push(Slow { wire: self.begin(BODY_MAX, BODY_MAX * 3 / 4).await });
        }
        let more = (TIMES - 1) * REQUESTS_OF_ONE;
        let asked = (0..more).map(|_| {
            let (tcp, request) = (self.tcp.clone(), confirmation(&self.production, BODY_MAX, BODY_MAX));
            async move { vec![tcp.raw(&request).await] }
        });
        let tally = tally(asked).await;
        println!("slow bodies, {more} more requests of that application: {tally:?}");
        tally.assert_answered(more);
        // As long as none of the slow ones was given up, there was no room for any of these.
        assert!(tally.refused + tally.unanswered == more || began.elapsed() >= BODY_TIME, "{tally:?}");
        assert!(tally.refused > 0, "{tally:?}");
        assert_eq!(self.read(&self.sandbox, SANDBOX).await.status, 200, "another application's bounds are its own");
        slow
    }

    async fn begin(&self, announced: usize, sent: usize) -> Box<dyn Wire> {
        let mut wire = self.tcp.connect().await.expect("it connects");
        wire.write_all(&confirmation(&self.production, announced, sent)).await.expect("it is taken");
        wire
    }

    async fn given_up(&self, slow: Vec<Slow>) {
        let begun = slow.len();
        let answers = slow.into_iter().map(|mut slow| async move { vec![read_answer(&mut slow.wire).await] });
        let tally = tokio::time::timeout(BODY_TIME + NOISE, tally(answers)).await.expect("a slow body is given up");
        println!("the slow ones: {tally:?}");
        assert_eq!((tally.timed_out, tally.refused), (REQUESTS_OF_ONE, begun - REQUESTS_OF_ONE), "{tally:?}");
    }

    /// Bodies that say that they are too long, that turn out to be, and that are as long as they may be and hold nothing.
    async fn big_bodies(&self) {
        let asked = TIMES * REQUESTS_OF_ONE;
        let tally = tally((0..asked).map(|number| {
            let request = match number % 3 {
                0 => confirmation(&self.sandbox, 80 * BODY_MAX, 2 * BODY_MAX),
                1 => chunked(&self.sandbox, 2 * BODY_MAX),
                _ => confirmation(&self.sandbox, BODY_MAX, BODY_MAX),
            };
            let tcp = self.tcp.clone();
            async move { vec![tcp.raw(&request).await] }
        }))
        .await;
        println!("big bodies: {tally:?}");
        tally.assert_answered(asked);
        assert!(tally.too_large > 0 && tally.bad > 0 && tally.good == 0, "{tally:?}");
    }

    /// Ten times as many at once as one identity may have under way, each on a connection that it keeps, again and again.
    async fn requests(&self) {
        let asked = TIMES * REQUESTS_OF_ONE;
        let head = format!("GET /v1/credentials/{SANDBOX} HTTP/1.1\r\nhost: keywright\r\nauthorization: {}\r\n\r\n", self.sandbox);
        let tally = tally((0..asked).map(|_| {
            let (tcp, head) = (self.tcp.clone(), head.clone());
            async move {
                let mut wire = match tcp.connect().await {
                    Ok(wire) => wire,
                    Err(error) => return (0..TIMES).map(|_| Err(error.kind().into())).collect(),
                };
                let mut answers = Vec::new();
                for _ in 0..TIMES {
                    let sent = wire.write_all(head.as_bytes()).await;
                    answers.push(match sent {
                        Ok(()) => read_answer(&mut wire).await,
                        Err(error) => Err(error),
                    });
                }
                answers
            }
        }))
        .await;
        println!("requests: {tally:?}");
        tally.assert_answered(TIMES * asked);
        assert!(tally.good > 0, "{tally:?}");
    }

    /// All connections taken by who says nothing, then ten times as many.
    async fn connections(&self) {
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS {
            idle.push(self.tcp.connect().await.expect("it connects"));
        }
        let asked = (TIMES - 1) * CONNECTIONS;
        let headers = [("authorization", self.sandbox.as_str())];
        let request = Ask { method: "GET", path: &format!("/v1/credentials/{SANDBOX}"), headers: &headers, body: None }.bytes();
        let request: Arc<[u8]> = request.into();
        let tally = tally((0..asked).map(|_| {
            let (tcp, request) = (self.tcp.clone(), Arc::clone(&request));
            async move { vec![tcp.raw(&request).await] }
        }))
        .await;
        println!("connections: {tally:?}");
        tally.assert_answered(asked);
        assert!(tally.refused >= CONNECTIONS, "{tally:?}");
        drop(idle);
    }

    /// Nothing of the storm is left that would keep anybody out.
    async fn all_is_as_before(&self) {
        let began = Instant::now();
        for (bearer, credential) in [(&self.production, PRODUCTION), (&self.sandbox, SANDBOX)] {
            while self.read(bearer, credential).await.status != 200 {
                assert!(began.elapsed() < SOON, "`{credential}` isn't served again");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        for _ in 0..100 {
            assert_eq!(self.read(&self.production, PRODUCTION).await.status, 200);
        }
    }
}

fn confirmation(bearer: &str, announced: usize, sent: usize) -> Vec<u8> {
    let head = format!(
        "POST /v1/confirmations HTTP/1.1\r\nhost: keywright\r\nconnection: close\r\nauthorization: {bearer}\r\n\
         content-type: application/json\r\ncontent-length: {announced}\r\n\r\n"
    );
    [head.as_bytes(), &vec![b' '; sent]].concat()
}

/// A body of unknown length, which has no end.
fn chunked(bearer: &str, sent: usize) -> Vec<u8> {
    let head = format!(
        "POST /v1/confirmations HTTP/1.1\r\nhost: keywright\r\nconnection: close\r\nauthorization: {bearer}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let chunk = [b"1000\r\n".as_slice(), &[b' '; 4096], b"\r\n"].concat();
    [head.into_bytes(), chunk.repeat(sent / 4096)].concat()
}

/// A stream that was open before, and what came on it.
struct Stream {
    told: Arc<Mutex<Told>>,
}

#[derive(Debug, Default)]
struct Told {
    /// Of anything at all, comment lines included.
    signs: Vec<Instant>,
    comments: Vec<Instant>,
    versions: Vec<String>,
    ended: bool,
}

impl Stream {
    async fn open(tcp: &Target, bearer: &str, instance: &str) -> Self {
        let headers = [("authorization", bearer), ("keywright-instance", instance)];
        let opened = Events::open(tcp, "/v1/events", &headers).await.expect("it answers");
        let mut events = opened.unwrap_or_else(|answer| panic!("{}", answer.status));
        let first = events.wait_for("credential", SOON).await.expect("a snapshot");
        let told = Arc::new(Mutex::new(Told::default()));
        let telling = Arc::clone(&told);
        telling.lock().unwrap_or_else(PoisonError::into_inner).take(&first);
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                telling.lock().unwrap_or_else(PoisonError::into_inner).take(&event);
            }
            telling.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        });
        Self { told }
    }

    fn told<T>(&self, look: impl Fn(&Told) -> T) -> T {
        look(&self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It gave signs of life all the time, and told what changed.
    async fn lived_on(&self, began: Instant, changed: bool) {
        let commented = || self.told(|told| told.comments.iter().any(|at| *at > began));
        assert!(eventually(COMMENT_EVERY + NOISE, commented).await, "{:?}", self.told);
        let versions = if changed { 2 } else { 1 };
        let renewed = || self.told(|told| told.versions.len() == versions);
        assert!(eventually(SOON, renewed).await, "{versions} versions: {:?}", self.told);
        self.told(|told| {
            assert!(!told.ended, "{told:?}");
            let gaps = told.signs.windows(2).map(|pair| pair[1] - pair[0]);
            let longest = gaps.chain(told.signs.last().map(Instant::elapsed)).max().expect("a sign");
            assert!(longest <= COMMENT_EVERY + NOISE, "nothing for {longest:?}");
        });
    }
}

impl Told {
    fn take(&mut self, event: &Event) {
        let now = Instant::now();
        self.signs.push(now);
        if event.comment {
            self.comments.push(now);
        }
        if event.name == "credential" {
            let document: Value = serde_json::from_str(&event.data).expect("JSON");
            let version = document["version"].as_str().expect("a version").to_owned();
            if self.versions.last() != Some(&version) {
                self.versions.push(version);
            }
        }
    }
}
