//! Tokens of service accounts: issued for audiences and a pod, of the old kind, expired, revoked; and their reviews.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::ApiServer;
use super::ask::Ask;
use super::rbac::{ADMIN, User, service_account};
use super::state::{State, now};
use super::status::{Cause, Outcome, Reply, bad_request, invalid, not_found};

/// What tokens for the API itself are for, and tokens of the old kind.
pub(crate) const API_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

const SECONDS_MIN: i64 = 600;
const SECONDS_DEFAULT: i64 = 3600;

#[derive(Debug, Clone)]
struct Issued {
    namespace: String,
    account: String,
    account_uid: String,
    /// Name and UID.
    pod: Option<(String, String)>,
    audiences: Vec<String>,
    /// `None`: of the old kind, for ever.
    until: Option<Instant>,
    is_revoked: bool,
}

#[derive(Debug, Default)]
pub(super) struct Tokens {
    issued: BTreeMap<String, Issued>,
}

impl ApiServer {
    /// A token of this service account, bound to this pod, which are made if they aren't there.
    pub(crate) fn token(&self, namespace: &str, account: &str, pod: Option<&str>, audiences: &[&str], ttl: Duration) -> String {
        self.change(|state| {
            state.add_account(namespace, account);
            if let Some(pod) = pod.filter(|pod| state.find("pods", namespace, pod).is_none()) {
                let spec = json!({"serviceAccountName": account, "nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]});
                let object = json!({"metadata": {"name": pod}, "spec": spec, "status": {"phase": "Running"}});
                state.put_by_hand("pods", namespace, object);
            }
            let audiences = audiences.iter().map(|&audience| audience.to_owned()).collect();
            state.issue(namespace, account, pod, audiences, Some(ttl))
        })
    }

    /// A token of the old kind: without audience, pod or end.
    pub(crate) fn legacy_token(&self, namespace: &str, account: &str) -> String {
        self.change(|state| {
            state.add_account(namespace, account);
            state.issue(namespace, account, None, vec![API_AUDIENCE.to_owned()], None)
        })
    }

    /// Whoever shows it is unknown from now on.
    pub(crate) fn revoke(&self, token: &str) {
        self.lock().tokens.issued.get_mut(token).expect("a token of ours").is_revoked = true;
    }
}

/// As the documentation of service accounts lists them: of a bound token, or of the old kind.
fn claims(account: (&str, &str, &str), pod: Option<&(String, String)>, audiences: &[String], ttl: Option<Duration>) -> Value {
    let (namespace, name, uid) = account;
    let subject = service_account(namespace, name);
    let Some(ttl) = ttl else {
        return json!({
            "iss": "kubernetes/serviceaccount", "sub": subject, "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/service-account.name": name, "kubernetes.io/serviceaccount/service-account.uid": uid,
        });
    };
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let mut private = json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}});
    if let Some((pod, uid)) = pod {
        private["pod"] = json!({"name": pod, "uid": uid});
    }
    json!({
        "aud": audiences, "exp": now + ttl.as_secs(), "iat": now, "nbf": now, "iss": API_AUDIENCE, "sub": subject,
        "jti": uuid::Uuid::new_v4().to_string(), "kubernetes.io": private,
    })
}

impl State {
    fn add_account(&mut self, namespace: &str, account: &str) {
        self.add_namespace(namespace);
        if self.find("serviceaccounts", namespace, account).is_none() {
            self.put_by_hand("serviceaccounts", namespace, json!({"metadata": {"name": account}}));
        }
    }

    fn uid(&self, plural: &str, namespace: &str, name: &str) -> Option<String> {
        Some(self.find(plural, namespace, name)?["metadata"]["uid"].as_str()?.to_owned())
    }

    /// A JWT with the claims of real ones. Its signature says nothing: this server knows what it has issued.
    fn issue(&mut self, namespace: &str, account: &str, pod: Option<&str>, audiences: Vec<String>, ttl: Option<Duration>) -> String {
        let account_uid = self.uid("serviceaccounts", namespace, account).expect("an account");
        let pod = pod.map(|pod| (pod.to_owned(), self.uid("pods", namespace, pod).expect("a pod")));
        let claims = claims((namespace, account, &account_uid), pod.as_ref(), &audiences, ttl);
        let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signature = BASE64_URL_SAFE_NO_PAD.encode([*uuid::Uuid::new_v4().as_bytes(), *uuid::Uuid::new_v4().as_bytes()].concat());
        let token = format!("{}.{}.{signature}", part(json!({"alg": "RS256", "kid": "test"})), part(claims));
        let issued = Issued {
            namespace: namespace.to_owned(),
            account: account.to_owned(),
            account_uid,
            pod,
            audiences,
            until: ttl.map(|ttl| Instant::now() + ttl),
            is_revoked: false,
        };
        self.tokens.issued.insert(token.clone(), issued);
        token
    }

