//! What each verb does.

use serde_json::{Value, json};

use super::Call;
use super::apply::applied;
use super::ask::{Ask, Target};
use super::check::{check, normal};
use super::kinds::Kind;
use super::managers::record_update;
use super::patch::{merge_patch, strategic};
use super::rbac::User;
use super::select::Selector;
use super::state::{State, now};
use super::status::{Cause, Outcome, Reply, already_exists, bad_request, conflict, failure, invalid, modified, not_found};

const APPLY: &str = "application/apply-patch+yaml";

impl State {
    /// All but watches.
    pub(super) fn perform(&mut self, ask: &Ask, user: &User) -> Outcome {
        let kind = match &ask.target {
            Target::TokenReview if ask.verb == "create" => return self.review(ask),
            Target::AccessReview if ask.verb == "create" => return self.review_access(user, ask),
            Target::TokenReview | Target::AccessReview => return Err(super::status::no_such_path()),
            Target::Kind(kind) => *kind,
        };
        if ask.subresource == "token" && kind.plural == "serviceaccounts" && ask.verb == "create" {
            return self.request_token(kind, ask);
        }
        if !(ask.subresource.is_empty() || ask.subresource == "status" && kind.has_status) {
            return Err(super::status::no_such_path());
        }
        if !ask.query("dryRun").is_empty() {
            return Err(bad_request("the fake knows no dry run"));
        }
        match ask.verb {
            "get" => self.find(kind.plural, &ask.namespace, &ask.name).cloned().map(Reply::ok).ok_or_else(|| not_found(kind, &ask.name)),
            "list" => self.list(kind, ask),
            "create" => self.create(kind, ask),
            "update" => self.replace(kind, ask),
            "patch" => self.patch(kind, ask, user),
            "delete" => self.delete(kind, ask),
            "deletecollection" => self.delete_all(kind, ask),
            verb => Err(bad_request(format!("the fake doesn't know how to {verb}"))),
        }
    }

