//! Confirmations: proved by the value itself, repeatable, bound to one instance.

use serde_json::json;

use crate::support::app::Mode;
use crate::support::confirmation_proof;
use crate::support::wire::{Answer, Ask};
use crate::world::{PRODUCTION, Plan, World};

struct Confirmation<'a> {
    version: &'a str,
    instance: &'a str,
    header: &'a str,
    proof: String,
}

async fn confirm(world: &World, confirmation: Confirmation<'_>) -> Answer {
    let body = json!({
        "credential": PRODUCTION,
        "version": confirmation.version,
        "instance": confirmation.instance,
        "field": "client_secret",
        "proof": confirmation.proof,
    })
    .to_string();
    let token = format!("Bearer {}", world.production_token);
    let headers = [("authorization", token.as_str()), ("keywright-instance", confirmation.header)];
    let ask = Ask { method: "POST", path: "/v1/confirmations", headers: &headers, body: Some(body.as_bytes()) };
    world.daemon.site.tcp().ask(ask).await
}

#[tokio::test(flavor = "multi_thread")]
async fn confirmations_are_proved() {
    let world = World::start(Plan::still()).await;
    let token = format!("Bearer {}", world.production_token);
    let headers = [("authorization", token.as_str()), ("keywright-instance", "pod-1")];
    let document = world.daemon.site.tcp().get(&format!("/v1/credentials/{PRODUCTION}"), &headers).await.json();
    let version = document["version"].as_str().expect("a version");
    let secret = &world.enrolled_production.secret;
    let proof = confirmation_proof(secret, PRODUCTION, version, "pod-1");
    let good = || Confirmation { version, instance: "pod-1", header: "pod-1", proof: proof.clone() };
    for _ in 0..2 {
        let answer = confirm(&world, good()).await;
        assert_eq!(answer.status, 204);
        answer.assert_common();
    }
    let wrong = Confirmation { proof: confirmation_proof("not-it", PRODUCTION, version, "pod-1"), ..good() };
    confirm(&world, wrong).await.assert_problem(403, "wrong-proof");
    let upper = Confirmation { proof: proof.to_uppercase(), ..good() };
    let answer = confirm(&world, upper).await;
    assert!([400, 403].contains(&answer.status), "a proof is lower-case hex");
    let other = Confirmation { header: "pod-2", ..good() };
    confirm(&world, other).await.assert_problem(400, "bad-request");
    let version = "never-was";
    let proof = confirmation_proof(secret, PRODUCTION, version, "pod-1");
    confirm(&world, Confirmation { version, proof, ..good() }).await.assert_problem(409, "version-conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_living_instances_without_a_name_must_name_themselves() {
    let mut world = World::start(Plan::still()).await;
    world.production_app("default", Mode::NeverConfirms);
    world.production_app("default", Mode::NeverConfirms);
    let both = || world.apps.iter().all(|app| app.versions() == 1);
    assert!(crate::support::eventually(std::time::Duration::from_secs(10), both).await);
    let version = world.apps[0].seen().handed[0].version.clone();
    let proof = confirmation_proof(&world.enrolled_production.secret, PRODUCTION, &version, "default");
    let answer = confirm(&world, Confirmation { version: &version, instance: "default", header: "default", proof });
    answer.await.assert_problem(409, "ambiguous-instance");
}
