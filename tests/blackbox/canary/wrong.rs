//! Requests with a secret where none belongs: path, query, headers, body, and the line that makes it HTTP.

use serde_json::{Value, json};

use super::house::{Cast, Operation};
use crate::support::canaries::Canary;

/// Longer ones are refused for their length alone.
const HEAD_VALUE_MAX: usize = 4096;
/// What the API takes at most.
const BODY_MAX: usize = 128 << 10;
/// Known to no document: what comes so far that it is looked for isn't found.
const NOBODY: &str = "nobody";

/// One of them.
pub(super) struct Request {
    /// Where the secret stands.
    pub(super) place: String,
    /// Nobody looks there: the answer may be a good one.
    pub(super) may_be_ignored: bool,
    /// To be asked for without a right to what the route answers.
    pub(super) reads: bool,
    line: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
    chunked: bool,
}

impl Request {
    fn new(place: impl Into<String>, operation: &Operation, path: impl AsRef<[u8]>) -> Self {
        let line = [operation.method.as_bytes(), b" ", path.as_ref(), b" HTTP/1.1"].concat();
        let (headers, body) = (Vec::new(), None);
        Self { place: place.into(), may_be_ignored: false, reads: false, line, headers, body, chunked: false }
    }

    fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Some(body.into()), ..self }
    }

    /// As it goes over the wire; `bearer` unless it brings an `Authorization` of its own.
    pub(super) fn bytes(&self, bearer: Option<&str>) -> Vec<u8> {
        let mut raw = [self.line.as_slice(), b"\r\nconnection: close\r\n"].concat();
        let mut header = |name: &str, value: &[u8]| raw.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        let has = |wanted: &str| self.headers.iter().any(|(name, _)| name == wanted);
        if !has("host") {
            header("host", b"keywright");
        }
        if let Some(bearer) = bearer.filter(|_| !has("authorization")) {
            header("authorization", bearer.as_bytes());
        }
        for (name, value) in &self.headers {
            header(name, value);
        }
        let body = self.body.as_deref().unwrap_or_default();
        if self.body.is_some() && !has("content-type") {
            header("content-type", b"application/json");
        }
        if self.chunked {
            header("transfer-encoding", b"chunked");
            let chunk = [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat();
            return [raw, b"\r\n".to_vec(), chunk].concat();
        }
        if self.body.is_some() {
            header("content-length", body.len().to_string().as_bytes());
        }
        [raw.as_slice(), b"\r\n", body].concat()
    }
}

/// All that there are for this route and this shape.
pub(super) fn requests(operation: &Operation, cast: &Cast) -> Vec<Request> {
    let spelt = Spelt::new(&cast.stray);
    let mut all = paths(operation, &spelt);
    all.extend(queries(operation, cast, &spelt));
    all.extend(heads(operation, &spelt));
    all.extend(if operation.body { bodies(operation, cast) } else { uncalled_for(operation, &spelt) });
    all
}

/// A secret as it can be written into a head.
struct Spelt {
    value: String,
    /// As it is, where HTTP allows that; as percent escapes otherwise.
    plain: Vec<u8>,
    percent: String,
}

impl Spelt {
    fn new(canary: &Canary) -> Self {
        let percent: String = canary.value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let percent = percent[..percent.len().min(3 * HEAD_VALUE_MAX)].to_owned();
        let value = canary.value.clone();
        let plain = value.len() <= HEAD_VALUE_MAX && !value.bytes().any(|byte| byte.is_ascii_control());
        let plain = if plain { value.clone().into_bytes() } else { percent.clone().into_bytes() };
        Self { value, plain, percent }
    }

    /// In a target, a space would end it and `#` or `?` would begin another part.
    fn in_target(&self) -> Vec<u8> {
        let clean = !self.plain.iter().any(|byte| matches!(byte, b' ' | b'#' | b'?' | b'/' | b'"'));
        if clean { self.plain.clone() } else { self.percent.clone().into_bytes() }
    }
}

/// Names that nothing is known of, for what would be done if the rest were right.
fn nobodies(operation: &Operation) -> Vec<&'static str> {
    vec![NOBODY; operation.names()]
}

