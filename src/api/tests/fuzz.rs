//! Requests: targets, headers and bodies that were changed. What is taken stood there exactly so; what is refused isn't repeated.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use uuid::Uuid;

use crate::api::headers;
use crate::api::input;
use crate::api::path::{Query, Route, route};
use crate::api::problem::Problem;
use crate::api::routes::{ENDPOINTS, Endpoint};
use crate::api::service::Confirmation;
use crate::domain::ids::{InstanceName, Name, VersionId};
use crate::domain::material::Material;
use crate::fuzz::json::Json;
use crate::fuzz::problems::CANARY;
use crate::fuzz::{JSON, Judged, Target, Verdict, broken, tells};

/// A refusal is short, a document, and repeats nothing.
fn refused(problem: &Problem) -> Judged {
    let said = format!("{} {problem:?}", problem.json(Uuid::nil()));
    if said.len() > 4_096 || Json::read(problem.json(Uuid::nil()).as_bytes()).is_none() {
        return broken("the problem is no short document");
    }
    if tells(&said, CANARY) { broken("the problem repeats what it refuses") } else { Ok(Verdict::Refused) }
}

fn requests() -> Target {
    let names = [
        ("{name}", "dinie-production"),
        ("{version}", "v2-4f0c9a1b"),
        ("{application}", "payments-api"),
        ("{instance}", "pod-1.ns_A"),
        ("{item}", "dinie-production.retries"),
    ];
    let path = |endpoint: &Endpoint| names.iter().fold(endpoint.path.to_owned(), |path, (hole, name)| path.replace(hole, name));
    let plain = ENDPOINTS.iter().map(|endpoint| format!("{} {}", endpoint.method, path(endpoint)));
    let queries =
        ["/v1/status?limit=5&after=a", "/v1/plan?days=365", "/v1/events?credentials=a,b%2Cc", "/v1/credentials/a/versions?limit=1"];
    let forced = ["DELETE /v1/credentials/a?force=true".to_owned(), "DELETE /v1/credentials/a/versions/v1?force=false".to_owned()];
    // What must be refused is where changes find what mustn't be taken.
    let refused = [
        "../status",
        "credentials/../status",
        "/status",
        "credentials/%61",
        "credentials/A",
        "credentials/a%2fb",
        "status?limit=1&limit=1",
        "plan?x=1",
    ];
    let refused = refused.map(|rest| format!("GET /v1/{rest}"));
    let corpus = plain.chain(queries.map(|target| format!("GET {target}"))).chain(forced).chain(refused).map(String::into_bytes).collect();
    let words = [
        "..",
        ".",
        "/",
        "//",
        "/./",
        "../",
        "%2f",
        "%2F",
        "%00",
        "%61",
        "%",
        "?",
        "&",
        "=",
        "#",
        ";",
        "\\",
        "|",
        "A",
        "é",
        " ",
        "\t",
        "http://x",
        "x@",
        "*",
        "limit=1",
        "&limit=1",
        "days=1",
        "force=true",
        "after=b",
        "credentials=a",
        "%2C",
        ",",
        CANARY,
        "v1",
        "GET",
        "DELETE",
    ];
    Target::new("requests", corpus, &[&words])
}

type Found = Result<(&'static Endpoint, Route), Problem>;

/// What stands before the query, and the query. A fragment never reaches us: the HTTP library takes it off the target.
fn halves(target: &[u8]) -> (String, Option<String>) {
    let text = String::from_utf8_lossy(target);
    let text = text.split('#').next().unwrap_or_default();
    match text.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (text.to_owned(), None),
    }
}

fn is_label(text: &str) -> bool {
    let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9');
    text.len() < 64 && text.starts_with(plain) && text.ends_with(plain) && text.chars().all(|c| plain(c) || c == '-')
}

