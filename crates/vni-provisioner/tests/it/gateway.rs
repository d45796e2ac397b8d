//! The gateway is asked before anything is created.

use std::time::Duration;

use genfleet_core::error::ErrorClass;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use crate::{CONNECTIONS, Rig};

#[tokio::test]
async fn a_gateway_that_accepts_connections_is_connected_to() {
    let rig = Rig::new().await;
    let (job, payload) = (rig.job("a"), rig.payload(&json!({})));
    let (report, connected) = tokio::join!(rig.step(&job, &payload, Value::Null), rig.gateway.accept());
    assert!(connected.is_ok(), "{report:?}");
}

/// A gateway that is there and does not answer: nobody takes its connections, and no further one fits in.
async fn silent_gateway() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    let fits = || timeout(Duration::from_millis(200), TcpStream::connect(listener.local_addr().unwrap()));
    while let Ok(connected) = fits().await {
        waiting.push(connected.unwrap());
    }
    (listener, waiting)
}

#[tokio::test]
async fn a_closed_port_and_a_silent_gateway_are_unreachable_for_now() {
    let rig = Rig::with(&["--gateway-timeout", "300ms"]).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (listener, _waiting) = silent_gateway().await;
    let silent = listener.local_addr().unwrap().port();
    for (port, details) in [(closed, "refused"), (silent, "no answer within 300ms")] {
        let payload = rig.payload(&json!({"gatewayPort": port}));
        let error = rig.attempt(&rig.job("a"), &payload, Value::Null).await.unwrap_err();
        assert_eq!((error.code, error.class), ("gateway_unreachable", ErrorClass::Transient), "{details}");
        assert!(error.message.contains(details), "{}", error.message);
    }
    assert_eq!(rig.sent("POST", CONNECTIONS), 0);
}

#[tokio::test]
async fn a_gateway_that_is_none_is_refused_for_good() {
    let rig = Rig::with(&["--gateway-allow", "127.0.0.1,169.254.0.0/24"]).await;
    for ip in ["127.0.0.2", "169.254.169.254", "224.0.0.1", "0.0.0.0", "255.255.255.255"] {
        let gateway = rig.payload(&json!({"remoteIp": ip}));
        let error = rig.attempt(&rig.job("a"), &gateway, Value::Null).await.unwrap_err();
        assert_eq!((error.code, error.class), ("gateway_refused", ErrorClass::Permanent), "{ip}");
        assert!(error.message.contains("--gateway-allow"), "{}", error.message);
    }
    assert_eq!(rig.sent("POST", CONNECTIONS), 0);
    rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap();
}
