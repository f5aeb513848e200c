//! `keywright exec`: a program that gets its credentials, is told of new ones, and has the old key die only when it may.

mod changes;
mod ends;
mod init;
mod places;
mod pod;

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::support::canaries::Canary;
use crate::support::daemon::{Daemon, command};
use crate::support::dinie::truth::{Key, Owner};
use crate::support::dinie::{Dinie, Options};
use crate::support::eventually;
use crate::support::outputs::Outputs;
use crate::support::scanner::Scanner;
use crate::support::site::Site;
use crate::world::{SANDBOX, STILL, fields, left_behind};

const LIMIT: Duration = Duration::from_secs(60);
const APPLICATION: &str = "payments-sandbox";

/// Tells of itself at its start and at each signal, and runs until SIGTERM. Its id, then the public part of its key.
const SERVICE: &str = r#"
tell() { echo "$1 $$ $(cat $KEYWRIGHT_CREDENTIALS/dinie-sandbox/client_id) $KEYWRIGHT_CREDENTIALS" >> story; }
for name in HUP USR1 USR2 INT QUIT WINCH; do trap "tell $name" $name; done
trap 'tell TERM; exit 5' TERM
tell start
while :; do sleep 0.1; done
"#;

/// A daemon with one credential of an application that is known by our uid.
struct House {
    daemon: Daemon,
    sandbox: Arc<Dinie>,
    first: Key,
}

impl House {
    async fn unsubmitted() -> Self {
        Self::with(|site| {
            let uid = rustix::process::getuid().as_raw();
            let spec = format!("environment: sandbox, credentials: [{SANDBOX}], identity: {{unix: {{uid: {uid}}}}}, lease: 60s");
            site.document("Application", APPLICATION, &spec);
        })
        .await
    }

    async fn with(applications: impl FnOnce(&mut Site)) -> Self {
        let sandbox = Dinie::start(Options::new("sandbox")).await;
        let first = sandbox.seed_key("first, by hand", Owner::Enrolled);
        let mut site = Site::new();
        site.provider("dinie", "sandbox", &sandbox.base_url());
        site.rotation("still", STILL);
        site.credential(SANDBOX, "dinie", "sandbox", "still");
        applications(&mut site);
        Self { daemon: Daemon::start(site).await, sandbox, first }
    }

    async fn start() -> Self {
        let house = Self::unsubmitted().await;
        house.submit().await;
        house
    }

    async fn submit(&self) {
        self.daemon.submit(SANDBOX, &fields(&self.first)).await;
    }

    /// The newest key that the daemon made; rotates for it.
    async fn rotate(&self) -> Key {
        self.daemon.cli(&["rotate", SANDBOX, "--wait"]).await.assert_code(0);
        self.sandbox.lock().truth.keys.last().expect("a key").clone()
    }

    fn exec(&self, options: &[&str], program: &[&str]) -> Command {
        let config = self.daemon.site.config();
        let mut command = command(&[]);
        command.arg("--config").arg(config).args(["exec", "--application", APPLICATION]).args(options).arg("--").args(program);
        command.current_dir(self.daemon.site.folder());
        command
    }

    fn service(&self, options: &[&str]) -> Program {
        self.program(options, SERVICE)
    }

    fn program(&self, options: &[&str], script: &str) -> Program {
        Program::start(self.exec(options, &["sh", "-c", script]), self.daemon.site.folder())
    }

    /// Till the first key is dead; fails if that is so before `may` says that it may be.
    async fn old_key_dies(&self, may: impl Fn() -> bool) {
        let dead = || !self.sandbox.alive(&self.first.secret);
        let died = eventually(LIMIT, || {
            let allowed = may();
            assert!(allowed || !dead(), "the old key was revoked too early");
            dead()
        });
        assert!(died.await, "the old key lives:\n{}", self.daemon.log_tail());
    }

    fn old_key_lives(&self) -> bool {
        self.sandbox.alive(&self.first.secret)
    }