fn is_instance(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Whether the path is the row's, to the letter, with names where it has braces.
fn is_path_of(endpoint: &Endpoint, path: &str, route: &Route) -> bool {
    let (ours, theirs): (Vec<&str>, Vec<&str>) = (endpoint.path.split('/').collect(), path.split('/').collect());
    let seen = format!("{route:?}");
    let is_seen = |name: &str| seen.contains(&format!("{name:?}"));
    let same = |(ours, theirs): (&&str, &&str)| match *ours {
        "{instance}" => is_instance(theirs) && !matches!(*theirs, "." | "..") && is_seen(theirs),
        "{item}" => theirs.splitn(2, '.').all(is_label) && is_seen(theirs),
        hole if hole.starts_with('{') => is_label(theirs) && is_seen(theirs),
        word => word == *theirs,
    };
    ours.len() == theirs.len() && ours.iter().zip(&theirs).all(same)
}

/// Known parameters with a value, each once.
fn is_query_of(endpoint: &Endpoint, query: &str) -> bool {
    let pairs: Vec<Option<(&str, &str)>> = query.split('&').map(|pair| pair.split_once('=')).collect();
    let names: Vec<&str> = pairs.iter().flatten().map(|(name, _)| *name).collect();
    let once = |name: &&str| names.iter().filter(|other| *other == name).count() == 1;
    query.is_empty() || pairs.iter().all(Option::is_some) && names.iter().all(|name| endpoint.query.contains(name) && once(name))
}

fn all_of_query(query: &Query<'_>) -> Result<(usize, u32, bool, Option<Name>, usize), Problem> {
    let credentials = query.credentials()?.unwrap_or_default();
    Ok((query.limit()?, query.days()?, query.force()?, query.after()?, credentials.len()))
}

fn judge_request(find: impl Fn(&Method, &Uri) -> Found, ask: impl Fn(&Uri, &Endpoint) -> Result<(), Problem>, input: &[u8]) -> Judged {
    let at = input.iter().position(|byte| *byte == b' ').unwrap_or(input.len());
    let (method, target) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    // As the HTTP library reads them: what it refuses never comes here.
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), Uri::try_from(target)) else { return Ok(Verdict::Refused) };
    let (endpoint, route) = match find(&method, &uri) {
        Ok(found) => found,
        Err(problem) => return refused(&problem),
    };
    let (path, query) = halves(target);
    if method.as_str() != endpoint.method || !is_path_of(endpoint, &path, &route) {
        return broken(format!("taken for {} {}, as {route:?}", endpoint.method, endpoint.path));
    }
    if let Err(problem) = ask(&uri, endpoint) {
        return refused(&problem);
    }
    if query.is_some_and(|query| !is_query_of(endpoint, &query)) {
        return broken("a query parameter is unknown, stands twice, or has no value");
    }
    let parsed = Query::parse(&uri, endpoint.query).and_then(|query| all_of_query(&query));
    match parsed {
        Ok((limit, days, ..)) if !(1..=1_000).contains(&limit) || days > 3_660 => broken(format!("limit {limit}, days {days}")),
        Ok(_) => Ok(Verdict::Accepted),
        Err(problem) => refused(&problem),
    }
}

fn ask(uri: &Uri, endpoint: &Endpoint) -> Result<(), Problem> {
    Query::parse(uri, endpoint.query).map(|_| ())
}

#[test]
fn fuzz_requests() {
    requests().run(|input| judge_request(route, ask, input));
}

#[test]
fn fuzz_requests_notices_faults() {
    let through = |from: &'static str, to: &'static str| {
        move |method: &Method, uri: &Uri| {
            let tidied = uri.to_string().replace(from, to).parse().unwrap_or_default();
            route(method, &tidied)
        }
    };
    requests().notices("escapes are decoded", |input| judge_request(through("%61", "a"), ask, input));
    requests().notices("empty segments are passed over", |input| judge_request(through("//", "/"), ask, input));
    requests().notices("parent segments are followed", |input| judge_request(through("../", ""), ask, input));
    requests().notices("names are taken in upper case", |input| judge_request(through("A", "a"), ask, input));
    requests().notices("the query isn't looked at", |input| judge_request(route, |_, _| Ok(()), input));
}

fn heads() -> Target {
    let full = "authorization: Bearer app-token\r\nkeywright-instance: pod-1\r\nkeywright-reason: INC-7: caf%C3%A9\r\ncontent-type: application/json; charset=utf-8\r\nif-none-match: \"v2-a\", W/\"v1\"\r\n";
    let short = [
        "Authorization: bearer x\r\nContent-Type: application/json\r\nContent-Length: 3\r\n",
        "if-none-match: *\r\n",
        "accept: */*\r\nlast-event-id: 7\r\n",
    ];
    let corpus = std::iter::once(full).chain(short).map(|text| text.as_bytes().to_vec()).collect();
    let words = [
        "forwarded: for=1.2.3.4\r\n",
        "x-forwarded-for: 1\r\n",
        "X-Forwarded-Proto: https\r\n",
        "transfer-encoding: chunked\r\n",
        "content-length: 1\r\n",
        "authorization: Bearer b\r\n",
        "keywright-instance: a\r\n",
        "Basic ",
        "Bearer ",
        "bearer",
        "\t",
        "%0A",
        "%E2%80%AE",
        "\"v2-a\"",
        "W/",
        "*",
        ",",
        "; charset=latin1",
        "text/json",
        "é",
        "\u{0}",
        "\r\n",
        "\r\n ",
        CANARY,
    ];
    Target::new("heads", corpus, &[&words])
}

/// As the HTTP library hands them over; `None` where it refuses.
fn headers_of(input: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let at = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        headers.append(name, HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?);
    }
    Some(headers)
}

