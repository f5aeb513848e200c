//! An installation of 100,000 credentials on the embedded store: how long it takes to start, to look at all of them, and how much
//! memory it needs. Prints each figure beside its aim, also where it misses it.
//!
//! `KEYWRIGHT_SCALE_CREDENTIALS` asks for another number of them, `KEYWRIGHT_SCALE_FOLDER` keeps the installation for the next run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement of nothing is no measurement"
)]

mod daemon;
mod fleet;
mod parts;
mod provider;

use std::path::PathBuf;
use std::time::Duration;

use fleet::Fleet;

/// As the binary has it: wiping what is freed costs time.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<mimalloc::MiMalloc> = zeroizing_alloc::ZeroAlloc(mimalloc::MiMalloc);

const CREDENTIALS: usize = 100_000;

/// One line: what, how much, and what it should be at most.
fn print(what: &str, figure: &str, aim: &str) {
    let aim = if aim.is_empty() { String::new() } else { format!("(aim: {aim})") };
    println!("{what:<58} {figure:>14}  {aim}");
}

fn seconds(took: Duration) -> String {
    format!("{:.3} s", took.as_secs_f64())
}

fn main() {
    let credentials = std::env::var("KEYWRIGHT_SCALE_CREDENTIALS").map_or(CREDENTIALS, |text| text.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let folder = std::env::var_os("KEYWRIGHT_SCALE_FOLDER").map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let fleet = Fleet { folder, credentials };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        fleet.make().await;
        print("credentials", &credentials.to_string(), "");
        print("store file", &format!("{} MiB", fleet.store_size() >> 20), "");
        parts::measure(&fleet).await;
        daemon::measure(&fleet).await;
    });
}
