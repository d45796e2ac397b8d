//! The address of the admin port.

use std::{fmt, io, net::SocketAddr, str::FromStr};

use tokio::net::TcpListener;
use tracing::warn;

use genfleet_job::options::ConfigError;

/// The default address.
const DEFAULT: &str = "127.0.0.1:9464";

/// `ADDRESS:PORT` or `NAME:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminAddr {
    written: String,
    name: Option<String>,
}

impl AdminAddr {
    /// The host name; `None` for an IP address.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl Default for AdminAddr {
    fn default() -> Self {
        Self { written: DEFAULT.to_owned(), name: None }
    }
}

impl fmt::Display for AdminAddr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.written)
    }
}

impl FromStr for AdminAddr {
    type Err = ConfigError;

    fn from_str(written: &str) -> Result<Self, ConfigError> {
        let name = match written.parse::<SocketAddr>() {
            Ok(_) => None,
            Err(_) => Some(name(written).ok_or_else(|| {
                ConfigError::new(
                    "write ADDRESS:PORT or NAME:PORT, such as 127.0.0.1:9464, [::1]:9464 or localhost:9464",
                )
            })?),
        };
        Ok(Self { written: written.to_owned(), name })
    }
}

/// The name in `NAME:PORT`. A text without letters is a mistyped address.
fn name(written: &str) -> Option<String> {
    let (name, port) = written.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    (is_name && name.bytes().any(|byte| byte.is_ascii_alphabetic())).then(|| name.to_owned())
}

/// Listens on the address in `set`. Without one, listens on the default address, or on a free port if that is taken.
pub(crate) async fn listen(set: Option<&AdminAddr>) -> Result<TcpListener, ConfigError> {
    let address = set.cloned().unwrap_or_default();
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => ConfigError::new(format!(
            "--admin-addr {address}: another process listens there; end it, or set a free address (port 0: any free port)"
        )),
        _ => ConfigError::new(format!("--admin-addr {address}: {error}; set an address of this machine")),
    };
    match TcpListener::bind(&address.written).await {
        Err(error) if set.is_none() && error.kind() == io::ErrorKind::AddrInUse => {
            let host = address.written.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
            let listener = TcpListener::bind((host, 0)).await.map_err(refused)?;
            warn!(taken = %address, "the admin port is taken: another one is used");
            Ok(listener)
        }
        other => other.map_err(refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_a_name_with_a_port_is_taken() {
        let name = |written: &str| written.parse::<AdminAddr>().unwrap().name;
        assert_eq!((name("127.0.0.1:0"), name("[::1]:9464")), (None, None));
        assert_eq!(name("worker-1.internal:9464").as_deref(), Some("worker-1.internal"));
        for wrong in ["9464", "127.0.0.1", "127.0.0:9464", "host:70000", "::1:9464", "http://host:9464", "host/x:1"] {
            let reported = wrong.parse::<AdminAddr>().unwrap_err().to_string();
            assert!(reported.contains("ADDRESS:PORT or NAME:PORT"), "{wrong}: {reported}");
        }
    }

    #[tokio::test]
    async fn an_address_that_is_set_and_taken_is_refused() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let set = taken.local_addr().unwrap().to_string().parse().unwrap();
        let reported = listen(Some(&set)).await.unwrap_err().to_string();
        assert!(
            reported.contains(&set.to_string()) && reported.contains("another process listens there"),
            "{reported}"
        );
        listen(Some(&"localhost:0".parse().unwrap())).await.unwrap();
    }

    #[tokio::test]
    async fn the_default_address_gives_way_where_it_is_taken() {
        // Whoever has it: it is taken.
        let _taken = TcpListener::bind(DEFAULT).await;
        assert_ne!(listen(None).await.unwrap().local_addr().unwrap().to_string(), DEFAULT);
    }
}
