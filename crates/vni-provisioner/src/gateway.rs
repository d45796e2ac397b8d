//! Probes the gateway, except at addresses that must never be probed.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use genfleet_core::{
    error::{ErrorClass, JobError},
    handler::JobContext,
    options::ConfigError,
};
use ipnet::IpNet;
use tokio::{net::TcpStream, time::timeout};

use crate::payload::InterfacePlan;

/// Metadata addresses of clouds: AWS and most others, Alibaba, Oracle, Azure.
const METADATA: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// The rules for probing gateways.
#[derive(Clone, Debug)]
pub(crate) struct Gateways {
    /// Networks that may be probed although they are special.
    pub allowed: Vec<IpNet>,
    /// The maximum time for an answer.
    pub timeout: Duration,
}

impl Gateways {
    /// Checks that the gateway of `plan` accepts a connection. Nothing is sent on it.
    pub(crate) async fn probe(&self, job: &JobContext, plan: &InterfacePlan) -> Result<(), JobError> {
        let (ip, port) = (plan.remote_ip, plan.gateway_port);
        if let Some(what) = self.refuses(ip) {
            let message =
                format!("the gateway {ip} is {what} address, which is never connected to; --gateway-allow opens it");
            return Err(JobError::permanent("gateway_refused", message));
        }
        let why = match job.unless_stopped(timeout(self.timeout, TcpStream::connect((ip, port)))).await? {
            Ok(Ok(_connection)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.timeout),
        };
        let message = format!("the gateway {ip}:{port} does not accept a connection: {why}");
        Err(JobError::new(ErrorClass::Transient, "gateway_unreachable", message))
    }

    /// Returns the type of an address that must not be probed.
    pub(crate) fn refuses(&self, ip: Ipv4Addr) -> Option<&'static str> {
        let is_allowed = self.allowed.iter().any(|net| net.contains(&IpAddr::V4(ip)));
        if is_allowed { None } else { special(ip) }
    }
}

fn special(ip: Ipv4Addr) -> Option<&'static str> {
    match ip {
        _ if METADATA.contains(&ip) => Some("a cloud's metadata"),
        _ if ip.is_loopback() => Some("a loopback"),
        _ if ip.is_link_local() => Some("a link-local"),
        _ if ip.is_multicast() => Some("a multicast"),
        _ if ip.is_broadcast() => Some("the broadcast"),
        // All of 0.0.0.0/8 means "this host".
        _ if ip.octets()[0] == 0 => Some("an unspecified"),
        _ => None,
    }
}

/// Parses a network in a flag. A bare address is a network of one.
pub(crate) fn network(written: &str) -> Result<IpNet, ConfigError> {
    let written = written.trim();
    let of_one = || written.parse::<IpAddr>().map(IpNet::from);
    let net = written.parse::<IpNet>().or_else(|_| of_one());
    net.map_err(|_| ConfigError::new(format!("{written:?} is no network; write 10.0.0.0/8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateways(allowed: &[&str]) -> Gateways {
        let allowed = allowed.iter().map(|text| network(text).unwrap()).collect();
        Gateways { allowed, timeout: Duration::from_secs(5) }
    }

    #[test]
    fn addresses_that_are_no_gateway_are_refused_and_told_what_they_are() {
        for (ip, what) in [
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("169.254.0.1", "link-local"),
            ("169.254.169.254", "metadata"),
            ("100.100.100.200", "metadata"),
            ("192.0.0.192", "metadata"),
            ("168.63.129.16", "metadata"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
        ] {
            let message = gateways(&[]).refuses(ip.parse().unwrap());
            assert!(message.is_some_and(|message| message.contains(what)), "{ip}: {message:?}");
        }
    }

    #[test]
    fn public_and_private_addresses_are_connected_to() {
        for ip in ["203.0.113.10", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "8.8.8.8"] {
            assert_eq!(gateways(&[]).refuses(ip.parse().unwrap()), None, "{ip}");
        }
    }

    #[test]
    fn what_is_allowed_is_connected_to_and_nothing_beside_it() {
        let gateways = gateways(&["127.0.0.0/16", "169.254.169.254", "fd00::/8"]);
        for (ip, is_refused) in [
            ("127.0.0.1", false),
            ("127.0.255.255", false),
            ("127.1.0.0", true),
            ("169.254.169.254", false),
            ("169.254.169.253", true),
        ] {
            assert_eq!(gateways.refuses(ip.parse().unwrap()).is_some(), is_refused, "{ip}");
        }
    }

    #[test]
    fn a_network_that_is_none_says_how_to_write_one() {
        for wrong in ["", "10.0.0.0/33", "gateway.example", "10.0.0.0/8;"] {
            assert!(network(wrong).unwrap_err().to_string().contains("10.0.0.0/8"), "{wrong}");
        }
    }
}