fn judge_head(
    check: impl Fn(&HeaderMap) -> Result<(), Problem>,
    bearer: impl Fn(&HeaderMap) -> Result<Option<Vec<u8>>, Problem>,
    input: &[u8],
) -> Judged {
    let Some(all) = headers_of(input) else { return Ok(Verdict::Refused) };
    if let Err(problem) = check(&all) {
        return refused(&problem);
    }
    let names: Vec<String> = all.iter().map(|(name, _)| name.as_str().to_ascii_lowercase()).collect();
    let count = |wanted: &str| names.iter().filter(|name| *name == wanted).count();
    if names.iter().any(|name| name == "forwarded" || name.starts_with("x-forwarded")) {
        return broken("a proxy's header is taken");
    }
    if ["authorization", "keywright-instance", "content-type", "keywright-reason"].iter().any(|name| count(name) > 1) {
        return broken("a header that stands twice is taken");
    }
    if count("content-length") > 0 && count("transfer-encoding") > 0 {
        return broken("two lengths are taken");
    }
    let value = |name: &str| all.get(name).map(|value| value.as_bytes().to_vec());
    match bearer(&all) {
        Err(problem) => return refused(&problem),
        Ok(token) => {
            let expected = value("authorization").map(|value| value.get(7..).unwrap_or_default().to_vec());
            let scheme = value("authorization").is_none_or(|value| value.len() > 7 && value[..7].eq_ignore_ascii_case(b"bearer "));
            if token != expected || !scheme {
                return broken("the token isn't what stands there");
            }
        }
    }
    let (instance, reason) = match (headers::instance(&all), headers::reason(&all)) {
        (Err(problem), _) | (_, Err(problem)) => return refused(&problem),
        (Ok(instance), Ok(reason)) => (instance, reason),
    };
    let named = value("keywright-instance").unwrap_or_else(|| b"default".to_vec());
    if instance.as_str().as_bytes() != named || !is_instance(instance.as_str()) || reason.is_some() != all.contains_key("keywright-reason")
    {
        return broken("the instance or the reason isn't what stands there");
    }
    let version: VersionId = "v2-a".parse().unwrap();
    let tags = all.get_all("if-none-match").iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect::<String>();
    if headers::none_match(&all, &version) && !tags.contains('*') && !tags.contains("\"v2-a\"") {
        return broken("a version counts as named that isn't");
    }
    let json = headers::check_json(&all).is_ok();
    if json && !value("content-type").is_some_and(|value| value.to_ascii_lowercase().starts_with(b"application/json")) {
        return broken("a body that isn't JSON counts as JSON");
    }
    Ok(Verdict::Accepted)
}

fn bearer(all: &HeaderMap) -> Result<Option<Vec<u8>>, Problem> {
    headers::bearer(all).map(|token| token.map(<[u8]>::to_vec))
}

#[test]
fn fuzz_heads() {
    heads().run(|input| judge_head(headers::check, bearer, input));
}

#[test]
fn fuzz_heads_notices_faults() {
    heads().notices("headers may stand twice", |input| judge_head(|_| Ok(()), bearer, input));
    heads().notices("white space before a token is cut off", |input| {
        let lenient = |all: &HeaderMap| bearer(all).map(|token| token.map(|token| token.trim_ascii().to_vec()));
        judge_head(headers::check, lenient, input)
    });
}

