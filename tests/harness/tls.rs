//! TLS before a server, with a certificate of an authority that only a CA file makes known.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// Accepts TLS for the server at `port` of this machine. Returns the new port, and the file of the authority that signed
/// the certificate, which is for 127.0.0.1.
pub async fn encrypt(port: u16) -> (u16, PathBuf) {
    let file = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/queue/src/rabbit/tests").join(name);
    let chain = vec![CertificateDer::from_pem_file(file("broker.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(file("broker.pem")).expect("a key");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a server");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let encrypted = listener.local_addr().expect("an address").port();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(client).await?;
                copy_bidirectional(&mut client, &mut TcpStream::connect(("127.0.0.1", port)).await?).await
            });
        }
    });
    (encrypted, file("authority.pem"))
}
