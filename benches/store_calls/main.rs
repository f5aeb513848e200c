//! What stores elsewhere are asked in an hour in which nothing rotates, and how long a change there takes to be known. Prints each
//! figure beside its aim, also where it misses it.
//!
//! `KEYWRIGHT_BENCH_CREDENTIALS` asks for another number of credentials; calls are scaled to 10,000 of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement of nothing is no measurement"
)]
#![allow(missing_debug_implementations, reason = "nobody prints a fake")]

mod aws;
mod engine;
#[allow(dead_code, reason = "shared with tests/aws, which does things to calls")]
#[path = "../../tests/aws/proxy.rs"]
mod proxy;
#[allow(dead_code, reason = "shared with tests/aws, which takes servers away")]
#[path = "../../tests/support/aws.rs"]
mod servers;
mod vault;
#[allow(dead_code, reason = "shared with tests/vault, which makes it fail")]
#[path = "../../tests/support/vault/mod.rs"]
mod vault_server;
#[allow(dead_code, unreachable_pub, reason = "shared with the crash matrix")]
#[path = "../../tests/crash_matrix/world.rs"]
mod world;

use std::time::Duration;

use keywright::domain::credential::Environment;
use keywright::domain::ids::{Name, VersionId};
use keywright::domain::material::{Material, Secret};
use keywright::stores::{Mark, SecretStore, Slot, VersionBytes};

/// As the binary has it: wiping what is freed costs time.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<mimalloc::MiMalloc> = zeroizing_alloc::ZeroAlloc(mimalloc::MiMalloc);

/// More than ten pages of AWS's lists.
const CREDENTIALS: usize = 1_200;
const SCALE: usize = 10_000;
/// The engine asks for marks so often.
const PASSES_PER_HOUR: usize = 60;
const HOURS_PER_DAY: usize = 24;
/// Of all calls together, per 10,000 credentials and hour.
const CALLS_AIM: &str = "6000 at most";
const KNOWN_AIM: &str = "60 s at most";

/// One line: what, how much, and what it should be.
fn print(what: &str, figure: &str, aim: &str) {
    let aim = if aim.is_empty() { String::new() } else { format!("(aim: {aim})") };
    println!("{what:<72} {figure:>12}  {aim}");
}

/// As many as 10,000 credentials would cost, rounded up.
fn scaled(calls: usize, credentials: usize) -> usize {
    (calls * SCALE).div_ceil(credentials)
}

fn slots(credentials: usize) -> Vec<Slot> {
    let name = |number: usize| -> Name { format!("credential-{number:06}").parse().unwrap() };
    let environment = |number: usize| if number.is_multiple_of(2) { Environment::Sandbox } else { Environment::Production };
    let slot = |number: usize| Slot { credential: name(number), environment: environment(number), path: format!("team/{number}") };
    (0..credentials).map(slot).collect()
}

fn version() -> VersionId {
    "v1".parse().unwrap()
}

/// Gives each slot a current version.
async fn fill(store: &impl SecretStore, slots: &[Slot]) {
    for some in slots.chunks(8) {
        let promoted = some.iter().map(async |slot| {
            let value = Secret::from(format!("made-for-a-measurement-{}", slot.credential));
            let served: Material = [("client_secret".parse().unwrap(), value)].into_iter().collect();
            store.put_pending(slot, &version(), &VersionBytes { served, management: Material::default() }).await.unwrap();
            store.promote(slot, &version(), None).await.unwrap();
        });
        futures_util::future::join_all(promoted).await;
    }
}

async fn mark(store: &impl SecretStore, slots: &[Slot], of: &Slot) -> Option<Mark> {
    store.marks(slots).await.unwrap().unwrap().remove(&of.credential)
}

fn seconds(took: Duration) -> String {
    format!("{:.3} s", took.as_secs_f64())
}

fn main() {
    let credentials = std::env::var("KEYWRIGHT_BENCH_CREDENTIALS").map_or(CREDENTIALS, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    print("credentials", &credentials.to_string(), "");
    runtime.block_on(async {
        aws::measure(&slots(credentials)).await;
        vault::measure(&slots(credentials)).await;
    });
}
