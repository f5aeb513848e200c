//! Each check by what leads to each of its answers, and what a sign-off is worth.

use super::super::credential::Environment;
use super::super::environment::Says;
use super::super::fixtures::{DAY, at, credential, policy, proof, provider, submitted};
use super::super::policy::Uptake;
use super::super::provider::{Field, FieldClass, Lifecycle};
use super::*;
use ItemState::{Confirmed, Failed, NeedsPerson, Passed};

const SIGNED_AT: &str = "2026-11-21T12:00:00Z";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Names a text by itself, so that a test sees what is signed.
fn digest(text: &str) -> String {
    text.to_owned()
}

fn item(id: &str, judge: Judge) -> LaunchItem {
    let (title, source) = (format!("What {id} is"), "a page".to_owned());
    LaunchItem { id: name(id), title, about: String::new(), judge, source, confidence: Confidence::Documented }
}

fn ledger(says: Says, generation: u64) -> Ledger {
    let mut facts = submitted(at("2026-11-01T00:00:00Z"));
    (facts.proof, facts.generation) = (Some(proof(says)), generation);
    let current = "v1-a".parse().unwrap();
    Ledger { generation, current: Some(current), versions: [("v1-a".parse().unwrap(), Box::new(facts))].into(), ..Ledger::default() }
}

fn field(usage: crate::domain::provider::Usage) -> Field {
    Field { class: FieldClass::Secret, bound: true, served: true, form: Default::default(), usage, recipe: None, is: None }
}

/// One credential of production with all as it should be, whose description asks for each check.
fn facts() -> Facts {
    use crate::domain::provider::Usage;
    let mut described = provider(true);
    described.fields = [("secret".parse().unwrap(), field(Usage::Sign)), ("hook".parse().unwrap(), field(Usage::Verify))].into();
    described.go_live = Check::ALL.iter().map(|check| item(check.as_str(), Judge::Daemon(*check))).collect();
    described.go_live.push(item("order-form", Judge::Person));
    let mut of_production = credential("pay", Environment::Production);
    of_production.twin = Some(name("pay-sandbox"));
    let of = CredentialFacts {
        credential: Arc::new(of_production),
        provider: Arc::new(described),
        policy: Arc::new(policy(90 * DAY, DAY, 0)),
        ledger: Arc::new(ledger(Says::For, 2)),
        fields: Some(["secret", "hook"].map(|field| field.parse().unwrap()).into()),
        base_url: BaseUrl { url: "https://api.acme.example/v1".to_owned(), overridden: false },
        sandbox_url: Some("https://sandbox.acme.example/v1".to_owned()),
        twin: Some((name("pay-sandbox"), Arc::new(ledger(Says::For, 2)))),
        staged: true,
    };
    Facts { application: Arc::new(application()), credentials: vec![of], audited: true }
}

fn application() -> Application {
    Application {
        name: name("payments"),
        environment: Environment::Production,
        credentials: vec![name("pay")],
        identity: crate::domain::access::Identity::Unix { uid: 1 },
        uptake: Uptake::Stream,
        lease: None,
        callback: Some("https://payments.example.com/done".to_owned()),
        webhook: Some("https://payments.example.com/hook".to_owned()),
        delivery: Default::default(),
    }
}

fn change<T: Clone>(shared: &mut Arc<T>, edit: impl FnOnce(&mut T)) {
    edit(Arc::make_mut(shared));
}

fn state_of(facts: &Facts, id: &str) -> (ItemState, String) {
    let report = report(facts, &Launch::default(), digest);
    let judged = report.items.iter().find(|judged| judged.item.id.as_str() == id).unwrap();
    (judged.state, judged.evidence.join("; "))
}

type Edit = fn(&mut Facts);

