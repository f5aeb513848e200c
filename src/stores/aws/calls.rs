//! The calls to AWS, one function each, and what their errors mean: told by code alone, and nothing of their text is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::retry::RetryConfig;
use aws_sdk_secretsmanager::config::timeout::TimeoutConfig;
use aws_sdk_secretsmanager::config::{BehaviorVersion, Builder, Region, SharedHttpClient};
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::types::Tag;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

use super::AwsSettings;
use super::secret::{Secret, Standing};
use crate::domain::ids::Name;
use crate::domain::material;
use crate::stores::{StoreError, StoreShare};

/// How long a secret that was deleted can be restored, in days: the shortest time that AWS allows.
const RECOVERY_DAYS: i64 = 7;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(8);
/// With all attempts.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);
const ATTEMPTS: u32 = 3;

/// AWS doesn't say when to come back.
const THROTTLED_FOR: Duration = Duration::from_secs(1);

/// Says of a secret that it is ours, and of which credential.
pub(super) const CREDENTIAL_TAG: &str = "keywright:credential";
pub(super) const ENVIRONMENT_TAG: &str = "keywright:environment";

/// Digests of version names that were forgotten.
const FORGOTTEN_TAG: &str = "keywright:forgotten";

/// Why AWS didn't do it. Closed: the store branches on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No such secret, version or label.
    Missing,
    /// The secret exists, or the version does with another value.
    Exists,
    /// The labels aren't where the call says they are, or the secret is marked for deletion.
    Conflict,
    Throttled(Duration),
    Unavailable(&'static str),
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> StoreError {
        match refusal {
            Refusal::Throttled(retry_after) => StoreError::Throttled { retry_after },
            Refusal::Unavailable(why) => StoreError::Unavailable(why),
            // Where these can be expected, they are asked for.
            Refusal::Missing | Refusal::Exists | Refusal::Conflict => StoreError::Unavailable("its secrets changed while they were used"),
        }
    }
}

impl Refusal {
    pub(super) fn of<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Refusal {
        match error {
            SdkError::TimeoutError(_) => Refusal::Unavailable("it didn't answer in time"),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Refusal::Unavailable("it didn't answer in time"),
            SdkError::DispatchFailure(failure) if failure.is_io() => Refusal::Unavailable("no connection"),
            SdkError::DispatchFailure(_) => Refusal::Unavailable("no connection, or no credentials for it"),
            SdkError::ResponseError(_) => Refusal::Unavailable("its answer can't be read"),
            SdkError::ServiceError(service) => Refusal::by_code(service.err().code()),
            _ => Refusal::Unavailable("the call couldn't be made"),
        }
    }

    fn by_code(code: Option<&str>) -> Refusal {
        match code.unwrap_or_default() {
            "ResourceNotFoundException" => Refusal::Missing,
            "ResourceExistsException" => Refusal::Exists,
            "InvalidParameterException" | "InvalidRequestException" => Refusal::Conflict,
            "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "SlowDown"
            | "BandwidthLimitExceeded" => Refusal::Throttled(THROTTLED_FOR),
            "AccessDeniedException" | "AccessDenied" => Refusal::Unavailable("it denies access: a permission is missing"),
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "ExpiredTokenException"
            | "ExpiredToken"
            | "IncompleteSignature"
            | "MissingAuthenticationTokenException" => Refusal::Unavailable("it doesn't accept our credentials for it"),
            "DecryptionFailure" | "EncryptionFailure" => Refusal::Unavailable("it can't use the KMS key"),
            "LimitExceededException" => Refusal::Unavailable("one of its limits is reached"),
            _ => Refusal::Unavailable("it failed"),
        }
    }
}

/// What one version holds.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) bytes: material::Secret,
    pub(super) labels: BTreeSet<String>,
}

/// A secret, and whose it is by its tags.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) secret: Secret,
    pub(super) whose: Whose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Of this credential; what isn't there as well.
    Ours,
    /// Of another credential.
    Others,
    /// Somebody made it who knows nothing of us.
    Nobodys,
}

impl Whose {
    fn is(tags: &[Tag], owner: Owner<'_>) -> Whose {
        let has = |(key, value): (&str, &str)| tags.iter().find(|tag| tag.key() == Some(key)).map(|tag| tag.value() == Some(value));
        match owner.tags().map(has) {
            [Some(true), Some(true)] => Whose::Ours,
            [Some(false), _] | [_, Some(false)] => Whose::Others,
            _ => Whose::Nobodys,
        }
    }
}

/// A version that is to be written.
#[derive(Debug)]
pub(super) struct Write<'a> {
    pub(super) secret: &'a str,
    pub(super) token: String,
    pub(super) bytes: &'a material::Secret,
    /// Never empty: AWS would make the version current.
    pub(super) labels: Vec<String>,
}

