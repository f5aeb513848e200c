//! `store: {aws: …}` as written, then valid.

use crate::policies::problem::Sink;
use crate::policies::reader::{Fields, text};
use crate::policies::tree::Node;
use crate::policies::values::{Scheme, base_url};
use crate::stores::aws::AwsSettings;

/// With environment and path behind it, a name has room in what AWS takes.
const PREFIX_MAX: usize = 128;
/// The longest ARN.
const KMS_KEY_MAX: usize = 2_048;

pub(super) fn read_aws(node: &Node, sink: &Sink<'_>) -> Option<AwsSettings> {
    let fields = Fields::of(node, sink)?;
    let word = |name, is_good: fn(&str) -> bool, message, help| {
        let node = fields.get(name)?;
        let written = text(node, sink)?;
        if !is_good(written) {
            sink.report(node.place, "bad-value", message, help);
            return None;
        }
        Some(written.to_owned())
    };
    let region = word("region", is_region, "this is no region of AWS", "for example `eu-central-1`");
    let help = "for example `keywright` or `team/payments`; environment and path follow";
    let prefix =
        word("prefix", is_prefix, "a prefix has letters, digits and `/_+=.@-`, no `/` at its ends, and 128 characters at most", help);
    let help = "its id, its ARN, or an alias: `alias/keywright`";
    let kms_key = word("kmsKey", is_kms_key, "this is no id, ARN or alias of a KMS key", help);
    let endpoint = fields.get("endpoint").and_then(|node| base_url(node, sink, Scheme::HttpsOrLoopback));
    fields.done();
    let prefix = prefix.unwrap_or_else(|| AwsSettings::PREFIX_DEFAULT.to_owned());
    Some(AwsSettings { region, prefix, endpoint, kms_key })
}

fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_prefix(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
    let no_empty_part = text.split('/').all(|part| !part.is_empty());
    text.len() <= PREFIX_MAX && text.bytes().all(allowed) && no_empty_part
}

/// What AWS names keys by, and nothing else that might be pasted here.
fn is_kms_key(text: &str) -> bool {
    let id = text.strip_prefix("mrk-").unwrap_or(text);
    let is_id = uuid::Uuid::try_parse(id).is_ok() && text.is_ascii();
    let is_named = ["alias/", "arn:aws"].iter().any(|start| text.strip_prefix(start).is_some_and(|rest| !rest.is_empty()));
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":/_-".contains(&byte));
    text.len() <= KMS_KEY_MAX && is_plain && (is_id || is_named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_aws_names_them() {
        let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
        let arn = format!("arn:aws-cn:kms:cn-north-1:111122223333:key/{id}");
        for good in [id, "mrk-1234abcd12ab34cd56ef1234567890ab", "alias/team/keywright_1", "alias/aws/secretsmanager", &arn] {
            assert!(is_kms_key(good), "{good}");
        }
        for bad in [
            "",
            "alias/",
            "keywright",
            "alias/a b",
            "alias/a%b",
            "mrk-12",
            "{1234abcd-12ab-34cd-56ef-1234567890ab}",
            "wJalrXUtnFEMI/K7MDENG",
        ] {
            assert!(!is_kms_key(bad), "{bad}");
        }
    }
}
