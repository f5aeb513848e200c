//! A terminal to run commands on, and what a person sees on it: a small part of a VT100, enough for what is drawn in place.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::process::Command;

const LIMIT: Duration = Duration::from_secs(90);

/// What a command wrote on its terminal.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) code: Option<i32>,
    /// As it was written.
    pub(crate) text: String,
    pub(crate) screen: Screen,
}

/// Runs a command with its two outputs on a terminal of this size.
pub(crate) async fn on_a_terminal(mut command: Command, lines: u16, columns: u16) -> Shown {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("it opens");
    let slave: OwnedFd = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("its other end");
    tcsetwinsize(slave.as_fd(), Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).expect("it has a size");
    let other = slave.try_clone().expect("a second handle");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::from(slave)).stderr(Stdio::from(other)).spawn().expect("it starts");
    // Its handles keep the terminal open.
    drop(command);
    let reading = tokio::task::spawn_blocking(move || {
        let (mut master, mut bytes, mut chunk) = (File::from(master), Vec::new(), [0; 4096]);
        // The last one who closes it makes the next read fail.
        while let Ok(length @ 1..) = master.read(&mut chunk) {
            bytes.extend_from_slice(&chunk[..length]);
        }
        bytes
    });
    let status = tokio::time::timeout(LIMIT, child.wait()).await.expect("it ends").expect("its state is known");
    let text = String::from_utf8(reading.await.expect("it was read")).expect("it is text");
    let mut screen = Screen::new(usize::from(lines), usize::from(columns));
    screen.write(&text);
    Shown { code: status.code(), text, screen }
}

/// Wraps, scrolls, and moves its cursor as terminals do.
#[derive(Debug)]
pub(crate) struct Screen {
    height: usize,
    width: usize,
    /// All rows that ever were, those that scrolled away first.
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// What stood on all rows whenever the cursor went up again.
    pub(crate) frames: Vec<Vec<String>>,
}

impl Screen {
    fn new(height: usize, width: usize) -> Screen {
        Screen { height, width, rows: vec![Vec::new()], row: 0, column: 0, frames: Vec::new() }
    }

    /// All rows, without the blank ones.
    pub(crate) fn text(&self) -> Vec<String> {
        let rows = self.rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned());
        rows.filter(|row| !row.is_empty()).collect()
    }

    fn write(&mut self, text: &str) {
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match char {
                '\r' => self.column = 0,
                '\n' => self.line_feed(),
                '\x1b' => {
                    assert_eq!(chars.next(), Some('['), "an escape sequence that isn't known here");
                    let mut number = String::new();
                    let letter = loop {
                        match chars.next().expect("a whole escape sequence") {
                            digit @ ('0'..='9' | ';') => number.push(digit),
                            letter => break letter,
                        }
                    };
                    self.obey(letter, &number);
                }
                char => self.put(char),
            }
        }
    }

    fn obey(&mut self, letter: char, number: &str) {
        match letter {
            'm' => {}
            'A' => {
                self.frames.push(self.text());
                let top = self.rows.len().saturating_sub(self.height);
                self.row = self.row.saturating_sub(number.parse().unwrap_or(1)).max(top);
            }
            'J' => {
                assert!(number.is_empty(), "only what is below");
                self.rows[self.row].truncate(self.column);
                let below = self.row + 1;
                self.rows[below..].iter_mut().for_each(Vec::clear);
            }
            letter => panic!("an escape sequence that isn't known here: {number}{letter}"),
        }
    }

    fn put(&mut self, char: char) {
        if self.column == self.width {
            self.column = 0;
            self.line_feed();
        }
        let row = &mut self.rows[self.row];
        row.resize(row.len().max(self.column + 1), ' ');
        row[self.column] = char;
        self.column += 1;
    }

    fn line_feed(&mut self) {
        self.row += 1;
        if self.row == self.rows.len() {
            self.rows.push(Vec::new());
        }
    }
}

#[test]
fn a_line_that_wraps_or_scrolls_away_is_not_drawn_over() {
    let drawn = |height, width, text: &str| {
        let mut screen = Screen::new(height, width);
        screen.write(text);
        screen.text()
    };
    assert_eq!(drawn(5, 10, "one\r\ntwo\r\n\x1b[2A\x1b[J1\r\n2\r\n"), ["1", "2"]);
    assert_eq!(drawn(5, 4, "three\r\n\x1b[1A\x1b[J3\r\n"), ["thre", "3"]);
    assert_eq!(drawn(2, 10, "one\r\ntwo\r\n\x1b[2A\x1b[J1\r\n2\r\n"), ["one", "1", "2"]);
    assert_eq!(drawn(5, 10, "\x1b[32mgood\x1b[0m"), ["good"]);
}