/// Whose secret it is, in clear: tags are no place for values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) credential: &'a Name,
    pub(super) environment: &'static str,
}

impl<'a> Owner<'a> {
    fn tags(self) -> [(&'static str, &'a str); 2] {
        [(CREDENTIAL_TAG, self.credential.as_str()), (ENVIRONMENT_TAG, self.environment)]
    }
}

#[derive(Debug, Clone)]
pub(super) struct Calls {
    pub(super) client: Client,
    kms_key: Option<String>,
    share: Option<Arc<StoreShare>>,
}

impl Calls {
    /// With the SDK's default chain.
    pub(super) async fn new(settings: &AwsSettings, share: Option<Arc<StoreShare>>) -> Calls {
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http_client());
        if let Some(region) = &settings.region {
            loader = loader.region(Region::new(region.clone()));
        }
        Calls::on(&loader.load().await, settings, share)
    }

    pub(super) fn on(shared: &SdkConfig, settings: &AwsSettings, share: Option<Arc<StoreShare>>) -> Calls {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        // Where calls are counted, each attempt has to be: the engine's own repetitions pass by the count.
        let attempts = if share.is_some() { 1 } else { ATTEMPTS };
        let retries = RetryConfig::standard().with_max_attempts(attempts).with_initial_backoff(Duration::from_millis(100));
        let mut config = Builder::from(shared).timeout_config(timeouts).retry_config(retries);
        // Of this service alone: where credentials come from stays where it is.
        if let Some(endpoint) = &settings.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Calls { client: Client::from_conf(config.build()), kms_key: settings.kms_key.clone(), share }
    }

    /// A read never waits.
    pub(super) fn count(&self) {
        if let Some(share) = &self.share {
            share.count();
        }
    }

    pub(super) async fn turn(&self) -> Result<(), Refusal> {
        let Some(share) = &self.share else { return Ok(()) };
        share.wait().await.map_err(Refusal::Throttled)
    }

    pub(super) async fn describe(&self, secret: &str, owner: Owner<'_>) -> Result<Described, Refusal> {
        self.count();
        let described = match self.client.describe_secret().secret_id(secret).send().await {
            Ok(described) => described,
            Err(error) => match Refusal::of(&error) {
                Refusal::Missing => return Ok(Described { secret: Secret::default(), whose: Whose::Ours }),
                refusal => return Err(refusal),
            },
        };
        let standing = if described.deleted_date().is_some() { Standing::Deleted } else { Standing::Live };
        let labels = described.version_ids_to_stages().map(labels).unwrap_or_default();
        let forgotten = described.tags().iter().find(|tag| tag.key() == Some(FORGOTTEN_TAG)).and_then(Tag::value);
        let forgotten = forgotten.unwrap_or_default().split('.').filter(|digest| !digest.is_empty()).map(str::to_owned).collect();
        Ok(Described { secret: Secret { standing, labels, forgotten }, whose: Whose::is(described.tags(), owner) })
    }

    /// `None` if the version isn't there, or the secret is marked for deletion.
    pub(super) async fn get(&self, secret: &str, id: &str) -> Result<Option<Value>, Refusal> {
        self.count();
        match self.client.get_secret_value().secret_id(secret).version_id(id).send().await {
            Ok(got) => {
                let labels = got.version_stages().iter().cloned().collect();
                let bytes = material::Secret::from(got.secret_string.unwrap_or_default());
                Ok(Some(Value { bytes, labels }))
            }
            Err(error) => match Refusal::of(&error) {
                Refusal::Missing | Refusal::Conflict => Ok(None),
                refusal => Err(refusal),
            },
        }
    }

    /// Makes a secret, with a first version, which is current at once.
    pub(super) async fn create(&self, secret: &str, owner: Owner<'_>, token: &str, bytes: &material::Secret) -> Result<(), Refusal> {
        self.turn().await?;
        let created = self.client.create_secret().name(secret).client_request_token(token).secret_string(text(bytes)?);
        let created = created.set_kms_key_id(self.kms_key.clone()).description("kept by Keywright");
        created.set_tags(Some(owner.tags().map(tag).into())).send().await.map(drop).map_err(|error| Refusal::of(&error))
    }

    pub(super) async fn put(&self, write: Write<'_>) -> Result<(), Refusal> {
        self.turn().await?;
        let put = self.client.put_secret_value().secret_id(write.secret).client_request_token(write.token);
        let put = put.secret_string(text(write.bytes)?).set_version_stages(Some(write.labels));
        put.send().await.map(drop).map_err(|error| Refusal::of(&error))
    }

    /// Moves a label: AWS refuses it if `from` doesn't bear it.
    pub(super) async fn move_label(&self, secret: &str, label: &str, from: Option<&str>, to: Option<&str>) -> Result<(), Refusal> {
        self.turn().await?;
        let moved = self.client.update_secret_version_stage().secret_id(secret).version_stage(label);
        let moved = moved.set_remove_from_version_id(from.map(str::to_owned)).set_move_to_version_id(to.map(str::to_owned));
        moved.send().await.map(drop).map_err(|error| Refusal::of(&error))
    }

    /// Takes a label away; fine if it isn't there.
    pub(super) async fn take_label(&self, secret: &str, label: &str, from: &str) -> Result<(), Refusal> {
        match self.move_label(secret, label, Some(from), None).await {
            Err(Refusal::Conflict | Refusal::Missing) => Ok(()),
            outcome => outcome,
        }
    }

    pub(super) async fn remember(&self, secret: &str, forgotten: &[String]) -> Result<(), Refusal> {
        self.turn().await?;
        let forgotten = forgotten.join(".");
        self.client
            .tag_resource()
            .secret_id(secret)
            .tags(tag((FORGOTTEN_TAG, &forgotten)))
            .send()
            .await
            .map(drop)
            .map_err(|error| Refusal::of(&error))
    }

    /// Makes a secret ours, whatever is in it.
    pub(super) async fn own(&self, secret: &str, owner: Owner<'_>) -> Result<(), Refusal> {
        self.turn().await?;
        let owned = self.client.tag_resource().secret_id(secret).set_tags(Some(owner.tags().map(tag).into()));
        owned.send().await.map(drop).map_err(|error| Refusal::of(&error))
    }

    /// Marks a secret for deletion; fine if it is already.
    pub(super) async fn delete(&self, secret: &str) -> Result<(), Refusal> {
        self.turn().await?;
        let deleted = self.client.delete_secret().secret_id(secret).recovery_window_in_days(RECOVERY_DAYS).send().await;
        match deleted.map_err(|error| Refusal::of(&error)) {
            Ok(_) | Err(Refusal::Missing | Refusal::Conflict) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    pub(super) async fn restore(&self, secret: &str) -> Result<(), Refusal> {
        self.turn().await?;
        self.client.restore_secret().secret_id(secret).send().await.map(drop).map_err(|error| Refusal::of(&error))
    }
}

/// As for providers: the environment names no proxy.
fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https()
}

