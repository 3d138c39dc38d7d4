//! TLS: which certificates are trusted, and what is said of those that are not.
//!
//! The client library trusts no certificate that is an authority and a server's at once. That is what `openssl req -x509`
//! makes, so it is trusted here if it is itself in the `ca_file`.

use std::sync::Arc;

use redis::ConnectionAddr;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::url::ServerUrls;
use crate::error::StoreError;

/// What to do about a server that does not take part in the handshake.
pub(super) const NO_ANSWER: &str = "the server gives no answer to TLS; if it is one without TLS, write \"redis://…\"";

/// Connects to the server of a `rediss://` URL, without TLS yet.
pub(super) async fn connect_tcp(servers: &ServerUrls, address: &ConnectionAddr) -> Result<TcpStream, StoreError> {
    let (host, port) = host_and_port(servers, address)?;
    let unavailable = |error: std::io::Error| StoreError::Unavailable(format!("{servers}: {error}"));
    let stream = TcpStream::connect((host, port)).await.map_err(unavailable)?;
    stream.set_nodelay(true).map_err(unavailable)?;
    Ok(stream)
}

fn host_and_port<'a>(servers: &ServerUrls, address: &'a ConnectionAddr) -> Result<(&'a str, u16), StoreError> {
    match address {
        ConnectionAddr::TcpTls { host, port, .. } => Ok((host, *port)),
        _ => Err(StoreError::Misconfigured(format!("{servers}: expected a server with TLS"))),
    }
}

/// Begins TLS with the server of a `rediss://` URL.
pub(super) async fn connect(
    servers: &ServerUrls,
    address: &ConnectionAddr,
    stream: TcpStream,
    verifier: Arc<Verifier>,
) -> Result<TlsStream<TcpStream>, StoreError> {
    let (host, _) = host_and_port(servers, address)?;
    let misconfigured = |what: String| StoreError::Misconfigured(format!("{servers}: {what}"));
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| misconfigured(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Verifier>::clone(&verifier))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| misconfigured(error.to_string()))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::InvalidCertificate(reason)) => {
                let subject = verifier.subject.lock().take().unwrap_or_default();
                misconfigured(untrusted(host, &subject, reason, servers.ca_file().is_some()))
            }
            Some(error @ Error::InvalidMessage(_)) => misconfigured(format!("TLS failed: {error}; {NO_ANSWER}")),
            Some(error) => misconfigured(format!("TLS failed: {error}")),
            None => StoreError::Unavailable(format!("{servers}: {error}; {NO_ANSWER}")),
        }
    })
}

/// Returns the certificates of a `ca_file`.
pub(super) fn certificates(servers: &ServerUrls, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let misconfigured = |what: String| StoreError::Misconfigured(format!("{servers}: {what}"));
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates =
        certificates.map_err(|error| misconfigured(format!("the ca_file cannot be read: {error}; expected PEM")))?;
    if certificates.is_empty() {
        return Err(misconfigured(
            "the ca_file has no certificate; expected PEM, with -----BEGIN CERTIFICATE-----".into(),
        ));
    }
    Ok(certificates)
}

/// Says which certificate is not trusted, why, and what to do.
fn untrusted(host: &str, subject: &str, reason: &CertificateError, has_ca_file: bool) -> String {
    let (why, what) = match reason {
        CertificateError::UnknownIssuer if has_ca_file => (
            "neither it nor the authority that signed it is in the ca_file".to_owned(),
            "Put the certificate, or that of its authority, into the ca_file".to_owned(),
        ),
        CertificateError::UnknownIssuer => (
            "no authority that this machine trusts has signed it".to_owned(),
            "Add ?ca_file=PATH with the certificate, or that of its authority, to the URL".to_owned(),
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            format!("it is not made for the name {host}"),
            format!(
                "Make one that is: openssl req -x509 … -addext \"subjectAltName={}:{host}\"; the common name does not count",
                if host.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" }
            ),
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("it has expired".to_owned(), "Renew it, and check this machine's clock".to_owned())
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("it is not valid yet".to_owned(), "Check the clocks of both machines".to_owned())
        }
        reason if format!("{reason:?}").contains("CaUsedAsEndEntity") && has_ca_file => (
            "it is that of an authority, and not itself in the ca_file".to_owned(),
            "Put the certificate into the ca_file".to_owned(),
        ),
        reason if format!("{reason:?}").contains("CaUsedAsEndEntity") => (
            "it is that of an authority, and the URL names no ca_file".to_owned(),
            "Add ?ca_file=PATH with the certificate to the URL".to_owned(),
        ),
        reason => (format!("{reason:?}"), "Make a new one: openssl req -x509 -newkey rsa:2048 -nodes …".to_owned()),
    };
    format!("the certificate {subject:?} of {host} is not trusted: {why}. {what}")
}

/// Verifies a server's certificate.
#[derive(Debug)]
pub(super) struct Verifier {
    /// `None` if every certificate is accepted.
    webpki: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates of the `ca_file`.
    trusted: Vec<CertificateDer<'static>>,
    provider: CryptoProvider,
    /// The subject of the last certificate.
    subject: parking_lot::Mutex<Option<String>>,
}

impl Verifier {
    /// Reads the certificates to trust.
    pub(super) fn new(servers: &ServerUrls) -> Result<Verifier, StoreError> {
        let misconfigured = |what: String| StoreError::Misconfigured(format!("{servers}: {what}"));
        let provider = ring::default_provider();
        let mut verifier =
            Verifier { webpki: None, trusted: Vec::new(), provider: provider.clone(), subject: Default::default() };
        if !servers.is_verified() {
            return Ok(verifier);
        }
        if let Some(pem) = servers.ca()? {
            verifier.trusted = certificates(servers, &pem)?;
        }
        let mut roots = RootCertStore::empty();
        if verifier.trusted.is_empty() {
            let found = rustls_native_certs::load_native_certs();
            if let (true, Some(error)) = (found.certs.is_empty(), found.errors.first()) {
                return Err(misconfigured(format!("the machine's certificates cannot be read: {error}")));
            }
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(misconfigured(
                    "this machine trusts no certificate authority; install ca-certificates, or add ?ca_file=PATH to the URL"
                        .into(),
                ));
            }
        }
        for certificate in &verifier.trusted {
            let added = roots.add(certificate.clone());
            added.map_err(|error| {
                misconfigured(format!("a certificate in the ca_file cannot be read: {error}. Copy the file anew"))
            })?;
        }
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider)).build();
        verifier.webpki = Some(webpki.map_err(|error| misconfigured(error.to_string()))?);
        Ok(verifier)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(webpki) = &self.webpki else { return Ok(ServerCertVerified::assertion()) };
        *self.subject.lock() = subject(end_entity);
        let result = webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match &result {
            // Both are found after the dates of the certificate were checked.
            Err(Error::InvalidCertificate(reason))
                if self.trusted.contains(end_entity)
                    && (*reason == CertificateError::UnknownIssuer
                        || format!("{reason:?}").contains("CaUsedAsEndEntity")) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            _ => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Returns the common name of a certificate's subject, for a message.
fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    // The identifier of a common name, in DER. The issuer's comes first, then the subject's.
    const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
    let bytes: &[u8] = certificate;
    let places = bytes.windows(COMMON_NAME.len()).enumerate().filter(|(_, window)| *window == COMMON_NAME);
    let (place, _) = places.take(2).last()?;
    let value = bytes.get(place + COMMON_NAME.len()..)?;
    let length = usize::from(*value.get(1)?);
    Some(String::from_utf8_lossy(value.get(2..2 + length)?).into_owned())
}
