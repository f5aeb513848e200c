//! Builds one HTTP request from its description.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::address::{self, Base};
use super::gate::Token;
use super::template::{Scope, percent_encoded};
use crate::domain::ids::FieldName;
use crate::domain::material::Material;
use crate::domain::provider::{Authentication, Body, Call, Method, Signature};
use crate::issuers::{Administrator, IssuerError, Target};
use crate::outbound::Reach;

/// Who signs, and on whose behalf.
#[derive(Clone, Copy)]
pub(super) struct Signer<'a> {
    /// The version that signs and lends its fields.
    pub acting: &'a Material,
    /// The version that is acted upon, whose management fields open its own record.
    pub subject: Option<&'a Material>,
    /// A token fetched for this call, by whoever signs it.
    pub token: Option<&'a Token>,
    /// Signs in the place of the acting version, where it is the one that signs this call.
    pub administrator: Option<&'a Administrator>,
}

/// Whose signature a call bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignedBy {
    Nobody,
    /// The acting version.
    Acting,
    /// The version that is acted upon, with its management fields.
    Subject,
    Administrator,
}

impl Signer<'_> {
    pub(super) fn signed_by(self, call: &Call) -> SignedBy {
        match call.authentication {
            Authentication::Administrator => SignedBy::Administrator,
            Authentication::Open if self.administrator.is_some() => SignedBy::Administrator,
            Authentication::Open => SignedBy::Nobody,
            Authentication::Management { .. } => SignedBy::Subject,
            Authentication::Basic { .. } | Authentication::Bearer { .. } | Authentication::Token => SignedBy::Acting,
        }
    }
}

/// A request that is ready to be sent.
pub(super) struct Prepared {
    pub request: reqwest::Request,
    pub reach: Reach,
}

/// What differs from call to call of one description.
#[derive(Clone, Default)]
pub(super) struct Extras {
    /// What `{key_id}`, `{marker}` and `{operation_id}` stand for.
    pub variables: Vec<(&'static str, String)>,
    /// Beyond the description's own query: the cursor of a page.
    pub query: Vec<(String, String)>,
    /// Beyond the description's own headers: the idempotency key.
    pub headers: Vec<(String, String)>,
    /// The call that this one fetches a token for is counted along with it.
    pub pays_for_next: bool,
}

/// # Errors
/// [`IssuerError::Impossible`] if the description, the address or a value doesn't allow the call. Nothing was sent.
pub(super) fn build(target: &Target, call: &Call, signer: Signer<'_>, extras: Extras) -> Result<Prepared, IssuerError> {
    let base = address::base(&target.base_url)?;
    let scope = Scope::new(target, signer.acting, extras.variables);
    let mut url = url_of(call, &base, &scope, signer)?;
    for (name, value) in &call.query {
        url.query_pairs_mut().append_pair(name, &scope.text(value)?);
    }
    for (name, value) in &extras.query {
        url.query_pairs_mut().append_pair(name, value);
    }
    let mut request = reqwest::Request::new(method_of(call.method), url);
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    for (name, value) in &call.headers {
        headers.insert(header_name(name)?, header_value(&scope.text(value)?)?);
    }
    for (name, value) in &extras.headers {
        headers.insert(header_name(name)?, header_value(value)?);
    }
    if let Some(value) = authorization(&call.authentication, signer)? {
        headers.insert(AUTHORIZATION, header_value(&value)?);
    }
    if let Some((kind, bytes)) = body_of(&call.body, &scope)? {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        *request.body_mut() = Some(bytes.into());
    }
    Ok(Prepared { request, reach: base.reach })
}

fn url_of<'a>(call: &'a Call, base: &Base, scope: &'a Scope<'a>, signer: Signer<'_>) -> Result<Url, IssuerError> {
    if let Some(field) = &call.url_field {
        let subject = signer.subject.ok_or(IssuerError::Impossible("the management fields of the key aren't at hand"))?;
        let url = Url::parse(text_of(subject, field)?).map_err(|_| IssuerError::Impossible("the key's own URL is no URL"))?;
        if !address::same_origin(&base.url, &url) {
            return Err(IssuerError::Impossible("the key's own URL isn't on the environment's origin"));
        }
        return Ok(url);
    }
    let path = scope.path(&call.path)?;
    let whole = format!("{}{}", base.url.as_str().trim_end_matches('/'), path.as_str());
    let url = Url::parse(&whole).map_err(|_| IssuerError::Impossible("the path makes no URL"))?;
    // Whatever the parser takes out of a path, it may not take out of ours.
    if !path.starts_with('/') || url.as_str() != whole || !address::same_origin(&base.url, &url) || url.query().is_some() {
        return Err(IssuerError::Impossible("a value would change the path"));
    }
    Ok(url)
}