/// Item, what is changed, how it then stands, and what its evidence says.
const CASES: &[(&str, Edit, ItemState, &str)] = &[
    ("credential-proved", |_| {}, Passed, "because"),
    ("credential-proved", |f| change(&mut f.credentials[0].ledger, |it| it.current = None), Failed, "keywright submit pay"),
    ("credential-proved", |f| f.credentials[0].ledger = Arc::new(ledger(Says::Against, 1)), Failed, "the other environment"),
    ("credential-proved", |f| f.credentials[0].ledger = Arc::new(ledger(Says::Nothing, 1)), Failed, "nothing proves"),
    (
        "credential-proved",
        |f| {
            f.credentials[0].ledger = Arc::new(ledger(Says::Nothing, 1));
            change(&mut f.credentials[0].credential, |it| it.accept_undetermined = Some("asked them".to_owned()));
        },
        Passed,
        "accepted by its document: asked them",
    ),
    ("credential-proved", |f| f.credentials[0].fields = Some(["secret".parse().unwrap()].into()), Failed, "it lacks `hook`"),
    ("credential-proved", |f| f.credentials[0].fields = None, Failed, "can't be read now"),
    ("credential-proved", |f| change(&mut f.credentials[0].ledger, |it| it.unverified = true), Failed, "a backup"),
    (
        "credential-proved",
        |f| change(&mut f.credentials[0].ledger, |it| it.refused_since = Some(at(SIGNED_AT))),
        Failed,
        "Acme refuses it since 2026-11-21T12:00:00Z",
    ),
    ("production-keys", |_| {}, Passed, "because"),
    (
        "production-keys",
        |f| f.credentials[0].ledger = Arc::new(ledger(Says::Nothing, 1)),
        NeedsPerson,
        "compare them with those that Acme shows",
    ),
    ("production-keys", |f| f.credentials[0].ledger = Arc::new(ledger(Says::Against, 1)), Failed, "because"),
    (
        "production-keys",
        |f| change(&mut f.credentials[0].credential, |it| it.environment = Environment::Sandbox),
        Failed,
        "`pay` is of the sandbox",
    ),
    ("production-keys", |f| change(&mut f.credentials[0].ledger, |it| it.current = None), Failed, "keywright submit pay"),
    ("base-url", |_| {}, Passed, "api.acme.example"),
    ("base-url", |f| f.credentials[0].base_url.url = "https://acme.production.invalid".to_owned(), Failed, "means nothing outside"),
    ("base-url", |f| f.credentials[0].base_url.url = String::new(), Failed, "under `providers: {acme: {production: …}}`"),
    (
        "base-url",
        |f| f.credentials[0].base_url = BaseUrl { url: "http://127.0.0.1:9002/v3".to_owned(), overridden: true },
        NeedsPerson,
        "the configuration sends its calls to `127.0.0.1`",
    ),
    (
        "base-url",
        |f| {
            f.credentials[0].base_url.overridden = true;
            f.credentials[0].sandbox_url = Some(f.credentials[0].base_url.url.clone());
        },
        Failed,
        "to one address",
    ),
    ("base-url", |f| change(&mut f.credentials[0].provider, |it| it.lifecycle = Lifecycle::Generated), Passed, "no provider is called"),
    ("callback-url", |_| {}, Passed, "the callback is at `payments.example.com`"),
    ("callback-url", |f| change(&mut f.application, |it| it.callback = None), NeedsPerson, "endpoints: {callback: …}"),
    ("callback-url", |f| change(&mut f.application, |it| it.callback = Some("https://localhost/done".to_owned())), Failed, "`localhost`"),
    ("webhook-url", |_| {}, Passed, "the webhook is at `payments.example.com`"),
    (
        "webhook-url",
        |f| change(&mut f.application, |it| it.webhook = Some("https://sandbox.acme.example/hook".to_owned())),
        Failed,
        "a provider's sandbox",
    ),
    (
        "webhook-url",
        |f| change(&mut f.application, |it| it.webhook = Some("https://staging.example.com/hook".to_owned())),
        NeedsPerson,
        "`staging`",
    ),
    ("endpoints", |_| {}, Passed, "names none"),
    (
        "endpoints",
        |f| {
            change(&mut f.credentials[0].provider, |it| it.go_live.retain(|item| item.judge == Judge::Daemon(Check::Endpoints)));
            change(&mut f.application, |it| it.callback = Some("https://10.0.0.1/x".to_owned()));
        },
        Failed,
        "can't be reached from outside; the webhook is at",
    ),
    ("secrets-managed", |_| {}, Passed, "sealed"),
    ("secrets-managed", |f| change(&mut f.credentials[0].ledger, |it| it.current = None), Failed, "keywright submit pay"),
    ("rotation-age", |_| {}, Passed, "dead after 90d"),
    ("rotation-age", |f| f.credentials[0].policy = Arc::new(policy(90 * DAY + 1, DAY, 0)), Failed, "90d at most"),
    ("rotation-rehearsed", |_| {}, Passed, "`pay-sandbox` has been rotated"),
    ("rotation-rehearsed", |f| f.credentials[0].twin = None, NeedsPerson, "as `twin` of `pay`"),
    (
        "rotation-rehearsed",
        |f| f.credentials[0].twin = Some((name("pay-sandbox"), Arc::new(ledger(Says::For, 1)))),
        Failed,
        "keywright rotate pay-sandbox",
    ),
    (
        "rotation-rehearsed",
        |f| {
            f.credentials[0].twin = Some((name("pay-sandbox"), Arc::new(Ledger::default())));
            change(&mut f.credentials[0].provider, |it| it.lifecycle = Lifecycle::Manual);
        },
        Failed,
        "keywright submit pay-sandbox",
    ),
    ("webhook-secret", |_| {}, Passed, "`pay` verifies"),
    (
        "webhook-secret",
        |f| {
            change(&mut f.credentials[0].provider, |it| {
                it.fields.remove(&"hook".parse().unwrap());
            })
        },
        Failed,
        "lists no credential to verify",
    ),
    (
        "webhook-secret",
        |f| {
            change(&mut f.credentials[0].provider, |it| {
                it.fields.remove(&"hook".parse().unwrap());
            });
            change(&mut f.application, |it| it.webhook = None);
        },
        NeedsPerson,
        "confirm that none is used",
    ),
    ("webhook-secret", |f| change(&mut f.credentials[0].ledger, |it| it.current = None), Failed, "keywright submit pay"),
    ("rollout", |_| {}, Passed, "a part of the instances first"),
    ("rollout", |f| f.credentials[0].staged = false, Failed, "rollout: [1, 10%, 100%]"),
    ("rollback", |_| {}, NeedsPerson, "keywright rollback pay"),
    ("audit", |_| {}, Passed, "is being written"),
    ("audit", |f| f.audited = false, Failed, "can't be written"),
    ("order-form", |_| {}, NeedsPerson, "only a person can tell"),
];

