//! `exec` as the first process of a container: it waits for orphans, and ends with its program.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use super::{House, Program, SERVICE, lives};

/// Leaves an orphan behind that ends at once; then counts those that nobody waited for.
const PARENT: &str = r#"
for turn in 1 2 3; do (sh -c 'exit 0' &); done
(sh -c 'sleep 0.3; echo orphan >> orphans' &)
until [ -s orphans ]; do sleep 0.1; done
sleep 0.5
zombies=$(cat /proc/[0-9]*/stat 2>/dev/null | grep -c "^[0-9]* (.*) Z $PPID ")
echo "start $$ $PPID $zombies" >> story
trap 'exit 9' TERM
while :; do sleep 0.1; done
"#;

/// In a namespace of processes of its own, where the system lets us have one: root may, others in a namespace of users.
async fn as_first(command: Command) -> Option<Command> {
    const AS_ROOT: &[&str] = &["--pid", "--fork", "--mount-proc", "--kill-child"];
    const AS_OTHER: &[&str] = &["--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let mut wrap = None;
    for way in [AS_ROOT, AS_OTHER] {
        let tried = Command::new("unshare").args(way).arg("true").status().await;
        if wrap.is_none() && tried.is_ok_and(|status| status.success()) {
            wrap = Some(way);
        }
    }
    let inner = command.as_std();
    let mut outer = Command::new("unshare");
    outer.args(wrap?).arg(inner.get_program()).args(inner.get_args()).kill_on_drop(true);
    outer.current_dir(inner.get_current_dir().expect("a folder"));
    Some(outer)
}

/// The only child of a process.
fn child_of(id: u32) -> Pid {
    let text = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("its children");
    Pid::from_raw(text.trim().parse().expect("one child")).expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_orphans() {
    let house = House::start().await;
    let mut program = house.program(&[], PARENT);
    let told = program.tells("start", 1).await;
    assert_eq!((told.client_id.as_str(), told.files.as_str()), (program.id().to_string().as_str(), "0"), "orphans that nobody waits for");
    assert_eq!(program.terminate().await.code(), Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_as_the_first_process() {
    let house = House::start().await;
    let Some(command) = as_first(house.exec(&[], &["sh", "-c", PARENT])).await else {
        println!("no namespace of processes is allowed here: that it waits for orphans is shown without one");
        return;
    };
    let mut program = Program::start(command, house.daemon.site.folder());
    let told = program.tells("start", 1).await;
    assert_eq!((told.client_id.as_str(), told.files.as_str()), ("1", "0"), "its parent is process 1, and no zombie is left");
    let first = child_of(program.id());
    // Nothing but a handler makes these reach a first process.
    kill_process(first, Signal::TERM).expect("it is sent");
    let ended = tokio::time::timeout(Duration::from_secs(30), program.child.wait()).await.expect("it ends").expect("its state");
    assert_eq!(ended.code(), Some(9), "{}", program.said());
}

/// What a script started before it became `exec` is that script's: it is neither ended nor waited for.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_is_left_alone() {
    let house = House::start().await;
    let inner = house.exec(&["--settle", "1s", "--grace", "1s"], &["sh", "-c", SERVICE]);
    let mut command = Command::new("sh");
    let script = r#"sleep 300 & echo "start $! - -" >> beside; exec "$@""#;
    command.args(["-c", script, "sh"]).arg(inner.as_std().get_program()).args(inner.as_std().get_args());
    command.current_dir(house.daemon.site.folder()).kill_on_drop(true);
    let program = Program::start(command, house.daemon.site.folder());
    program.tells("start", 1).await;
    let beside = program.text("beside").split(' ').nth(1).expect("an id").to_owned();
    house.rotate().await;
    program.tells("start", 2).await;
    house.old_key_dies(|| program.told("start").len() == 2).await;
    assert!(lives(&beside));
}
