//! The board of a rotation that somebody watches: drawn in place on a terminal however small, and nowhere else.

use std::time::Duration;

use crate::support::app::Mode;
use crate::support::daemon::{command, printed};
use crate::support::eventually;
use crate::support::tty::{Shown, on_a_terminal};
use crate::world::{PRODUCTION, Plan, SANDBOX, World};

const REPLACE: [&str; 5] = ["rotate", "--provider", "dinie", "--compromised", "--within"];

fn replacing(world: &World, within: &str, more: &[&str], environment: &[(&str, &str)]) -> tokio::process::Command {
    let mut command = command(environment);
    command.current_dir(world.daemon.site.folder()).arg("--config").arg(world.daemon.site.config());
    command.args(REPLACE).arg(within).args(more);
    command
}

/// Each time that it was drawn, and what is left of it at the end: so many lines above the report.
fn boards(shown: &Shown, lines: usize) -> Vec<Vec<String>> {
    let mut boards = shown.screen.frames.clone();
    boards.push(shown.screen.text().into_iter().take(lines).collect());
    boards
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_is_drawn_in_place_and_says_who_is_left() {
    let mut world = World::start(Plan { lease: "60s", ..Plan::still() }).await;
    world.production_app("pod-stuck", Mode::NeverConfirms);
    assert!(eventually(Duration::from_secs(20), || world.apps.iter().all(|app| app.versions() == 1)).await);
    // Who wants no colours wants no other screen.
    let shown = on_a_terminal(replacing(&world, "4s", &[], &[("TERM", "xterm"), ("NO_COLOR", "1")]), 24, 100).await;
    assert_eq!(shown.code, Some(0), "{}", shown.text);
    let boards = boards(&shown, 2);
    assert!(boards.len() > 5, "it was drawn again and again: {boards:#?}");
    for board in &boards {
        assert_eq!(board.len(), 2, "{board:#?}");
        assert!(board[0].starts_with(PRODUCTION) && board[1].starts_with(SANDBOX), "{board:#?}");
    }
    let waits = |line: &String| line.contains("s left") && line.contains("still hold the old key: payments-api/pod-stuck");
    assert!(boards.iter().any(|board| waits(&board[0])), "{boards:#?}");
    assert!(boards.last().is_some_and(|board| board.iter().all(|line| line.ends_with("done"))), "{boards:#?}");
    assert!(shown.screen.text().iter().any(|line| line.starts_with("stragglers dinie-production: payments-api/pod-stuck")), "{shown:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_small_terminal_it_is_cut_and_drawn_in_place_all_the_same() {
    let world = World::start(Plan::still()).await;
    // Narrower than a name, and no higher than one line and the cursor.
    for (lines, columns) in [(24, 12), (3, 30), (2, 40)] {
        let shown = on_a_terminal(replacing(&world, "1s", &[], &[("TERM", "xterm")]), lines, columns).await;
        assert_eq!(shown.code, Some(0), "{}", shown.text);
        let expected = if lines == 2 { 1 } else { 2 };
        let boards = boards(&shown, expected);
        assert!(!shown.screen.frames.is_empty(), "it was never drawn again: {}", shown.text);
        for board in &boards {
            assert_eq!(board.len(), expected, "{lines} by {columns}: {board:#?}");
            assert!(board.iter().all(|line| line.chars().count() < usize::from(columns)), "{board:#?}");
            assert_eq!(board[0].starts_with("and 2 more; "), lines == 2, "{board:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_that_can_move_nothing_is_drawn_again() {
    let world = World::start(Plan::still()).await;
    let told = |text: &str, name: &str| {
        // The report comes after it, where both outputs are one.
        let board = text.split_once(" CREDENTIAL ").map_or(text, |(board, _)| board);
        let lines: Vec<&str> = board.lines().filter(|line| line.starts_with(&format!("{name}: "))).collect();
        assert!(lines.len() >= 2 && lines.last().is_some_and(|line| line.trim_end().ends_with("done")), "{text}");
        assert!(lines.windows(2).all(|two| two[0] != two[1]), "a line for each change: {text}");
    };
    let piped = printed(&mut replacing(&world, "1s", &[], &[("TERM", "xterm")]), b"").await;
    piped.assert_code(0);
    assert!(!(piped.out() + &piped.err()).contains('\x1b'), "{}", piped.err());
    told(&piped.err(), PRODUCTION);
    let coloured = printed(&mut replacing(&world, "1s", &["--color", "always"], &[("TERM", "xterm")]), b"").await;
    coloured.assert_code(0);
    assert!(!coloured.err().contains("\x1b[J"), "{}", coloured.err());
    told(&coloured.err(), SANDBOX);
    let dumb = on_a_terminal(replacing(&world, "1s", &[], &[("TERM", "dumb")]), 24, 100).await;
    assert_eq!((dumb.code, dumb.screen.frames.len()), (Some(0), 0), "{}", dumb.text);
    told(&dumb.text.replace('\r', ""), SANDBOX);
    let json = on_a_terminal(replacing(&world, "1s", &["--json"], &[("TERM", "xterm")]), 24, 100).await;
    assert_eq!((json.code, json.text.lines().count()), (Some(0), 1), "{}", json.text);
    assert!(serde_json::from_str::<serde_json::Value>(&json.text).is_ok_and(|report| report["done"] == true), "{}", json.text);
}