/// Versions with a label; AWS leaves the others out, and so do we where it doesn't.
pub(super) fn labels(versions: &HashMap<String, Vec<String>>) -> BTreeMap<String, BTreeSet<String>> {
    let labelled = versions.iter().filter(|(_, labels)| !labels.is_empty());
    labelled.map(|(id, labels)| (id.clone(), labels.iter().cloned().collect())).collect()
}

fn tag((key, value): (&str, &str)) -> Tag {
    Tag::builder().key(key).value(value).build()
}

/// The SDK takes a text; what it does with it is wiped when it is freed, as all memory here is.
fn text(bytes: &material::Secret) -> Result<&str, Refusal> {
    bytes.expose_str().ok_or(Refusal::Unavailable("the value is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_a_secret_is_stands_in_its_tags() {
        let credential: Name = "dinie".parse().unwrap();
        let owner = Owner { credential: &credential, environment: "production" };
        let (ours, environment) = ((CREDENTIAL_TAG, "dinie"), (ENVIRONMENT_TAG, "production"));
        let cases: [(&[(&str, &str)], Whose); 6] = [
            (&[ours, environment, ("team", "payments")], Whose::Ours),
            (&[], Whose::Nobodys),
            (&[("team", "payments")], Whose::Nobodys),
            (&[ours], Whose::Nobodys),
            (&[(CREDENTIAL_TAG, "tap"), environment], Whose::Others),
            (&[ours, (ENVIRONMENT_TAG, "sandbox")], Whose::Others),
        ];
        for (tags, whose) in cases {
            let tags: Vec<Tag> = tags.iter().copied().map(tag).collect();
            assert_eq!(Whose::is(&tags, owner), whose, "{tags:?}");
        }
    }

    #[test]
    fn errors_are_told_by_their_codes() {
        for (code, refusal) in [
            ("ResourceNotFoundException", Refusal::Missing),
            ("ResourceExistsException", Refusal::Exists),
            ("InvalidParameterException", Refusal::Conflict),
            ("InvalidRequestException", Refusal::Conflict),
            ("ThrottlingException", Refusal::Throttled(THROTTLED_FOR)),
            ("InternalServiceError", Refusal::Unavailable("it failed")),
            ("EncryptionFailure", Refusal::Unavailable("it can't use the KMS key")),
        ] {
            assert_eq!(Refusal::by_code(Some(code)), refusal, "{code}");
        }
        assert_eq!(Refusal::by_code(None), Refusal::Unavailable("it failed"));
    }
}
