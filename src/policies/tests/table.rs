//! Hundreds of values for the descriptions, made from what they say themselves: right ones, those of the other environment,
//! look-alikes, cut, padded, with white space and control characters, and such as tell nothing.

use proptest::strategy::{Strategy, ValueTree};
use proptest::string::string_regex;
use proptest::test_runner::TestRunner;

use super::*;
use crate::domain::credential::Credential;
use crate::domain::environment::{BaseUrl, Proof, Verdict, pure_evidence};
use crate::domain::fields::{FieldProblem, misfits};
use crate::domain::ids::FieldName;
use crate::domain::material::{Material, Secret, check_value};
use crate::domain::provider::{Field, Provider};

/// What becomes of a value that is: of this environment, of the other one, cut, longer by letters, longer by other characters,
/// with a space, with a control character, of no form. M match, X mismatch, U undetermined, I invalid; `-` depends on the value.
/// The third column: what values look like where the description says nothing of it.
const ROWS: [(&str, &str, &str, &str); 34] = [
    ("dinie", "client_id", "", "MXMMUUUU"),
    ("dinie", "client_secret", "dinie_cs_live_[A-Za-z0-9]{32}", "UUUUUUUU"),
    ("dinie-webhook", "id", "[a-z0-9]{20}", "UUUUUUUU"),
    ("dinie-webhook", "secret", "", "UUU-IIII"),
    ("tap", "secret_key", "", "MXUUUUUU"),
    ("tap", "public_key", "", "MXUUUUUU"),
    // It has the other field's value: nobody brings it.
    ("tap", "webhook_key", "[a-z0-9]{24}", "IIIIIIII"),
    ("fincode", "token", "[A-Za-z0-9_-]{64}", "UUUUUUUU"),
    ("okra", "client_token", "[a-z0-9]{24}", "UUUUUUUU"),
    ("okra", "public_key", "[a-z0-9]{32}", "UUUUUUUU"),
    ("okra", "secret_key", "", "UU-UIIII"),
    ("tensfer", "client_token", "[a-z0-9]{24}", "UUUUUUUU"),
    ("tensfer", "public_key", "[a-z0-9]{32}", "UUUUUUUU"),
    ("tensfer", "secret_key", "[a-z0-9]{48}", "UUUUUUUU"),
    ("stripe", "secret_key", "", "MXMMUUUU"),
    ("checkout", "secret_key", "", "MXMMUUUU"),
    ("plaid", "client_id", "", "UUIIIIII"),
    ("plaid", "secret", "", "UUIIIIII"),
    ("okta", "client_id", "[A-Za-z0-9]{20}", "UUUUUUUU"),
    ("okta", "secret_id", "[A-Za-z0-9]{20}", "UUUUUUUU"),
    ("okta", "client_secret", "[A-Za-z0-9_-]{64}", "UUUUUUUU"),
    ("twilio", "account_sid", "", "UUIIIIII"),
    ("twilio", "auth_token", "[0-9a-f]{32}", "UUUUUUUU"),
    ("slack", "bot_token", "", "UUUUUIII"),
    ("webhook-secret", "signing_secret", "whsec_[A-Za-z0-9+/]{43}=", "UUUUUUUU"),
    ("oauth-initial-access", "initial_access_token", "[A-Za-z0-9_-]{43}", "UUUUUUUU"),
    ("glewlwyd", "client_id", "[A-Za-z0-9_-]{20}", "UUUUUUUU"),
    ("glewlwyd", "client_secret", "[A-Za-z0-9_-]{43}", "UUUUUUUU"),
    ("glewlwyd", "registration_access_token", "[A-Za-z0-9_-]{43}", "UUUUUUUU"),
    ("glewlwyd", "registration_client_uri", "https://glewlwyd\\.ENVIRONMENT\\.invalid/api/oidc/register/[a-z0-9]{20}", "UXUUUUUU"),
    ("oauth-registration", "client_id", "[A-Za-z0-9_-]{20}", "UUUUUUUU"),
    ("oauth-registration", "client_secret", "[A-Za-z0-9_-]{43}", "UUUUUUUU"),
    ("oauth-registration", "registration_access_token", "[A-Za-z0-9_-]{43}", "UUUUUUUU"),
    ("oauth-registration", "registration_client_uri", "https://as\\.ENVIRONMENT\\.invalid/reg/[a-z0-9]{20}", "UXUUUUUU"),
];