fn paths(operation: &Operation, spelt: &Spelt) -> Vec<Request> {
    let mut all = Vec::new();
    let parts: Vec<&str> = operation.path.split('/').skip(1).collect();
    for index in 0..=parts.len() {
        for secret in [spelt.in_target(), spelt.percent.clone().into_bytes(), [&spelt.in_target()[..], b"!"].concat()] {
            let mut path = Vec::new();
            for (at, part) in parts.iter().enumerate() {
                let part = if part.starts_with('{') { NOBODY } else { part };
                path.push(b'/');
                path.extend(if at == index { &secret[..] } else { part.as_bytes() });
            }
            if index == parts.len() {
                path.extend([b"/", &secret[..]].concat());
            }
            all.push(Request::new(format!("segment {index}"), operation, path));
        }
    }
    let path = operation.path_with(&nobodies(operation));
    let target = spelt.in_target();
    all.push(Request::new("authority", operation, [b"http://", &target[..], path.as_bytes()].concat()));
    all.push(Request::new("user of the authority", operation, [b"http://", &target[..], b"@keywright", path.as_bytes()].concat()));
    all.push(Request { line: [&target[..], b" ", path.as_bytes(), b" HTTP/1.1"].concat(), ..Request::new("method", operation, &path) });
    let line = [operation.method.as_bytes(), b" ", path.as_bytes(), b" ", &target[..]].concat();
    all.push(Request { line, ..Request::new("protocol", operation, &path) });
    all
}

fn queries(operation: &Operation, cast: &Cast, spelt: &Spelt) -> Vec<Request> {
    // A living name: what is wrong with the rest must be noticed before anything is done.
    let names = [cast.credential.as_str(), NOBODY];
    let path = operation.path_with(&names[..operation.names()]);
    let mut all = Vec::new();
    for secret in [spelt.in_target(), spelt.percent.clone().into_bytes()] {
        for known in operation.query.iter().map(String::as_str).chain(["more"]) {
            let query = [path.as_bytes(), b"?", known.as_bytes(), b"=", &secret].concat();
            all.push(Request::new(format!("query `{known}`"), operation, query));
        }
        all.push(Request::new("name of a query", operation, [path.as_bytes(), b"?", &secret, b"=1"].concat()));
        all.push(Request::new("query", operation, [path.as_bytes(), b"?", &secret].concat()));
    }
    all
}

fn heads(operation: &Operation, spelt: &Spelt) -> Vec<Request> {
    let mut path = operation.path_with(&nobodies(operation));
    if operation.name == "events" {
        // An open stream has no end to wait for.
        path.push_str("?credentials=nobody");
    }
    let with = |name: &str, value: Vec<u8>| {
        let request = Request::new(format!("header `{name}`"), operation, &path).header(&name.to_ascii_lowercase(), value);
        // The store is long, and the same whatever the head says; and a key that is made leaves a file behind.
        let reads = matches!(operation.name.as_str(), "backup" | "rewrap");
        Request { may_be_ignored: true, reads, ..request }
    };
    let plain = || spelt.plain.clone();
    let mut all = Vec::new();
    for (scheme, secret) in [("Bearer ", plain()), ("Basic ", plain()), ("", plain()), ("Bearer ", spelt.percent.clone().into_bytes())] {
        all.push(with("Authorization", [scheme.as_bytes(), &secret].concat()));
    }
    let odd =
        ["Cookie", "Host", "Accept", "User-Agent", "Referer", "Expect", "X-Request-Id", "Traceparent", "Forwarded", "X-Forwarded-For"];
    let own = ["Keywright-Instance", "Keywright-Application", "Keywright-Reason"];
    let known = own.into_iter().chain(["If-None-Match", "Last-Event-ID", "Content-Type", "Content-Length"]);
    let known: Vec<&str> = known.collect();
    // What is said of an order that is carried out is kept by the audit trail, as the README says; elsewhere nobody is known.
    let kept = |name: &str| name == "Keywright-Reason" && operation.names() == 0 && operation.headers.iter().any(|known| known == name);
    for name in odd.into_iter().chain(known.iter().copied()).filter(|name| !kept(name)) {
        all.push(with(name, plain()));
    }
    for name in &operation.headers {
        assert!(known.contains(&name.as_str()), "{}: the header {name} is new here", operation.name);
    }
    // No name, whatever the shape.
    all.push(with("Keywright-Instance", [&plain()[..], b"!"].concat()));
    all.push(with("Last-Event-ID", spelt.percent.clone().into_bytes()));
    let name: String = spelt.percent.replace('%', "x").chars().take(HEAD_VALUE_MAX).collect();
    all.push(with(&name, b"1".to_vec()));
    all.push(Request { headers: vec![("x-hidden".to_owned(), [b"1\r\n ", &plain()[..]].concat())], ..with("continuation", Vec::new()) });
    all
}

