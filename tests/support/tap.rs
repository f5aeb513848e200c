//! A Tap of our own, from its public facts alone: one host, the mode in the key, and a dashboard that only a test opens.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::canaries::Canary;
use super::rng::Rng;

pub(crate) struct Tap {
    address: std::net::SocketAddr,
    state: Mutex<State>,
}

struct State {
    rng: Rng,
    /// Secret keys, and whether they live.
    keys: BTreeMap<String, bool>,
    /// How often each was shown.
    shown: BTreeMap<String, u32>,
}

impl Tap {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let state = State { rng: Rng::new(11), keys: BTreeMap::new(), shown: BTreeMap::new() };
        let fake = Arc::new(Self { address, state: Mutex::new(state) });
        tokio::spawn(serve(listener, fake.clone()));
        fake
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v2", self.address)
    }

    /// As the dashboard makes them: `mode` is `test` or `live`.
    pub(crate) fn make(&self, mode: &str) -> (String, String) {
        let mut state = self.lock();
        let secret = format!("sk_{mode}_{}", state.rng.alnum(24));
        let public = format!("pk_{mode}_{}", state.rng.alnum(24));
        state.keys.insert(secret.clone(), true);
        (secret, public)
    }

    /// As the dashboard removes them.
    pub(crate) fn remove(&self, secret: &str) {
        self.lock().keys.insert(secret.to_owned(), false);
    }

    pub(crate) fn accepts(&self, secret: &str) -> bool {
        self.lock().keys.get(secret) == Some(&true)
    }

    pub(crate) fn was_shown(&self, secret: &str) -> u32 {
        self.lock().shown.get(secret).copied().unwrap_or(0)
    }

    pub(crate) fn canaries(&self) -> Vec<Canary> {
        let after =
            |key: &String| Canary::after("secret key of Tap", if key.starts_with("sk_live_") { "sk_live_" } else { "sk_test_" }, key);
        self.lock().keys.keys().map(after).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it")
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let secret = bearer.unwrap_or_default().to_owned();
        *self.lock().shown.entry(secret.clone()).or_default() += 1;
        let known = request.method() == http::Method::GET && request.uri().path().starts_with("/v2/charges/");
        let status = match (known, self.accepts(&secret)) {
            (_, false) => 401,
            // There is no such charge, and no other call.
            (true | false, true) => 404,
        };
        let body = Full::new(Bytes::from_static(br#"{"errors":[{"code":"1143","description":"no"}]}"#));
        Response::builder().status(status).header(header::CONTENT_TYPE, "application/json").body(body).expect("a valid answer")
    }
}

async fn serve(listener: tokio::net::TcpListener, fake: Arc<Tap>) {
    while let Ok((stream, _)) = listener.accept().await {
        let fake = fake.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let fake = fake.clone();
                async move { Ok::<_, std::convert::Infallible>(fake.answer(&request)) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