/// Other providers' values that fit, or nearly; the word that the reason must have.
const LOOK_ALIKES: [(&str, &str, Environment, &str, char, &str); 14] = [
    ("tap", "secret_key", Environment::Production, "sk_live_[a-z0-9]{40}", 'U', "Paystack"),
    ("tap", "secret_key", Environment::Sandbox, "sk_test_[a-z0-9]{40}", 'U', "Paystack"),
    // Whosever it is, it is no production key.
    ("tap", "secret_key", Environment::Production, "sk_test_[a-z0-9]{40}", 'X', "sandbox"),
    ("tap", "secret_key", Environment::Production, "rk_live_[a-z0-9]{24}", 'U', "is it whole"),
    ("tap", "public_key", Environment::Production, "sk_live_[a-z0-9]{24}", 'U', "is it whole"),
    ("stripe", "secret_key", Environment::Production, "sk_live_[a-z0-9]{40}", 'U', "Paystack"),
    ("stripe", "secret_key", Environment::Sandbox, "sk_test_[a-z0-9]{40}", 'U', "Paystack"),
    ("stripe", "secret_key", Environment::Production, "sk_sbox_[a-z0-9]{24}", 'U', "doesn't tell"),
    ("checkout", "secret_key", Environment::Production, "sk_live_[a-z0-9]{24}", 'U', "Stripe, Tap or Paystack"),
    ("checkout", "secret_key", Environment::Production, "sk_test_[a-z0-9]{40}", 'U', "Stripe, Tap or Paystack"),
    ("checkout", "secret_key", Environment::Sandbox, "sk_test_[a-z0-9]{40}", 'X', "production"),
    ("slack", "bot_token", Environment::Production, "xoxp-[a-z0-9]{24}", 'I', "form"),
    ("twilio", "account_sid", Environment::Production, "SK[a-f0-9]{32}", 'I', "form"),
    ("dinie", "client_id", Environment::Production, "dinie_ci_[a-f0-9]{32}", 'U', "doesn't tell"),
];

struct Table {
    policies: Policies,
    runner: TestRunner,
    judged: usize,
}

impl Table {
    fn new() -> Table {
        Table { policies: parse(&[], now()).unwrap(), runner: TestRunner::deterministic(), judged: 0 }
    }

    fn provider(&self, name: &str) -> Arc<Provider> {
        Arc::clone(&self.policies.providers[&name.parse::<Name>().unwrap()])
    }

    fn made_from(&mut self, pattern: &str) -> String {
        let inner = pattern.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$")).unwrap_or(pattern);
        string_regex(inner).unwrap().new_tree(&mut self.runner).unwrap().current()
    }

    /// A value of this environment: long enough to be cut, and nobody else's.
    fn value(&mut self, field: &Field, free: &str, environment: Environment) -> String {
        let form = field.form.clone();
        let shape = form.shape.as_ref().map(|shape| shape.pattern.as_str().to_owned());
        let mark = form.marks.get(&environment).map(|mark| mark.pattern.as_str().to_owned());
        let pattern = shape.or(mark).unwrap_or_else(|| free.replace("ENVIRONMENT", environment.as_str()));
        for _ in 0..2_000 {
            let value = self.made_from(&pattern);
            let own = form.marks.get(&environment).is_none_or(|mark| mark.pattern.is_match(&value));
            let other = form.marks.get(&environment.other()).is_some_and(|mark| mark.pattern.is_match(&value) && !mark.unless_other);
            let others = form.look_alikes.iter().any(|other| other.pattern.is_match(&value));
            if own
                && !other
                && !others
                && value.len() >= 24 - 4 * usize::from(free.contains("{20}"))
                && check_value(&Secret::from(value.clone())).is_ok()
            {
                return value;
            }
        }
        panic!("no value can be made from {pattern}");
    }

    /// The letter of what becomes of it, and all that is said.
    fn outcome(&mut self, provider: &Provider, environment: Environment, fields: &[(&FieldName, &str)]) -> (char, String) {
        self.judged += 1;
        let material: Material = fields.iter().map(|(name, value)| ((*name).clone(), Secret::from((*value).to_owned()))).collect();
        let credential = credential(provider, environment);
        let base = provider.environments[&environment].base.as_ref().map(|base| provider.render(base, &credential.variables));
        let base_url = BaseUrl { url: base.unwrap_or_default(), overridden: false };
        let proof = Proof::weigh(pure_evidence(provider, &credential, &material, &base_url, &[]));
        let misfits: Vec<_> = misfits(provider, &material).into_iter().filter(|(_, problem)| *problem != FieldProblem::Missing).collect();
        let said = format!(
            "{} {proof:?} {misfits:?} {}",
            proof.reasons(),
            misfits.iter().map(|(_, problem)| problem.to_string()).collect::<String>()
        );
        for (_, value) in fields {
            // The end of a value is what was made by chance.
            let tail = &value.as_bytes()[value.len().saturating_sub(20)..];
            for window in tail.windows(8) {
                assert!(!said.as_bytes().windows(8).any(|part| part == window), "something of a value is said: {said}");
            }
        }
        let letter = match proof.verdict {
            _ if !misfits.is_empty() => 'I',
            Verdict::Match => 'M',
            Verdict::Mismatch => 'X',
            Verdict::Undetermined => 'U',
        };
        (letter, said)
    }

    fn expect(&mut self, provider: &Provider, field: &FieldName, environment: Environment, (what, value, letter): (&str, &str, char)) {
        if letter != '-' {
            let (found, said) = self.outcome(provider, environment, &[(field, value)]);
            assert_eq!(found, letter, "{} `{field}` in {environment}, {what}: {value:?}: {said}", provider.name);
        }
    }
}