    fn list(&mut self, kind: &'static Kind, ask: &Ask) -> Outcome {
        let limit: usize = ask.query("limit").parse().unwrap_or(0);
        let token = ask.query("continue");
        let (version, mut rest) = if token.is_empty() {
            let selector = Selector::parse(kind, ask.query("labelSelector"), ask.query("fieldSelector"))?;
            if ask.query("resourceVersionMatch") == "Exact" {
                return Err(bad_request("the fake keeps no old versions"));
            }
            let mut all = self.all_of(kind.plural, &ask.namespace);
            all.retain(|object| selector.takes(object));
            (self.version, all)
        } else {
            let expired = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.";
            self.pages.get(token).cloned().ok_or_else(|| failure(410, "Expired", expired.to_owned(), Value::Null))?
        };
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if limit > 0 && rest.len() > limit {
            let later = rest.split_off(limit);
            let next = uuid::Uuid::new_v4().to_string();
            metadata["continue"] = json!(next);
            // "If the list request contained label or field selectors, then the number of remaining items is unknown."
            if ask.query("labelSelector").is_empty() && ask.query("fieldSelector").is_empty() {
                metadata["remainingItemCount"] = json!(later.len());
            }
            self.pages.insert(next, (version, later));
        }
        // Items of a list don't say what they are.
        rest.iter_mut().filter_map(Value::as_object_mut).for_each(|object| {
            object.remove("kind");
            object.remove("apiVersion");
        });
        Ok(Reply::ok(json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": metadata, "items": rest})))
    }

    fn create(&mut self, kind: &'static Kind, ask: &Ask) -> Outcome {
        let mut object = normal(kind, ask.object()?)?;
        self.require_place(kind, ask, &object)?;
        let mut name = text(&object["metadata"]["name"]);
        if name.is_empty() {
            let prefix = text(&object["metadata"]["generateName"]);
            if prefix.is_empty() {
                let cause =
                    Cause("FieldValueRequired", "metadata.name".to_owned(), "Required value: name or generateName is required".to_owned());
                return Err(invalid(kind, "", &[cause]));
            }
            let random = uuid::Uuid::new_v4().simple().to_string();
            name = format!("{prefix}{}", &random[..5]);
        }
        if !text(&object["metadata"]["resourceVersion"]).is_empty() {
            let message = "resourceVersion should not be set on objects to be created";
            return Err(failure(500, "InternalError", message.to_owned(), Value::Null));
        }
        if self.find(kind.plural, &ask.namespace, &name).is_some() {
            return Err(already_exists(kind, &name));
        }
        object["metadata"]["name"] = json!(name);
        self.write(kind, ask, &name, None, object).map(Reply::created)
    }

    fn replace(&mut self, kind: &'static Kind, ask: &Ask) -> Outcome {
        let object = normal(kind, ask.object()?)?;
        self.require_place(kind, ask, &object)?;
        let name = text(&object["metadata"]["name"]);
        if name != ask.name {
            return Err(bad_request(format!("the name of the object ({name}) does not match the name on the URL ({})", ask.name)));
        }
        let existing = self.find(kind.plural, &ask.namespace, &name).cloned();
        let version = text(&object["metadata"]["resourceVersion"]);
        let Some(existing) = existing else {
            if !kind.creates_on_update {
                return Err(not_found(kind, &name));
            }
            if object["metadata"]["uid"].is_string() {
                return Err(conflict(kind, &name, "StorageError: invalid object, Code: 4, Precondition failed: UID in object meta: "));
            }
            return self.write(kind, ask, &name, None, object).map(Reply::created);
        };
        if version.is_empty() && kind.needs_version {
            let message = "Invalid value: 0x0: must be specified for an update".to_owned();
            return Err(invalid(kind, &name, &[Cause("FieldValueInvalid", "metadata.resourceVersion".to_owned(), message)]));
        }
        self.require_same(kind, &name, &existing, &object)?;
        self.write(kind, ask, &name, Some(&existing), object).map(Reply::ok)
    }

    /// The version and the UID that a write names are those of the object.
    fn require_same(&self, kind: &Kind, name: &str, existing: &Value, written: &Value) -> Result<(), Reply> {
        let uid = text(&written["metadata"]["uid"]);
        if !uid.is_empty() && existing["metadata"]["uid"] != json!(uid) {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", text(&existing["metadata"]["uid"]));
            return Err(conflict(kind, name, &why));
        }
        let version = text(&written["metadata"]["resourceVersion"]);
        if !version.is_empty() && existing["metadata"]["resourceVersion"] != json!(version) {
            return Err(modified(kind, name));
        }
        Ok(())
    }

    fn patch(&mut self, kind: &'static Kind, ask: &Ask, user: &User) -> Outcome {
        let patch = ask.object()?;
        let existing = self.find(kind.plural, &ask.namespace, &ask.name).cloned();
        if ask.content_type == APPLY || ask.content_type == "application/apply-patch+json" {
            return self.apply(kind, ask, user, existing.as_ref(), patch);
        }
        if ask.query.contains_key("force") {
            return Err(bad_request(
                "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
            ));
        }
        let Some(existing) = existing else { return Err(not_found(kind, &ask.name)) };
        let mut object = existing.clone();
        match ask.content_type.as_str() {
            "application/merge-patch+json" => merge_patch(&mut object, &patch),
            "application/strategic-merge-patch+json" => strategic(&mut object, &patch),
            other => {
                let message =
                    format!("the body of the request was in an unknown format - accepted media types include: {APPLY}; got {other}");
                return Err(failure(415, "UnsupportedMediaType", message, Value::Null));
            }
        }
        let named = json!({"metadata": {"uid": patch["metadata"]["uid"], "resourceVersion": patch["metadata"]["resourceVersion"]}});
        self.require_same(kind, &ask.name, &existing, &named)?;
        let object = normal(kind, object)?;
        self.write(kind, ask, &ask.name, Some(&existing), object).map(Reply::ok)
    }

    fn apply(&mut self, kind: &'static Kind, ask: &Ask, user: &User, existing: Option<&Value>, config: Value) -> Outcome {
        let manager = ask.query("fieldManager");
        if manager.is_empty() {
            let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
            return Err(failure(422, "Invalid", message.to_owned(), Value::Null));
        }
        if config["apiVersion"] != json!(kind.api_version()) || config["kind"] != json!(kind.kind) {
            return Err(bad_request("apiVersion and kind must be set to those of the object"));
        }
        if !config["metadata"]["managedFields"].is_null() {
            return Err(bad_request("metadata.managedFields must be nil"));
        }
        self.require_place(kind, ask, &config)?;
        let name = text(&config["metadata"]["name"]);
        if !name.is_empty() && name != ask.name {
            return Err(bad_request(format!("the name of the object ({name}) does not match the name on the URL ({})", ask.name)));
        }
        match existing {
            Some(existing) => self.require_same(kind, &ask.name, existing, &config)?,
            None if !text(&config["metadata"]["uid"]).is_empty() || !text(&config["metadata"]["resourceVersion"]).is_empty() => {
                return Err(conflict(kind, &ask.name, "Precondition failed: UID in object meta: "));
            }
            // The name stands in the address, so that a right for this name alone is enough.
            None => self.authorize(user, &Call { verb: "create".to_owned(), ..ask.call(&user.name) }, ask)?,
        }
        let written = with_plain_strings_encoded(kind, &config)?;
        let object = applied(kind, existing, &written, manager, &ask.subresource, ask.says("force"))?;
        let mut object = normal(kind, object)?;
        check(kind, &ask.name, &object, existing)?;
        keep_the_other_half(kind, ask, existing, &mut object);
        let stored = self.store(kind, &ask.namespace, &ask.name, existing, object);
        Ok(if existing.is_some() { Reply::ok(stored) } else { Reply::created(stored) })
    }

    /// Create, update and the older patches: all but apply.
    fn write(&mut self, kind: &'static Kind, ask: &Ask, name: &str, existing: Option<&Value>, mut object: Value) -> Result<Value, Reply> {
        check(kind, name, &object, existing)?;
        keep_the_other_half(kind, ask, existing, &mut object);
        record_update(kind, existing, &mut object, &ask.manager(), &ask.subresource);
        let stored = self.store(kind, &ask.namespace, name, existing, object);
        if existing.is_none() && kind.plural == "namespaces" {
            self.furnish(name);
        }
        Ok(stored)
    }

    /// The namespace is there, and it is the one of the object.
    fn require_place(&self, kind: &Kind, ask: &Ask, object: &Value) -> Result<(), Reply> {
        let written = text(&object["metadata"]["namespace"]);
        if !written.is_empty() && written != ask.namespace {
            let message = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(bad_request(message));
        }
        if kind.is_namespaced && self.find("namespaces", "", &ask.namespace).is_none() {
            return Err(not_found(super::kinds::by_plural("namespaces"), &ask.namespace));
        }
        Ok(())
    }

    fn delete(&mut self, kind: &'static Kind, ask: &Ask) -> Outcome {
        let Some(existing) = self.find(kind.plural, &ask.namespace, &ask.name).cloned() else { return Err(not_found(kind, &ask.name)) };
        if !ask.body.is_empty() {
            let preconditions = json!({"metadata": ask.object()?["preconditions"]});
            self.require_same(kind, &ask.name, &existing, &preconditions)?;
        }
        let has_finalizers = existing["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        if has_finalizers {
            let mut object = existing.clone();
            object["metadata"]["deletionTimestamp"] = json!(now());
            return Ok(Reply::ok(self.store(kind, &ask.namespace, &ask.name, Some(&existing), object)));
        }
        self.remove(kind, &ask.namespace, &ask.name);
        let details = json!({"name": ask.name, "group": kind.group, "kind": kind.plural, "uid": existing["metadata"]["uid"]});
        Ok(Reply::ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})))
    }

    fn delete_all(&mut self, kind: &'static Kind, ask: &Ask) -> Outcome {
        let selector = Selector::parse(kind, ask.query("labelSelector"), ask.query("fieldSelector"))?;
        let mut all = self.all_of(kind.plural, &ask.namespace);
        all.retain(|object| selector.takes(object));
        for object in &all {
            self.remove(kind, &text(&object["metadata"]["namespace"]), &text(&object["metadata"]["name"]));
        }
        Ok(Reply::ok(json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": {}, "items": all})))
    }
}

/// A write of the object leaves its status alone; one of the status leaves all else alone.
fn keep_the_other_half(kind: &Kind, ask: &Ask, existing: Option<&Value>, object: &mut Value) {
    if !kind.has_status {
        return;
    }
    match (existing, ask.subresource.as_str()) {
        (Some(existing), "status") => {
            let mut kept = existing.clone();
            kept["status"] = object["status"].take();
            kept["metadata"]["managedFields"] = object["metadata"]["managedFields"].take();
            *object = kept;
        }
        (existing, _) => match existing.map(|existing| existing["status"].clone()).filter(|status| !status.is_null()) {
            Some(status) => object["status"] = status,
            None => drop(object.as_object_mut().and_then(|fields| fields.remove("status"))),
        },
    }
}

/// What an applier of a Secret writes plainly belongs to him as data.
fn with_plain_strings_encoded(kind: &Kind, config: &Value) -> Result<Value, Reply> {
    if kind.plural != "secrets" || config["stringData"].is_null() {
        return Ok(config.clone());
    }
    let mut config = config.clone();
    let had_type = config["type"].is_string();
    config = normal(kind, config)?;
    if !had_type {
        config.as_object_mut().and_then(|fields| fields.remove("type"));
    }
    Ok(config)
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
