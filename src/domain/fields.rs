//! The fields of a credential as somebody brings them: all of them, nothing else, and each of them a value.

use super::ids::FieldName;
use super::material::{Material, ValueProblem, check_value};
use super::provider::Provider;

/// What is wrong with one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldProblem {
    #[error("is missing")]
    Missing,
    #[error("isn't a field of this provider")]
    Unknown,
    #[error(transparent)]
    Value(#[from] ValueProblem),
    #[error("doesn't have the form that the provider documents: is it whole, and from the right place?")]
    Misshapen,
}

/// What is wrong with the fields, before anyone asks where they belong. A value whose form the provider's own word rules out is
/// refused here: it is no evidence of an environment, it is no value.
pub fn misfits(provider: &Provider, material: &Material) -> Vec<(FieldName, FieldProblem)> {
    let unknown = material.iter().map(|(name, _)| name).filter(|name| !provider.fields.contains_key(*name));
    let unknown = unknown.map(|name| (name.clone(), FieldProblem::Unknown));
    let missing = provider.fields.keys().filter(|name| material.get(name).is_none()).map(|name| (name.clone(), FieldProblem::Missing));
    let values = material.iter().filter_map(|(name, value)| {
        if let Err(problem) = check_value(value) {
            return Some((name.clone(), FieldProblem::Value(problem)));
        }
        let form = &provider.fields.get(name)?.form;
        form.is_ruled_out(value.expose_str()?).then(|| (name.clone(), FieldProblem::Misshapen))
    });
    unknown.chain(missing).chain(values).collect()
}
