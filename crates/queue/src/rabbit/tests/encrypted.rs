//! The broker behind TLS, with an authority of its own and client certificates.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use url::Url;

use super::*;
use crate::rabbit::{ClientIdentity, connect::BrokerHosts};

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "src/rabbit/tests", name].iter().collect()
}

/// Starts a TLS server in front of the rig's broker and returns its URL. It takes only clients with a certificate of
/// the authority.
async fn encrypted(rig: &Rig) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut authorities = RootCertStore::empty();
    authorities.add(CertificateDer::from_pem_file(file("authority.pem")).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder(authorities.into()).build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(file("broker.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("broker.pem")).unwrap();
    let server = ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(server)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let mut url = Url::parse(&rig.url.replacen("amqp:", "amqps:", 1)).unwrap();
    let broker = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5672));
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let (acceptor, broker) = (acceptor.clone(), broker.clone());
            tokio::spawn(async move {
                let mut client = acceptor.accept(client).await?;
                copy_bidirectional(&mut client, &mut TcpStream::connect(broker).await?).await
            });
        }
    });
    url.to_string()
}

#[tokio::test]
async fn jobs_pass_under_tls_and_certificates_are_checked_on_both_sides() {
    on_broker(async |rig: Rig| {
        let url = encrypted(&rig).await;
        let identity = Some(ClientIdentity { certificate: file("client.pem"), key: file("client.pem") });
        let trusting = RabbitSettings {
            ca_file: Some(file("authority.pem")),
            client_identity: identity,
            ..rig.settings(&url, TopologyMode::Declare)
        };
        for (settings, why) in [
            (RabbitSettings { ca_file: None, ..trusting.clone() }, "UnknownIssuer"),
            (RabbitSettings { client_identity: None, ..trusting.clone() }, "ertificate"),
            (
                RabbitSettings { urls: vec![url.replace("127.0.0.1", "127.0.0.2").into()], ..trusting.clone() },
                "127.0.0.2",
            ),
        ] {
            let broker = BrokerHosts::new(&settings).unwrap();
            let refused = broker.connect(&broker.hosts()[0], "test").await.err().expect("a connection without trust");
            assert!(refused.contains(why), "{refused}");
        }

        let queue = rig.queue_with(trusting);
        let consumer = queue.consume(Kind::CdnPurge, 4);
        let sent = Message { body: vec![b'x'; 1 << 20].into(), ..job("a") };
        queue.publish(vec![lane(Lane::Resume, Duration::ZERO, sent.clone())]).await.unwrap();
        let delivery = soon(consumer.next()).await;
        assert_eq!(delivery.message.body, sent.body);
        delivery.settler.settle(vec![event("a")]).await.unwrap();
        assert_eq!(rig.ready("events").await, 1);
        queue.close().await;
    })
    .await;
}
