//! `goLive` as it is read, and the lists of the five providers: what makes them pass, and what makes them fail.

use std::collections::BTreeSet;

use rstest::rstest;

use super::*;
use crate::domain::credential::Credential;
use crate::domain::environment::{BaseUrl, Evidence, EvidenceKind, Proof, Says, pure_evidence};
use crate::domain::ids::{InstallationId, OperationId, VersionId};
use crate::domain::launch::{Check, CredentialFacts, Facts, ItemState, Judge, Judged, Launch, SignOff, report};
use crate::domain::ledger::{Ledger, Origin, VersionFacts};
use crate::domain::material::{Material, Secret};

const ITEM: &str = "id: form, title: A form, source: a page, confidence: documented";

#[rstest]
#[case(&format!("[{{{ITEM}, confirm: person}}]"), &[])]
#[case("[]", &[])]
#[case(&format!("[{{{ITEM}, about: Of paper., check: base-url}}]"), &[])]
#[case("[{}]", &["7:12 bad-item", "7:12 missing-field", "7:12 missing-field", "7:12 missing-field", "7:12 missing-field"])]
#[case(&format!("[{{{ITEM}}}]"), &["7:12 bad-item"])]
#[case(&format!("[{{{ITEM}, confirm: person, check: audit}}]"), &["7:12 bad-item"])]
#[case(&format!("[{{{ITEM}, check: everything}}]"), &["7:85 bad-value"])]
#[case(&format!("[{{{ITEM}, confirm: daemon}}]"), &["7:87 bad-value"])]
#[case(&format!("[{{{ITEM}, confirm: }}]"), &["7:78 missing-value"])]
#[case(&format!("[{{{ITEM}, confirm: person, why: not}}]"), &["7:95 unknown-field"])]
#[case(&format!("[{{{ITEM}, confirm: person}}, {{{ITEM}, check: audit}}]"), &["7:101 duplicate-item"])]
#[case("[{id: Form, title: \"\", source: \"a\\tb\", confidence: sure, confirm: person}]", &["7:17 bad-name", "7:30 bad-text", "7:42 bad-text", "7:62 bad-value"])]
#[case("yes", &["7:11 bad-type"])]
fn a_list_is_read(#[case] list: &str, #[case] expected: &[&str]) {
    let spec = "spec:\n  title: Z\n  lifecycle: manual\n";
    let text = format!("{}{spec}  goLive: {list}\n", head("Provider", "z"));
    let text = text + "  environments: {sandbox: {base: \"https://z.example\"}}\n  fields: {s: {class: secret}}\n";
    assert_eq!(problems_of(&text), expected);
}

#[test]
fn a_list_is_bounded() {
    let list = |count: usize| {
        let items: Vec<String> = (0..count).map(|n| ITEM.replace("form", &format!("form-{n}")) + ", confirm: person").collect();
        let list: String = items.iter().map(|item| format!("    - {{{item}}}\n")).collect();
        let rest = "  environments: {sandbox: {base: \"https://z.example\"}}\n  fields: {s: {class: secret}}\n";
        head("Provider", "z") + "spec:\n  title: Z\n  lifecycle: manual\n" + rest + "  goLive:\n" + &list
    };
    assert_eq!(problems_of(&list(64)), Vec::<String>::new());
    assert_eq!(problems_of(&list(65)), ["10:5 too-many-items"]);
}

/// Values of the right shape, made here: some characters of no meaning after each prefix that is known.
fn made(provider: &str, environment: Environment) -> Vec<(&'static str, String)> {
    let chance =
        |seed: usize| -> String { (0..24).map(|n| char::from(b"abcdefghijklmnopqrstuvwxyz012345"[(seed * 7 + n * n * 5) % 32])).collect() };
    let mode = if environment == Environment::Production { "live" } else { "test" };
    let seed = if environment == Environment::Production { 3 } else { 4 };
    match provider {
        "dinie" => vec![
            ("client_id", format!("dinie_ci_{mode}_{}", chance(seed))),
            ("client_secret", format!("dinie_cs_live_{}", chance(seed + 1))),
        ],
        "tap" => vec![("secret_key", format!("sk_{mode}_{}", chance(seed))), ("public_key", format!("pk_{mode}_{}", chance(seed + 1)))],
        "fincode" => vec![("token", chance(seed))],
        _ => vec![("client_token", chance(seed)), ("public_key", chance(seed + 1)), ("secret_key", chance(seed + 2))],
    }
}

