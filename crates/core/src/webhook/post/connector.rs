//! Connects deliveries: TCP to where the guard lets through, metered, and TLS above it.

use std::{
    error::Error,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::{Uri, http::uri::Scheme};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustls::ClientConfig;
use tokio::{net::TcpStream, time::timeout};
use tower_service::Service;

use super::{CONNECT, meter::Metered};
use crate::webhook::address_guard::{AddressList, Guard, LookUp};

type Tcp = TokioIo<Metered<TcpStream>>;
type BoxError = Box<dyn Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Connects in [`CONNECT`], the look-up and the handshake included.
#[derive(Clone)]
pub(super) struct Connector(HttpsConnector<Dialler>);

/// Connects without TLS.
#[derive(Clone)]
struct Dialler {
    names: LookUp,
    list: AddressList,
}

impl Connector {
    pub(super) fn new(names: LookUp, list: AddressList, tls: ClientConfig) -> Self {
        Self(HttpsConnector::from((Dialler { names, list }, tls)))
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Tcp>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move { timeout(CONNECT, connecting).await.map_err(io::Error::from)? })
    }
}

impl Dialler {
    /// For one connection, as the guard does not learn the port from the name it looks up.
    fn connector(&self, uri: &Uri) -> HttpConnector<Guard> {
        let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default);
        let guard = Guard::new(Arc::clone(&self.names), self.list.clone(), Some(port));
        let mut connector = HttpConnector::new_with_resolver(guard);
        connector.enforce_http(false);
        connector.set_nodelay(true);
        // Shared out among the addresses of a name.
        connector.set_connect_timeout(Some(CONNECT));
        connector
    }
}

impl Service<Uri> for Dialler {
    type Response = Tcp;
    type Error = BoxError;
    type Future = Connecting<Tcp>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.connector(&uri).call(uri);
        Box::pin(async move { Ok(TokioIo::new(Metered::new(connecting.await?.into_inner()))) })
    }
}