fn method_of(method: Method) -> reqwest::Method {
    match method {
        Method::Get => reqwest::Method::GET,
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
        Method::Delete => reqwest::Method::DELETE,
    }
}

fn authorization(authentication: &Authentication, signer: Signer<'_>) -> Result<Option<Zeroizing<String>>, IssuerError> {
    Ok(Some(match authentication {
        Authentication::Open if signer.administrator.is_none() => return Ok(None),
        Authentication::Open | Authentication::Administrator => by_administrator(signer)?,
        Authentication::Basic { username, password } => basic(text_of(signer.acting, username)?, text_of(signer.acting, password)?),
        Authentication::Bearer { field } => bearer(text_of(signer.acting, field)?),
        Authentication::Token => by_token(signer)?,
        Authentication::Management { field } => {
            let subject = signer.subject.ok_or(IssuerError::Impossible("the management fields of the key aren't at hand"))?;
            bearer(text_of(subject, field)?)
        }
    }))
}

/// The administering credential signs as its own description says, with its own fields.
fn by_administrator(signer: Signer<'_>) -> Result<Zeroizing<String>, IssuerError> {
    let administrator = signer.administrator.ok_or(IssuerError::Impossible("the credential that administers this one isn't at hand"))?;
    let material = &administrator.material;
    Ok(match &administrator.target.provider.signs {
        Some(Signature::Basic { username, password }) => basic(text_of(material, username)?, text_of(material, password)?),
        Some(Signature::Bearer { field }) => bearer(text_of(material, field)?),
        Some(Signature::Token) => by_token(signer)?,
        None => return Err(IssuerError::Impossible("the administering credential's description doesn't say how it signs")),
    })
}

fn by_token(signer: Signer<'_>) -> Result<Zeroizing<String>, IssuerError> {
    let token = signer.token.and_then(|token| token.secret.expose_str());
    Ok(bearer(token.ok_or(IssuerError::Impossible("the description has no token call"))?))
}

fn text_of<'a>(material: &'a Material, field: &FieldName) -> Result<&'a str, IssuerError> {
    let value = material.get(field).ok_or(IssuerError::Impossible("a field that the call needs is missing"))?;
    value.expose_str().ok_or(IssuerError::Impossible("a field that the call needs is no text"))
}

fn bearer(token: &str) -> Zeroizing<String> {
    Zeroizing::new(["Bearer ", token].concat())
}

/// RFC 6749, section 2.3.1: both are form-encoded before they meet in Basic, so that a colon stays where it belongs.
fn basic(username: &str, password: &str) -> Zeroizing<String> {
    let (username, password) = (percent_encoded(username.as_bytes()), percent_encoded(password.as_bytes()));
    let pair = Zeroizing::new([username.as_str(), ":", password.as_str()].concat());
    let mut value = Zeroizing::new(String::with_capacity(8 + 4 * pair.len().div_ceil(3)));
    value.push_str("Basic ");
    STANDARD.encode_string(pair.as_bytes(), &mut value);
    value
}

fn header_name(name: &str) -> Result<HeaderName, IssuerError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| IssuerError::Impossible("the name of a header isn't one"))
}

/// Marked sensitive, all of them: which holds a secret is the description's to know, and the client's `Debug` prints headers.
fn header_value(value: &str) -> Result<HeaderValue, IssuerError> {
    let mut value = HeaderValue::from_str(value).map_err(|_| IssuerError::Impossible("the value of a header isn't one"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn body_of<'a>(body: &'a Body, scope: &'a Scope<'a>) -> Result<Option<(&'static str, Vec<u8>)>, IssuerError> {
    Ok(match body {
        Body::None => None,
        Body::Form(pairs) => {
            let mut form = scope.form(pairs)?;
            Some(("application/x-www-form-urlencoded", std::mem::take(&mut *form).into_bytes()))
        }
        Body::Json(template) => {
            let json = scope.json(template)?;
            let bytes = serde_json::to_vec(&json).map_err(|_| IssuerError::Impossible("the body can't be written"))?;
            Some(("application/json", bytes))
        }
    })
}