    /// How the daemon calls what the instances of the application do.
    async fn states(&self) -> Vec<String> {
        let row = self.daemon.status(SANDBOX).await;
        row["applications"].as_array().expect("a list").iter().map(|entry| entry["state"].as_str().unwrap_or("").to_owned()).collect()
    }

    /// Nothing of any key in what the daemon and the program wrote, nor in what others see of `exec`.
    fn assert_silent(&self, program: &Program, more: &[Canary]) {
        let mut canaries = self.sandbox.canaries();
        canaries.extend(more.iter().cloned());
        let mut outputs = left_behind(&self.daemon.site);
        outputs.add("stderr of exec", program.said());
        if program.child.id().is_some() {
            outputs.process(program.id());
        }
        outputs.assert_silent(&Scanner::new(&canaries));
    }
}

/// `exec`, with what its program told, and what it said itself.
struct Program {
    child: Child,
    folder: PathBuf,
}

/// One line of the service's story.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    word: String,
    id: String,
    client_id: String,
    files: String,
}

impl Program {
    fn start(mut command: Command, folder: &Path) -> Self {
        let file = |name: &str| std::fs::File::create(folder.join(name)).expect("a file for its output");
        let child = command.stdin(Stdio::null()).stdout(file("exec.stdout")).stderr(file("exec.stderr")).spawn().expect("it starts");
        Self { child, folder: folder.to_owned() }
    }

    fn id(&self) -> u32 {
        self.child.id().expect("it still runs")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.join("exec.stderr")).unwrap_or_default()
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    fn story(&self) -> Vec<Told> {
        let text = self.text("story");
        let told = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            Some(Told { word: words.next()?, id: words.next()?, client_id: words.next()?, files: words.next()? })
        };
        text.lines().filter_map(told).collect()
    }

    fn told(&self, word: &str) -> Vec<Told> {
        self.story().into_iter().filter(|told| told.word == word).collect()
    }

    /// Waits till this was told so often; the last one of them.
    async fn tells(&self, word: &str, times: usize) -> Told {
        let enough = eventually(LIMIT, || self.told(word).len() >= times).await;
        assert!(enough, "`{word}` wasn't told {times} times: {:?}\n{}", self.story(), self.said());
        self.told(word)[times - 1].clone()
    }

    async fn says(&self, text: &str) {
        assert!(eventually(LIMIT, || self.said().contains(text)).await, "`{text}` wasn't said:\n{}", self.said());
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.id() as i32).expect("an id"), signal).expect("it is sent");
    }

    async fn ends(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(LIMIT, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("it runs on:\n{}", self.said())).expect("its state is known")
    }

    async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ends().await
    }
}

/// A failed test too leaves nothing running: `exec` is asked to end, then all that it started is made to.
impl Drop for Program {
    fn drop(&mut self) {
        let Some(id) = self.child.id() else { return };
        let all = with_descendants(id);
        self.signal(Signal::TERM);
        for _ in 0..40 {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        for id in all.into_iter().filter(|id| lives(&id.to_string())) {
            if let Some(id) = Pid::from_raw(id as i32) {
                let _gone = kill_process(id, Signal::KILL);
            }
        }
    }
}

/// A process and all below it, itself first.
fn with_descendants(id: u32) -> Vec<u32> {
    let mut all = vec![id];
    for tasks in std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(tasks.path().join("children")).unwrap_or_default();
        all.extend(children.split_ascii_whitespace().filter_map(|id| id.parse().ok()).flat_map(with_descendants));
    }
    all
}

/// Whether a process of this id is there and no zombie.
fn lives(id: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

fn silent_text(text: &str, keys: &[&Key]) {
    let canaries: Vec<Canary> = keys.iter().map(|key| Canary::after("a key", "dinie_cs_", &key.secret)).collect();
    let mut outputs = Outputs::default();
    outputs.add("text", text.as_bytes());
    outputs.assert_silent(&Scanner::new(&canaries));
}
