//! Policies that were changed: every mistake has its place, and what the readers take, another reader and the schema take as well.

use boon::{Compiler, SchemaIndex, Schemas};

use super::schema::as_json;
use super::*;
use crate::fuzz::json::Json;
use crate::fuzz::problems::{CANARY, wrong_with};
use crate::fuzz::{Judged, Target, Verdict, YAML, broken};
use crate::policies::problem::Sink;

const LAUGHS: &str =
    "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n";

fn policies() -> Target {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let examples: String = read_sources(&root.join("examples")).unwrap().iter().map(|source| source.text.clone() + "\n---\n").collect();
    let mut corpus: Vec<Vec<u8>> = builtin_sources().into_iter().map(|source| source.text.into_bytes()).collect();
    corpus.extend(examples.split("---\n").map(|text| text.as_bytes().to_vec()).filter(|text| text.len() > 40));
    // Short ones more than once: each change of theirs meets something.
    let specs = [
        ("RotationPolicy", "{maxAge: 90d, overlap: 24h, spread: 7d, confirmation: required, unconfirmed: hold, verifyEvery: 24h}"),
        ("RotationPolicy", "{maxAge: 90d, windows: [{cron: \"0 9 * * Mon-Thu\", timezone: America/Sao_Paulo, open: 8h}]}"),
        ("Credential", "{provider: dinie, environment: sandbox, rotation: quarter, path: a/b, twin: live}"),
        ("Application", "{environment: sandbox, credentials: [test], identity: {unix: {uid: 1000}}, uptake: stream, lease: 15m}"),
        (
            "Application",
            "{environment: sandbox, credentials: [], identity: {token: {sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}}}",
        ),
        (
            "Application",
            "{environment: sandbox, credentials: [test], identity: {unix: {uid: 1000}}, delivery: {file: {directory: /run/a, mode: 0400, owner: 5, signal: {pidFile: /run/a.pid, name: HUP}}}}",
        ),
        (
            "Application",
            "{environment: sandbox, credentials: [test], identity: {unix: {uid: 1000}}, delivery: {webhook: {url: \"https://a.example/h\", secrets: [{file: /etc/a}, {file: /etc/b}]}}}",
        ),
        (
            "Application",
            "{environment: sandbox, credentials: [test], identity: {unix: {uid: 1000}}, delivery: {kubernetes: {secret: a.b, namespace: c, restart: [{deployment: d}, {daemonSet: e}], windows: [{cron: \"0 9 * * *\", timezone: UTC, open: 8h}], batch: 2, perHour: 6}}}",
        ),
        // To be refused, for one reason each.
        ("RotationPolicy", "{x: 1, maxAge: 90d}"),
        ("RotationPolicy", "{maxAge: 90d, overlap: 1h, overlap: 1h}"),
        (
            "Provider",
            "{title: Z, lifecycle: generated, fields: {s: {class: secret, generate: {length: 32, encoding: hex, prefix: whsec_}}}}",
        ),
    ];
    let short: Vec<Vec<u8>> = specs.iter().map(|(kind, spec)| format!("{}spec: {spec}\n", head(kind, "z")).into_bytes()).collect();
    corpus.extend(std::iter::repeat_n(short, 4).flatten());
    corpus.push(LAUGHS.as_bytes().to_vec());
    corpus.push(base().text.replace("name: ", "name: other-").into_bytes());
    let words = [
        "apiVersion: keywright.dev/v1alpha1\n",
        "kind: Credential\n",
        "Provider",
        "RotationPolicy",
        "Application",
        "production",
        "sandbox",
        "quarter",
        "dinie",
        "test",
        "live",
        "90d",
        "0d",
        "3651d",
        "1.5h",
        "maxAge: 1h\n",
        "x: 1, ",
        "name: z, ",
        "kubernetes",
        "secret",
        "management",
        "/",
        "{key_id}",
        "{nope}",
        "http://a/",
        CANARY,
        "password: hunter2-Zq7RkW2mXv9",
        "\r",
    ];
    Target::new("policies", corpus, &[YAML, &words]).costing(10)
}

/// What the readers are held to.
struct Oracle {
    schemas: Schemas,
    schema: SchemaIndex,
    folder: tempfile::TempDir,
}

impl Oracle {
    fn new() -> Oracle {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("https://keywright.test/schema.json", crate::policies::schema()).unwrap();
        let schema = compiler.compile("https://keywright.test/schema.json", &mut schemas).unwrap();
        Oracle { schemas, schema, folder: tempfile::tempdir().unwrap() }
    }