fn documents(provider: &str, policy: &str, endpoints: &str) -> Policies {
    let variables = if provider == "fincode" { ", variables: {tenant: acme}" } else { "" };
    let accepts = if provider == "dinie" || provider == "tap" { "" } else { ", acceptUndetermined: compared with the dashboard" };
    let text = [
        head("RotationPolicy", "quarter") + &format!("spec: {{{policy}}}\n"),
        head("Credential", "live")
            + &format!("spec: {{provider: {provider}, environment: production, rotation: quarter, twin: test{variables}{accepts}}}\n"),
        head("Credential", "test") + &format!("spec: {{provider: {provider}, environment: sandbox, rotation: quarter{variables}}}\n"),
        head("Credential", "hook") + "spec: {provider: webhook-secret, environment: production, rotation: quarter}\n",
        head("Application", "app")
            + &format!(
                "spec: {{environment: production, credentials: [live, hook], identity: {{unix: {{uid: 1}}}}, endpoints: {{{endpoints}}}}}\n"
            ),
    ];
    parse(&[source("t.yaml", &text.join("---\n"))], now()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A ledger with these values as its current version, judged as they would be without a probe.
fn ledger(policies: &Policies, credential: &Credential, values: &[(&str, String)], generation: u64) -> Ledger {
    let provider = policies.provider_of(credential).unwrap();
    let material: Material = values.iter().map(|(field, value)| (field.parse().unwrap(), Secret::from(value.clone()))).collect();
    let base = BaseUrl { url: "https://any.example".to_owned(), overridden: false };
    let operation = OperationId::new(InstallationId(uuid::Uuid::from_u128(7)), &credential.name, generation, 1);
    let facts = VersionFacts {
        operation,
        generation,
        origin: Origin::Submitted,
        key_id: None,
        issued_at: now(),
        expires_at: None,
        fingerprints: Vec::new(),
        proof: Some(Proof::weigh(pure_evidence(provider, credential, &material, &base, &[]))),
        copy_of: None,
        doomed: false,
        ended: None,
    };
    let current: VersionId = operation.version(generation);
    Ledger { generation, current: Some(current.clone()), versions: [(current, Box::new(facts))].into(), ..Ledger::default() }
}

fn facts(policies: &Policies, provider: &str) -> Facts {
    let of = |name: &str, generation: u64| {
        let credential = policies.credentials[&name.parse::<Name>().unwrap()].clone();
        let values =
            if name == "hook" { vec![("signing_secret", "whsec_made".to_owned())] } else { made(provider, credential.environment) };
        let mut kept = ledger(policies, &credential, &values, generation);
        if name == "hook" {
            let made_here = Evidence::new(EvidenceKind::Fingerprint, Says::For, "we made it for this credential");
            let facts = kept.versions.values_mut().next().unwrap();
            facts.proof = Some(Proof::weigh(vec![made_here]));
        }
        let twin = credential.twin.clone().map(|twin| {
            let sandbox = &policies.credentials[&twin];
            (twin.clone(), Arc::new(ledger(policies, sandbox, &made(provider, Environment::Sandbox), 2)))
        });
        let described = policies.provider_of(&credential).unwrap().clone();
        // Where its address isn't published, the owner names it.
        let url = if provider == "tensfer" { "https://api.owner.example.com" } else { "https://api.provider.example.com/v1" };
        CredentialFacts {
            fields: Some(values.iter().map(|(field, _)| field.parse().unwrap()).collect::<BTreeSet<_>>()),
            base_url: BaseUrl { url: url.to_owned(), overridden: provider == "tensfer" },
            sandbox_url: Some("https://sandbox.provider.example.com/v1".to_owned()),
            ledger: Arc::new(kept),
            twin,
            staged: true,
            policy: policies.rotation_of(&credential).unwrap().clone(),
            provider: described,
            credential,
        }
    };
    let application = policies.applications[&"app".parse::<Name>().unwrap()].clone();
    Facts { application, credentials: vec![of("live", 1), of("hook", 1)], audited: true }
}

fn digest(text: &str) -> String {
    text.to_owned()
}

/// All that a person can sign, signed.
fn signed(facts: &Facts) -> Launch {
    let by = |judged: &Judged| SignOff { by: "Ana Souza".parse().unwrap(), reason: None, at: now(), digest: judged.digest.clone() };
    let open = report(facts, &Launch::default(), digest).items;
    let open = open.iter().filter(|judged| judged.state == ItemState::NeedsPerson);
    Launch { sign_offs: open.map(|judged| (judged.id.clone(), by(judged))).collect(), ..Launch::default() }
}

const ENDPOINTS: &str = "callback: \"https://payments.example.com/done\", webhook: \"https://payments.example.com/hook\"";

/// Items of the list, persons' among them, and what of it fails with keys of the sandbox.
#[rstest]
#[case("dinie", 18, 11)]
#[case("tap", 7, 4)]
#[case("okra", 13, 7)]
#[case("tensfer", 10, 5)]
#[case("fincode", 19, 11)]
fn the_five_pass_and_fail(#[case] provider: &str, #[case] items: usize, #[case] of_persons: usize) {
    let policies = documents(provider, "maxAge: 90d", ENDPOINTS);
    let described = &policies.providers[&provider.parse::<Name>().unwrap()].go_live;
    assert_eq!(described.len(), items);
    assert_eq!(described.iter().filter(|item| item.judge == Judge::Person).count(), of_persons);
    let whole = facts(&policies, provider);
    let open = report(&whole, &Launch::default(), digest);
    let failed: Vec<&Judged> = open.items.iter().filter(|judged| judged.state == ItemState::Failed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(!open.is_ready(), "a person has to confirm {of_persons}");
    let launch = signed(&whole);
    assert!(launch.sign_offs.len() >= of_persons);
    assert!(report(&whole, &launch, digest).is_ready());

    // One sign-off taken back.
    let mut fewer = launch.clone();
    fewer.sign_offs.pop_first();
    assert!(!report(&whole, &fewer, digest).is_ready());
    fails(&whole, &launch, Check::SecretsManaged, |facts| facts.credentials[0].ledger = Arc::new(Ledger::default()));
    fails(&whole, &launch, Check::CredentialProved, |facts| facts.credentials[0].fields = Some(BTreeSet::new()));
    fails(&whole, &launch, Check::Audit, |facts| facts.audited = false);
    let old = documents(provider, "maxAge: 91d", ENDPOINTS);
    fails(&whole, &launch, Check::RotationAge, |facts| facts.credentials[0].policy = old.rotations.values().next().unwrap().clone());
    let asks = |check: Check| described.iter().any(|item| item.judge == Judge::Daemon(check));
    if asks(Check::RotationRehearsed) {
        fails(&whole, &launch, Check::RotationRehearsed, |facts| facts.credentials[0].twin.as_mut().unwrap().1 = Arc::default());
    }
    if asks(Check::Rollout) {
        fails(&whole, &launch, Check::Rollout, |facts| facts.credentials[0].staged = false);
    }
    let local = documents(provider, "maxAge: 90d", &ENDPOINTS.replace("payments.example.com", "payments.local"));
    let about = if asks(Check::WebhookUrl) { Check::WebhookUrl } else { Check::Endpoints };
    fails(&whole, &launch, about, |facts| facts.application = local.applications.values().next().unwrap().clone());
    // A pattern tells the keys of the sandbox; where nothing is published, only a person can.
    let sandbox = ledger(&policies, &whole.credentials[0].credential, &made(provider, Environment::Sandbox), 1);
    if ["dinie", "tap"].contains(&provider) {
        fails(&whole, &launch, Check::ProductionKeys, |facts| facts.credentials[0].ledger = Arc::new(sandbox.clone()));
    }
}

/// After this edit, the check fails and the list isn't passed, whatever was signed before.
fn fails(whole: &Facts, launch: &Launch, check: Check, edit: impl Fn(&mut Facts)) {
    let mut facts = whole.clone();
    edit(&mut facts);
    let report = report(&facts, launch, digest);
    assert!(!report.is_ready(), "{}", check.as_str());
    let judged = report.items.iter().find(|judged| judged.item.judge == Judge::Daemon(check) && judged.state == ItemState::Failed);
    let judged = judged.unwrap_or_else(|| panic!("{} doesn't fail: {report:#?}", check.as_str()));
    assert!(!judged.evidence.is_empty());
    for (_, value) in ["dinie", "tap"].iter().flat_map(|name| made(name, Environment::Sandbox)) {
        assert!(!format!("{report:?}").contains(&value), "nothing of a value");
    }
}
