//! Credentials as variables of a program, where it can read nothing else: `<CREDENTIAL>_<FIELD>`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use super::document::Documents;
use crate::cli::failure::Failure;

/// Names and values, for a child's environment alone.
///
/// # Errors
/// Two values would have one name, or the name that is set already; or a value has a NUL, which no variable can hold.
pub(super) fn variables(documents: &Documents, is_set: impl Fn(&str) -> bool) -> Result<BTreeMap<String, OsString>, Failure> {
    let mut all = BTreeMap::new();
    for (credential, document) in documents {
        for (field, value) in document.fields.iter() {
            let name = format!("{credential}_{field}").replace('-', "_").to_ascii_uppercase();
            let refused = |why: &str| {
                let detail = format!("field `{field}` of `{credential}` as the variable {name}: {why}");
                Err(Failure::failed("no-variable", "a field can't be given as a variable", detail)
                    .then("give the program files: leave --env out"))
            };
            if value.expose().contains(&0) {
                return refused("its value has a NUL, which no variable can hold");
            }
            if is_set(&name) {
                return refused("it is set in the environment already");
            }
            if all.insert(name.clone(), OsString::from_vec(value.expose().to_vec())).is_some() {
                return refused("another field has this name");
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::super::document::{document, set};
    use super::*;

    #[test]
    fn cli_exec_names_variables_by_credential_and_field() {
        let documents = set(&[document("dinie-production", "v1", 1, &[("client_id", "x"), ("client_secret", "é\n")])]);
        let all = variables(&documents, |_| false).unwrap();
        let expected = [("DINIE_PRODUCTION_CLIENT_ID", "x"), ("DINIE_PRODUCTION_CLIENT_SECRET", "é\n")];
        assert_eq!(all, expected.map(|(name, value)| (name.to_owned(), OsString::from(value))).into_iter().collect());
    }

    #[test]
    fn cli_exec_refuses_variables_that_would_hide_or_cut_a_value() {
        let twice = set(&[document("a", "v1", 1, &[("b_c", "hush-1")]), document("a-b", "v1", 1, &[("c", "hush-2")])]);
        let nul = set(&[document("a", "v1", 1, &[("b", "hush\u{0}hush")])]);
        let taken = set(&[document("home", "v1", 1, &[("dir", "hush")])]);
        for (documents, why) in [(twice, "A_B_C: another field"), (nul, "A_B: its value has a NUL"), (taken, "HOME_DIR: it is set")] {
            let failure = variables(&documents, |name| name == "HOME_DIR").unwrap_err();
            let lines = failure.lines().join("\n");
            assert!(lines.contains(why) && !lines.contains("hush"), "{lines}");
        }
    }
}
