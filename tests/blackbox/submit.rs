//! Enrolment: what belongs is taken, what doesn't is refused with a reason, and of the refused nothing is kept.

use serde_json::{Value, json};

use crate::support::canaries::{Canary, SHAPES};
use crate::support::dinie::SECRET_PREFIX;
use crate::support::dinie::truth::Owner;
use crate::world::{PRODUCTION, Plan, SANDBOX, World, fields};

/// Exit 1, the reason on standard error, and neither printed nor kept.
async fn assert_refused(world: &World, credential: &str, submitted: &Value, secrets: &[Canary]) -> String {
    let printed = world.daemon.cli_with(&["submit", credential], submitted.to_string().as_bytes()).await;
    printed.assert_code(1);
    assert!(!printed.err().trim().is_empty(), "a refusal says why");
    let scanner = world.scanner(secrets);
    for (name, bytes) in [("stdout", &printed.stdout), ("stderr", &printed.stderr)] {
        assert!(scanner.scan(name, bytes).is_empty(), "submit's {name} holds what it refused");
    }
    world.assert_silent(secrets);
    let row = world.daemon.status(credential).await;
    assert_eq!(row["phase"], "missing", "{row}");
    printed.err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_production_key_is_refused_for_the_sandbox_credential_and_not_kept() {
    let world = World::unsubmitted(Plan::still()).await;
    let secret = Canary::after("production secret", SECRET_PREFIX, &world.enrolled_production.secret);
    let reason = assert_refused(&world, SANDBOX, &fields(&world.enrolled_production), &[secret]).await;
    let reason = reason.to_lowercase();
    assert!(reason.contains("environment") || reason.contains("production"), "{reason}");
    // Refused by its pattern: it was never sent to the other environment's host.
    assert_eq!(world.sandbox.calls(crate::support::dinie::faults::Call::Token), 0);
    // Not even a fingerprint is kept: where it belongs it is taken.
    world.daemon.submit(PRODUCTION, &fields(&world.enrolled_production)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_refused_by_the_probe() {
    let world = World::unsubmitted(Plan::still()).await;
    let wrong = format!("{SECRET_PREFIX}Zx81QpL0sRt5Vw92Yb3NcMd47Kf6HgJ1");
    let canary = Canary::after("wrong secret", SECRET_PREFIX, &wrong);
    let submitted = json!({"client_id": world.enrolled_sandbox.client_id, "client_secret": wrong});
    assert_refused(&world, SANDBOX, &submitted, &[canary]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_credentials_fields_is_refused() {
    let world = World::unsubmitted(Plan::still()).await;
    let id = &world.enrolled_sandbox.client_id;
    let secret = &world.enrolled_sandbox.secret;
    for (submitted, word) in [
        (json!({"client_id": id}), "client_secret"),
        (json!({"client_id": id, "client_secret": ""}), "client_secret"),
        (json!({"client_id": id, "client_secret": "********"}), "client_secret"),
        (json!({"client_id": id, "client_secret": "changeme"}), "client_secret"),
        (json!({"client_id": id, "client_secret": secret, "colour": "blue"}), "colour"),
        (json!({"client_id": id, "client_secret": [secret]}), "client_secret"),
    ] {
        let reason = assert_refused(&world, SANDBOX, &submitted, &[]).await;
        assert!(reason.contains(word), "`{word}` is not named in: {reason}");
    }
    let printed = world.daemon.cli_with(&["submit", SANDBOX], b"client_secret=x").await;
    assert!(matches!(printed.code(), Some(1 | 2)), "{}", printed.err());
    assert_eq!(world.daemon.status(SANDBOX).await["phase"], "missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_credential_is_refused() {
    let world = World::unsubmitted(Plan::still()).await;
    let submitted = fields(&world.enrolled_sandbox).to_string();
    world.daemon.cli_with(&["submit", "nobody"], submitted.as_bytes()).await.assert_code(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_submitted_twice_is_one_version() {
    let world = World::start(Plan::still()).await;
    let before = world.daemon.status(SANDBOX).await;
    let submitted = fields(&world.enrolled_sandbox).to_string();
    let printed = world.daemon.cli_with(&["submit", SANDBOX], submitted.as_bytes()).await;
    assert!(matches!(printed.code(), Some(0 | 1)), "{}", printed.err());
    let after = world.daemon.status(SANDBOX).await;
    assert_eq!(before["version"], after["version"], "the same value is the same version");
    assert_eq!(before["issued_at"], after["issued_at"]);
    assert_eq!(after["phase"], "steady", "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_value_is_never_taken_for_two_credentials() {
    // Here a second sandbox credential: the environment alone would not tell them apart.
    let mut world = World::start(Plan::still()).await;
    world.daemon.site.credential("dinie-second", "dinie", "sandbox", "quick");
    world.daemon.reload();
    let submitted = fields(&world.enrolled_sandbox).to_string();
    let mut code = None;
    for _ in 0..20 {
        let row = world.daemon.cli(&["status", "dinie-second", "--json"]).await;
        if row.code() == Some(0) {
            code = world.daemon.cli_with(&["submit", "dinie-second"], submitted.as_bytes()).await.code();
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    assert_eq!(code, Some(1), "one value under two credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_mostly_fails_makes_nothing_leak() {
    let world = World::unsubmitted(Plan::still()).await;
    let faults = [crate::support::dinie::faults::Fault::EchoError];
    world.production.lock().faults.at_random(100, &faults);
    let key = world.production.seed_key("second by hand", Owner::Enrolled);
    let printed = world.daemon.cli_with(&["submit", PRODUCTION], fields(&key).to_string().as_bytes()).await;
    // The fake lets every third call through, so a patient daemon may take it; what it may not do is leak.
    assert!(matches!(printed.code(), Some(0 | 1)), "{}", printed.err());
    world.assert_silent(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_secrets_of_every_shape_leave_no_trace() {
    let world = World::unsubmitted(Plan { environment: &[("RUST_LOG", "trace")], ..Plan::still() }).await;
    for shape in SHAPES {
        let canary = Canary::shaped(shape, 0x5e_ed);
        let submitted = json!({"client_id": world.enrolled_sandbox.client_id, "client_secret": canary.value});
        assert_refused(&world, SANDBOX, &submitted, &[canary]).await;
    }
}
