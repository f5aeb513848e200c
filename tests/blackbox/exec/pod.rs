//! `exec` as the entrypoint of a pod, with the options that the README shows: TLS, the pod's own token, and a file that the kubelet
//! renews.

use std::time::Duration;

use serde_json::json;

use super::{APPLICATION, House};
use crate::support::canaries::Canary;
use crate::support::kube::{API_AUDIENCE, ApiServer};
use crate::support::tls::Authority;
use crate::world::SANDBOX;

const AUDIENCE: &str = "keywright.test";
const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_program_is_its_pod_and_goes_on_when_its_token_is_renewed() {
    let api = ApiServer::start().await;
    api.namespace("payments");
    let own = api.token("keywright", "keywright", Some("keywright-0"), &[API_AUDIENCE], HOUR);
    let reviews = json!([{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}]);
    api.grant(("keywright", "keywright"), None, reviews);
    let lists = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]);
    api.grant(("keywright", "keywright"), Some("payments"), lists);
    let house = House::with(|site| {
        let kubeconfig = api.kubeconfig(site.folder(), "keywright", &own);
        let cluster = format!("cluster: {{kubeconfig: {}}}\n", kubeconfig.display());
        site.extra_config = format!("{cluster}identities: {{kubernetes: {{audience: {AUDIENCE}}}}}\n");
        let identity = "identity: {kubernetes: {namespace: payments, serviceAccount: api}}, lease: 60s";
        site.document("Application", APPLICATION, &format!("environment: sandbox, credentials: [{SANDBOX}], {identity}"));
        site.authority = Some(Authority::new());
        site.renew_certificate();
    })
    .await;
    house.submit().await;
    let token = |life| api.token("payments", "api", Some("api-0"), &[AUDIENCE], life);
    let (short, long) = (token(Duration::from_secs(10)), token(HOUR));
    let (ca, token_file) = (house.daemon.site.path("ca.crt"), house.daemon.site.path("token"));
    std::fs::write(&ca, house.daemon.site.authority.as_ref().unwrap().root()).unwrap();
    std::fs::write(&token_file, &short).unwrap();
    let server = format!("https://localhost:{}", house.daemon.site.address.port());
    let options = ["--server", &server, "--ca", ca.to_str().unwrap(), "--token-file", token_file.to_str().unwrap(), "--settle", "1s"];
    let mut program = house.service(&options);
    assert_eq!(program.tells("start", 1).await.client_id, house.first.client_id);
    program.says("confirmed").await;
    let row = house.daemon.status(SANDBOX).await;
    assert_eq!(row["applications"][0]["instance"], "api-0", "the pod is the instance: {row}");

    // As the kubelet does, in time; then the old one ends, and its stream with it.
    std::fs::write(&token_file, &long).unwrap();
    tokio::time::sleep(Duration::from_secs(12)).await;
    let new = house.rotate().await;
    assert_eq!(program.tells("start", 2).await.client_id, new.client_id);
    house.old_key_dies(|| program.told("start").len() == 2).await;
    let row = house.daemon.status(SANDBOX).await;
    assert_eq!(row["applications"].as_array().map(Vec::len), Some(1), "it is the same instance: {row}");
    let tokens = [&own, &short, &long].map(|token| Canary::whole("token of a pod", token));
    house.assert_silent(&program, &tokens);

    // Its pod goes with its program: what it held holds nothing up.
    assert_eq!(program.terminate().await.code(), Some(5));
    assert!(api.delete("pods", "payments", "api-0"));
    let newest = house.rotate().await;
    let died = crate::support::eventually(super::LIMIT, || !house.sandbox.alive(&new.secret)).await;
    assert!(died && house.sandbox.alive(&newest.secret), "{}", house.daemon.log_tail());
}