#[test]
fn each_check() {
    for (id, edit, expected, says) in CASES {
        let mut facts = facts();
        edit(&mut facts);
        let (state, evidence) = state_of(&facts, id);
        assert_eq!(state, *expected, "{id}: {evidence}");
        assert!(evidence.contains(says), "{id}: {evidence}");
        assert_eq!(state_of(&facts, id), (state, evidence), "asked twice, it answers the same");
    }
    for check in Check::ALL {
        let states = CASES.iter().filter(|(id, ..)| *id == check.as_str()).map(|(_, _, state, _)| *state);
        let states: BTreeSet<ItemState> = states.collect();
        assert!(states.len() >= 2 || check == Check::Rollback, "{}: {states:?}", check.as_str());
    }
}

#[test]
fn what_holds_for_every_provider_is_asked_without_a_list() {
    let mut facts = facts();
    change(&mut facts.credentials[0].provider, |it| it.go_live.clear());
    let ids = |facts: &Facts| -> Vec<String> {
        report(facts, &Launch::default(), digest).items.iter().map(|judged| judged.id.to_string()).collect()
    };
    let expected = ["endpoints", "audit", "pay.credential-proved", "pay.production-keys", "pay.secrets-managed", "pay.rotation-age"];
    assert_eq!(ids(&facts), expected);
    assert!(report(&facts, &Launch::default(), digest).is_ready());
    // A list that asks for the same takes its place.
    change(&mut facts.credentials[0].provider, |it| it.go_live = vec![item("live-keys", Judge::Daemon(Check::ProductionKeys))]);
    assert_eq!(ids(&facts), ["endpoints", "audit", "pay.credential-proved", "pay.secrets-managed", "pay.rotation-age", "pay.live-keys"]);
    facts.credentials.clear();
    assert_eq!(ids(&facts), ["endpoints", "audit"]);
}

fn sign(report: &Report, by: &str) -> Launch {
    let open = report.items.iter().filter(|judged| judged.state == NeedsPerson);
    let sign_off = |judged: &Judged| SignOff { by: by.parse().unwrap(), reason: None, at: at(SIGNED_AT), digest: judged.digest.clone() };
    Launch { sign_offs: open.map(|judged| (judged.id.clone(), sign_off(judged))).collect(), ..Launch::default() }
}

#[test]
fn a_sign_off_is_bound_to_what_was_signed() {
    let mut facts = facts();
    facts.credentials[0].base_url = BaseUrl { url: "https://proxy.example.com".to_owned(), overridden: true };
    let before = report(&facts, &Launch::default(), digest);
    assert!(!before.is_ready());
    let launch = sign(&before, "Ana Souza");
    let after = report(&facts, &launch, digest);
    assert!(after.is_ready(), "{after:#?}");
    let judged = after.find(&"order-form".parse().unwrap()).unwrap();
    assert_eq!((judged.state, judged.is_outdated()), (Confirmed, false));
    assert!(judged.evidence.last().unwrap().contains("confirmed by Ana Souza at 2026-11-21T12:00:00Z"), "{judged:?}");
    // Another text, another address: it asks again, and says why.
    change(&mut facts.credentials[0].provider, |it| it.go_live.last_mut().unwrap().about = "Two of them.".to_owned());
    facts.credentials[0].base_url.url = "https://other.example.com".to_owned();
    let changed = report(&facts, &launch, digest);
    for id in ["order-form", "pay.base-url"] {
        let judged = changed.find(&id.parse().unwrap()).unwrap();
        assert_eq!((judged.state, judged.is_outdated()), (NeedsPerson, true), "{id}");
        assert!(judged.evidence.last().unwrap().contains("it has changed since"), "{judged:?}");
    }
}