/// A body where none is taken.
fn uncalled_for(operation: &Operation, spelt: &Spelt) -> Vec<Request> {
    let mut path = operation.path_with(&nobodies(operation));
    if operation.name == "events" {
        path.push_str("?credentials=nobody");
    }
    let request = |body: Vec<u8>| {
        let ignored = matches!(operation.name.as_str(), "healthz" | "readyz" | "metrics" | "openapi");
        Request { may_be_ignored: ignored, ..Request::new("body that isn't asked for", operation, &path).body(body) }
    };
    vec![request(json!({"secret": spelt.value}).to_string().into_bytes()), request(spelt.value.clone().into_bytes())]
}

/// A body as the route takes it, with nothing secret in it.
fn taken(operation: &Operation, cast: &Cast) -> Value {
    match operation.name.as_str() {
        "submit" => json!({"fields": {"secret": "never sent as it is"}}),
        "rotate" => json!({"compromised": true, "within": "10m"}),
        "golive-confirm" => json!({"by": "Ana Souza", "reason": "she looked"}),
        "rewrap" => json!({"file": "/nowhere/new.key"}),
        "confirm" => json!({
            "credential": cast.credential, "version": "v1", "instance": "default", "field": "secret", "proof": "00"
        }),
        "report" => json!({"credential": cast.credential, "version": "v1", "instance": "default", "outcome": "failed"}),
        other => panic!("`{other}` takes a body that isn't known here"),
    }
}

fn bodies(operation: &Operation, cast: &Cast) -> Vec<Request> {
    let names = [cast.credential.as_str(), NOBODY];
    let path = operation.path_with(&names[..operation.names()]);
    let stray = &cast.stray.value;
    let request = |place: &str, body: Vec<u8>| Request::new(format!("body, {place}"), operation, &path).body(body);
    let good = taken(operation, cast);
    let mut all = Vec::new();
    for (place, changed) in spoilt(&good, stray) {
        all.push(request(&place, changed.to_string().into_bytes()));
    }
    let text = serde_json::to_string(stray).unwrap();
    let whole = good.to_string();
    let open = &whole[..whole.len() - 1];
    for (place, body) in [
        ("a member twice", format!("{open}, \"twice\": {text}, \"twice\": {text}}}")),
        ("cut off within", format!("{open}, \"secret\": {}", &text[..text.len() - 1])),
        ("cut off after", format!("{open}, \"secret\": {text}")),
        ("after the end", format!("{whole} {text}")),
        ("an array", format!("[{text}]")),
        ("a text", text.clone()),
        ("nested too deep", format!("{}{text}{}", "[".repeat(40), "]".repeat(40))),
        ("no JSON", stray.clone()),
        ("form", format!("secret={stray}")),
    ] {
        all.push(request(place, body.into_bytes()));
    }
    // UTF-16 is no JSON here, and a broken character is none anywhere.
    all.push(request("UTF-16", whole.replace("10m", stray).encode_utf16().flat_map(u16::to_le_bytes).collect()));
    all.push(request("broken UTF-8", [open.as_bytes(), b", \"secret\": \"\xff", stray.as_bytes(), b"\"}"].concat()));
    let long = format!("{open}, \"secret\": {}}}", serde_json::to_string(&stray.repeat(BODY_MAX / stray.len() + 1)).unwrap());
    all.push(request("too large", long.clone().into_bytes()));
    all.push(Request { chunked: true, ..request("too large, in chunks", long.into_bytes()) });
    let belongs = json!({"fields": {"secret": stray}}).to_string();
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=latin1", ""]
    {
        all.push(request("of another type", belongs.clone().into_bytes()).header("content-type", kind));
    }
    all
}

/// The same document with the secret in each place of it, and in some that it hasn't.
fn spoilt(good: &Value, stray: &str) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (key, value) in good.as_object().expect("an object") {
        let mut put = |place: String, new: Value| {
            let mut changed = good.clone();
            changed[key] = new;
            all.push((place, changed));
        };
        put(format!("`{key}`"), stray.into());
        put(format!("a list in `{key}`"), json!([stray]));
        put(format!("an object in `{key}`"), json!({"secret": [stray]}));
        put(format!("a name in `{key}`"), json!({ stray: stray }));
        if value.is_object() {
            // With white space before it, it is no value that was meant.
            put(format!("padded in `{key}`"), json!({"secret": format!(" {stray}")}));
            put(format!("an unknown field in `{key}`"), json!({"secret": "x-0", "client_secret": stray}));
        }
    }
    for (place, name, value) in [("an unknown member", "more", json!(stray)), ("the name of a member", stray, json!(1))] {
        let mut changed = good.clone();
        changed[name] = value;
        all.push((place.to_owned(), changed));
    }
    all
}
