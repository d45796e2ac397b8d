//! Receivers behind TLS, with an authority of their own.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{hostile::*, *};

const PEM: &[u8] = include_bytes!("receiver.pem");

fn authority() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "src/webhook/post/tests/authority.pem"].iter().collect()
}

fn trusting(ca_file: Option<&Path>) -> WebhookClient {
    install_tls();
    let allowed = ["127.0.0.1".parse().unwrap()];
    WebhookClient::with_resolver(AddressList::new(&allowed, &[]), ca_file, names(&["127.0.0.1"])).unwrap()
}

/// A receiver named hooks.internal that does `with` with every connection.
fn encrypted(with: impl Fn(StreamOwned<ServerConnection, TcpStream>) + Clone + Send + 'static) -> String {
    install_tls();
    let certificate = CertificateDer::from_pem_slice(PEM).unwrap();
    let key = PrivateKeyDer::from_pem_slice(PEM).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let config = Arc::new(config);
    let with = move |stream| with(StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream));
    format!("https://hooks.internal:{}/hush", receiver(with))
}

#[tokio::test]
async fn a_receiver_is_trusted_by_the_authority_of_the_file_and_by_no_other() {
    let url = encrypted(|mut stream| {
        let answer = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
        let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(answer.as_bytes()));
    });
    assert_eq!(send(&trusting(Some(&authority())), &url).await.unwrap().status, 202);
    for (post, url) in
        [(trusting(None), url.clone()), (trusting(Some(&authority())), url.replace("hooks.internal", "other.internal"))]
    {
        match send(&post, &url).await {
            Err(WebhookSendError::Broken(why)) => {
                assert!(why.contains("certificate") && !why.contains("hush"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn interim_answers_without_end_break_the_delivery_under_tls_too() {
    let url = encrypted(|stream| flood(stream, "", "HTTP/1.1 103 E\r\nL: x\r\n\r\n"));
    match send(&trusting(Some(&authority())), &url).await {
        Err(WebhookSendError::Broken(why)) => assert!(why.contains("256 KiB without a complete response"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_without_an_authority_is_named() {
    let read = |file: &Path| tls::config("--webhook-ca-file", Some(file)).unwrap_err().to_string();
    install_tls();
    let folder = std::env::temp_dir().join(format!("genfleet-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    for (content, reported) in [
        ("", "holds no certificate in PEM"),
        ("no certificate", "holds no certificate in PEM"),
        ("-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n", "is no PEM file"),
    ] {
        let file = folder.join("ca.pem");
        std::fs::write(&file, content).unwrap();
        let error = read(&file);
        assert!(error.starts_with("--webhook-ca-file names ") && error.contains(reported), "{content:?}: {error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(read(&folder.join("ca.pem")).contains("cannot be read"));
}
