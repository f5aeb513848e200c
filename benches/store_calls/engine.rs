//! The engine itself over a day in which nothing rotates: all that it asks of the store, and how long a change there takes to be
//! pushed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keywright::domain::ids::Name;
use keywright::domain::material::Material;
use keywright::domain::rotation::Moment;
use keywright::embedded::Embedded;
use keywright::stores::{Cached, SecretStore};

use super::world::{Backend, World, operator, start_of_time};
use super::{HOURS_PER_DAY, KNOWN_AIM, PASSES_PER_HOUR, print, scaled, seconds};

const DAY: Duration = Duration::from_secs(86_400);

fn documents(credentials: usize) -> String {
    let policy = "
apiVersion: keywright.dev/v1alpha1
kind: RotationPolicy
metadata: {name: quarterly}
spec: {maxAge: 90d}
";
    let credential = |number: usize| {
        format!(
            "---
apiVersion: keywright.dev/v1alpha1
kind: Credential
metadata: {{name: {}}}
spec: {{provider: dinie, environment: production, rotation: quarterly}}
",
            name(number)
        )
    };
    (0..credentials).map(credential).fold(policy.to_owned(), |all, one| all + &one)
}

fn name(number: usize) -> Name {
    format!("credential-{number:06}").parse().unwrap()
}

/// `count` says how many calls the store met since it was last asked; `change` is somebody else, who writes a value in the place of
/// a credential. As many passes over the marks as an hour has are spread over the day, and counted apart.
pub(super) async fn day(
    word: &str,
    aim: &str,
    store: Arc<dyn SecretStore>,
    credentials: usize,
    mut count: impl FnMut() -> usize,
    change: impl AsyncFn(&Name, &Material),
) {
    // As the daemon has it: what was read or written is kept beside the journal.
    let folder = tempfile::tempdir().unwrap();
    let file = Embedded::open(folder.path(), &folder.path().join("keywright.key")).unwrap();
    let now = Moment { wall: start_of_time(), running: Duration::ZERO, trusted: true };
    let cached = Cached::open(store.clone(), Arc::new(file.store()), DAY, Arc::new(move || now)).await.unwrap();
    let world = World::with(Backend::elsewhere(Arc::new(cached), store, Box::new(|_| ())), &documents(credentials));
    let engine = world.start().await.unwrap();
    for number in 0..credentials {
        engine.submit(operator(), &name(number), world.made_by_hand().1).await.unwrap();
    }
    // What a start and the submissions themselves lead to isn't counted.
    engine.look_for_changes().await.expect("others can write there");
    world.live(&engine, Duration::from_secs(60)).await;
    count();
    let (mut marks, mut others) = (0, 0);
    for _ in 0..PASSES_PER_HOUR {
        engine.look_for_changes().await;
        marks += count();
        world.live(&engine, DAY / u32::try_from(PASSES_PER_HOUR).unwrap()).await;
        others += count();
    }
    let others = others.div_ceil(HOURS_PER_DAY);
    print(&format!("{word}: calls in an hour for looks at current keys, per 10,000"), &scaled(others, credentials).to_string(), "");
    print(&format!("{word}: calls in an hour of the engine, all, per 10,000"), &scaled(marks + others, credentials).to_string(), aim);
    world.pushes.taken();
    let start = Instant::now();
    change(&name(1), &world.made_by_hand().1).await;
    while world.pushes.taken().is_empty() {
        engine.look_for_changes().await;
        engine.turn().await;
    }
    let what = format!("{word}: from a change to its push, proof and promotion included, beside that wait");
    print(&what, &seconds(start.elapsed()), KNOWN_AIM);
}