    /// The token's bearer and its audiences, or why it isn't taken.
    fn bearer(&self, token: &str) -> Result<(User, Vec<String>), &'static str> {
        if token == ADMIN {
            return Ok((User::admin(), vec![API_AUDIENCE.to_owned()]));
        }
        let issued = self.tokens.issued.get(token).filter(|issued| !issued.is_revoked).ok_or("invalid bearer token")?;
        if issued.until.is_some_and(|until| until <= Instant::now()) {
            return Err("[invalid bearer token, service account token has expired]");
        }
        if self.uid("serviceaccounts", &issued.namespace, &issued.account).as_ref() != Some(&issued.account_uid) {
            return Err("[invalid bearer token, service account UID does not match claim]");
        }
        let mut extra = BTreeMap::new();
        if let Some((name, uid)) = &issued.pod {
            if self.uid("pods", &issued.namespace, name).as_ref() != Some(uid) {
                return Err("[invalid bearer token, pod UID does not match claim]");
            }
            extra.insert("authentication.kubernetes.io/pod-name", vec![name.clone()]);
            extra.insert("authentication.kubernetes.io/pod-uid", vec![uid.clone()]);
            if let Some(node) = self.find("pods", &issued.namespace, name).and_then(|pod| pod["spec"]["nodeName"].as_str()) {
                extra.insert("authentication.kubernetes.io/node-name", vec![node.to_owned()]);
            }
        }
        let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{}", issued.namespace), "system:authenticated"];
        let user = User {
            name: service_account(&issued.namespace, &issued.account),
            uid: issued.account_uid.clone(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            extra: json!(extra),
        };
        Ok((user, issued.audiences.clone()))
    }

    /// Who calls the API itself.
    pub(super) fn caller(&self, token: &str) -> Option<User> {
        let (user, audiences) = self.bearer(token).ok()?;
        audiences.iter().any(|audience| audience == API_AUDIENCE).then_some(user)
    }

    pub(super) fn review(&self, ask: &Ask) -> Outcome {
        let mut review = ask.object()?;
        let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            return Err(bad_request("token is required for TokenReview in authentication"));
        }
        let asked: Vec<String> = serde_json::from_value(review["spec"]["audiences"].clone()).unwrap_or_default();
        let asked = if asked.is_empty() { vec![API_AUDIENCE.to_owned()] } else { asked };
        review["status"] = match self.bearer(&token) {
            Err(error) => json!({"user": {}, "error": error}),
            Ok((user, audiences)) => {
                let both: Vec<&String> = asked.iter().filter(|audience| audiences.contains(audience)).collect();
                if both.is_empty() {
                    let error =
                        format!("[invalid bearer token, token audiences {audiences:?} is invalid for the target audiences {asked:?}]");
                    json!({"user": {}, "error": error})
                } else {
                    let mut told = json!({"username": user.name, "uid": user.uid, "groups": user.groups});
                    if user.extra.as_object().is_some_and(|extra| !extra.is_empty()) {
                        told["extra"] = user.extra;
                    }
                    json!({"authenticated": true, "user": told, "audiences": both})
                }
            }
        };
        review["metadata"]["creationTimestamp"] = Value::Null;
        Ok(Reply::created(review))
    }

    /// `serviceaccounts/NAME/token`: a token for whom the caller names, bound to a pod where he names one.
    pub(super) fn request_token(&mut self, kind: &'static super::kinds::Kind, ask: &Ask) -> Outcome {
        if self.find("serviceaccounts", &ask.namespace, &ask.name).is_none() {
            return Err(not_found(kind, &ask.name));
        }
        let mut request = ask.object()?;
        let spec = &request["spec"];
        let seconds = spec["expirationSeconds"].as_i64().unwrap_or(SECONDS_DEFAULT);
        if seconds < SECONDS_MIN {
            let message = format!("Invalid value: {seconds}: may not specify a duration less than 10 minutes");
            return Err(invalid(kind, &ask.name, &[Cause("FieldValueInvalid", "spec.expirationSeconds".to_owned(), message)]));
        }
        let audiences: Vec<String> = serde_json::from_value(spec["audiences"].clone()).unwrap_or_default();
        let audiences = if audiences.is_empty() { vec![API_AUDIENCE.to_owned()] } else { audiences };
        let pod = spec["boundObjectRef"]["name"].as_str().map(str::to_owned);
        if let Some(pod) = pod.as_ref().filter(|pod| self.find("pods", &ask.namespace, pod).is_none()) {
            return Err(not_found(super::kinds::by_plural("pods"), pod));
        }
        let ttl = Duration::from_secs(seconds.unsigned_abs());
        let token = self.issue(&ask.namespace, &ask.name, pod.as_deref(), audiences, Some(ttl));
        request["status"] = json!({"token": token, "expirationTimestamp": now()});
        Ok(Reply::created(request))
    }
}
