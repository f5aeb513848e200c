//! The certificate and key that the address is served with: read from two files, checked together, and replaced while it
//! serves.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::sealing::is_exposed;

/// A chain of certificates is shorter, and a key much shorter.
const FILE_BYTES_MAX: usize = 256 << 10;

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the server's own certificate first, then those between it and its root.
    pub certificate: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
}

/// Why a pair can't be used. Each names the file and the way out; none repeats what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    #[error("could not read `{}`: {kind}: check the path under `listen.tls`, and that the daemon's user may read the file", .file.display())]
    Unreadable { file: PathBuf, kind: io::ErrorKind },
    #[error("the key file `{}` may be used by others: give it to the daemon's user with `chown`, and `chmod 600` it", .file.display())]
    Exposed { file: PathBuf },
    #[error("`{}` is longer than {FILE_BYTES_MAX} bytes: it is another file", .file.display())]
    TooLong { file: PathBuf },
    #[error("`{}` holds no certificate in PEM (`-----BEGIN CERTIFICATE-----`), or a damaged one: put the whole chain there, the server's own first", .file.display())]
    NoCertificate { file: PathBuf },
    #[error("`{}` holds no usable private key in PEM: an unencrypted PKCS#8, PKCS#1 or SEC1 key (RSA, ECDSA or Ed25519) is expected", .file.display())]
    NoKey { file: PathBuf },
    #[error("the key in `{}` isn't the one of the certificate in `{}`: put a certificate and its own key there", .key.display(), .certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("the cryptographic library failed")]
    Library,
}

/// The pair in force. Clones are the same: a connection that begins after [`Pair::replace`] gets the new one.
#[derive(Clone)]
pub struct Pair(Arc<RwLock<Arc<CertifiedKey>>>);

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair(..)")
    }
}

impl Pair {
    /// # Errors
    /// [`TlsError`]: the pair as a whole can't be used.
    pub fn read(files: &TlsFiles) -> Result<Pair, TlsError> {
        Ok(Pair(Arc::new(RwLock::new(Arc::new(read_pair(files)?)))))
    }

    /// Takes another pair from here on. Connections under way keep what they began with.
    pub fn replace(&self, other: &Pair) {
        let other = other.current();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = other;
    }

    /// Whether both have the same certificates: a key belongs to its certificate, so it is then the same, too.
    pub fn is_same(&self, other: &Pair) -> bool {
        self.current().cert == other.current().cert
    }

    fn current(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the address is served: TLS 1.2 or newer, HTTP/1.1 only, no certificates of clients.
    ///
    /// # Errors
    /// [`TlsError::Library`], which the versions that are compiled in don't allow.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]).map_err(|_| TlsError::Library)?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Pair {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

fn read_pair(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let no_certificate = || TlsError::NoCertificate { file: files.certificate.clone() };
    let pem = read_file(&files.certificate, false)?;
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    // All of them: clients would refuse a chain with a damaged link, long after it was put there.
    let sound = |chain: &Vec<CertificateDer<'_>>| !chain.is_empty() && chain.iter().all(|one| ParsedCertificate::try_from(one).is_ok());
    let chain = chain.ok().filter(sound).ok_or_else(no_certificate)?;
    let no_key = || TlsError::NoKey { file: files.key.clone() };
    let pem = read_file(&files.key, true)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| no_key())?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() },
        rustls::Error::InvalidCertificate(_) => no_certificate(),
        _ => no_key(),
    })
}

/// The whole file, in memory that is wiped. A `private` one must be the daemon's alone.
fn read_file(path: &Path, private: bool) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let unreadable = |error: io::Error| TlsError::Unreadable { file: path.to_owned(), kind: error.kind() };
    let opened = File::open(path).map_err(unreadable)?;
    if private && is_exposed(&opened.metadata().map_err(unreadable)?) {
        return Err(TlsError::Exposed { file: path.to_owned() });
    }
    // Reserved once: growing would leave unwiped copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX) + 1;
    opened.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > FILE_BYTES_MAX { Err(TlsError::TooLong { file: path.to_owned() }) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests;
