//! Makes a key, and takes its fields out of the answer.

use serde_json::Value;

use super::reply::{id_text, time};
use super::request::{Extras, Signer};
use super::{DeclarativeIssuer, refusal};
use crate::domain::ids::FieldName;
use crate::domain::material::{Material, Secret, check_value};
use crate::domain::provider::{Create, Meaning, Provider, SignedCall};
use crate::domain::succession::OVERLAP_SECONDS;
use crate::issuers::{CreateRequest, IssuerError, Minted, Target};

impl DeclarativeIssuer {
    pub(super) async fn mint(&self, target: &Target, acting: &Material, request: &CreateRequest) -> Result<Minted, IssuerError> {
        let create = target.provider.calls.create.as_ref().ok_or(IssuerError::Impossible("the description has no create call"))?;
        let administrator = target.administrator_for(SignedCall::Create);
        let token = self.token_for(target, &create.call, acting, administrator).await?;
        // The key that stays is changed with its own management fields.
        let subject = (!target.provider.succession().spares_the_old()).then_some(acting);
        let signer = Signer { acting, subject, token: token.as_ref(), administrator };
        let operation = request.operation.to_string();
        let extras = Extras {
            headers: create.idempotency_headers.iter().map(|name| (name.clone(), operation.clone())).collect(),
            variables: vec![
                ("marker", request.marker.clone()),
                ("operation_id", operation.clone()),
                (OVERLAP_SECONDS, request.overlap.as_secs().to_string()),
            ],
            ..Extras::default()
        };
        let reply = self.call(target, "create", &create.call, signer, extras).await?;
        match reply.meaning(&create.call.rules) {
            Meaning::Works => minted(create, &target.provider, reply.json()?, acting, &operation),
            other => Err(refusal(&reply, other, target, signer.signed_by(&create.call))),
        }
    }
}

/// # Errors
/// [`IssuerError::BadValue`] if a value is missing or can't be one: a key was made, and isn't usable.
pub(super) fn minted(
    create: &Create,
    provider: &Provider,
    json: &Value,
    acting: &Material,
    operation: &str,
) -> Result<Minted, IssuerError> {
    let key_id = match &create.key_id {
        Some(pointer) => json.pointer(pointer).and_then(id_text),
        None => Some(operation.to_owned()),
    };
    let key_id = key_id.and_then(|text| text.parse().ok());
    let mut material = Material::default();
    for (field, pointer) in &create.fields {
        if let Some(kept) = acting.get(field).filter(|_| may_stay(provider, field) && is_absent(json, pointer)) {
            material.insert(field.clone(), kept.duplicate());
        } else {
            material.insert(field.clone(), value_at(json, pointer)?);
        }
    }
    for (field, value) in acting.iter().filter(|(field, _)| is_kept(create, provider, field)) {
        material.insert(field.clone(), value.duplicate());
    }
    Ok(Minted {
        key_id: key_id.ok_or(IssuerError::BadValue)?,
        material,
        // A wrong one does no harm: our own time stands in for it.
        issued_at: time(json, create.issued_at.as_deref()).unwrap_or(None),
        // An end that can't be read would come unannounced.
        expires_at: time(json, create.expires_at.as_deref()).map_err(|_| IssuerError::BadValue)?,
        // What was asked for stands in for it.
        previous_expires_at: time(json, create.previous_expires_at.as_deref()).unwrap_or(None),
    })
}

/// The fields that a new key keeps. What manages the old key isn't one of them, unless the key is the same.
fn is_kept(create: &Create, provider: &Provider, field: &FieldName) -> bool {
    let fits = !provider.is_management(field) || !provider.succession().spares_the_old();
    provider.fields.contains_key(field) && fits && !create.fields.contains_key(field)
}

/// What manages a key that stays may change with it (RFC 7592, section 2.2), and needn't.
fn may_stay(provider: &Provider, field: &FieldName) -> bool {
    provider.is_management(field) && !provider.succession().spares_the_old()
}

fn is_absent(json: &Value, pointer: &str) -> bool {
    json.pointer(pointer).is_none_or(Value::is_null)
}

fn value_at(json: &Value, pointer: &str) -> Result<Secret, IssuerError> {
    let text = json.pointer(pointer).and_then(Value::as_str).ok_or(IssuerError::BadValue)?;
    let value = Secret::new(text.as_bytes());
    check_value(&value).map_err(|_| IssuerError::BadValue)?;
    Ok(value)
}
