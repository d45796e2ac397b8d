//! Connections to receivers: TCP to permitted addresses, metered, and TLS above it.

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
use crate::webhook::address_guard::{AddressList, GuardedResolver, Resolver};

type Tcp = TokioIo<Metered<TcpStream>>;
type BoxError = Box<dyn Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Connects within [`CONNECT`], including look-up and TLS handshake.
#[derive(Clone)]
pub(crate) struct Connector(HttpsConnector<Dialler>);

/// Connects without TLS.
#[derive(Clone)]
struct Dialler {
    resolver: Resolver,
    list: AddressList,
}

impl Connector {
    pub(crate) fn new(resolver: Resolver, list: AddressList, tls: ClientConfig) -> Self {
        Self(HttpsConnector::from((Dialler { resolver, list }, tls)))
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
    /// A connector for one connection, because a look-up does not know the port.
    fn connector(&self, uri: &Uri) -> HttpConnector<GuardedResolver> {
        let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default);
        let guard = GuardedResolver::new(Arc::clone(&self.resolver), self.list.clone(), Some(port));
        let mut connector = HttpConnector::new_with_resolver(guard);
        connector.enforce_http(false);
        connector.set_nodelay(true);
        // It is divided among the addresses of a name.
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