#[test]
fn who_compared_keys_compared_those_of_one_version() {
    let mut facts = facts();
    facts.credentials[0].ledger = Arc::new(ledger(Says::Nothing, 1));
    let launch = sign(&report(&facts, &Launch::default(), digest), "Ana Souza");
    let state = |facts: &Facts| report(facts, &launch, digest).find(&"production-keys".parse().unwrap()).unwrap().state;
    assert_eq!(state(&facts), Confirmed);
    change(&mut facts.credentials[0].ledger, |it| {
        let known = it.versions.pop_first().unwrap().1;
        it.versions.insert("v2-b".parse().unwrap(), known);
        it.current = Some("v2-b".parse().unwrap());
    });
    assert_eq!(state(&facts), NeedsPerson);
}

#[test]
fn a_failure_cannot_be_signed_away() {
    let mut facts = facts();
    let launch = sign(&report(&facts, &Launch::default(), digest), "Ana Souza");
    facts.credentials[0].staged = false;
    let mut all = launch.clone();
    for judged in &report(&facts, &launch, digest).items {
        let sign_off = SignOff { by: "Ana".parse().unwrap(), reason: None, at: at(SIGNED_AT), digest: judged.digest.clone() };
        all.sign_offs.insert(judged.id.clone(), sign_off);
    }
    let judged = report(&facts, &all, digest);
    assert_eq!(judged.find(&"rollout".parse().unwrap()).unwrap().state, Failed);
    assert!(!judged.is_ready());
}

#[test]
fn an_item_is_named_with_its_credential_where_there_are_two() {
    let mut facts = facts();
    let find = |facts: &Facts, id: &str| {
        let report = report(facts, &Launch::default(), digest);
        report.find(&id.parse().unwrap()).map(|judged| judged.id.to_string())
    };
    assert_eq!(find(&facts, "order-form").unwrap(), "pay.order-form");
    assert_eq!(find(&facts, "pay.order-form").unwrap(), "pay.order-form");
    assert_eq!(find(&facts, "pay.nothing"), Err(NoSuchItem::Unknown));
    let mut second = facts.credentials[0].clone();
    change(&mut second.credential, |it| it.name = name("pay-two"));
    facts.credentials.push(second);
    assert_eq!(find(&facts, "order-form"), Err(NoSuchItem::Ambiguous));
    assert_eq!(find(&facts, "pay-two.order-form").unwrap(), "pay-two.order-form");
}

#[test]
fn room_is_made_by_what_no_list_has() {
    let report = report(&facts(), &Launch::default(), digest);
    let mut launch = sign(&report, "Ana Souza");
    let known = launch.sign_offs.len();
    let one = launch.sign_offs.values().next().unwrap().clone();
    for number in 0..SIGN_OFFS_MAX - known - 1 {
        launch.sign_offs.insert(format!("gone.item-{number}").parse().unwrap(), one.clone());
    }
    launch.make_room(&report);
    assert_eq!(launch.sign_offs.len(), SIGN_OFFS_MAX - 1, "there is room");
    launch.sign_offs.insert("gone.last".parse().unwrap(), one);
    launch.make_room(&report);
    assert_eq!(launch.sign_offs.len(), known);
}

#[test]
fn a_signer_is_a_name_and_no_key() {
    for good in ["Ana Souza", "ana.souza@payments.example.com", "J. O’Neill (ops/security), +55 11", "李雷", " trimmed "] {
        assert_eq!(good.parse::<Signer>().unwrap().as_str(), good.trim());
    }
    let long = "x".repeat(31);
    for bad in ["", " ", "a\nb", "a; reason: b", "a\u{202e}b", "<b>", "{}", "a\tb", &long, &"ab ".repeat(40)] {
        assert_eq!(bad.parse::<Signer>(), Err(SignerError), "{bad:?}");
    }
    assert!(serde_json::from_str::<Signer>("\"a;b\"").is_err());
}
