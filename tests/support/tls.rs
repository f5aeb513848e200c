//! A certificate authority of the tests' own, and a client that trusts nobody else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    client: Arc<ClientConfig>,
}

pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) der: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let mut client = builder.with_root_certificates(roots).with_no_client_auth();
        // Each connection shows its certificate anew.
        client.resumption = rustls::client::Resumption::disabled();
        Self { issuer, client: Arc::new(client) }
    }

    pub(crate) fn issue(&self) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued { chain: format!("{}{}", certificate.pem(), self.issuer.pem()), key: key.serialize_pem(), der: certificate.der().to_vec() }
    }

    /// What who trusts it has on file.
    pub(crate) fn root(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// The certificate that is shown there.
    pub(crate) async fn shown_at(&self, address: SocketAddr) -> Vec<u8> {
        let stream = connect(address, &self.client).await.expect("a handshake");
        stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).expect("a certificate").to_vec()
    }
}

pub(crate) async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").expect("a name");
    tokio_rustls::TlsConnector::from(config.clone()).connect(name, TcpStream::connect(address).await?).await
}