fn credential(provider: &Provider, environment: Environment) -> Credential {
    let name: Name = "example".parse().unwrap();
    let value = |default: &Option<Name>| default.clone().unwrap_or_else(|| name.clone());
    Credential {
        name: name.clone(),
        provider: provider.name.clone(),
        environment,
        rotation: name.clone(),
        path: name.to_string(),
        variables: provider.variables.iter().map(|(variable, default)| (variable.clone(), value(default))).collect(),
        account: name.clone(),
        administered_by: None,
        twin: None,
        accept_undetermined: None,
        rehearsal_time: std::time::Duration::ZERO,
        require_go_live: false,
    }
}

/// Before the last four characters.
fn with_inside(value: &str, inside: char) -> String {
    let (front, back) = value.split_at(value.len() - 4);
    format!("{front}{inside}{back}")
}

#[test]
fn each_made_value_gets_the_verdict_that_it_must() {
    let mut table = Table::new();
    let described: usize = table.policies.providers.values().map(|provider| provider.fields.len()).sum();
    assert_eq!(described, ROWS.len(), "a described field has no row");
    for (name, field, free, letters) in ROWS {
        let provider = table.provider(name);
        let field: FieldName = field.parse().unwrap();
        let letters: Vec<char> = letters.chars().collect();
        for environment in Environment::ALL {
            for _ in 0..3 {
                let own = table.value(&provider.fields[&field], free, environment);
                let other = table.value(&provider.fields[&field], free, environment.other());
                let noise = table.made_from("[a-z0-9]{8}-[a-z0-9]{12}");
                let made = [
                    ("its own", own.clone(), letters[0]),
                    ("the other one's", other, letters[1]),
                    ("cut", own[..own.len() - 5].to_owned(), letters[2]),
                    ("longer", format!("{own}x1Y2z"), letters[3]),
                    ("longer by other characters", format!("{own}~~~~~"), letters[4]),
                    ("with a space", with_inside(&own, ' '), letters[5]),
                    ("with a control character", with_inside(&own, '\u{7}'), letters[6]),
                    ("of no form", noise, letters[7]),
                    ("with a space before", format!(" {own}"), 'I'),
                    ("with a line's end", format!("{own}\n"), 'I'),
                    ("redacted", format!("{}****", &own[..4]), 'I'),
                ];
                for (what, value, letter) in made {
                    table.expect(&provider, &field, environment, (what, &value, letter));
                }
            }
        }
    }
    assert!(table.judged >= 300, "{}", table.judged);
}

#[test]
fn values_of_others_are_no_proof() {
    let mut table = Table::new();
    for (name, field, environment, pattern, letter, word) in LOOK_ALIKES {
        let provider = table.provider(name);
        for _ in 0..3 {
            let value = table.made_from(pattern);
            let (found, said) = table.outcome(&provider, environment, &[(&field.parse().unwrap(), &value)]);
            assert_eq!(found, letter, "{name} `{field}` in {environment}: {pattern}: {said}");
            assert!(said.contains(word), "{name} `{field}`: {word} isn't in {said}");
        }
    }
}

#[test]
fn a_whole_credential_is_its_environments_or_is_refused() {
    let mut table = Table::new();
    for (name, provider) in table.policies.providers.clone() {
        let free = |field: &FieldName| ROWS.iter().find(|row| row.0 == name.as_str() && row.1 == field.as_str()).unwrap().2;
        let brought = |field: &&FieldName| provider.fields[*field].is.is_none();
        let marked = provider.fields.values().any(|field| !field.form.marks.is_empty());
        for (environment, other) in Environment::ALL.map(|own| (own, own.other())) {
            let values: Vec<(FieldName, [String; 2])> = provider
                .fields
                .iter()
                .filter(|(field, _)| brought(field))
                .map(|(field, described)| (field.clone(), [environment, other].map(|of| table.value(described, free(field), of))))
                .collect();
            let whole: Vec<(&FieldName, &str)> = values.iter().map(|(field, [own, _])| (field, own.as_str())).collect();
            assert_eq!(table.outcome(&provider, environment, &whole).0, if marked { 'M' } else { 'U' }, "{name} in {environment}");
            for (index, (field, [_, theirs])) in
                values.iter().enumerate().filter(|(_, (field, _))| !provider.fields[field].form.marks.is_empty())
            {
                let mut mixed = whole.clone();
                mixed[index].1 = theirs;
                let (found, said) = table.outcome(&provider, environment, &mixed);
                assert_eq!(found, 'X', "{name} `{field}` of {other} in {environment}: {said}");
                // With another marked field both are named: either may be the wrong one.
                let several = provider.fields.values().filter(|field| !field.form.marks.is_empty()).count() > 1;
                assert_eq!(said.contains("don't belong together"), several, "{name} `{field}`: {said}");
            }
        }
    }
}