    fn judge(&self, read: impl Fn(&[Source]) -> Result<Policies, Problems>, input: &[u8]) -> Judged {
        let Ok(text) = std::str::from_utf8(input) else { return self.not_utf8(input) };
        let sources = [base(), source("t.yaml", text)];
        let policies = match read(&sources) {
            Ok(policies) => policies,
            Err(problems) => return wrong_with(&problems, &sources).map_or(Ok(Verdict::Refused), broken),
        };
        if policies.digest.len() != 64 || policies.rotations.len() > 100 {
            return broken("the policies aren't what was read");
        }
        if let Err(error) = serde_saphyr::from_multiple::<Json>(text)
            && error.to_string().contains("duplicate")
        {
            return broken("taken, and a key stands twice");
        }
        let documents = tree::documents(0, text, &Sink::new(&sources));
        let complaint =
            documents.iter().find_map(|node| self.schemas.validate(&as_json(node), self.schema).err().map(|error| format!("{error:#}")));
        complaint.map_or(Ok(Verdict::Accepted), |complaint| broken(format!("the readers take it, the schema doesn't: {complaint}")))
    }

    /// Only files can be no UTF-8.
    fn not_utf8(&self, input: &[u8]) -> Judged {
        let file = self.folder.path().join("t.yaml");
        std::fs::write(&file, input).unwrap();
        match read_folder(self.folder.path(), now()) {
            Err(problems) if problems.iter().map(|problem| problem.code).eq(["not-utf8"]) => Ok(Verdict::Refused),
            Err(problems) => broken(format!("it isn't UTF-8, and they say {problems}")),
            Ok(_) => broken("it isn't UTF-8, and is taken"),
        }
    }
}

fn read(sources: &[Source]) -> Result<Policies, Problems> {
    parse(sources, now())
}

#[test]
fn fuzz_policies() {
    let oracle = Oracle::new();
    policies().run(|input| oracle.judge(read, input));
}

#[test]
fn fuzz_policies_notices_faults() {
    let oracle = Oracle::new();
    let changed = |from: &'static str, to: &'static str| {
        move |sources: &[Source]| {
            let all: Vec<Source> = sources.iter().map(|source| Source { text: source.text.replace(from, to), ..source.clone() }).collect();
            read(&all)
        }
    };
    policies().notices("a field that isn't known is passed over", |input| oracle.judge(changed("x: 1, ", ""), input));
    policies().notices("a field may stand twice", |input| oracle.judge(changed("overlap: 1h, overlap: 1h", "overlap: 1h"), input));
    policies().notices("places are counted from the next line", |input| {
        oracle.judge(changed("apiVersion", "\n\n\n\n\n\n\n\n\n\napiVersion"), input)
    });
    policies().notices("the line is told in the message", |input| {
        let telling = |sources: &[Source]| {
            read(sources).map_err(|problems| {
                let told = problems.iter().map(|problem| {
                    let mut problem = problem.clone();
                    problem.message += sources[1].text.lines().nth(problem.line - 1).unwrap_or_default();
                    problem
                });
                Problems::new(told.collect(), &sources.iter().collect::<Vec<_>>())
            })
        };
        oracle.judge(telling, input)
    });
}

/// Found by the target: a carriage return alone ends a line for YAML, and for whoever counts lines for an excerpt, too. Else the
/// excerpt is of another line, on which nothing is masked.
#[test]
fn places_and_excerpts_agree_where_carriage_returns_end_lines() {
    let text = format!("{}spec:\r  maxAge: 90d\r  password: hunter2\rnext: line\r\n", head("RotationPolicy", "a"));
    let problems = parse(&[source("t.yaml", &text)], now()).unwrap_err();
    let places: Vec<String> = problems.iter().map(|problem| format!("{}:{} {}", problem.line, problem.column, problem.code)).collect();
    assert_eq!(places, ["6:3 unknown-field", "7:1 unknown-field"]);
    let rendered = problems.render(false);
    assert!(rendered.contains("6 |   password: *******") && !rendered.contains("hunter2"), "{rendered}");
    // In a later document of the file, too.
    let second = format!("a: 1\r---\r{text}");
    let problems = parse(&[source("t.yaml", &second)], now()).unwrap_err();
    assert!(problems.iter().any(|problem| (problem.line, problem.code) == (8, "unknown-field")), "{problems}");
}

/// Found by the target: each of a thousand problems showed the one long line that they all stand on.
#[test]
fn a_line_too_long_for_an_excerpt_is_named_by_its_place() {
    let entries: String = (0..2_000).map(|number| format!("x{number}: 1, ")).collect();
    let text = format!("{}spec: {{{entries}maxAge: 90d}}\n", head("RotationPolicy", "a"));
    let problems = parse(&[source("t.yaml", &text)], now()).unwrap_err();
    let rendered = problems.render(false);
    assert!(problems.iter().count() > 1_000 && rendered.len() < 300 * 1_001, "{} bytes", rendered.len());
    assert!(rendered.contains("t.yaml:4:8"), "{}", &rendered[..400]);
    let short = parse(&[source("t.yaml", &format!("{}spec: {{x: 1, maxAge: 90d}}\n", head("RotationPolicy", "a")))], now()).unwrap_err();
    assert!(short.render(false).contains("4 | spec: {x: ** ******: ****"), "{}", short.render(false));
}