fn bodies() -> Target {
    let proof = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let confirmation =
        format!(r#"{{"credential":"dinie-production","version":"v2-a","instance":"pod-1","field":"client_secret","proof":"{proof}"}}"#);
    let submission = format!(r#"{{"fields":{{"client_id":"dinie_ci_test_1","client_secret":"{CANARY}"}}}}"#);
    let others = [
        r#"{"fields":{}}"#,
        r#"{"compromised":true,"within":"10m"}"#,
        r#"{"compromised":false}"#,
        "{}",
        "",
        r#"{"fields":{"a":"b\u0041\n"}}"#,
    ];
    let corpus = [confirmation, submission].into_iter().chain(others.map(str::to_owned)).map(String::into_bytes).collect();
    let words = [
        "\"fields\":{},",
        "\"adopt\":true,",
        "\"client_id\":\"x\",",
        "\"compromised\":true,",
        "\"within\":null",
        "0s",
        "24h",
        "25h",
        "86401s",
        "\"instance\":\"pod-1\",",
        "fields",
        "credential",
        "Client_id",
        "\"x\":1,",
        CANARY,
        "pod-1",
        "../a",
        "A",
    ];
    Target::new("bodies", corpus, &[JSON, &words])
}

type Submitted = (Material, bool);

/// The parsers of the bodies, so that one can be replaced by a bad one.
struct Bodies {
    submission: fn(&[u8]) -> Result<Submitted, Problem>,
    rotation: fn(&[u8]) -> Result<input::Rotation, Problem>,
    confirmation: fn(&[u8]) -> Result<Confirmation, Problem>,
}

const BODIES: Bodies = Bodies {
    submission: input::submission,
    rotation: input::rotation,
    confirmation: |body| input::confirmation(body, &"app".parse().unwrap(), "pod-1".parse::<InstanceName>().unwrap()),
};

fn depth(json: &Json) -> usize {
    match json {
        Json::Object(members) => 1 + members.iter().map(|(_, json)| depth(json)).max().unwrap_or(0),
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Json::Text(_) | Json::Other => 0,
    }
}

fn judge_body(bodies: &Bodies, body: &[u8]) -> Judged {
    let json = Json::read(body);
    let strict = |known: &[&str]| json.as_ref().filter(|json| depth(json) <= 16).and_then(|json| json.strict(known));
    let mut verdict = Verdict::Refused;
    match (bodies.submission)(body) {
        Err(problem) => drop(refused(&problem)?),
        Ok((material, adopt)) => {
            let members = strict(&["fields", "adopt"]).ok_or("no object of what is known, each once")?;
            let named = |wanted: &str| members.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
            if matches!(named("adopt"), Some(Json::Other)) != members.iter().any(|(name, _)| name == "adopt")
                || (adopt && named("adopt").is_none())
            {
                return broken("something is taken over that nobody asked for");
            }
            let members = named("fields").and_then(|fields| fields.strict(&[])).ok_or("no object of fields, each once")?;
            let texts: BTreeMap<_, _> = members
                .iter()
                .filter_map(|(name, value)| if let Json::Text(text) = value { Some((name.as_str(), text)) } else { None })
                .collect();
            let same = material.iter().all(|(name, value)| texts.get(name.as_str()).is_some_and(|text| text.as_bytes() == value.expose()));
            if !same || material.len() != members.len() {
                return broken("what is submitted isn't what stands there");
            }
            verdict = Verdict::Accepted;
        }
    }
    match (bodies.rotation)(body) {
        Err(problem) => drop(refused(&problem)?),
        Ok(rotation) => {
            let members =
                if body.is_empty() { &[] } else { strict(&["compromised", "within"]).ok_or("no object of what is known, each once")? };
            let within = rotation.compromised_within.is_none_or(|within| within.as_secs() <= 86_400);
            if !within || (rotation.compromised_within.is_some() && members.is_empty()) {
                return broken("a rotation is asked for that isn't");
            }
            verdict = Verdict::Accepted;
        }
    }
    match (bodies.confirmation)(body) {
        Err(problem) => drop(refused(&problem)?),
        Ok(confirmation) => {
            let members =
                strict(&["credential", "version", "instance", "field", "proof"]).ok_or("no object of what is known, each once")?;
            let text = |wanted: &str| {
                members
                    .iter()
                    .find_map(|(name, value)| if let Json::Text(text) = value { (name == wanted).then_some(text.as_str()) } else { None })
            };
            let ours = [
                confirmation.credential.as_str(),
                confirmation.version.as_str(),
                "pod-1",
                confirmation.field.as_str(),
                &confirmation.proof,
            ];
            if ["credential", "version", "instance", "field", "proof"].map(text) != ours.map(Some)
                || !is_label(ours[0])
                || !is_label(ours[1])
            {
                return broken("what is confirmed isn't what stands there");
            }
            verdict = Verdict::Accepted;
        }
    }
    Ok(verdict)
}

#[test]
fn fuzz_bodies() {
    bodies().run(|input| judge_body(&BODIES, input));
}

/// The same JSON as a map has it: the last of two members counts.
fn flattened(body: &[u8]) -> Vec<u8> {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body)
        .map_or_else(|_| body.to_vec(), |map| serde_json::to_vec(&map).unwrap())
}

#[test]
fn fuzz_bodies_notices_faults() {
    let submission = |body: &[u8]| input::submission(&flattened(body));
    bodies().notices("the last of two members counts", |input| judge_body(&Bodies { submission, ..BODIES }, input));
    let rotation = |body: &[u8]| input::rotation(if body.windows(4).any(|part| part == b"\"x\":") { b"" } else { body });
    bodies().notices("unknown members are passed over", |input| judge_body(&Bodies { rotation, ..BODIES }, input));
    let telling = |body: &[u8]| {
        input::submission(body).map_err(|_| Problem::bad_request(String::from_utf8_lossy(body).chars().take(200).collect::<String>()))
    };
    bodies().notices("what is refused is repeated", |input| judge_body(&Bodies { submission: telling, ..BODIES }, input));
}
