//! A daemon that keeps secrets in all eight shapes: for each a credential, its application, and a secret that goes where none belongs.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::canaries::{Canary, SHAPES, Shape};
use crate::support::daemon::Daemon;
use crate::support::outputs::Outputs;
use crate::support::rng::Rng;
use crate::support::scanner::Scanner;
use crate::support::sha256_hex;
use crate::support::site::Site;
use crate::support::tls::Authority;
use crate::support::wire::Target;
use crate::world::left_behind;

/// Nobody is asked whether a value lives, so a value may have any shape; who checks signatures gets the one before as well.
const PROVIDER: &str = "\
apiVersion: keywright.dev/v1alpha1
kind: Provider
metadata: {name: keepsake}
spec:
  title: Values of any shape
  lifecycle: manual
  environments:
    sandbox: {base: \"https://sandbox.invalid\"}
    production: {base: \"https://production.invalid\"}
  fields:
    secret: {class: secret, bound: true, use: verify}
  facts:
    - {about: lifecycle, source: made up by a test, confidence: unknown}
    - {about: environments, source: made up by a test, confidence: unknown}
    - {about: fields.secret, source: made up by a test, confidence: unknown}
    - {about: calls, source: made up by a test, confidence: unknown}
    - {about: timing, source: made up by a test, confidence: unknown}
  goLive:
    - {id: asked, title: Somebody was asked, confirm: person, source: made up by a test, confidence: unknown}
";

/// What stands for one shape.
pub(super) struct Cast {
    pub(super) shape: Shape,
    /// Enrolled, one after the other.
    pub(super) first: Canary,
    pub(super) second: Canary,
    /// Never in the place where it belongs.
    pub(super) stray: Canary,
    pub(super) credential: String,
    /// Another credential, whose values the daemon makes: it can be rotated without a person.
    pub(super) made: String,
    pub(super) application: String,
    pub(super) bearer: String,
}

impl Cast {
    fn new(shape: Shape, site: &mut Site) -> Self {
        let word = format!("{shape:?}").to_lowercase();
        let (credential, made, application) = (format!("kept-{word}"), format!("made-{word}"), format!("app-{word}"));
        site.credential(&credential, "keepsake", "sandbox", "still");
        site.credential(&made, "webhook-secret", "sandbox", "still");
        let token = site.application(&application, "sandbox", &[&credential], "lease: 60s");
        let canary = |role: &str, seed| Canary { name: format!("{role} {shape:?}"), ..Canary::shaped(shape, seed) };
        Self {
            shape,
            first: canary("first", 0x0f_12),
            second: canary("second", 0x5e_c0),
            stray: canary("stray", 0x57_a4),
            credential,
            made,
            application,
            bearer: format!("Bearer {token}"),
        }
    }

    fn canaries(&self) -> Vec<Canary> {
        let token = Canary::after(&format!("token {:?}", self.shape), "Bearer app-token-", &self.bearer);
        vec![self.first.clone(), self.second.clone(), self.stray.clone(), token]
    }
}

pub(super) struct House {
    pub(super) daemon: Daemon,
    pub(super) casts: Vec<Cast>,
    /// Of an operator with all rights, beside our uid on the socket.
    pub(super) operator: String,
    token: String,
}

impl House {
    pub(super) async fn start(tls: bool) -> Self {
        let mut site = Site::new();
        site.rotation("still", "maxAge: 90d, overlap: 1h, spread: 1s");
        let casts = SHAPES.into_iter().map(|shape| Cast::new(shape, &mut site)).collect();
        let token = format!("operator-token-{}", Rng::new(uuid::Uuid::new_v4().as_u64_pair().1).alnum(32));
        let rights = "may: [status, rotate, revoke, read]";
        site.extra_config = format!(
            "operators:\n  - {{unix: {{uid: {}}}, {rights}}}\n  - {{token: {{sha256: \"{}\"}}, {rights}}}\n",
            rustix::process::getuid().as_raw(),
            sha256_hex(token.as_bytes())
        );
        if tls {
            site.authority = Some(Authority::new());
            site.renew_certificate();
        }
        site.write();
        std::fs::write(site.path("policies/keepsake.yaml"), PROVIDER).unwrap();
        // Backtraces tell what functions were given on some systems.
        let daemon = Daemon::start_with(site, &[("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full")]).await;
        Self { daemon, casts, operator: format!("Bearer {token}"), token }
    }

    /// The listener on the address, and the socket.
    pub(super) fn doors(&self) -> [(&'static str, Target); 2] {
        let word = if self.daemon.site.authority.is_some() { "tls" } else { "tcp" };
        [(word, self.daemon.site.tcp()), ("socket", self.daemon.site.socket())]
    }

    /// `made` are values that the daemon made itself.
    pub(super) fn scanner(&self, made: &[String]) -> Scanner {
        let mut canaries: Vec<Canary> = self.casts.iter().flat_map(Cast::canaries).collect();
        canaries.extend(made.iter().map(|value| Canary::after("made here", "whsec_", value)));
        canaries.push(Canary::after("operator's token", "operator-token-", &self.token));
        Scanner::new(&canaries)
    }

    /// Waits till the daemon has made the first value of this shape's other credential.
    pub(super) async fn has_made(&self, cast: &Cast) {
        for _ in 0..100 {
            if self.daemon.status(&cast.made).await["phase"] == "steady" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("`{}` has no value:\n{}", cast.made, self.daemon.log_tail());
    }

    /// What the daemon printed, wrote, and shows of itself to other processes.
    pub(super) fn left_behind(&self) -> Outputs {
        let mut outputs = left_behind(&self.daemon.site);
        outputs.process(self.daemon.id());
        outputs
    }
}

/// The methods and paths that the daemon itself says it has, each with what it takes.
pub(super) async fn operations(door: &Target) -> Vec<Operation> {
    let document = door.get("/v1/openapi.json", &[]).await.json();
    let paths = document["paths"].as_object().expect("paths");
    let mut operations = Vec::new();
    for (path, methods) in paths {
        for (method, row) in methods.as_object().expect("methods").iter().filter(|(key, _)| *key != "parameters") {
            let mut takes: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for parameter in row["parameters"].as_array().into_iter().flatten() {
                let text = |key: &str| parameter[key].as_str().expect("a text").to_owned();
                takes.entry(text("in")).or_default().push(text("name"));
            }
            operations.push(Operation {
                name: row["operationId"].as_str().expect("a name").to_owned(),
                method: method.to_uppercase(),
                path: path.clone(),
                query: takes.remove("query").unwrap_or_default(),
                headers: takes.remove("header").unwrap_or_default(),
                body: row.get("requestBody").is_some(),
            });
        }
    }
    operations
}

/// One method of one path.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) name: String,
    pub(super) method: String,
    /// A name stands where it has braces.
    pub(super) path: String,
    pub(super) query: Vec<String>,
    pub(super) headers: Vec<String>,
    pub(super) body: bool,
}

impl Operation {
    /// The path with these names in its braces, in their order.
    pub(super) fn path_with(&self, names: &[&str]) -> String {
        let mut names = names.iter();
        let fill =
            |part: &str| if part.starts_with('{') { names.next().expect("a name for each brace").to_string() } else { part.to_owned() };
        self.path.split('/').map(fill).collect::<Vec<_>>().join("/")
    }

    pub(super) fn names(&self) -> usize {
        self.path.matches('{').count()
    }

    /// Its answers carry credentials by right: the body of a read, the data of an event.
    pub(super) fn discloses(&self) -> bool {
        matches!(self.name.as_str(), "credential" | "events")
    }
}
