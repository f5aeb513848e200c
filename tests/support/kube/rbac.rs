//! Who may do what: by the roles and bindings that are stored, as the documentation of RBAC says.

use serde_json::{Value, json};

use super::ask::Ask;
use super::state::State;
use super::status::{Outcome, Reply, failure};
use super::{ApiServer, Call};

/// The token of the one who may do everything.
pub(crate) const ADMIN: &str = "admin-token-of-the-fake";

#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) groups: Vec<String>,
    pub(super) extra: Value,
}

impl User {
    pub(super) fn admin() -> Self {
        let groups = vec!["system:masters".to_owned(), "system:authenticated".to_owned()];
        Self { name: "kubernetes-admin".to_owned(), uid: String::new(), groups, extra: json!({}) }
    }
}

/// Its name as a user.
pub(crate) fn service_account(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

impl ApiServer {
    /// Lets a service account do what these rules say, in one namespace or in all. `rules` as in a Role.
    pub(crate) fn grant(&self, account: (&str, &str), namespace: Option<&str>, rules: Value) {
        let name = format!("granted-{}", uuid::Uuid::new_v4());
        let subjects = json!([{"kind": "ServiceAccount", "namespace": account.0, "name": account.1}]);
        let (role, binding, kind) = match namespace {
            Some(_) => ("roles", "rolebindings", "Role"),
            None => ("clusterroles", "clusterrolebindings", "ClusterRole"),
        };
        let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
        let place = namespace.unwrap_or_default();
        self.put(role, place, json!({"metadata": {"name": name}, "rules": rules}));
        self.put(binding, place, json!({"metadata": {"name": name}, "roleRef": reference, "subjects": subjects}));
    }
}

/// What is asked for, as rules see it.
struct Attributes<'a> {
    verb: &'a str,
    group: &'a str,
    /// With its subresource.
    resource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl State {
    /// # Errors
    /// 403, in the documented words.
    pub(super) fn authorize(&self, user: &User, call: &Call, ask: &Ask) -> Result<(), Reply> {
        // Who may only see one name may list it by that name.
        let by_selector = ask.query("fieldSelector").split(',').find_map(|part| part.strip_prefix("metadata.name="));
        let name = if call.name.is_empty() { by_selector.unwrap_or_default().trim_start_matches('=') } else { &call.name };
        let wanted = Attributes { verb: &call.verb, group: &call.group, resource: &call.resource, namespace: &call.namespace, name };
        if self.allows(user, &wanted) {
            return Ok(());
        }
        let qualified = if call.group.is_empty() { call.resource.clone() } else { format!("{}.{}", call.resource, call.group) };
        let named = if call.name.is_empty() { String::new() } else { format!(" \"{}\"", call.name) };
        let place =
            if call.namespace.is_empty() { "at the cluster scope".to_owned() } else { format!("in the namespace \"{}\"", call.namespace) };
        let message = format!(
            "{qualified}{named} is forbidden: User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {place}",
            user.name, call.verb, call.resource, call.group
        );
        Err(failure(403, "Forbidden", message, json!({"name": call.name, "kind": call.resource})))
    }

    fn allows(&self, user: &User, wanted: &Attributes<'_>) -> bool {
        if user.groups.iter().any(|group| group == "system:masters") || wanted.resource == "selfsubjectaccessreviews" {
            return true;
        }
        let cluster = self.all_of("clusterrolebindings", "");
        let local = if wanted.namespace.is_empty() { Vec::new() } else { self.all_of("rolebindings", wanted.namespace) };
        let bound = cluster.iter().chain(&local).filter(|binding| is_subject(&binding["subjects"], user));
        let mut rules = bound.filter_map(|binding| {
            let name = binding["roleRef"]["name"].as_str()?;
            if binding["roleRef"]["kind"] == json!("ClusterRole") {
                self.find("clusterroles", "", name)
            } else {
                self.find("roles", wanted.namespace, name)
            }
        });
        rules.any(|role| role["rules"].as_array().into_iter().flatten().any(|rule| covers(rule, wanted)))
    }

    pub(super) fn review_access(&self, user: &User, ask: &Ask) -> Outcome {
        let mut review = ask.object()?;
        let attributes = &review["spec"]["resourceAttributes"];
        let text = |name: &str| attributes[name].as_str().unwrap_or_default().to_owned();
        let subresource = text("subresource");
        let resource = if subresource.is_empty() { text("resource") } else { format!("{}/{subresource}", text("resource")) };
        let (verb, group, namespace, name) = (text("verb"), text("group"), text("namespace"), text("name"));
        let wanted = Attributes { verb: &verb, group: &group, resource: &resource, namespace: &namespace, name: &name };
        let allowed = self.allows(user, &wanted);
        review["status"] = json!({"allowed": allowed});
        Ok(Reply::created(review))
    }
}

fn is_subject(subjects: &Value, user: &User) -> bool {
    subjects.as_array().into_iter().flatten().any(|subject| {
        let text = |name: &str| subject[name].as_str().unwrap_or_default();
        match text("kind") {
            "ServiceAccount" => user.name == service_account(text("namespace"), text("name")),
            "User" => user.name == text("name"),
            "Group" => user.groups.iter().any(|group| group == text("name")),
            _ => false,
        }
    })
}

fn covers(rule: &Value, wanted: &Attributes<'_>) -> bool {
    let has = |field: &str, value: &str| rule[field].as_array().into_iter().flatten().any(|one| one == &json!(value) || one == &json!("*"));
    let names = rule["resourceNames"].as_array().filter(|names| !names.is_empty());
    has("verbs", wanted.verb)
        && has("apiGroups", wanted.group)
        && has("resources", wanted.resource)
        && names.is_none_or(|names| !wanted.name.is_empty() && names.contains(&json!(wanted.name)))
}
